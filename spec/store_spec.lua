-- SPDX-License-Identifier: MIT
-- One rate, quota and pause for all scripts on a machine, through a file. Sleeping takes no time unless
-- a test says so, as in policy_spec.lua.
local helper = require "helper"
local core = require "nymbl.core"
local limiter = require "nymbl.limiter"
local nymbl = require "nymbl"
local rate_state = require "nymbl.rate_state"
local store = require "nymbl.store"
local blocking = require "nymbl.wait.blocking"

local quote = helper.quote

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- Start a script in the background. Returns a function that waits for its end and returns its output,
-- and its process id.
local function start(script, ...)
  local path, out = helper.write_file(helper.temporary(".lua"), script), helper.temporary(".out")
  local words = { "exec", helper.interpreter(), quote(path) }
  for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
  local pid = helper.output(("{ (%s) >%s 2>&1 </dev/null; echo ended >>%s; } >/dev/null 2>&1 & echo $!"):format(
    table.concat(words, " "), quote(out), quote(out)))
  return function()
    for _ = 1, 3000 do
      local text = exists(out) and helper.read_file(out) or ""
      if text:match("ended\n$") then return (text:gsub("ended\n$", "")) end
      os.execute("sleep 0.01")
    end
    error("script " .. pid .. " does not end")
  end
end

local wait_for = helper.wait_for

-- Options for `start`ed scripts, read as `options`.
local OPTIONS = [[
  local nymbl = require "nymbl"
  local options = {
    base_url = arg[1], api_key = arg[2], ca_file = arg[3], timeout = 60, monthly_quota = false, rate = false,
    credentials = { token_url = arg[4], client_id = arg[5], client_secret = arg[6], scope = arg[7] },
  }
  local path = arg[8]
]]

local function start_with_options(script, path)
  local sandbox = helper.sandbox()
  return start(OPTIONS .. script, sandbox.base_url, sandbox.api_key, sandbox.ca_file, sandbox.token_url,
    sandbox.client_id, sandbox.client_secret, sandbox.scope, path)
end

local function tokens_asked_for()
  return #helper.journal("token")
end

-- Read and change the content of the file.
local function content(path)
  local lock = assert(core.store_open(path))
  local text = lock:content()
  lock:close()
  return text and helper.json.decode(text)
end

local function content_set(path, value)
  local lock = assert(core.store_open(path))
  assert(lock:write(type(value) == "string" and value or helper.json.encode(value)))
  lock:close()
end

local function count(state)
  state.count = (state.count or 0) + 1
  return state.count
end

describe("nymbl.store.file()", function()
  local clock, real, path, clients

  before_each(function()
    helper.reset()
    clock = helper.clock()
    real = clock.real
    path = helper.temporary(".state")
    clients = {}
    store.default.states = {} -- tokens of earlier specs
  end)

  after_each(function()
    for _, client in ipairs(clients) do client:close() end
    clients = nil
    blocking.runtime = real
    assert.equal(0, helper.object_count())
  end)

  local function begin(options)
    options.store = options.store or nymbl.store.file(path)
    local client = helper.client(options)
    clients[#clients + 1] = client
    return client:patient("p"), client
  end

  it("raises on a wrong argument", function()
    assert.error_matches(function() nymbl.store.file() end, "bad argument #1 to 'file' %(string expected")
    assert.error_matches(function() nymbl.store.file("") end, "bad argument #1 to 'file' %(empty string")
    assert.error_matches(function() nymbl.store.file("a\0b") end, "NUL")
    assert.error_matches(function() nymbl.store.file(path, { tokens = true }) end, "unknown option 'tokens'")
    assert.error_matches(function() nymbl.store.file(path, { token = "yes" }) end, "boolean expected")
  end)

  it("opens nothing, loads nothing and shows nothing before it is used", function()
    assert.equal("true", helper.output(helper.interpreter() .. " -e " .. quote [[
      require "nymbl"
      print(package.loaded["nymbl.store.file"] == nil)]]))
    local made = nymbl.store.file(path)
    assert.is_false(exists(path))
    assert.equal("nymbl.store.file", tostring(made))
  end)

  it("creates the file for its user only, and leaks no descriptor", function()
    local patient = begin {}
    assert(patient:page())
    local before = helper.descriptors()
    for _ = 1, 3 do assert(patient:page()) end
    assert.equal(before, helper.descriptors())
    assert.equal("600", helper.output("stat -c %a " .. quote(path)))
  end)

  describe("shares", function()
    it("one rate", function()
      local first, second = begin { rate = {} }, begin { rate = {} }
      local began = clock.now()
      for _ = 1, 10 do
        assert(first:page())
        assert(second:page())
      end
      assert.is_true(clock.now() - began > 7.5 and clock.offset < 8.1, clock.offset)
      local before = clock.offset
      begin({ rate = {}, api_key = "another" }):page()
      assert.equal(before, clock.offset)
    end)

    it("one quota, in integers", function()
      local first, client = begin { monthly_quota = 3 }
      local second, other = begin { monthly_quota = 3 }
      assert(first:page())
      assert(second:page())
      assert.same({ month = "2026-02", requests = 2, throttled = 0, remaining = 1 }, client:usage())
      assert(first:page())
      local page, err = second:page()
      assert.is_nil(page)
      assert.equal("quota", err.kind)
      assert.equal(0, err.attempts)
      assert.equal(3, #helper.journal("list"))
      assert.equal("3", tostring(other:usage().requests))
      assert.equal("0", tostring(other:usage().remaining))
    end)

    it("the pause after a 429, and a quota that the service reports as exhausted", function()
      local first, second = begin { rate = {} }, begin { rate = {} }
      helper.faults { operation = "list",
                      action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "30" } } } }
      local began = clock.now()
      assert.is_nil((first:page()))
      assert(second:page())
      assert.is_true(clock.now() - began > 29 and clock.offset < 31, clock.offset)
      helper.faults { operation = "list",
                      action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
      assert.is_nil((first:page()))
      local _, err = second:page()
      assert.equal("quota", err.kind)
      assert.equal(0, err.attempts)
      clock.offset = clock.offset + 3601
      assert(second:page())
      assert(first:page())
    end)

    it("no token, unless requested", function()
      local script = "assert(assert(nymbl.client(options)):patient('p'):page())"
      for _ = 1, 2 do
        assert.equal("", start_with_options("options.store = nymbl.store.file(path) " .. script, path)())
      end
      assert.equal(2, tokens_asked_for())
      for _ = 1, 2 do
        assert.equal("", start_with_options("options.store = nymbl.store.file(path, { token = true }) " .. script,
          path)())
      end
      assert.equal(3, tokens_asked_for())
    end)

    it("a token within the process anyway", function()
      assert(begin({}):page())
      assert(begin({}):page())
      assert.equal(1, tokens_asked_for())
    end)
  end)

  it("contains no token, key, URL, secret or id", function()
    local bearer
    local patient = begin { rate = {} }
    assert(patient:page())
    for _, entry in ipairs(helper.journal("list")) do
      bearer = helper.header(entry, "authorization"):match("^Bearer (.+)$")
    end
    local text, sandbox = helper.read_file(path), helper.sandbox()
    for _, secret in ipairs { bearer, sandbox.api_key, sandbox.base_url, sandbox.token_url, sandbox.client_id,
                              sandbox.client_secret, sandbox.scope, "localhost", "127.0.0.1" } do
      assert.is_nil(text:find(secret, 1, true))
    end
    assert(begin({ store = nymbl.store.file(path, { token = true }) }):page())
    bearer = helper.header(helper.journal("list")[2], "authorization"):match("^Bearer (.+)$")
    text = helper.read_file(path)
    assert.is_truthy(text:find(bearer, 1, true))
    for _, secret in ipairs { sandbox.api_key, sandbox.base_url, sandbox.token_url, sandbox.client_id,
                              sandbox.client_secret, sandbox.scope } do
      assert.is_nil(text:find(secret, 1, true))
    end
  end)

  it("deletes an expired token, and accounts that are not used", function()
    local shared = nymbl.store.file(path, { token = true })
    assert(begin({ store = shared }):page())
    assert.is_truthy(helper.read_file(path):find('"access_token"', 1, true))
    for i = 1, 50 do shared:update("account " .. i, nil, count) end
    clock.offset = clock.offset + 301
    shared:update("account 1", nil, count)
    assert.is_nil(helper.read_file(path):find('"access_token"', 1, true))
    local size = #helper.read_file(path)
    clock.offset = clock.offset + 31 * 86400
    assert.equal(3, shared:update("account 1", nil, count))
    clock.offset = clock.offset + 2 * 86400
    shared:update("account 1", nil, count)
    assert.is_true(#helper.read_file(path) < size / 10)
    assert.equal(5, shared:update("account 1", nil, count))
  end)

  it("keeps what fits if there is too much", function()
    local shared = nymbl.store.file(path)
    assert.equal(1, shared:update("small", nil, count))
    for i = 1, 12 do
      shared:update("large " .. i, nil, function(state) state.text = ("x"):rep(100000) end)
    end
    assert.equal(1, shared:update("small", nil, count))
    assert.equal(2, shared:update("small", nil, count))
    shared:update("endless", nil, function(state) state.at = math.huge end)
    assert.equal(1, shared:update("small", nil, count))
  end)

  describe("if the file cannot be used", function()
    local function refused(reason)
      local patient, client = begin {}
      local page, err = patient:page()
      assert.is_nil(page)
      assert.equal("io", err.kind)
      assert.equal(reason, err.reason)
      assert.equal(0, err.attempts)
      assert.matches("^nymbl: list: io %(" .. reason .. "%): ", tostring(err))
      page, err = client:usage()
      assert.is_nil(page)
      assert.equal("io", err.kind)
      assert.matches("^nymbl: io %(" .. reason .. "%): ", tostring(err))
      assert.equal(0, #helper.journal())
    end

    it("nothing is sent, and the error has the reason", function()
      assert(os.execute("mkdir " .. quote(path)))
      refused("directory")
      path = helper.temporary("-none") .. "/state"
      refused("not_found")
      path = helper.temporary(".state")
      os.execute("ln -s /dev/null " .. quote(path))
      refused("symbolic_link")
      path = helper.write_file(helper.temporary(".state"), "")
      os.execute("chmod 660 " .. quote(path))
      refused("insecure_permissions")
      path = helper.temporary(".state")
      os.execute("mkfifo " .. quote(path))
      refused("not_a_file")
    end)

    it("a full disk is reported before anything is sent", function()
      assert.equal("io file_too_big 0\n", start([[
        local script = io.open(arg[1], "w")
        script:write(arg[2])
        script:close()
        os.execute("(trap '' XFSZ; ulimit -f 0; exec " .. arg[3] .. " " .. arg[1] .. " " .. arg[4] .. ") 2>&1 | cat")
      ]], helper.temporary(".lua"), [[
        local nymbl = require "nymbl"
        local client = assert(nymbl.client { base_url = "https://localhost:1", api_key = "k", token = "t",
                                             store = nymbl.store.file(arg[1]) })
        local page, err = client:patient("p"):page()
        io.stderr:write(err.kind, " ", err.reason, " ", err.attempts, "\n")
      ]], helper.interpreter(), path)())
    end)

    it("no token is requested either", function()
      os.execute("mkdir " .. quote(path))
      local _, err = begin({ store = nymbl.store.file(path, { token = true }) }):page()
      assert.equal("io", err.kind)
      assert.equal(0, tokens_asked_for())
    end)

    it("the result of a request in progress is not lost", function()
      local patient = begin {}
      local pdf = helper.path("spec/fixtures/referral.pdf")
      local document = assert(patient:upload(pdf, { progress = function()
        os.execute("chmod 666 " .. quote(path)) -- during the request
      end }))
      assert.equal("referral.pdf", document.file_name)
      local _, err = patient:page()
      assert.equal("insecure_permissions", err.reason)
      assert.equal(1, #helper.journal())
    end)
  end)

  describe("its lock", function()
    it("is waited for until the call's deadline", function()
      local patient = begin { timeout = 3 }
      local lock = assert(core.store_open(path))
      local began = clock.now()
      local page, err = patient:page()
      assert.is_nil(page)
      assert.equal("timeout", err.kind)
      assert.equal("store_locked", err.reason)
      assert.equal(0, err.attempts)
      assert.is_true(clock.now() - began >= 2.9 and clock.offset < 3.1, clock.offset)
      for _, seconds in ipairs(clock.slept) do assert.is_true(seconds <= 0.05) end
      lock:close()
      assert(patient:page())
    end)

    it("is not waited for by a change that need not be: it follows later, but not in a forked child", function()
      local shared = nymbl.store.file(path)
      local lock = assert(core.store_open(path))
      local limits = { bucket = "read", quota = 1000 }
      local began = clock.now()
      store.tell(shared, "a", rate_state.throttled, limits, "2026-02", 30)
      store.tell(shared, "a", rate_state.quota_exceeded, "2026-02")
      store.tell(shared, "a", rate_state.probe_succeeded)
      for _ = 1, 200 do store.tell(shared, "b", rate_state.throttled, limits, "2026-02", 30) end
      assert.is_true(clock.now() - began < 0.1)
      lock:close()
      assert.equal(2, store.ask(shared, "a", nil, rate_state.usage, "2026-02").throttled)
      assert.is_true(store.ask(shared, "a", nil, rate_state.reserve, limits, "2026-02").is_paused)
      assert.equal(2, store.ask(nymbl.store.file(path), "a", nil, rate_state.usage, "2026-02").throttled)
      assert.equal(100, store.ask(shared, "b", nil, rate_state.usage, "2026-02").throttled) -- no more than that
      store.tell(shared, "a", rate_state.quota_exceeded, "2026-02")
      assert.equal(3, store.ask(nymbl.store.file(path), "a", nil, rate_state.usage, "2026-02").throttled)
      lock = assert(core.store_open(path))
      store.tell(shared, "a", rate_state.quota_exceeded, "2026-02")
      lock:close()
      helper.as_child(function()
        assert.equal(3, store.ask(shared, "a", nil, rate_state.usage, "2026-02").throttled)
      end)
    end)

    it("lets the other coroutines of nymbl.each continue", function()
      blocking.runtime = real
      local patient = begin {}
      local other = begin { store = store.memory() }
      assert(other:page())
      local lock = assert(core.store_open(path))
      local order = {}
      local succeeded = nymbl.each({ "waits", "works" }, nil, function(item)
        local which = item == "waits" and patient or other
        assert(which:page())
        order[#order + 1] = item
        if item == "works" then lock:close() end
        return true
      end)
      assert.equal(2, succeeded)
      assert.same({ "works", "waits" }, order)
    end)

    it("is released if its process is killed", function()
      start([[
        require("nymbl").store.file(arg[1]):update("key", nil, function(state)
          state.count = 100
          os.execute("kill -KILL $PPID")
        end)]], path)()
      assert.is_true(exists(path))
      assert.equal(1, nymbl.store.file(path):update("key", nil, count))
      assert.equal(0, clock.offset)
    end)

    -- A process that stops itself within a change; it counts twice if it is continued.
    local function start_stopped()
      local marker = helper.temporary(".pid")
      local ended = start([[
        local nymbl = require "nymbl"
        local stopped
        print((nymbl.store.file(arg[1]):update("key", nil, function(state)
          if not stopped then
            stopped = true
            os.execute("echo $PPID > " .. arg[2] .. ".new; mv " .. arg[2] .. ".new " .. arg[2]
              .. "; kill -STOP $PPID")
          end
          state.count = (state.count or 0) + 1
          return ("%d"):format(state.count)
        end)))]], path, marker)
      wait_for(function() return exists(marker) end)
      local pid = helper.read_file(marker):match("%d+")
      wait_for(function() return helper.read_file("/proc/" .. pid .. "/stat"):match("%) T ") end)
      return pid, ended
    end

    it("is broken after 15 seconds if its process is stopped, which then detects it", function()
      local shared = nymbl.store.file(path)
      assert.equal(1, shared:update("key", nil, count))
      local pid, ended = start_stopped()
      local began = clock.now()
      assert.equal(2, shared:update("key", nil, count))
      assert.is_true(clock.now() - began > 14 and clock.offset < 15.5, clock.offset)
      local before = clock.offset
      assert.equal(3, nymbl.store.file(path):update("key", nil, count))
      assert.equal(before, clock.offset)
      assert.equal("600", helper.output("stat -c %a " .. quote(path)))
      os.execute("kill -CONT " .. pid)
      assert.equal("4\n", ended())
      assert.equal(5, shared:update("key", nil, count))
      assert.equal("1", helper.output("ls " .. quote(path) .. "* | wc -l")) -- and no other file
    end)

    it("is broken at once if it has been held for so long already", function()
      local pid, ended = start_stopped()
      os.execute(("touch -d @%d %s"):format(clock.wall_clock() - 20, quote(path)))
      assert.equal(1, nymbl.store.file(path):update("key", nil, count))
      assert.is_true(clock.offset < 1, clock.offset)
      os.execute("kill -CONT " .. pid)
      assert.equal("2\n", ended())
    end)

    it("is held briefly: not while waiting for the service or the rate limiter", function()
      local patient = begin { rate = { read = { 1, 1 } } }
      local seen = 0
      local sleep = clock.wait
      clock.wait = function(...)
        assert(core.store_open(path)):close()
        seen = seen + 1
        return sleep(...)
      end
      for _ = 1, 3 do assert(patient:page()) end
      assert.is_true(seen > 4)
    end)
  end)

  it("lets another process take over the refresh of a killed process, when its lease expires", function()
    helper.faults { operation = "token", action = { delay = 20 } }
    local script = [[
      local file = io.open(path .. ".pid", "w")
      file:write(io.open("/proc/self/stat"):read("*l"))
      file:close()
      options.store = nymbl.store.file(path, { token = true })
      assert(nymbl.client(options)):patient("p"):page()]]
    local ended = start_with_options(script, path)
    wait_for(function() return tokens_asked_for() == 1 end)
    local began = clock.now()
    os.execute("kill -KILL " .. helper.read_file(path .. ".pid"):match("^%d+"))
    ended()
    local patient = begin { store = nymbl.store.file(path, { token = true }) }
    assert(patient:page())
    assert.is_true(clock.now() - began > 1.5 and clock.offset <= 3.1, clock.offset)
    assert.equal(2, tokens_asked_for())
  end)

  describe("a file of another version", function()
    -- As version 1 wrote it, with its frame: 38 requests and 3 times 429 in February, 7 requests
    -- in January, a pause, and a token.
    local OLD = "nymbl store 1 8c477387981f92ae04497279add95f16d8de300aa2330f6eb34892d7bbfb294a 000001e3\n"
      .. [[{"at":2864000,"boots":{"9d0c8cd4-6a1b-4c52-9a0e-0f2a3b9f6d11":{"used":2864000,"ahead":-5000.25}},]]
      .. [["wall":1771864000,"entries":{"e1170db7703fa5bbaff2f7a48e1451f9e1392773752387fc246ff1c7cd5ad92e":]]
      .. [[{"state":{"seen":2864000,"throttled":3,"resume":2864100,"other_throttled":0,"read":2864020.5,]]
      .. [["requests":38,"month":"2026-02","other":"2026-01","other_requests":7},"used":2864000},]]
      .. [["token-key":{"state":{"life":300,"turn":1,"dies":2864300,"value":"old-token","renew":2864240},]]
      .. [["used":2864000}}}]]

    -- The client whose account the file has. It sends nothing.
    local function client_of_file(options)
      options.base_url, options.api_key, options.token, options.store =
        "https://api.example.org", "key", "t", nymbl.store.file(path)
      local client = assert(nymbl.client(options))
      clients[#clients + 1] = client
      return client
    end

    local function account_of(text)
      return text:match('"(e1170db7%x+)"')
    end

    it("is read once, and its counts are kept", function()
      path = helper.write_file(helper.temporary(".state"), OLD)
      os.execute("chmod 600 " .. quote(path))
      local client = client_of_file { monthly_quota = 100 }
      for _ = 1, 2 do
        assert.same({ month = "2026-02", requests = 38, throttled = 3, remaining = 62 }, client:usage())
      end
      local data = content(path)
      assert.equal(2, data.version)
      assert.equal(38, data.entries[account_of(OLD)].state.requests)
      assert.is_nil(helper.read_file(path):find("old-token", 1, true))
      clock.wall_time = clock.wall_time - 20 * 86400
      assert.same({ month = "2026-01", requests = 7, throttled = 0, remaining = 93 }, client:usage())
    end)

    it("does not make a quota that is spent free again", function()
      path = helper.write_file(helper.temporary(".state"), OLD)
      os.execute("chmod 600 " .. quote(path))
      local _, err = client_of_file({ monthly_quota = 38 }):patient("p"):page()
      assert.same({ "quota", "monthly_quota", 0 }, { err.kind, err.reason, err.attempts })
    end)

    it("that is newer keeps its counts if they have the known names, and blocks no process", function()
      content_set(path, OLD:match("\n(.*)"):gsub("^{", '{"version":3,'):gsub('"used"', '"last_use"'))
      local client = client_of_file { monthly_quota = 100 }
      assert.equal(38, client:usage().requests)
      for _, text in ipairs { [[{"version":3}]], [[{"version":"x","entries":5}]], [[{"version":2e9,"entries":[1]}]],
                              [[{"version":3,"entries":{"ACCOUNT":{"state":5}}}]],
                              [[{"version":3,"entries":{"ACCOUNT":{"state":{"month":5,"requests":1,"throttled":1}}}}]],
                              [[{"version":3,"entries":{"ACCOUNT":{"state":{"month":"2026-02","requests":-1}}}}]],
                              [[{"version":3,"entries":{"ACCOUNT":{"state":{"month":"2026-02","requests":"x"}}}}]] } do
        content_set(path, (text:gsub("ACCOUNT", account_of(OLD))))
        assert.equal(0, client:usage().requests)
        assert.equal(2, content(path).version)
      end
    end)

    it("is one of a state, too", function()
      local client = client_of_file { monthly_quota = 100 }
      assert.equal(0, client:usage().requests)
      local data = content(path)
      for _, entry in pairs(data.entries) do
        entry.state = { version = 3, month = "2026-02", requests = 5, throttled = 1, probe_at = {}, read_tat = "x" }
      end
      content_set(path, data)
      assert.same({ month = "2026-02", requests = 5, throttled = 1, remaining = 95 }, client:usage())
    end)

    it("that is malformed keeps its counts, whichever of its times it is", function()
      local file, limits = nymbl.store.file(path), { bucket = "read", rate = 2, burst = 4 }
      assert(store.ask(file, "account", nil, rate_state.reserve, limits, "2026-02"))
      local data = content(path)
      local time = data.time
      for _, name in ipairs { "read_tat", "read_floor", "paused_until", "probe_at", "updated_at" } do
        for _, value in ipairs { "x", {}, true } do
          data.entries.account.state = {
            version = 2, month = "2026-02", requests = 5, throttled = 1, read_tat = time, updated_at = time + 9, [name] = value,
          }
          content_set(path, data)
          assert.is_true(store.ask(file, "account", nil, rate_state.reserve, limits, "2026-02").delay <= 1, name)
          assert(store.ask(file, "account", nil, rate_state.throttled, limits, "2026-02", 1))
          assert.same({ month = "2026-02", requests = 5, throttled = 2 },
                      store.ask(file, "account", nil, rate_state.usage, "2026-02"), name)
        end
      end
    end)
  end)

  describe("a malformed file", function()
    -- `longest`: the longest plausible wait, in seconds
    local function is_taken_for_empty(name, longest)
      local patient, client = begin { rate = {}, monthly_quota = 10, timeout = 86400,
                                      store = nymbl.store.file(path, { token = true }) }
      local before = clock.offset
      assert(patient:page())
      assert(clock.offset - before <= (longest or 0), name)
      before = clock.offset
      for _ = 1, 3 do assert(patient:page()) end
      assert(clock.offset - before <= 2, name)
      assert(client:usage().requests <= 5, name)
      client:close()
    end

    it("blocks no caller, whatever its content", function()
      local garbage = {
        "", "\0", ("\0"):rep(4096), "x", "{}", "null", "nymbl store 1 ", ("nymbl store 1 "):rep(10),
        "nymbl store 1 " .. ("0"):rep(64) .. " 00000002\n{}", "nymbl store 1 " .. ("0"):rep(64) .. " ffffffff\n{}",
        ("\255"):rep(100000), ("{"):rep(2000000),
      }
      for i, bytes in ipairs(garbage) do
        path = helper.write_file(helper.temporary(".state"), bytes)
        os.execute("chmod 600 " .. quote(path))
        is_taken_for_empty("garbage " .. i)
      end
    end)

    it("blocks no caller, even if its form is valid", function()
      local written = {
        "", "x", "{}", "[]", "null", "5", "\"x\"", ("["):rep(1000), "{\"at\":1}", "{\"at\":\"1\",\"wall\":1}",
        [[{"at":1e300,"wall":1,"boots":{},"entries":{}}]], [[{"at":1,"wall":1,"boots":{"x":1},"entries":{}}]],
        [[{"at":1,"wall":1,"boots":{},"entries":{"x":1}}]], [[{"at":1,"wall":1,"boots":{},"entries":[1]}]],
        [[{"at":1,"wall":1,"boots":[],"entries":[]}]],
        [[{"at":1,"wall":1,"boots":{},"entries":{"x":{"used":1,"state":5}}}]],
        [[{"at":1,"wall":9e15,"boots":{},"entries":{}}]], [[{"at":-9e15,"wall":-9e15,"boots":{},"entries":{}}]],
        [[{"version":2}]], [[{"version":2,"time":"1","wall_time":1,"clocks":{},"entries":{}}]],
        [[{"version":2,"time":1e300,"wall_time":1,"clocks":{},"entries":{}}]],
        [[{"version":2,"time":1,"wall_time":1,"clocks":{"x":1},"entries":{}}]],
        [[{"version":2,"time":1,"wall_time":1,"clocks":{"x":{"offset":"x","last_used":1}},"entries":{}}]],
        [[{"version":2,"time":1,"wall_time":1,"clocks":{},"entries":{"x":1}}]],
        [[{"version":2,"time":1,"wall_time":1,"clocks":{},"entries":[1]}]],
        [[{"version":2,"time":1,"wall_time":1,"clocks":[],"entries":[]}]],
        [[{"version":2,"time":1,"wall_time":1,"clocks":{},"entries":{"x":{"last_used":1,"state":5}}}]],
        [[{"version":2,"time":1,"wall_time":9e15,"clocks":{},"entries":{}}]],
        [[{"version":2,"time":-9e15,"wall_time":-9e15,"clocks":{},"entries":{}}]],
      }
      for i, text in ipairs(written) do
        path = helper.temporary(".state")
        content_set(path, text)
        is_taken_for_empty("content " .. i)
      end
    end)

    it("keeps the counts of its accounts", function()
      local limits = { bucket = "read", rate = 2, burst = 4 }
      local function damage(name)
        return function(data) data[name] = "x" end
      end
      local damages = {
        damage "time", damage "wall_time", damage "clocks",
        function(data) data.clocks.other = { offset = "x", last_used = 1 } end,
        function(data) data.entries.account.last_used = nil end,
        function(data) data.entries.other = 1 end,
        function(data) data.entries.other = { last_used = 1, state = "x" } end,
      }
      for i, damage_content in ipairs(damages) do
        local file = nymbl.store.file(path)
        assert(store.ask(file, "account", nil, rate_state.reserve, limits, "2026-02"))
        local data = content(path)
        damage_content(data)
        content_set(path, data)
        assert.is_true(store.ask(file, "account", nil, rate_state.reserve, limits, "2026-02").delay <= 1, i)
        assert.same({ month = "2026-02", requests = 2, throttled = 0 },
                    store.ask(file, "account", nil, rate_state.usage, "2026-02"), i)
        os.remove(path)
      end
    end)

    it("blocks no caller with its entries for an account or a token", function()
      local patient, client = begin { rate = {}, monthly_quota = 10, store = nymbl.store.file(path, { token = true }) }
      assert(patient:page())
      client:close()
      local good = content(path)
      for _, wrong in ipairs { "x", true, 1e15, -1e15, {}, { 1 }, helper.json.null, 0 } do
        local data = helper.json.decode(helper.json.encode(good))
        for _, entry in pairs(data.entries) do
          for name in pairs(entry.state) do
            if name ~= "version" and (name ~= "requests" or wrong ~= 1e15) then entry.state[name] = wrong end
          end
          for _, name in ipairs { "paused_until", "probe_at", "lease_until", "download_tat" } do entry.state[name] = wrong end
          if wrong == 1e15 then entry.state.probe_at, entry.state.month = nil, "2026-02" end
        end
        content_set(path, data)
        is_taken_for_empty(tostring(wrong), 3600) -- a queue may be as long
        path = helper.temporary(".state")
      end
    end)
  end)

  describe("its time", function()
    local env, base, boot_id

    -- Machines whose clocks can be set: the boot clock and the wall clock.
    before_each(function()
      base, boot_id = 0, "boot-1"
      function clock.boot_clock() return base + clock.now(), boot_id end
      env = { store = nymbl.store.file(path), account = "a", limits = limiter.limits_from_options { rate = { read = { 2, 4 } } } }
    end)

    -- A reservation, when its time has come.
    local function reserve()
      local reservation, err = limiter.reserve(env, "list")
      if not reservation then return nil, err end
      local delay = reservation.delay
      while delay > 0 do
        blocking.runtime.wait(nil, clock.now() + delay)
        delay = limiter.recheck(reservation)
      end
      return reservation
    end

    -- The number of reservations without a delay; and seconds for another 4.
    local function burst()
      local at_once, before = 0, clock.offset
      repeat
        assert(reserve())
        at_once = at_once + 1
      until clock.offset > before + 1e-3
      return at_once - 1
    end

    local function four()
      local before = clock.offset
      for _ = 1, 4 do assert(reserve()) end
      return clock.offset - before
    end

    it("continues after a restart of the machine, by the wall clock", function()
      assert.equal(4, burst())
      base, boot_id = -clock.now(), "boot-2" -- the boot clock starts at 0
      assert.is_true(four() > 1.4)
      base, boot_id = -clock.now(), "boot-3"
      clock.wall_time = clock.wall_time + 1 -- the restart took a second
      assert.is_true(math.abs(four() - 1) < 0.6)
    end)

    it("is not affected by setting the wall clock", function()
      assert.equal(4, burst())
      for _, step in ipairs { 86400, -86400, -2 * 86400, 4e8, -4e8, 86400 } do
        clock.wall_time = clock.wall_time + step
        local took = four()
        assert.is_true(took > 1.9 and took < 2.1, step .. ": " .. took)
      end
    end)

    it("blocks no caller and allows at most one burst if both clocks changed", function()
      burst()
      for number, step in ipairs { 86400, -86400, 0, 4e8, -4e8, -86400, 86400 } do
        limiter.record(assert(reserve()), { kind = "throttled" }, 100)
        base, boot_id = (number * 7919) % 1000 - clock.now(), "boot-of " .. number
        clock.wall_time = clock.wall_time + step
        local before = clock.offset
        local at_once = burst()
        assert.is_true(at_once <= 4, step)
        assert.is_true(clock.offset - before <= 101, step)
      end
    end)

    it("is shared by two machines on a network directory, one of them a day behind", function()
      burst()
      local began, reservations = clock.offset, 0
      for i = 1, 40 do
        local second = i % 2 == 0
        base, boot_id = second and 5000 or 0, second and "boot-2" or "boot-1"
        clock.wall_time = clock.wall_time + (second and -86400 or 86400)
        assert(reserve())
        reservations = reservations + 1
      end
      local took = clock.offset - began
      assert.is_true(reservations <= 4 + 2 * took + 1, took)
      assert.is_true(took < 21, took)
    end)

    it("works without a boot id, by the wall clock, with one burst each time it is set", function()
      function clock.boot_clock() return clock.wall_time + clock.now(), "" end
      assert.equal(4, burst())
      assert.is_true(math.abs(four() - 2) < 0.1)
      clock.wall_time = clock.wall_time - 86400
      assert.is_true(math.abs(four() - 2) < 0.1)
      clock.wall_time = clock.wall_time + 86400
      assert.equal(4, burst())
    end)

    it("keeps the month's count if a clock is set beyond its end and back", function()
      env.limits = limiter.limits_from_options { rate = { read = { 2, 4 } }, monthly_quota = 3 }
      for _ = 1, 3 do assert(reserve()) end
      assert.is_nil((reserve()))
      clock.wall_time = clock.wall_time + 28 * 86400
      assert(reserve())
      clock.wall_time = clock.wall_time - 28 * 86400
      local _, err = reserve()
      assert.equal("quota", err.kind)
      assert.equal(3, limiter.usage(env).requests)
    end)
  end)

  it("keeps four concurrent processes to one rate, within the service's own limits", function()
    helper.admin("POST", "settings", { limits = true, rate = { read = { 5, 5 }, download = { 1, 3 } } })
    blocking.runtime = real
    local ends = {}
    for i = 1, 4 do
      ends[i] = start_with_options([[
        options.rate, options.max_attempts, options.store = { read = { 5, 4 } }, 1, nymbl.store.file(path)
        local patient = assert(nymbl.client(options)):patient("p")
        for _ = 1, 5 do assert(patient:page()) end]], path)
    end
    for i = 1, 4 do assert.equal("", ends[i]()) end
    local times = {}
    for i, entry in ipairs(helper.journal()) do
      assert.equal(200, entry.status)
      times[i] = entry.time
    end
    assert.equal(20, #times)
    for i = 1, 20 do
      for j = i, 20 do
        -- the service's limit: one more than the client's, because one request may take longer than the next
        assert.is_true(j - i + 1 <= 5 + 5 * (times[j] - times[i]) + 1e-3, i .. " to " .. j)
      end
    end
    local usage = content(path)
    for _, entry in pairs(usage.entries) do assert.equal(20, entry.state.requests) end
  end)
end)
