-- SPDX-License-Identifier: MIT
-- Iterations over a list that others change, with a model of the service in this process: thousands of
-- iterations with fixed seeds; every request and every gap between two requests.
local helper = require "helper"
local call = require "nymbl.call"
local core = require "nymbl.core"
local json = helper.json
local document = require "nymbl.document"
local listing = require "nymbl.listing"
local plan = require("nymbl.query").plan
local prefetch = require "nymbl.prefetch"

describe("patient:documents()", function()
  local real = { { core, "start" }, { call, "perform" }, { prefetch, "start" }, { prefetch, "poll" }, { prefetch, "discard" } }
  for _, one in ipairs(real) do one.fn = one[1][one[2]] end

  after_each(function()
    for _, one in ipairs(real) do one[1][one[2]] = one.fn end
    assert.equal(0, helper.object_count())
  end)

  -- The same numbers on every Lua (the generator of Park and Miller).
  local function generator(seed)
    local state = seed * 48271 % 2147483647
    return function(n)
      state = state * 48271 % 2147483647
      return state % n + 1
    end
  end

  -- The service: rows ordered by `key`, which is unique; `gap(service)` is called before each request.
  -- Options: `page_max`, `count` (false: none; or a function of the real count), `link` ("skip",
  -- "%24skip" or "key"), `ignores_skip`, `prefetches`.
  local function service_new(options)
    local service = { rows = {}, requests = {}, options = options, born = 0 }
    for name, value in pairs { page_max = 100, count = true } do
      if options[name] == nil then options[name] = value end
    end

    function service.insert(key)
      service.born = service.born + 1
      local row = { id = ("d%d"):format(service.born), key = key }
      local at = 1
      while service.rows[at] and service.rows[at].key < key do at = at + 1 end
      if service.rows[at] and service.rows[at].key == key then return nil end
      table.insert(service.rows, at, row)
      return row
    end

    function service.delete(at)
      local row = table.remove(service.rows, at)
      if row then row.is_gone = true end
    end

    function service.find(id)
      for at, row in ipairs(service.rows) do
        if row.id == id then return at end
      end
    end

    -- One page as JSON text.
    local function answer(top, skip, link)
      if service.gap then service.gap() end
      local rows, after = service.rows, nil
      if link then
        top = tonumber(link:match("top=(%d+)"))
        skip = tonumber(link:match("skip=(%d+)"))
        after = tonumber(link:match("after=([-%d.e+]+)"))
      end
      if options.ignores_skip then skip = 0 end
      if after then
        skip = 0
        while rows[skip + 1] and rows[skip + 1].key <= after do skip = skip + 1 end
      end
      local page = {}
      for at = skip + 1, math.min(#rows, skip + math.min(top, options.page_max)) do
        page[#page + 1] = ('{"id":"%s"}'):format(rows[at].id)
      end
      service.requests[#service.requests + 1] = { top = top, skip = skip, link = link, count = #rows, rows = #page }
      local text = '"value":[' .. table.concat(page, ",") .. "]"
      local count = options.count
      if type(count) == "function" then count = count(#rows) else count = count and #rows end
      if count then text = text .. ',"@odata.count":' .. count end
      if options.link and #page > 0 and skip + #page < #rows then
        local last = rows[skip + #page]
        text = text .. ',"@odata.nextLink":' .. json.encode(options.link == "key"
          and ("/list?top=%d&after=%.17g"):format(top, last.key)
          or ("/list?top=%d&%s=%d"):format(top, options.link:gsub("^skip", "$skip"), skip + #page))
      end
      return "{" .. text .. "}"
    end

    local transfer = {}
    transfer.__index = transfer
    function transfer.result() return true end
    function transfer.response() return 200 end
    function transfer.request_id() return nil end
    function transfer:body() return self.text end

    function core.start(_, _, request)
      local values = {}
      for i = 1, #request.query, 2 do values[request.query[i]] = request.query[i + 1] end
      return setmetatable({ text = answer(values["$top"], values["$skip"] or 0, request.next_link) }, transfer)
    end

    function call.perform(_, _, _, request)
      local ok, page = request.run(request.prefetched or core.start(nil, "token", request))
      if ok then return true, page, nil, 1 end
      page.attempts = 1
      return nil, page
    end

    function prefetch.start(_, _, request)
      if options.prefetches and options.prefetches() then request.prefetched = core.start(nil, "token", request) end
    end

    function prefetch.poll() end
    function prefetch.discard() end
    return service
  end

  -- The ids in the order in which they arrive; `body(id)` is called with each. Returns nil and the error
  -- if the iterator raises.
  local function iterate(query, body)
    local ids = {}
    local ok, err = pcall(function()
      for found in listing.iterate(document.collection({}, "p"), plan(query, "documents", "id")) do
        ids[#ids + 1] = found.id
        if body then body(found.id) end
      end
    end)
    if ok then return ids end
    return nil, err, ids
  end

  local function seeded(options, count)
    local service = service_new(options)
    for i = 1, count do service.insert(i) end
    return service
  end

  local SIZES = { 1, 2, 3, 5, 10, 100 }
  local LINKS = { false, "skip", "%24skip", "key" }

  -- One random iteration: the changes by others and by the loop's body, and the rows that must be seen.
  local function random_walk(seed)
    local random = generator(seed)
    local function chance(percent) return random(100) <= percent end
    local function pick(list) return list[random(#list)] end

    local options = {
      count = chance(75), link = chance(35) and pick(LINKS), page_max = chance(20) and 7 or 100,
      prefetches = function() return chance(60) end,
    }
    if not options.count then options.page_max = 100 end -- a short page would be the end of the list
    local size = random(70) - 1
    local service = seeded(options, size)
    local query = { page_size = chance(90) and pick(SIZES) or nil, count = chance(50) }
    if chance(30) then query.top = random(80) - 1 end
    local busy, most = pick { 0, 20, 50, 100 }, pick { 1, 1, 3, 20 }
    local body_deletes = pick { 0, 0, 0, 30, 50, 100 }
    if chance(25) and body_deletes == 0 then query.skip, most = random(20) - 1, math.min(most, 3) end

    local inserts = true
    local function change()
      local rows = service.rows
      local what = random(3)
      if #service.requests > 400 then return end -- so the iteration ends
      if what ~= 1 and inserts then service.insert(random(80) + random(1000000) / 1000001) end
      if what ~= 2 and #rows > 0 then service.delete(random(#rows)) end
    end
    local begun, required, returned, is_lost = false, {}, {}, false
    -- With `skip`, the iterator must be able to distinguish the rows before its position from those after
    -- it: not all rows that it returned may be deleted together with rows that it skips.
    local function look_for_returned()
      for _, row in ipairs(service.rows) do
        if returned[row.id] then return end
      end
      is_lost = query.skip ~= nil
    end
    service.gap = function()
      if not begun then -- rows that exist from now on to the end must be seen
        begun = true
        for at = (query.skip or 0) + 1, #service.rows do required[#required + 1] = service.rows[at] end
        return
      end
      if chance(busy) then
        for _ = 1, random(most) do change() end
      end
      look_for_returned()
    end
    local keys = {}
    for _, row in ipairs(service.rows) do keys[row.id] = row.key end
    local ids, err = iterate(query, function(id)
      returned[id] = true
      if chance(body_deletes) then
        local at = service.find(id)
        if at then service.delete(at) end
      end
      if chance(busy / 10) then change() end
    end)
    local label = ("seed %d: %d rows, size %s, top %s, skip %s, count %s, link %s, busy %d x %d, body %d"):format(seed,
      size, tostring(query.page_size), tostring(query.top), tostring(query.skip), tostring(options.count),
      tostring(options.link), busy, most, body_deletes)
    if not ids then
      error(label .. ": " .. tostring(err), 0)
    end
    local seen, furthest = {}, -math.huge
    for _, id in ipairs(ids) do
      if seen[id] then error(label .. ": twice " .. id, 0) end
      seen[id] = true
      furthest = math.max(furthest, keys[id] or -math.huge)
    end
    if query.top then assert(#ids <= query.top, label) end
    local is_full = query.top and #ids == query.top
    for _, row in ipairs(is_lost and {} or required) do
      if not row.is_gone and not seen[row.id] and not (is_full and row.key > furthest) then
        error(("%s: %s was missed, %d came in %d requests"):format(label, row.id, #ids, #service.requests), 0)
      end
    end
    return #service.requests, #ids
  end

  it("misses no row that exists all the time, and returns none twice", function()
    local requests = 0
    for seed = 1, 8000 do requests = requests + random_walk(seed) end
    assert.is_true(requests < 8000 * 40, requests)
  end)

  -- The parameters of each request, in short: "skip+top".
  local function asked(service)
    local list = {}
    for i, request in ipairs(service.requests) do list[i] = request.skip .. "+" .. request.top end
    return table.concat(list, " ")
  end

  it("begins every page but the first one row early, and requests none beyond the count", function()
    local service = seeded({}, 1000)
    assert.equal(1000, #iterate())
    assert.equal("0+100 99+100 198+100 297+100 396+100 495+100 594+100 693+100 792+100 891+100 990+100", asked(service))
    for _, case in ipairs {
      { 0, {}, "0+100" }, { 1, {}, "0+100" }, { 100, {}, "0+100" }, { 101, {}, "0+100 99+100" },
      { 199, {}, "0+100 99+100" }, { 200, {}, "0+100 99+100 198+100" },
      { 3, { page_size = 1 }, "0+1 0+2 1+2" }, { 5, { page_size = 2 }, "0+2 1+3 3+3" },
      { 250, { page_size = 50 }, "0+50 49+51 99+51 149+51 199+51" },
      { 250, { page_size = 99 }, "0+99 98+100 197+100" },
      { 30, { page_size = 10, skip = 7 }, "7+10 16+11 26+11" }, { 30, { skip = 30 }, "30+100" },
      { 30, { page_size = 10, top = 20 }, "0+10 9+11" }, { 30, { top = 5 }, "0+5" },
    } do
      for _, prefetches in ipairs { false, true } do
        service = seeded({ prefetches = function() return prefetches end }, case[1])
        local query = case[2]
        local count = math.min(math.max(0, case[1] - (query.skip or 0)), query.top or math.huge)
        assert.equal(count, #iterate(query))
        assert.equal(case[3], asked(service))
      end
    end
  end)

  it("keeps the order, whatever the page size, if nothing changes", function()
    local random = generator(1)
    for _ = 1, 500 do
      local count, size, skip = random(120) - 1, SIZES[random(#SIZES)], random(10) - 1
      local options = { count = random(2) == 1, link = LINKS[random(#LINKS)], prefetches = function() return true end }
      local service = seeded(options, count)
      local expected = {}
      for i = skip + 1, count do expected[#expected + 1] = "d" .. i end
      assert.same(expected, iterate { page_size = size, skip = skip })
      assert.is_true(#service.requests <= math.ceil(math.max(0, count - skip) / math.max(1, size - 1)) + 2)
    end
  end)

  it("goes back a page if rows have moved up unseen, and returns them", function()
    local service = seeded({}, 250)
    service.gap = function()
      if #service.requests == 1 then -- the count is unchanged
        service.delete(5)
        service.insert(249.5)
      end
    end
    assert.equal(251, #iterate())
    assert.equal("0+100 99+100 0+100", asked(service):sub(1, 18))
  end)

  it("serves one coroutine at a time: another one gets an error, and no row is lost", function()
    local refused = 0
    for seed = 1, 200 do
      local random = generator(seed)
      local service = seeded({ prefetches = function() return random(2) == 1 end }, 100 + random(200))
      service.gap = function() coroutine.yield() end
      local step = listing.iterate(document.collection({}, "p"), plan({ page_size = 20 + random(80) }, "documents", "id"))
      local threads, seen, count = {}, {}, 0
      for i = 1, 3 do
        threads[i] = coroutine.create(function()
          while true do
            local ok, found = pcall(step)
            if ok and not found then return end
            if ok then
              assert(not seen[found.id], ("seed %d: twice %s"):format(seed, found.id))
              seen[found.id], count = true, count + 1
            else
              assert.matches("attempt to use an iterator in two coroutines at once$", found)
              refused = refused + 1
            end
            if not ok or random(5) == 1 then coroutine.yield() end
          end
        end)
      end
      while #threads > 0 do
        local at = random(#threads)
        assert(coroutine.resume(threads[at]))
        if coroutine.status(threads[at]) == "dead" then table.remove(threads, at) end
      end
      assert.equal(#service.rows, count, ("seed %d"):format(seed))
    end
    assert.is_true(refused > 100, refused)
  end)

  it("ends if another coroutine closes it while it waits for a page", function()
    local service = seeded({}, 250)
    service.gap = function() coroutine.yield() end
    local step, _, _, closer = listing.iterate(document.collection({}, "p"), plan({}, "documents", "id"))
    local count = 0
    local thread = coroutine.create(function()
      for _ in step do count = count + 1 end
      return "ended"
    end)
    coroutine.resume(thread) -- to the first page
    coroutine.resume(thread)
    getmetatable(closer).__close(closer)
    assert.same({ true, "ended" }, { coroutine.resume(thread) })
    assert.equal(100, count)
  end)

  it("accepts rows that are added before its position while others after it are deleted", function()
    local service = seeded({}, 250)
    service.gap = function()
      if #service.requests == 1 then
        service.insert(1.5)
        service.delete(200)
      end
    end
    local ids = iterate()
    assert.equal(250, #ids) -- with the added row; otherwise fewer rows than counted would arrive
    assert.equal("d251", ids[250])
  end)

  it("requests hardly more pages if its loop deletes the rows that it sees", function()
    for _, case in ipairs { { 1000, 100, { 13, 15, 13 } }, { 300, 20, { 18, 20, 20 } }, { 40, 1, { 43, 80, 70 } } } do
      for every, most in ipairs(case[3]) do
        local service = seeded({ prefetches = function() return true end }, case[1])
        local count = 0
        local ids = iterate({ page_size = case[2] }, function(id)
          count = count + 1
          if count % every == 0 then service.delete(service.find(id)) end
        end)
        assert.equal(case[1], #ids)
        assert.is_true(#service.requests <= most, ("%d: %s"):format(most, asked(service)))
      end
    end
  end)

  describe("fails, and does not return part of a list as the whole list,", function()
    local function fails(options, count, query, reason)
      local service = seeded(options, count)
      local ids, err = iterate(query)
      assert.is_nil(ids)
      assert.equal("protocol", err.kind)
      if reason then assert.equal(reason, err.reason) end
      assert.is_true(#service.requests < 40, #service.requests)
    end

    it("if $skip is ignored", function()
      for _, size in ipairs { 1, 2, 10, 100 } do
        for _, count in ipairs { size + 2, 2 * size + 1, 250 } do
          fails({ ignores_skip = true }, count, { page_size = size })
          fails({ ignores_skip = true, count = false }, count + size, { page_size = size })
          fails({ ignores_skip = true, link = "skip" }, count, { page_size = size })
        end
      end
      seeded({ ignores_skip = true }, 100)
      assert.equal(100, #iterate())
    end)

    it("if a row comes and goes, so that no page ever follows the known ones", function()
      local service = seeded({}, 250)
      local row = service.rows[5]
      service.gap = function()
        local requests = #service.requests
        if requests > 0 and requests % 2 == 1 then
          table.remove(service.rows, 5)
        elseif requests > 0 then
          table.insert(service.rows, 5, row)
        end
      end
      local ids, err = iterate()
      assert.is_nil(ids)
      assert.equal("pagination_loop", err.reason)
      assert.is_true(#service.requests < 40, #service.requests)
    end)

    it("if every page counts more rows than arrive", function()
      fails({ count = function(count) return count + 1 end }, 250, {}, "rows_missing")
      fails({ count = function(count) return count + 1 end }, 0, {}, "rows_missing")
      fails({ count = function(count) return count + 10 end }, 250, { page_size = 10 }, "rows_missing")
      fails({ count = function(count) return count + 1 end }, 50, { skip = 10 }, "rows_missing")
    end)

    it("but not if one page has counted as few rows as arrived", function()
      for at = 1, 3 do
        local counts = 0
        seeded({ count = function(count)
          counts = counts + 1
          return counts == at and at > 1 and count or count + 1
        end }, 250)
        local ids, err = iterate()
        if at == 1 then
          assert.equal("rows_missing", err.reason)
        else
          assert.equal(250, #ids)
        end
      end
      seeded({ count = function(count) return count + 1 end }, 250)
      assert.equal(120, #iterate { top = 120 }) -- all that were requested
    end)
  end)
end)
