-- SPDX-License-Identifier: MIT
-- patient:documents() prefetches the next page, which changes nothing except the times of requests.
local helper = require "helper"
local store = require "nymbl.store"
local blocking = require "nymbl.wait.blocking"

describe("patient:documents(), halfway through a page,", function()
  local clock, real, client, patient, patient_id

  local function begin(options)
    if client then client:close() end
    client = helper.client(options)
    patient_id = "1"
    patient = client:patient(patient_id)
  end

  -- A new patient without documents, which is faster than a new sandbox.
  local function begin_patient()
    patient_id = tostring(patient_id + 1)
    patient = client:patient(patient_id)
  end

  local function seed(count)
    if count > 0 then helper.admin("POST", "seed", { patient = patient_id, count = count }) end
  end

  before_each(function()
    helper.reset()
    clock = helper.clock()
    real = clock.real
    begin()
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    blocking.runtime = real
    assert.equal(0, helper.object_count())
  end)

  -- The list requests for the patient.
  local function requests()
    local found = {}
    for _, entry in ipairs(helper.journal("list")) do
      if entry.path:find(("Patients(%s)"):format(patient_id), 1, true) then found[#found + 1] = entry end
    end
    return found
  end

  local function pages()
    return #requests()
  end

  -- Wait until the server has sent so many responses with pages.
  local function answered(count)
    for _ = 1, 200 do
      local list = requests()
      if list[count] and list[count].status ~= helper.json.null then return true end
      os.execute("sleep 0.01")
    end
    return false
  end

  local function id(number)
    return ("doc-seed-%05d"):format(number)
  end

  -- All ids; `body(number, document)` is called with each document.
  local function iterate(query, body)
    local list = {}
    for document in patient:documents(query) do
      list[#list + 1] = document.id
      if body then body(#list, document) end
    end
    return list
  end

  it("prefetches the next page, no earlier and only once", function()
    seed(250)
    local expected = { [1] = 1, [49] = 1, [50] = 2, [100] = 2, [101] = 2, [149] = 2, [150] = 3, [200] = 3, [250] = 3 }
    local looked = 0
    assert.equal(250, #iterate(nil, function(number)
      if not expected[number] then return end
      looked = looked + 1
      assert.equal(expected[number], pages(), "at document " .. number)
    end))
    assert.equal(9, looked)
  end)

  it("receives the next page before this one is read", function()
    seed(20)
    helper.faults { operation = "list", skip = 1, action = { delay = 0.2 } }
    assert.equal(20, #iterate({ page_size = 10 }, function(number)
      if number == 5 then assert.is_true(answered(2)) end
    end))
    assert.equal(2, pages())
  end)

  it("continues with every document, over a new connection too", function()
    seed(20)
    helper.faults { operation = "list", action = { close_idle = 0.01 } }
    iterate({ page_size = 10 }, function(number)
      os.execute("sleep 0.03")
      if number == 10 then assert.equal(2, pages()) end
    end)
  end)

  it("sends as many requests as there are pages", function()
    for _, size in ipairs { 1, 2, 3, 7, 100 } do
      for _, count in ipairs { 0, 1, size - 1, size, size + 1, 2 * size - 1, 2 * size, 2 * size + 1, 3 * size } do
        begin_patient()
        seed(count)
        assert.equal(count, #iterate { page_size = size })
        -- a page has at most 100 rows, and every page but the first has 99 new ones
        local most = size == 100 and count > 100 and 1 + math.ceil((count - 100) / 99)
        assert.equal(most or math.max(1, math.ceil(count / size)), pages(), ("%d by %d"):format(count, size))
      end
    end
  end)

  it("prefetches nothing if this page has all the rows that are wanted", function()
    seed(30)
    for _, case in ipairs { { top = 5, 1 }, { top = 10, 1 }, { top = 11, 2 }, { top = 20, 2 }, { top = 30, 3 } } do
      helper.admin("DELETE", "journal")
      assert.equal(case.top, #iterate { top = case.top, page_size = 10 })
      assert.equal(case[1], pages(), "top " .. case.top)
    end
  end)

  it("prefetches nothing if a page has one document", function()
    seed(3)
    iterate({ page_size = 1 }, function(number) assert.equal(number, pages()) end)
  end)

  it("follows a next link, but not to another origin", function()
    seed(25)
    helper.admin("POST", "settings", { next_link = true })
    assert.equal(25, #iterate({ page_size = 10 }, function(number)
      if number == 5 then assert.equal(2, pages()) end
    end))
    assert.equal(3, pages())
    helper.admin("POST", "settings", { next_link = false })
    helper.faults { operation = "list", action = { body_patch = { ["@odata.nextLink"] = "https://127.0.0.2/x" } } }
    local given = 0
    local ok, err = pcall(iterate, { page_size = 10 }, function() given = given + 1 end)
    assert.is_false(ok)
    assert.equal("redirect", err.kind)
    assert.equal(10, given)
  end)

  -- Every way to leave the loop early, after the next page was requested.
  describe("if the loop ends early,", function()
    before_each(function()
      seed(100)
      begin { monthly_quota = 100 }
    end)

    local function clean()
      assert.equal(2, pages())
      assert.equal(2, client:usage().requests)
      assert(patient:page { page_size = 1 }) -- the discarded prefetch does not block another call
      client:close()
      client, patient = nil, nil
      assert.equal(0, helper.object_count())
      begin()
    end

    it("requests no further page after a break", function()
      for document in patient:documents { page_size = 10 } do
        if document.id == id(7) then break end
      end
      clean()
    end)

    it("requests no further page after an error in the loop's body", function()
      local ok, err = pcall(iterate, { page_size = 10 }, function(number)
        if number == 7 then error({ "mine" }) end
      end)
      assert.is_false(ok)
      assert.same({ "mine" }, err)
      clean()
    end)

    it("requests no further page once the iterator is collected", function()
      local step = patient:documents { page_size = 10 }
      for _ = 1, 7 do step() end
      step = nil -- luacheck: ignore
      helper.object_count()
      clean()
    end)

    it("raises once the client is closed, and discards the prefetch", function()
      local step = patient:documents { page_size = 10 }
      for _ = 1, 7 do step() end
      client:close()
      for _ = 1, 2 do
        local ok, message = pcall(step)
        assert.is_false(ok)
        assert.truthy(tostring(message):find("closed client", 1, true))
      end
      assert.equal(2, pages())
      step = nil -- luacheck: ignore
      begin()
      assert.equal(1, helper.object_count()) -- the new client
    end)

    it("discards the prefetch in a context that allows no calls", function()
      local step = patient:documents { page_size = 10 }
      for _ = 1, 10 do step() end
      local ngx = package.loaded.ngx
      package.loaded.ngx = { get_phase = function() return "log" end }
      local before = helper.object_count()
      local ok, err = pcall(step)
      package.loaded.ngx = ngx
      assert.is_false(ok)
      assert.equal("context", err.kind)
      assert.equal(before - 1, require("nymbl.core").object_count()) -- without the collector
    end)

    it("raises on a malformed row", function()
      helper.faults { operation = "list", action = { body_patch = { value = {
        { id = "a" }, { id = "b" }, { id = "c" }, { id = "d", patient_id = "other" }, { id = "e" } } } } }
      local step = patient:documents { page_size = 5 }
      for _ = 1, 3 do step() end
      local ok, err = pcall(step)
      assert.is_false(ok)
      assert.equal("patient_mismatch", err.reason)
      assert.equal(2, pages())
    end)
  end)

  it("cancels its reservation if it is discarded before it was sent", function()
    seed(20)
    helper.admin("POST", "documents", { patient = "big", id = "slow", size = 100000 })
    begin { max_connections = 1, monthly_quota = 100, rate = { read = { 0.01, 2 } } }
    local step, _, _, closer = patient:documents { page_size = 10 }
    step()
    helper.faults { operation = "download", action = { stall = 50000 } }
    local stream = assert(client:patient("big"):document("slow"):open()) -- this stream occupies the only connection
    for _ = 2, 5 do step() end
    assert.equal(3, client:usage().requests)
    getmetatable(closer).__close(closer)
    assert.equal(2, client:usage().requests)
    stream:close()
    assert(patient:page())
    assert.same({}, clock.slept)
    assert.equal(2, pages())
  end)

  describe("with rate limits,", function()
    it("prefetches the next page only if the rate limit allows it", function()
      seed(30)
      begin { rate = { read = { 0.1, 2 } } }
      local asked, began = {}, clock.now()
      iterate({ page_size = 10 }, function(number)
        if number % 10 == 9 then asked[#asked + 1] = pages() end
      end)
      assert.same({ 2, 2, 3 }, asked)
      assert.is_true(#clock.slept > 0)
      -- on a busy machine a part of the time passes during the requests
      assert.is_true(clock.now() - began > 9 and clock.offset <= 10, clock.offset)
    end)

    it("prefetches nothing beyond the quota, and raises when the page is needed", function()
      seed(30)
      begin { monthly_quota = 2 }
      local given = 0
      local ok, err = pcall(iterate, { page_size = 10 }, function() given = given + 1 end)
      assert.is_false(ok)
      assert.equal("quota", err.kind)
      assert.equal(0, err.attempts)
      assert.equal(20, given)
      assert.equal(2, client:usage().requests)
      assert.equal(2, pages())
    end)

    it("prefetches nothing while the quota is in doubt", function()
      local account
      seed(30)
      local kept = store.memory()
      begin { store = kept, token = helper.token() }
      local step = patient:documents { page_size = 10 }
      step()
      helper.faults { operation = "get", action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
      local _, err = patient:get("x")
      assert.equal("quota", err.kind)
      for _, state in pairs(kept.states) do account = state.probe_at and state or account end
      local probe_at = account.probe_at
      clock.offset = clock.offset + 3601 -- the next call sends a probe
      for _ = 2, 9 do step() end
      assert.equal(probe_at, account.probe_at)
      assert.equal(1, pages())
    end)

    it("processes the response to a prefetch that is not needed", function()
      local events = {}
      seed(20)
      begin { monthly_quota = 100, on_event = function(event)
        if event.operation == "list" then events[#events + 1] = tostring(event.status) .. " " .. tostring(event.kind) end
      end }
      helper.faults { operation = "list", skip = 1,
                      action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
      do
        local step, _, _, closer = patient:documents { page_size = 10 }
        for _ = 1, 5 do step() end
        for _ = 1, 200 do
          if pages() == 2 then break end
          os.execute "sleep 0.01"
          require("nymbl.core").pump(0)
        end
        os.execute "sleep 0.05"
        require("nymbl.core").pump(0)
        getmetatable(closer).__close()
      end
      assert.same({ "200 nil", "429 quota" }, events)
      assert.same({ 1, 1 }, { client:usage().requests, client:usage().throttled })
      assert.equal("quota", select(2, patient:page()).kind)
      assert.equal(2, pages())
    end)

    it("waits for the store no longer than the page's timeout", function()
      seed(20)
      local memory, endless = require("nymbl.store").memory(), 0
      begin { monthly_quota = 100, timeout = 60, store = {
        now = memory.now,
        update = function(_, key, deadline, ...)
          if not deadline then endless = endless + 1 end
          return memory:update(key, deadline, ...)
        end,
      } }
      helper.faults { operation = "list", skip = 1, action = { status = 429 } }
      local ok, err = pcall(iterate, { page_size = 10 })
      assert.is_false(ok)
      assert.equal("throttled", err.kind)
      assert.equal(2, pages())
      assert.equal(0, endless)
    end)

    it("starts the timeout of a page when the page is needed", function()
      seed(20)
      begin { timeout = 1.6, stall_timeout = 1.6 }
      helper.faults { operation = "list", skip = 1, action = { delay = 3.2 } }
      assert.equal(20, #iterate({ page_size = 10 }, function(number)
        if number == 5 then os.execute("sleep 4") end
      end))
    end)
  end)

  -- A fault on the second page has the same result as without prefetching. A token function that
  -- is called for each request prevents prefetching.
  describe("if the prefetch fails, #slow", function()
    local function outcome(options, fault, prefetches)
      helper.reset()
      seed(30)
      local events = {}
      local token = helper.token()
      local given = {
        token = function() return token, prefetches and 300 or nil end, monthly_quota = 100, max_attempts = 2,
        on_event = function(event)
          events[#events + 1] = { event.operation, event.status or false, event.kind or false, event.attempt }
        end,
      }
      for name, value in pairs(options) do given[name] = value end
      begin(given)
      helper.faults { operation = "list", skip = 1, times = fault.times, action = fault.action }
      local returned, requested = 0, nil
      local ok, err = pcall(iterate, { page_size = 10 }, function(number)
        returned = number
        if number == 6 then requested = pages() end
      end)
      assert.equal(prefetches and 2 or 1, requested)
      return {
        given = returned, ok = ok, kind = not ok and err.kind, status = not ok and err.status,
        reason = not ok and err.reason, attempts = not ok and err.attempts,
        retry_after = not ok and err.retry_after, events = events, pages = pages(), usage = client:usage(),
      }
    end

    local faults = {
      { "a reset", { action = { before = "reset" } } },
      { "a lost response", { action = { lost_reply = "close" } } },
      { "a body that is cut", { action = { cut = 50 } } },
      { "a head that is cut", { action = { head_cut = 20 } } },
      { "a stall", { action = { stall = 50 } }, { stall_timeout = 1 } },
      { "the deadline", { action = { delay = 5 } }, { timeout = 1 } },
      { "a 401", { action = { status = 401, body_kind = "gateway" } } },
      { "a 403", { action = { status = 403, body_kind = "gateway" } } },
      { "a 429", { action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "7" } } } } },
      { "the service's quota", { action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } } },
      { "a 500", { action = { status = 500, body_kind = "service" } } },
      { "many 503", { times = -1, action = { status = 503, body_kind = "empty" } } },
      { "broken JSON", { action = { status = 200, body = "{" } } },
      { "a malformed page", { action = { status = 200, body = '{"value":{"a":1}}' } } },
      { "a redirect", { action = { redirect = { status = 302, location = "/" } } } },
    }
    for _, case in ipairs(faults) do
      it("has the same result as without prefetching: " .. case[1], function()
        local without = outcome(case[3] or {}, case[2], false)
        assert.same(without, outcome(case[3] or {}, case[2], true))
      end)
    end

    it("repeats the request with a new token if the old one expired", function()
      seed(30)
      begin { max_attempts = 2 }
      local step = patient:documents { page_size = 10 }
      for _ = 1, 4 do step() end
      helper.admin("POST", "settings", { expire_tokens = true })
      for number = 5, 30 do assert.equal(id(number), step().id) end
      assert.is_nil(step())
      assert.equal(4, pages())
    end)

    it("repeats the request if its timeout passed during the loop's body", function()
      seed(20)
      begin { connect_timeout = 1 }
      local signal = function(name) os.execute(("kill -%s %s"):format(name, helper.sandbox().sandbox_pid)) end
      finally(function() signal("CONT") end)
      helper.faults { operation = "list", action = { close_idle = 0.01 } }
      assert.equal(20, #iterate({ page_size = 10 }, function(number)
        if number == 4 then
          os.execute("sleep 0.1")
          signal("STOP")
        elseif number > 4 and number < 9 then
          os.execute("sleep 0.4")
        elseif number == 9 then
          signal("CONT")
        end
      end))
    end)

    it("fails like a call that cannot send anything", function()
      local listener = helper.admin("POST", "listen", { tls = "good", name = "gone" })
      seed(30)
      begin { base_url = listener.url, token = helper.token(), monthly_quota = 100 }
      helper.faults { listener = "gone", operation = "list", action = { close_idle = 0.01 } }
      local step = patient:documents { page_size = 10 }
      for _ = 1, 4 do step() end
      helper.admin("DELETE", "listen?name=gone")
      os.execute("sleep 0.1")
      for _ = 5, 10 do step() end
      local ok, err = pcall(step)
      assert.is_false(ok)
      assert.equal("network", err.kind)
      assert.equal("connect", err.reason)
      assert.equal(0, err.attempts)
      assert.equal(1, client:usage().requests)
    end)
  end)

  -- Documents that are deleted during the iteration, and who deletes them.
  describe("while documents are deleted, #slow", function()
    local function by_loop(number) assert(patient:document(id(number)):delete()) end
    local function by_others(number) helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(patient_id, id(number))) end
    local COUNT = 31
    local patterns = {
      { "each by the loop", function(_, document) assert(document:delete()) end },
      { "every second by the loop", function(number, document)
        if number % 2 == 0 then assert(document:delete()) end
      end },
      { "every second by the loop, the other way", function(number, document)
        if number % 2 == 1 then assert(document:delete()) end
      end },
      { "from the other end by the loop", function(number)
        if number <= COUNT / 3 then by_loop(COUNT + 1 - number) end
      end },
      { "the first ones by others", function(number)
        if number % 3 == 0 and number / 3 <= 8 then by_others(number / 3) end
      end },
      { "some behind and some ahead by others", function(number)
        if number == 3 then for gone = 1, 2 do by_others(gone) end end
        if number == 5 then for gone = 20, 24 do by_others(gone) end end
      end },
      { "all of a page, once the next one is here", function(number)
        if number == 10 then
          assert(patient:count())
          for gone = 1, 10 do by_loop(gone) end
        end
      end },
    }
    for _, pattern in ipairs(patterns) do
      it("skips no document and returns none twice: " .. pattern[1], function()
        for _, size in ipairs { 1, 2, 3, 7 } do
          begin_patient()
          seed(COUNT)
          local seen = {}
          for _, found in ipairs(iterate({ page_size = size }, pattern[2])) do
            assert.is_nil(seen[found], found)
            seen[found] = true
          end
          for _, left in ipairs(helper.stored(patient_id)) do
            assert.is_true(seen[left.id], ("%s by %d"):format(left.id, size))
          end
          if pattern[1]:find("^each") or pattern[1]:find("^every") then
            for number = 1, COUNT do assert.is_true(seen[id(number)], ("%d by %d"):format(number, size)) end
          end
        end
      end)
    end

    it("requests hardly more pages than without prefetching", function()
      seed(300)
      assert.equal(300, #iterate({ page_size = 20 }, function(_, document) assert(document:delete()) end))
      assert.is_true(pages() <= 300 / 20 + 2, pages())
    end)
  end)

  it("continues while others wait, in nymbl.each and in coroutines", function()
    seed(50)
    blocking.runtime = real
    local nymbl = require "nymbl"
    local count = nymbl.each(patient:documents { page_size = 7 }, { concurrency = 4 }, function(document)
      return document:refresh()
    end)
    assert.equal(50, count)
    assert.equal(8, pages())
    local steps = {}
    for i = 1, 3 do
      steps[i] = coroutine.wrap(function()
        for document in patient:documents { page_size = 8 } do coroutine.yield(document.id) end
      end)
    end
    for number = 1, 50 do
      for i = 1, 3 do assert.equal(id(number), steps[i]()) end
    end
    for i = 1, 3 do assert.is_nil(steps[i]()) end
    assert.equal(8 + 3 * 7, pages())
  end)

  if jit then -- luacheck: ignore
    it("leaves its parent's prefetch alone in a forked child", function()
      local ffi = require "ffi"
      ffi.cdef "int fork(void); void _exit(int); int waitpid(int, int *, int);"
      seed(30)
      helper.faults { operation = "list", skip = 1, times = 1, action = { delay = 0.5 } }
      local step = patient:documents { page_size = 10 }
      for _ = 1, 5 do step() end
      local path = helper.temporary()
      local child = ffi.C.fork()
      if child == 0 then
        local ok, problem = pcall(function()
          local list = {}
          for document in step do list[#list + 1] = document.id end
          step = nil
          collectgarbage()
          helper.write_file(path, table.concat(list, " "))
        end)
        if not ok then helper.write_file(path, tostring(problem)) end
        ffi.C._exit(0)
      end
      local rest = {}
      for document in step do rest[#rest + 1] = document.id end
      ffi.C.waitpid(child, nil, 0)
      assert.equal(25, #rest)
      assert.equal(table.concat(rest, " "), helper.read_file(path))
      assert.equal(5, pages())
    end)
  end
end)
