-- SPDX-License-Identifier: MIT
-- Each memory allocation by Lua fails in turn: once, again when Lua retries it, or with all later
-- ones. Each call then returns the right result or raises "not enough memory", and stored data is not
-- lost. Without NYMBL_SPEC_LARGE only some of the allocations are tried.
local helper = require "helper"

local is_jit = jit ~= nil -- luacheck: ignore
local folder = helper.temporary(".allocator")

-- The module, built for the running Lua.
local function allocator()
  local package_name = is_jit and "luajit" or "lua" .. _VERSION:match("%d%.%d")
  os.execute("mkdir -p " .. helper.quote(folder))
  local problem = helper.output(("gcc -std=c11 -Wall -Wextra -Werror -fPIC -shared $(pkg-config --cflags %s) -o %s %s 2>&1"):format(
    package_name, helper.quote(folder .. "/allocator.so"), helper.quote(helper.path "spec/faults/allocator.c")))
  assert(problem == "", problem)
  return assert(package.loadlib(folder .. "/allocator.so", "luaopen_allocator"))()
end

-- For use in a state: `each_allocation(what, judge)` calls `what` repeatedly with its first, second
-- … allocation failing, until none is left, and returns the number of failures. LuaJIT does not
-- retry. Its compiler is switched off, because it crashes without memory (2.1.0-beta3). After each
-- call `judge` returns what is wrong. `given.most` limits the number of the allocation, and
-- `given.growth` says which ones are left out, where that is allowed. `service` is this helper, in
-- the state.
local PREAMBLE = ([[
  local argument, large = ..., %s
  local getenv = os.getenv
  function os.getenv(name)
    if name == "NYMBL_SPEC_SANDBOX" then return argument end
    return getenv(name)
  end
  if jit then jit.off() end
  package.path, package.cpath = %q, %q
  local nymbl, core = require "nymbl", require "nymbl.core"
  for _, name in ipairs { "listing", "source", "stream", "target", "each", "filter", "store.file", "json" } do
    require("nymbl." .. name)
  end
  require("nymbl.json").prepare()
  local all_failed = 0
  local function following(n, growth)
    return (large or n < 6) and n + 1 or math.max(n + 1, math.floor(n * growth))
  end
  local function each_allocation(what, judge, given)
    given = given or {}
    local total = 0
    for _, times in ipairs(jit and { 1, math.huge } or { 1, 2, math.huge }) do
      local n, failed = 0, nil
      repeat
        n = following(n, given.growth or 1.1)
        fault.arm(n, times)
        local ok, a, b, c = pcall(what)
        failed = select(2, fault.disarm())
        local where = ("allocation %%d x %%g: "):format(n, times)
        if _VERSION == "Lua 5.3" and not ok then a = a:match("not enough memory") or a end -- "… for buffer allocation"
        if not ok and a ~= "not enough memory" then error(where .. tostring(a), 0) end
        if not ok and failed == 0 then error("raised for nothing", 0) end
        local problem = judge(ok, a, b, c)
        if problem then error(where .. problem, 0) end
        total, all_failed = total + math.min(failed, 1), all_failed + math.min(failed, 1)
      until failed == 0 or n >= (given.most or 1e6)
    end
    return total
  end
  local function options(given)
    local sandbox = {}
    for line in io.lines(argument) do
      local name, value = line:match("^NYMBL_([%%u_]+)=(.*)$")
      if name then sandbox[name:lower()] = value end
    end
    local all = {
      base_url = sandbox.base_url, api_key = sandbox.api_key, ca_file = sandbox.ca_file, timeout = 60, rate = false,
      monthly_quota = false, max_attempts = 1,
      credentials = { token_url = sandbox.token_url, client_id = sandbox.client_id, client_secret = sandbox.client_secret,
                      scope = sandbox.scope },
      on_event = function() end,
    }
    for name, value in pairs(given or {}) do all[name] = value end
    if all.token then all.credentials = nil end
    return all
  end
]]):format(os.getenv "NYMBL_SPEC_LARGE" and "true" or "false", package.path, package.cpath)

describe("without memory", function()
  local states
  local failed = 0 -- allocations

  setup(function() states = allocator() end)
  teardown(function() print(failed .. " allocations failed") end)

  before_each(function() helper.reset() end)

  -- Run a script in a separate state, which is freed completely.
  local function run(text)
    local before = helper.object_count()
    local state = states.new()
    if not state then pending "this Lua takes no allocator" end
    local ok, result = state:run(("%s local result = (function()\n%s\nend)() return all_failed .. ' ' .. tostring(result)"):format(
      PREAMBLE, text), helper.sandbox().path)
    local left = state:close()
    assert.is_true(ok, result)
    failed = failed + tonumber(result:match "^%d+")
    result = result:match "^%d+ (.*)$"
    if not is_jit then assert.equal(0, left) end -- LuaJIT leaks some blocks itself
    assert.equal(before, helper.object_count())
    if tonumber(result) then helper.tried(tonumber(result), "failing allocations") end
    return result
  end

  for name, code in pairs {
    ["the file store"] = "local store = nymbl.store.file(PATH)",
    ["the file store with tokens"] = "local store = nymbl.store.file(PATH, { token = true })",
    ["a store of the process"] = "local store = nymbl.store.memory()",
    ["a dictionary"] = [[
      local dictionary = require "dictionary"
      local it = dictionary.new()
      dictionary.pretend_nginx { it = it }
      local store = nymbl.store.shdict "it"
      locked = function() -- others would wait for this worker
        for name in pairs(it.kept) do if name:find " lock$" then return name end end
      end
    ]],
  } do
    it(name .. " loses no account's count", function()
      local path = helper.temporary(".store")
      local result = run("local function locked() end\n" .. code:gsub("PATH", ("%q"):format(path)) .. [[

        local rate_state = require "nymbl.rate_state"
        local MONTH = "2026-02"
        local LIMITS = { bucket = "read", rate = 2, burst = 4, quota = 1000000 }
        local function count(key)
          local usage, err = store:update(key, nil, rate_state.usage, MONTH)
          if not usage then error("no count of " .. key .. ": " .. tostring(err and err.reason), 0) end
          if usage.month ~= MONTH then error("wrong month of " .. key, 0) end
          return usage.requests
        end
        for _ = 1, 7 do assert(store:update("other", nil, rate_state.reserve, LIMITS, MONTH)) end
        assert(store:update("this", nil, rate_state.reserve, LIMITS, MONTH))
        local least = 1
        local total = each_allocation(function()
          return store:update("this", nil, rate_state.reserve, LIMITS, MONTH)
        end, function(ok, at)
          if ok and not at then return "no reservation" end
          if locked() then return "still locked" end
          if ok then least = least + 1 end
          local now = count "this"
          if now < least or now > least + 1 then return ("%d instead of %d"):format(now, least) end
          least = now
          if count "other" ~= 7 then return ("the other has %d"):format(count "other") end
        end)
        -- a new account
        local new = 0
        total = total + each_allocation(function()
          new = new + 1
          return store:update("new" .. new, nil, rate_state.reserve, LIMITS, MONTH)
        end, function(ok, at)
          if ok and not at then return "no reservation" end
          if ok and count("new" .. new) ~= 1 then return "not counted" end
          if count "this" ~= least or count "other" ~= 7 then return "others are gone" end
        end, { most = 40 }) -- each one extends the file
        return ("%d"):format(total)
      ]])
      assert.is_true(tonumber(result) > 5, result)
    end)
  end

  it("a listing has the service's rows, or raises", function()
    helper.admin("POST", "seed", { patient = "p", count = 3 })
    local result = run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      assert(patient:page())
      local total = each_allocation(function() return patient:page() end, function(ok, page, err)
        if ok and not page then return tostring(err) end
        if ok and (#page ~= 3 or page.count ~= 3 or page.has_more) then return "wrong page" end
      end)
      client:close()
      return ("%d"):format(total)
    ]]
    assert.is_true(tonumber(result) > 10, result)
  end)

  it("an iteration that continues after a failure skips no document", function()
    helper.admin("POST", "seed", { patient = "p", count = 5 })
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      for _ in patient:documents { page_size = 3 } do end
      each_allocation(function()
        local step = patient:documents { page_size = 3 }
        local count, failed = 0, 0
        while true do
          local ok, doc = pcall(step)
          if ok and not doc then return count end
          if ok then count = count + 1 else failed = failed + 1 end
          if failed > 3 then error("not enough memory", 0) end
        end
      end, function(ok, count)
        if ok and count ~= 5 then return ("%d documents"):format(count) end
      end)
      client:close()
    ]]
  end)

  it("a set of ids gets all of a page's, or none", function()
    local result = run [[
      local core = require "nymbl.core"
      local ids, set = {}, nil
      for i = 1, 100 do ids[i] = ("%d"):format(i):rep(50) end
      local total = each_allocation(function()
        set = nil
        set = core.id_set()
        assert(set:add(ids, 1, 10) == 10)
        return set:add(ids, 11, 100)
      end, function(ok, last)
        if ok and last ~= 100 then return "too few" end
        for i = 11, 100 do
          if set and set:get(ids[i]) ~= (ok or nil) then return "wrong: " .. i end
        end
      end)
      return ("%d"):format(total)
    ]]
    assert.is_true(tonumber(result) > 5, result)
  end)

  it("a token is requested and read, or raises", function()
    local result = run [[
      local total, client = 0, nil
      local function call()
        client = assert(nymbl.client(options { store = nymbl.store.memory() }))
        return client:patient("p"):count()
      end
      total = each_allocation(call, function(ok, count, err)
        if client then client:close() end
        client = nil
        if ok and count ~= 0 then return tostring(err) end
      end)
      return ("%d"):format(total)
    ]]
    assert.is_true(tonumber(result) > 10, result)
  end)

  it("an upload is sent once and returns the document, or raises", function()
    local result = run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      assert(patient:upload({ data = "%PDF-1.4 x" }, { file_name = "a.pdf" }))
      local tries, ids = 1, {}
      local total = each_allocation(function()
        tries = tries + 1
        return patient:upload({ data = "%PDF-1.4 x" }, { file_name = "a.pdf" })
      end, function(ok, doc, err)
        if ok and not doc then return tostring(err) end
        if ok and ids[doc.id] then return "the same document again" end
        if ok then ids[doc.id] = true end
      end)
      client:close()
      return ("%d %d"):format(total, tries)
    ]]
    local total, tries = result:match("^(%d+) (%d+)$")
    assert.is_true(tonumber(total) > 10, result)
    assert.is_true(#helper.stored("p") <= tonumber(tries))
    assert.equal(#helper.stored("p"), #helper.journal("upload"))
  end)

  it("an error of the service is returned, or raises", function()
    helper.faults { operation = "get", times = -1,
                    action = { status = 400, body = '{"error":{"code":"X","message":"m","details":["a","b"]}}' } }
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      assert(not patient:get "d")
      each_allocation(function() return patient:get "d" end, function(ok, doc, err)
        if ok and (doc or err.kind ~= "bad_request" or err.code ~= "X" or err.detail ~= "m: a; b") then
          return tostring(err) .. tostring(err and err.detail)
        end
      end)
      client:close()
    ]]
  end)

  it("a stream is read completely, or raises and ends", function()
    helper.admin("POST", "documents", { patient = "p", id = "d", size = 100000, content_type = "application/pdf" })
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      assert(patient:document("d"):open()):close()
      local stream
      each_allocation(function()
        stream = nil
        stream = assert(patient:document("d"):open())
        return stream:read("a")
      end, function(ok, bytes)
        if ok and #bytes ~= 100000 then return "a short file" end
        if not ok and stream then
          local rest, err = stream:read("a")
          if rest and #rest ~= 100000 then return ("%d bytes look like the whole"):format(#rest) end
          if not rest and not err then return "no error" end
        end
        if stream then stream:close() end
      end)
      client:close()
    ]]
  end)

  it("nymbl.each ends and reports what failed", function()
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      each_allocation(function()
        return nymbl.each({ 1, 2, 3 }, { concurrency = 2 }, function() return patient:count() end)
      end, function(ok, good, failed)
        if not ok then return end
        if good + #failed ~= 3 then return "items are missing" end
        for _, entry in ipairs(failed) do
          if not tostring(entry.err):find("not enough memory", 1, true) then return tostring(entry.err) end
        end
      end)
      assert(nymbl.each({ 1 }, nil, function() return patient:count() end) == 1)
      client:close()
    ]]
  end)
end)
