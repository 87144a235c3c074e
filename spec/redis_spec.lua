-- SPDX-License-Identifier: MIT
-- State shared by machines through Redis: against a real redis-server, in real time.
local core = require "nymbl.core"
local helper = require "helper"
local kit = require "store_kit"
local nymbl = require "nymbl"
local rate_state = require "nymbl.rate_state"
local redis = require "redis"
local store = require "nymbl.store"
local token_state = require "nymbl.token_state"
local wait = require "nymbl.wait"

local MONTH = wait.month()
local LIMITS = { bucket = "read", rate = 2, burst = 4, quota = 1000 }
local COUNTED = { bucket = "read", quota = 1000000 } -- without a rate

-- Servers that are shared by the tests, by options.
local servers = {}

local function shared_server(name, options)
  if not servers[name] or not servers[name].pipe then servers[name] = redis.start(options) end
  return servers[name]
end

local function plain()
  return shared_server "plain"
end

-- Wait for a condition.
local function becomes(seconds, condition)
  assert.is_truthy((helper.eventually(seconds, condition)))
end

-- The words of an error.
local function words(err)
  return ("%s %s"):format(err.kind, err.reason)
end

local function ask(it, key, change, ...)
  return store.ask(it, key, wait.now() + 5, change, ...)
end

local function requests(it, key)
  return assert(ask(it, key, rate_state.usage, MONTH)).requests
end

local function reserve(it, key, limits)
  return ask(it, key, rate_state.reserve, limits or COUNTED, MONTH)
end

local keys = 0

local function key_new()
  keys = keys + 1
  return core.sha256(helper.folder .. keys)
end

-- Run a function while the server is stopped. A store that waits for it has its short timeout only
-- meanwhile: on a busy machine a server answers late.
local function while_stopped(server, fn)
  server:signal "STOP"
  local ran, err = pcall(fn)
  server:signal "CONT"
  if not ran then error(err, 0) end
end

describe("nymbl.store.redis()", function()
  local stores, group

  before_each(function() stores, group = {}, redis.group() end)

  after_each(function()
    for _, it in ipairs(stores) do it.link:close() end
    group:stop()
    stores, group = nil, nil
    assert.equal(0, helper.object_count())
  end)

  teardown(function()
    for _, server in pairs(servers) do server:stop() end
  end)

  local function open(options)
    local it = nymbl.store.redis(options)
    stores[#stores + 1] = it
    return it
  end

  describe("raises on", function()
    local function refused(options, problem)
      local ran, err = pcall(nymbl.store.redis, options)
      assert.is_false(ran)
      assert.truthy(err:find("bad argument #1 to 'redis' (" .. problem, 1, true), err)
      assert.is_nil(err:find("SECRET", 1, true), err)
    end

    it("a missing or contradictory option", function()
      refused(nil, "one of the options 'url' and 'urls' is required)")
      refused({}, "one of the options 'url' and 'urls' is required)")
      refused({ url = "rediss://x", urls = { "rediss://x" } }, "only one of the options 'url' and 'urls' may be given)")
      refused({ url = "rediss://x", username = "u" }, "option 'username' needs 'password')")
      refused(5, "table expected, got number)")
      refused({ url = "rediss://x", sentinel = true }, "unknown option 'sentinel')")
    end)

    it("a wrong value", function()
      for name, list in pairs {
        url = { 5, "", "x", "http://x", "rediss:x", "rediss://", "rediss:///1", "rediss://:6379", "rediss://x:", "rediss://x:0",
                "rediss://x:65536", "rediss://x:y", "rediss://x/y", "rediss://x/1/2", "rediss://x?db=1", "rediss://x#1",
                "rediss://a b", "rediss://[::1", "rediss://[x]", "rediss://[1]", "unix:", "unix:x", "unix:/x?y", "unix:/x?db=",
                "unix:/x?db=1&y=2", "rediss://x\0" },
        urls = { 5, "rediss://x", {}, { 5 }, { "x" }, { "rediss://x", y = "rediss://x" } },
        username = { 5, "" }, password = { 5, "", "a\nb" }, ca_file = { 5, "" }, prefix = { 5, "a\nb" },
        token = { 5, "yes" }, timeout = { 0, -1, "1", 0 / 0 }, when_down = { 5, "wait", true },
        share = { 0, 1.1, -1, "1", 0 / 0 }, allow_plain = { 1, "yes" },
      } do
        for _, value in ipairs(list) do
          local options = { password = "p" }
          if name ~= "url" and name ~= "urls" then options.url = "rediss://x" end
          options[name] = value
          refused(options, ("option '%s': "):format(name))
        end
      end
    end)

    it("a user or password in the URL", function()
      for _, url in ipairs { "rediss://SECRET@x", "rediss://u:SECRET@x:1/2", "redis://:SECRET@127.0.0.1" } do
        refused({ url = url }, "option 'url': has a user or password: use the options for these)")
        refused({ urls = { url } }, "option 'urls': has a user or password: use the options for these)")
      end
    end)

    it("a connection without TLS to another machine, unless that is allowed", function()
      for _, host in ipairs { "example.org", "10.0.0.1", "127.0.0.1.example.org", "[2001:db8::1]", "localhost.example.org" } do
        refused({ url = "redis://" .. host }, "option 'url': redis:// leaves this machine unencrypted: use rediss://)")
        assert.is_truthy(nymbl.store.redis { url = "redis://" .. host, allow_plain = true })
      end
      for _, url in ipairs { "redis://localhost", "redis://127.1.2.3:1", "redis://[::1]/3", "rediss://example.org:1/2",
                             "unix:/tmp/x", "unix:/tmp/x?db=3" } do
        assert.is_truthy(nymbl.store.redis { url = url })
      end
    end)
  end)

  it("connects to nothing, loads nothing and shows nothing before it is used", function()
    assert.equal("true", helper.output(helper.interpreter() .. " -e " .. helper.quote [[
      require "nymbl"
      print(package.loaded["nymbl.store.redis"] == nil)]]))
    local made = open { url = "rediss://SECRET.example.org:1234/5", username = "SECRET", password = "SECRET" }
    assert.equal("nymbl.store.redis", tostring(made))
    local function search(value, seen)
      if type(value) == "string" then assert.is_nil(value:find("SECRET$"), value) end
      if type(value) ~= "table" or seen[value] then return end
      seen[value] = true
      for key, item in pairs(value) do
        search(key, seen)
        search(item, seen)
      end
    end
    search(made, {})
  end)

  for name, make in pairs {
    ["without TLS"] = function() return { url = plain().url } end,
    ["with TLS"] = function()
      local server = shared_server("tls", { tls = true, password = "word" })
      return { url = server.url, ca_file = server.ca, password = "word" }
    end,
    ["through a Unix socket"] = function() return { url = "unix:" .. plain().path .. "?db=3" } end,
  } do
    describe(name, function()
      for _, case in ipairs(kit) do
        it(case.name, function()
          local options = make()
          options.token = true
          case.run(function() return open(options) end)
        end)
      end
    end)
  end

  describe("asks", function()
    it("once for each change, over one connection", function()
      local server = group:start()
      local it = open { url = server.url }
      local key = key_new()
      reserve(it, key)
      local function commands()
        return tonumber(server:cli("INFO", "commandstats"):match("cmdstat_evalsha:calls=(%d+)") or 0)
      end
      local before = commands()
      for _ = 1, 50 do reserve(it, key) end
      assert.equal(50, commands() - before)
      assert.equal(1, server:connections())
    end)

    it("by a new process without sending the script, if the server knows it", function()
      local server = plain()
      reserve(open { url = server.url }, key_new())
      server:cli("CONFIG", "RESETSTAT")
      reserve(open { url = server.url }, key_new())
      local stats = server:cli("INFO", "commandstats")
      assert.equal("1", stats:match("cmdstat_eval:calls=(%d+)")) -- for the clock
      assert.equal("1", stats:match("cmdstat_evalsha:calls=(%d+)"))
    end)

    it("again after SCRIPT FLUSH", function()
      local it, key = open { url = plain().url }, key_new()
      for _ = 1, 3 do
        reserve(it, key)
        plain():cli("SCRIPT", "FLUSH")
      end
      assert.equal(3, requests(it, key))
    end)

    it("over another connection if the server closes it", function()
      local it, key = open { url = plain().url }, key_new()
      for _ = 1, 20 do
        assert(reserve(it, key))
        plain():cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      end
      assert.equal(20, requests(it, key))
    end)

    for what, task in pairs { ["is lost"] = "swallow", ["is cut"] = "cut" } do
      it("again if the reply " .. what .. ", and is counted once", function()
        local proxy = group:start_proxy(plain().port)
        local it, key = open { url = proxy.url }, key_new()
        assert(reserve(it, key))
        for i = 2, 5 do
          proxy:spoil(task)
          assert.equal(i, assert(reserve(it, key)).requests)
          assert.is_false(proxy:is_waiting())
        end
        assert.equal(5, requests(it, key))
      end)
    end

    for what, task in pairs { ["a request"] = "again", ["no request"] = "twice" } do
      it("again over another connection if a reply belongs to " .. what .. ", and is counted once", function()
        local proxy = group:start_proxy(plain().port)
        local it, key, other = open { url = proxy.url }, key_new(), key_new()
        for i = 1, 5 do
          assert.equal(2 * i - 1, assert(reserve(it, key)).requests)
          assert.equal(2 * i, assert(reserve(it, key)).requests)
          proxy:spoil(task)
          assert.equal(i, assert(reserve(it, other)).requests)
          assert.is_false(proxy:is_waiting())
        end
        assert.equal(10, requests(it, key))
        assert.equal(5, requests(it, other))
      end)
    end

    it("from many coroutines at once, and is counted once each if the connection breaks", function()
      local proxy = group:start_proxy(plain().port)
      local it, key, items = open { url = proxy.url }, key_new(), {}
      for i = 1, 60 do items[i] = i end
      reserve(it, key)
      local succeeded = nymbl.each(items, { concurrency = 20 }, function(i)
        if i == 10 or i == 40 then proxy:spoil "swallow" end
        return reserve(it, key)
      end)
      assert.equal(60, succeeded)
      assert.equal(61, requests(it, key))
      assert.equal(0, requests(it, key_new()))
    end)

    it("over one connection, however many coroutines ask at once", function()
      local server, items = group:start(), {}
      local it, key = open { url = server.url, timeout = 20 }, key_new()
      for i = 1, 1500 do items[i] = i end -- a line takes 1,024
      reserve(it, key)
      local function connections()
        return tonumber(server:cli("INFO", "stats"):match("total_connections_received:(%d+)"))
      end
      local before = connections()
      server:signal "STOP"
      assert.equal(#items, nymbl.each(items, { concurrency = #items }, function(i)
        if i == #items then server:signal "CONT" end
        return reserve(it, key)
      end))
      assert.equal(before + 1, connections()) -- that which asks
      assert.equal(#items + 1, requests(it, key))
    end)

    it("not for changes that are not of this library", function()
      local it = open { url = plain().url }
      assert.error_matches(function() it:update("key", nil, function() end) end, "only make the changes of nymbl")
    end)
  end)

  describe("tells", function()
    it("before the next change, even if it had no connection then", function()
      local it, key = open { url = plain().url }, key_new()
      for _ = 1, 3 do
        for _ = 1, 2 do store.tell(it, key, rate_state.quota_exceeded, MONTH) end
        store.tell(it, key, rate_state.probe_succeeded)
        assert(reserve(it, key))
        it.link:disconnect()
        plain():cli("SCRIPT", "FLUSH")
      end
      assert.equal(6, ask(it, key, rate_state.usage, MONTH).throttled)
      store.tell(it, key, rate_state.quota_exceeded, MONTH)
      assert.equal(7, ask(open { url = plain().url }, key, rate_state.usage, MONTH).throttled)
    end)

    it("later what cannot be sent now, and in its order", function()
      local it, key = open { url = plain().url }, key_new()
      reserve(it, key)
      it.link:disconnect()
      store.tell(it, key, rate_state.quota_exceeded, MONTH)
      store.tell(it, key, rate_state.probe_succeeded)
      local sent = 0
      function it.link.send()
        sent = sent + 1
        return sent > 1
      end
      assert(reserve(it, key))
      assert.equal(1, sent)
      it.link.send = nil
      assert.is_nil(reserve(it, key).refused)
      assert.equal(1, ask(it, key, rate_state.usage, MONTH).throttled)
    end)

    it("without waiting for a server that is stopped", function()
      local it, key = open { url = plain().url }, key_new()
      reserve(it, key)
      while_stopped(plain(), function()
        local began = wait.now()
        for _ = 1, 100 do store.tell(it, key, rate_state.quota_exceeded, MONTH) end
        assert.is_true(wait.now() - began < 0.1)
      end)
      assert.equal(100, ask(it, key, rate_state.usage, MONTH).throttled)
    end)
  end)

  describe("fails #slow with", function()
    local clients

    before_each(function()
      helper.reset()
      clients = {}
      store.default.states = {} -- tokens of earlier specs
    end)

    after_each(function()
      for _, client in ipairs(clients) do client:close() end
      clients = nil
    end)

    -- A call fails with a reason, within some seconds, and nothing is sent.
    local function fails(reason, options, seconds)
      if reason ~= "store_down" then -- the server answers, which may take long on a busy machine
        options.timeout, seconds = 3, 20
      end
      local client = helper.client { store = open(options) }
      clients[#clients + 1] = client
      local began = wait.now()
      local page, err = client:patient("p"):page()
      local took = wait.now() - began
      assert.is_nil(page)
      assert.equal("io " .. reason, words(err), options.url)
      assert.equal(0, err.attempts)
      assert.matches("^nymbl: list: io %(" .. reason .. "%): %l", tostring(err))
      assert.is_true(took < (seconds or 0.9), took)
      page, err = client:usage()
      assert.is_nil(page)
      assert.equal("io " .. reason, words(err))
      assert.equal(0, #helper.journal())
      assert.equal(0, #helper.journal "token")
    end

    it("store_down if no server listens, or it does not answer", function()
      local url, stop = helper.unresponsive_server "refusing"
      group:add(stop)
      fails("store_down", { url = url:gsub("https", "redis") }, 1.7)
      fails("store_down", { url = "unix:" .. helper.folder .. "/none" }, 1.7)
      for _, kind in ipairs { "silent", "full" } do
        url, stop = helper.unresponsive_server(kind)
        group:add(stop)
        fails("store_down", { url = url:gsub("https", "redis"), timeout = 0.4 }, 1)
        fails("store_down", { url = url:gsub("https", "rediss"), timeout = 0.4 }, 1)
      end
      fails("store_down", { url = "rediss://host.invalid", timeout = 0.5 }, 1)
    end)

    it("store_down if it is stopped", function()
      local it = open { url = plain().url }
      reserve(it, "x")
      while_stopped(plain(), function() fails("store_down", { url = plain().url }, 1.7) end)
    end)

    it("store_down while it loads its data", function()
      local server = group:start()
      for i = 1, 2000 do server:cli("SET", "key" .. i, "x") if i > 30 then break end end
      server:cli("SAVE")
      server:restart { "--key-load-delay", "200000", "--loading-process-events-interval-bytes", "1024" }
      fails("store_down", { url = server.url }, 1.7)
    end)

    it("store_down while a script keeps it busy", function()
      local server = group:start { args = { "--lua-time-limit", "10" } }
      os.execute(("redis-cli -s %s EVAL 'while true do end' 0 >/dev/null 2>&1 &"):format(helper.quote(server.path)))
      becomes(5, function() return server:cli("PING"):find("BUSY") end)
      fails("store_down", { url = server.url }, 1.7)
      server:cli("SCRIPT", "KILL")
    end)

    it("store_auth without a password, with a wrong one or one too many, and without permission", function()
      local server = shared_server("tls", { tls = true, password = "word" })
      fails("store_auth", { url = server.url, ca_file = server.ca })
      fails("store_auth", { url = server.url, ca_file = server.ca, password = "another" })
      fails("store_auth", { url = server.url, ca_file = server.ca, password = "word", username = "other" })
      fails("store_auth", { url = plain().url, password = "word" })
      plain():cli("ACL", "SETUSER", "poor", "on", ">word", "~other:*", "+@all")
      fails("store_auth", { url = plain().url, username = "poor", password = "word" })
      plain():cli("ACL", "SETUSER", "poor", "allkeys", "-eval")
      fails("store_auth", { url = plain().url, username = "poor", password = "word" })
    end)

    it("store_certificate if it cannot be verified, and never falls back to plain", function()
      local server = shared_server("tls", { tls = true, password = "word" })
      fails("store_certificate", { url = server.url, password = "word" })
      fails("store_certificate", { url = server.url, ca_file = helper.sandbox().ca_file, password = "word" })
      local elsewhere = group:start { tls = true, args = { "--bind", "127.0.0.2" } }
      fails("store_certificate", { url = "rediss://127.0.0.2:" .. elsewhere.port, ca_file = elsewhere.ca })
      fails("store_down", { url = "rediss://localhost:" .. plain().port, ca_file = server.ca, password = "word", timeout = 0.3 })
      assert.equal("0", plain():cli("INFO", "clients"):match("blocked_clients:(%d+)"))
    end)

    it("store_full if its memory is", function()
      local server = group:start { args = { "--maxmemory", "1" } }
      fails("store_full", { url = server.url })
    end)

    it("store_readonly if it is a replica, or refuses to write", function()
      local server = group:start()
      server:cli("CONFIG", "SET", "min-replicas-to-write", "1")
      fails("store_readonly", { url = server.url }, 1.7)
      server:cli("CONFIG", "SET", "min-replicas-to-write", "0")
      server:cli("REPLICAOF", "127.0.0.1", plain().port)
      fails("store_readonly", { url = server.url }, 1.7)
      fails("store_readonly", { urls = { server.url, server.url } }, 1.7)
    end)

    it("store_protocol if it is no Redis, or its data are not of this library", function()
      local proxy = group:start_proxy(plain().port)
      for _, garbage in ipairs { "HTTP/1.1 400 Bad Request\r\n\r\n", "\0", "+OK\r\n", ":5\r\n", "*0\r\n", "$-1\r\n", "$2\r\n[]\r\n",
                                 "$5\r\n[1,2]\r\n", "$4\r\n[\"x\r\n", "$99999999\r\n",
                                 '$13\r\n[1e15,"5eed"]\r\n', '$14\r\n[1e999,"5eed"]\r\n', '$11\r\n[-1,"5eed"]\r\n',
                                 "$14\r\n[1e300,[true]]\r\n" } do
        local it = open { url = proxy.url, timeout = 0.5 }
        proxy:spoil(garbage)
        local _, err = reserve(it, "x")
        assert.equal("io store_protocol", words(err), garbage)
        assert(reserve(it, "x"), garbage)
        proxy:spoil(garbage)
        _, err = reserve(it, "x")
        assert.equal("io store_protocol", words(err), garbage)
        assert(reserve(it, "x"), garbage)
      end
      -- what is no result of the change
      for _, results in ipairs { "5", "[]", "[5]", "[true]", "[null]", "[{}]", '[{"delay":1}]', '[{"delay":"x","time_to_act":1}]',
                                 '[{"refused":1}]', '[{"delay":1,"time_to_act":1,"tat":{}}]', '[{"delay":1e999,"time_to_act":1}]',
                                 '[{"delay":1,"time_to_act":1,"requests":-1}]' } do
        local it = open { url = proxy.url, timeout = 0.5 }
        assert(reserve(it, "x"))
        local text = ('[%.0f,%s,"%s:%d"]'):format(it:now(), results, it.link.connection.caller, it.link.connection.count + 1)
        proxy:spoil(("$%d\r\n%s\r\n"):format(#text, text))
        assert.equal("io store_protocol", words(select(2, reserve(it, "x"))), results)
      end
      for _, results in ipairs { "[true]", "[false]", "[true,5]", "[true,null,5]", "[true,null,{}]", '[{"refused":true}]',
                                 '[true,null,{"generation":"x"}]', '[true,null,{"failure":"x"}]' } do
        local it = open { url = proxy.url, timeout = 0.5 }
        assert(reserve(it, "x"))
        local text = ('[%.0f,%s,"%s:%d"]'):format(it:now(), results, it.link.connection.caller, it.link.connection.count + 1)
        proxy:spoil(("$%d\r\n%s\r\n"):format(#text, text))
        local _, err = ask(it, "x", token_state.acquire, 3, nil, 0, nil)
        assert.equal("io store_protocol", words(err), results)
      end
      local it, key = open { url = plain().url }, key_new()
      plain():cli("LPUSH", ("nymbl:{%s}:v2"):format(key), "x")
      assert.equal("io store_protocol", words(select(2, reserve(it, key))))
    end)

    local function start_node()
      local node = redis.start_node()
      group:add(function() node:stop() end)
      return node
    end

    it("cluster if another node has its keys; a cluster of one is as good as none", function()
      local one, other = start_node(), start_node()
      fails("store_down", { url = one.url }, 1.7) -- no node has the keys
      fails("cluster", { url = one.url .. "/1" }) -- a cluster has no other database
      other:cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
      one:cli("CLUSTER", "MEET", "127.0.0.1", other.port)
      becomes(10, function() return one:cli("CLUSTER", "INFO"):find("cluster_state:ok") end)
      fails("cluster", { url = one.url })
      local it, key = open { url = other.url }, key_new()
      assert(reserve(it, key))
      local slot = other:cli("CLUSTER", "KEYSLOT", "{" .. key .. "}")
      other:cli("CLUSTER", "SETSLOT", slot, "MIGRATING", (one:cli("CLUSTER", "MYID")))
      other:cli("DEL", ("nymbl:{%s}:v2"):format(key))
      assert.equal("io cluster", words(select(2, reserve(it, key)))) -- ASK
    end)
  end)

  it("knows what Redis's errors mean", function()
    local resp = require "nymbl.store.resp"
    for message, reason in pairs {
      ["LOADING Redis is loading the dataset in memory"] = "store_down",
      ["BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."] = "store_down",
      ["MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."] = "store_down",
      ["ERR Protocol error: unauthenticated bulk length"] = "store_auth",
      ["ERR max number of clients reached"] = "store_down",
      ["NOAUTH Authentication required."] = "store_auth",
      ["WRONGPASS invalid username-password pair or user is disabled."] = "store_auth",
      ["DENIED Redis is running in protected mode because protected mode is enabled."] = "store_auth",
      ["OOM command not allowed when used memory > 'maxmemory'."] = "store_full",
      ["ERR Error running script (call to f_7e5): @user_script:1: @user_script: 1: -OOM command not allowed when used memory"
        .. " > 'maxmemory'. "] = "store_full", -- Redis 6
      ["ERR Error running script (call to f_7e5): @user_script:1: @user_script: 1: -READONLY You can't write against a read"
        .. " only replica. "] = "store_readonly",
      ["MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."] = "store_readonly",
      ["NOREPLICAS Not enough good replicas to write."] = "store_readonly",
      ["MOVED 3999 127.0.0.1:6381"] = "cluster", ["ASK 3999 127.0.0.1:6381"] = "cluster",
      ["CROSSSLOT Keys in request don't hash to the same slot"] = "cluster",
      ["ERR unknown command 'EVAL'"] = "store_protocol", [""] = "store_protocol", ["-"] = "store_protocol",
    } do
      assert.equal(reason, resp.reason(message), message)
    end
  end)

  it("learns the server's clock again if it was set", function()
    local it, key = open { url = plain().url }, key_new()
    assert(reserve(it, key))
    for i, step in ipairs { -86400, 86400, -1e9, 1e9 } do
      it.link.connection.offset = it.link.connection.offset + step
      local began = wait.now()
      assert.equal(i + 1, assert(reserve(it, key)).requests)
      assert.is_true(wait.now() - began < 0.5)
    end
  end)

  it("takes an infinite timeout and an empty prefix", function()
    local it, key = open { url = plain().url, timeout = math.huge, prefix = "" }, key_new()
    assert(reserve(it, key))
    assert.equal("1", plain():cli("EXISTS", ("{%s}:v2"):format(key)))
  end)

  describe("if it is lost during a call", function()
    local client, patient

    before_each(function() helper.reset() end)

    after_each(function()
      client:close()
      client, patient = nil, nil
    end)

    it("the result or the last error of the call stands, and nothing is repeated", function()
      local server = group:start()
      client = helper.client { store = open { url = server.url, timeout = 0.3 }, max_attempts = 3, on_event = function()
        server:stop()
      end, token = helper.token() }
      patient = client:patient "p"
      helper.faults { operation = "list", action = { status = 500 } }
      local _, err = patient:page()
      assert.same({ "server", 500, 1 }, { err.kind, err.status, err.attempts })
      server:restart()
      becomes(2, function() return patient:page() end)
      assert.equal("io store_down", words(select(2, patient:page())))
    end)
  end)

  it("needs few permissions", function()
    local server = group:start()
    server:cli("ACL", "SETUSER", "poor", "on", ">word", "resetkeys", "~own:*", "-@all", "+eval", "+evalsha", "+time", "+get", "+set",
      "+del")
    local it = open { url = server.url, username = "poor", password = "word", prefix = "own:" }
    local key = key_new()
    assert(reserve(it, key))
    store.tell(it, key, rate_state.quota_exceeded, MONTH)
    assert.same({ 0, 1 }, { requests(it, key), ask(it, key, rate_state.usage, MONTH).throttled })
    it = open { url = server.url, username = "poor", password = "word" } -- other keys
    assert.equal("io store_auth", words(select(2, reserve(it, key))))
  end)

  describe("a call", function()
    local client

    before_each(function()
      helper.reset()
      store.default.states = {}
    end)

    after_each(function()
      client:close()
      client = nil
    end)

    it("reports a long wait to on_wait, and no other", function()
      local waits = {}
      client = helper.client {
        store = open { url = plain().url, timeout = 0.3 }, timeout = false, token = helper.token(),
        on_wait = function(event) waits[#waits + 1] = event.operation .. " " .. event.reason end,
      }
      for _ = 1, 20 do assert(client:patient("p"):page()) end
      assert.is_true(#waits < 10) -- on a busy machine
      waits = {}
      while_stopped(plain(), function() client:patient("p"):page() end)
      assert.same({ "list store" }, waits)
    end)

    it("lists all pages, and prefetches none without a reservation", function()
      client = helper.client { store = open { url = plain().url, token = true }, rate = { read = { 100, 100 } } }
      helper.admin("POST", "seed", { patient = "p", count = 30 })
      local before, count = client:usage().requests, 0
      for _ in client:patient("p"):documents { page_size = 10 } do count = count + 1 end
      assert.equal(30, count)
      assert.equal(client:usage().requests - before, #helper.journal "list")
    end)

    it("that has no time left is not the store's fault", function()
      client = helper.client { store = open { url = plain().url }, token = helper.token() }
      local _, err = client:patient("p"):page { timeout = 1e-9 }
      assert.equal("timeout deadline", words(err))
      assert.equal(0, #helper.journal())
    end)

    it("is diagnosed if the store does not answer", function()
      client = helper.client { store = open { url = "unix:" .. helper.folder .. "/none", timeout = 0.1 } }
      local steps, ok = client:check()
      assert.is_false(ok)
      assert.same({ "settings", "failed", "store_down" }, { steps[1].step, steps[1].state, steps[1].err.reason })
    end)

    it("ends if its client is closed while it waits for the store, and leaves no connection", function()
      local server = group:start()
      client = helper.client { store = open { url = server.url }, token = helper.token() }
      assert(client:patient("p"):page())
      local _, failed = nymbl.each({ "call", "close" }, nil, function(item)
        if item == "call" then return client:patient("p"):page() end
        server:signal "STOP"
        wait.wait(nil, wait.now() + 0.1)
        client:close()
        server:signal "CONT"
        return true
      end)
      if failed[1] then assert.equal("canceled", failed[1].err.kind) end
      becomes(2, function() return server:connections() == 0 end)
    end)

    it("is counted, and its 429 pauses the others", function()
      local it = open { url = plain().url }
      client = helper.client { store = it, rate = {}, monthly_quota = 100, max_attempts = 1 }
      local other = helper.client { store = open { url = plain().url }, rate = {}, monthly_quota = 100, timeout = 1 }
      local before = client:usage()
      assert(client:patient("p"):page())
      helper.faults { operation = "list", action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "30" } } } }
      assert.equal("throttled", select(2, client:patient("p"):page()).kind)
      assert.equal("timeout rate_limit", words(select(2, other:patient("p"):page())))
      local after = other:usage()
      assert.same({ before.requests + 1, before.throttled + 1 }, { after.requests, after.throttled })
      assert.equal(math.type and "integer" or nil, math.type and math.type(after.requests)) -- luacheck: ignore
      other:close()
    end)
  end)

  it("goes on by itself when the server is back, even if it is empty", function()
    local server = group:start()
    local it, key = open { url = server.url, timeout = 5 }, key_new()
    for _ = 1, 3 do assert(reserve(it, key)) end
    it.link.timeout = 0.2
    server:stop()
    assert.equal("io store_down", words(select(2, reserve(it, key))))
    server:restart()
    it.link.timeout = 5
    becomes(2, function() return reserve(it, key) end)
    assert.equal(1, requests(it, key))
  end)

  it("does not fail if the server is away for a moment", function()
    local server = group:start()
    local it, key = open { url = server.url, timeout = 5 }, key_new()
    assert(reserve(it, key))
    server:stop()
    local done
    nymbl.each({ 1, 2 }, nil, function(i)
      if i == 1 then
        done = assert(reserve(it, key))
      else
        wait.wait(nil, wait.now() + 0.7)
        server:restart()
      end
      return true
    end)
    assert.is_truthy(done)
  end)

  it("is not blamed for the silence after which a caller had given up, or was abandoned", function()
    local it, key = open { url = plain().url, timeout = 0.4 }, key_new()
    assert(reserve(it, key))
    local function late_by_a_moment(ask_for)
      while_stopped(plain(), ask_for)
      wait.wait(nil, wait.now() + 0.5)
      while_stopped(plain(), function()
        assert.same({ kind = "io", reason = "store_down" }, -- without `is_down`
          (select(2, it:update(key, it:now() + 0.02, rate_state.reserve, COUNTED, MONTH))))
      end)
      assert(reserve(it, key))
    end
    late_by_a_moment(function() it:update(key, it:now() + 0.02, rate_state.reserve, COUNTED, MONTH) end)
    late_by_a_moment(function()
      local real = wait.wait
      function wait.wait() coroutine.yield() end
      local abandoned = coroutine.create(function() reserve(it, key) end)
      coroutine.resume(abandoned)
      wait.wait = real
    end)
  end)

  it("notices that one of several requests is not answered", function()
    local resp = require "nymbl.store.resp"
    local it, key = open { url = plain().url, timeout = 0.3 }, key_new()
    assert(reserve(it, key))
    local commands = { { "PING" }, { "BLPOP", "none", "3" } } -- both are sent before a reply arrives
    local _, failed = nymbl.each(commands, nil, function(command)
      return it.link:exchange(it.link.connection, resp.command(command), wait.now() + 0.3)
    end)
    assert.equal(1, #failed)
    assert.equal("io store_down", words(failed[1].err))
    becomes(3, function() return reserve(it, key) end)
  end)

  it("makes a change although its connection is closed while too many requests have no reply", function()
    local resp = require "nymbl.store.resp"
    local server = plain()
    local it, key = open { url = server.url, timeout = 3 }, key_new()
    assert(reserve(it, key))
    server:signal "STOP"
    local line, real = it.link.connection.line, wait.wait
    while line:send(resp.command { "PING" }) do end
    wait.wait = function(...) -- meanwhile another coroutine finds that the connection is of no use
      wait.wait = real
      it.link:disconnect()
      server:signal "CONT"
      return real(...)
    end
    local ran, result, err = pcall(reserve, it, key)
    wait.wait = real
    server:signal "CONT"
    assert.is_true(ran, result)
    assert.is_truthy(result, err and words(err))
    assert.equal(2, requests(it, key))
  end)

  it("is told the script again if it could not be told while too many requests had no reply", function()
    local resp = require "nymbl.store.resp"
    local server = group:start()
    local it, key = open { url = server.url, timeout = 3 }, key_new()
    assert(reserve(it, key)) -- the first command has only the script's digest
    server:cli("SCRIPT", "FLUSH")
    local connection = it.link.connection
    connection.has_script = false -- as after a reply that says so
    while_stopped(server, function()
      while connection.line:send(resp.command { "PING" }) do end
      store.tell(it, key, rate_state.quota_exceeded, MONTH)
    end)
    becomes(5, function()
      core.pump(0)
      return connection.line:send(resp.command { "PING" })
    end)
    assert.equal(1, ask(it, key, rate_state.usage, MONTH).throttled)
    assert.equal(connection, it.link.connection)
  end)

  it("makes no change after its caller has given up", function()
    local server = plain()
    local it, key = open { url = server.url, timeout = 5 }, key_new()
    assert(reserve(it, key))
    it.link.timeout = 0.3
    while_stopped(server, function()
      assert.equal("io store_down", words(select(2, reserve(it, key))))
      assert.is_nil((store.ask(it, key, wait.now() + 0.1, rate_state.reserve, COUNTED, MONTH)))
    end)
    it.link.timeout = 5
    wait.wait(nil, wait.now() + 0.1)
    assert.equal(1, requests(it, key))
  end)

  it("reads a reply that has arrived while this process was stopped", function()
    local server = plain()
    local it, key = open { url = server.url, timeout = 0.5 }, key_new()
    assert(reserve(it, key))
    local real = wait.wait
    wait.wait = function(transfer, deadline) -- the process is stopped right after it has sent its request
      os.execute "sleep 0.7"
      wait.wait = real
      return transfer == nil and real(transfer, deadline) or false
    end
    local result = reserve(it, key)
    wait.wait = real
    assert.is_truthy(result)
  end)

  describe("with several URLs", function()
    it("takes the first one that is a primary, and the next one after a failover", function()
      local replica, primary = group:start(), group:start { args = { "--repl-diskless-sync-delay", "0" } }
      replica:cli("REPLICAOF", "127.0.0.1", primary.port)
      local it, key = open { urls = { replica.url, primary.url } }, key_new()
      becomes(5, function() return replica:cli("INFO", "replication"):find("master_link_status:up") end)
      for _ = 1, 3 do assert(reserve(it, key)) end
      becomes(5, function()
        return replica:cli("GET", ("nymbl:{%s}:v2"):format(key)):find('"requests":3')
      end)
      primary:stop()
      replica:cli("REPLICAOF", "NO", "ONE")
      local began = wait.now()
      assert(reserve(it, key))
      assert.is_true(wait.now() - began < 1)
      assert.equal(4, requests(it, key))
    end)

    it("takes the next one within the same call if one stops that has worked", function()
      local first = group:start()
      local it, key = open { urls = { first.url, plain().url } }, key_new()
      assert(reserve(it, key))
      while_stopped(first, function() assert(reserve(it, key)) end)
    end)

    it("passes over one that does not answer", function()
      local url, stop = helper.unresponsive_server "silent"
      group:add(stop)
      url = url:gsub("https", "redis")
      local it, key = open { urls = { url, "unix:" .. helper.folder .. "/none", plain().url } }, key_new()
      local began = wait.now()
      assert(reserve(it, key))
      assert.is_true(wait.now() - began < 0.6, wait.now() - began)
      it.link:disconnect()
      began = wait.now()
      assert(reserve(it, key))
      assert.is_true(wait.now() - began < 0.1, wait.now() - began)
    end)
  end)

  describe("keeps", function()
    before_each(function()
      helper.reset()
      store.default.states = {}
    end)

    it("no secret, URL or id, and a token only on request; and everything expires", function()
      for _, token in ipairs { false, true } do
        local server = group:start { password = "REDISWORD" }
        local client = helper.client {
          store = open { url = server.url, password = "REDISWORD", token = token }, rate = {}, monthly_quota = 100,
        }
        assert(client:patient("SECRETID"):page())
        local bearer = helper.header(helper.journal("list")[1], "authorization"):match("^Bearer (.+)$")
        helper.faults { operation = "list", action = { status = 429 } }
        client:patient("SECRETID"):page()
        client:close()
        local sandbox, texts, tokens = helper.sandbox(), {}, 0
        for name in server:cli("KEYS", "*"):gmatch("[^\n]+") do
          assert.matches("^nymbl:{%x+}:[%w:]+$", name)
          local seconds = tonumber(server:cli("TTL", name))
          assert.is_true(seconds > 0 and seconds <= 40 * 86400, name .. " " .. seconds)
          texts[#texts + 1] = name .. server:cli("GET", name)
        end
        assert.is_true(#texts >= 2)
        for _, text in ipairs(texts) do
          if text:find(bearer, 1, true) then tokens = tokens + 1 end
          for _, secret in ipairs { sandbox.api_key, sandbox.base_url, sandbox.token_url, sandbox.client_id, sandbox.scope,
                                    sandbox.client_secret, "localhost", "127.0.0.1", "SECRETID", "REDISWORD" } do
            assert.is_nil(text:find(secret, 1, true), text)
          end
        end
        assert.equal(token, tokens > 0)
        helper.reset()
      end
    end)

    it("a token as long as it is valid, and its failure for a minute", function()
      local it, key = open { url = plain().url, token = true }, key_new()
      local name = ("nymbl:{%s}:v2"):format(key)
      local _, _, lease = ask(it, key, token_state.acquire, 3, nil, 0, nil)
      assert.equal("60", plain():cli("TTL", name))
      ask(it, key, token_state.publish, lease.generation, "token", 300)
      assert.equal("300", plain():cli("TTL", name))
      local before = #plain():cli("KEYS", "*")
      for _ = 1, 10 do ask(it, key, token_state.acquire, 3, nil, 0, nil) end -- changes nothing
      assert.equal(before, #plain():cli("KEYS", "*"))
      plain():cli("SET", name, [[{"expires_at":"x","lease_until":{},"failed_at":true}]]) -- malformed
      assert.equal(1, (select(3, ask(it, key, token_state.acquire, 3, nil, 0, nil))).generation)
    end)

    it("the results of a change as long as it may be asked for again", function()
      local key = key_new()
      local function seconds_of_results(options, change, ...)
        options.url = plain().url
        local it = open(options)
        assert(it:update(key, nil, change, ...))
        local name = ("nymbl:{%s}:%s:%d"):format(key, it.link.connection.caller, it.link.connection.count)
        return tonumber(plain():cli("TTL", name))
      end
      local function near(expected, seconds) assert.is_true(math.abs(seconds - expected) <= 2, seconds) end
      near(61, seconds_of_results({}, rate_state.reserve, COUNTED, MONTH))
      near(360, seconds_of_results({ timeout = 300 }, rate_state.reserve, COUNTED, MONTH))
      near(3660, seconds_of_results({ timeout = math.huge }, rate_state.reserve, COUNTED, MONTH))
      near(40 * 86400, seconds_of_results({}, rate_state.add, MONTH, MONTH, 5, 0))
    end)

    it("a state that is malformed from stopping anyone", function()
      local it = open { url = plain().url }
      for _, text in ipairs { "", "x", "5", "null", "[]", "[1,2]", '{"month":5}', '{"month":null,"requests":null}',
                              ('{"month":"%s","requests":"x","throttled":[]}'):format(MONTH),
                              ('{"month":"%s","requests":1,"throttled":0,"read_tat":"x","updated_at":{}}'):format(MONTH) } do
        local key = key_new()
        plain():cli("SET", ("nymbl:{%s}:v2"):format(key), text)
        assert(reserve(it, key, LIMITS), text)
        assert.is_true(requests(it, key) <= 2)
      end
      for _, name in ipairs { "read_tat", "read_floor", "paused_until" } do
        local key = key_new()
        plain():cli("SET", ("nymbl:{%s}:v2"):format(key),
                    ('{"month":"%s","requests":7,"throttled":2,"updated_at":4e9,"%s":[]}'):format(MONTH, name))
        assert(reserve(it, key, LIMITS), name)
        assert.equal(8, requests(it, key), name)
      end
    end)

    it("its wait and its burst if the server's clock is set", function()
      local it = open { url = plain().url }
      for _, step in ipairs { 1e9, 86400, -86400, -1e9 } do
        local key = key_new()
        local name = ("nymbl:{%s}:v2"):format(key)
        for _ = 1, 4 do reserve(it, key, LIMITS) end
        ask(it, key, rate_state.throttled, LIMITS, MONTH, 60)
        -- the same as if the clock had been set by `-step`
        local state = helper.json.decode(plain():cli("GET", name))
        for field, value in pairs(state) do
          if type(value) == "number" and value > 1e9 then state[field] = value + step end
        end
        plain():cli("SET", name, helper.json.encode(state), "EX", "100")
        local at_once = 0
        for _ = 1, 10 do
          local delay = reserve(it, key, LIMITS).delay
          assert.is_true(delay <= 125, delay)
          if delay <= 0 then at_once = at_once + 1 end
        end
        assert.is_true(at_once <= 4)
      end
    end)
  end)

  it("closes its connection with the last client, also if it is collected", function()
    local server = group:start()
    local it = open { url = server.url }
    local one = helper.client { store = it }
    local other = helper.client { store = it }
    one:usage()
    other:usage()
    assert.equal(1, server:connections())
    one:close()
    other:usage()
    assert.equal(1, server:connections())
    other:close()
    becomes(2, function() return server:connections() == 0 end)
    coroutine.wrap(function() helper.client({ store = it }):usage() end)() -- no slot of this stack keeps the client
    becomes(2, function()
      helper.object_count() -- collects all garbage
      return server:connections() == 0
    end)
  end)

  it("opens no connection after its last client, whatever calls of it do then", function()
    local server = group:start()
    for _, when_down in ipairs { "fail", "alone" } do
      local it, key = open { url = server.url, timeout = 0.2, when_down = when_down }, key_new()
      local client = helper.client { store = it }
      client:usage()
      server:signal "STOP"
      reserve(it, key)
      client:close()
      store.tell(it, key, rate_state.quota_exceeded, MONTH)
      reserve(it, key)
      store.tell(it, key, rate_state.quota_exceeded, MONTH)
      server:signal "CONT"
      reserve(it, key)
      client = nil -- luacheck: ignore
      assert.equal(0, helper.object_count())
    end
  end)

  it("leaves no descriptor and no memory behind #slow", function()
    local server = plain()
    local it, key = open { url = server.url }, key_new()
    local function work(changes, connects)
      for i = 1, changes do
        reserve(it, key)
        if i % (changes / connects) == 0 then it.link:disconnect() end
      end
    end
    work(200, 10)
    collectgarbage()
    local descriptors, memory = helper.descriptors(), collectgarbage "count"
    work(10000, 100)
    collectgarbage()
    assert.is_true(helper.descriptors() <= descriptors)
    assert.is_true(collectgarbage "count" < memory + 100)
  end)

  describe("continues alone", function()
    it("with a share of the rate, if that is wanted, and adds what it has spent when the store is back", function()
      local server = group:start()
      local it, key = open { url = server.url, timeout = 5, when_down = "alone", share = 0.5 }, key_new()
      for _ = 1, 3 do assert(reserve(it, key, LIMITS)) end
      it.link.timeout = 0.2
      server:stop()
      local delays = {}
      for i = 1, 4 do delays[i] = assert(reserve(it, key, LIMITS)).delay end
      assert.same({ 0, 0, 1, 2 }, { delays[1], delays[2], math.floor(delays[3] + 0.5), math.floor(delays[4] + 0.5) })
      assert.equal(7, requests(it, key))
      local began = wait.now() -- it does not wait for the store any more
      for _ = 1, 10 do reserve(it, key, LIMITS) end
      assert.is_true(wait.now() - began < 0.1)
      server:restart()
      becomes(3, function()
        wait.wait(nil, wait.now() + 0.05)
        requests(it, key)
        return not it.alone.is_active
      end)
      assert.equal(14, requests(it, key)) -- the server is empty
      assert.equal(14, requests(it, key))
    end)

    it("with a share of what is left of the month", function()
      local server = group:start()
      local it, key = open { url = server.url, timeout = 5, when_down = "alone", share = 0.1 }, key_new()
      local limits = { bucket = "read", quota = 55 }
      for _ = 1, 5 do reserve(it, key, limits) end
      it.link.timeout = 0.2
      server:stop()
      for _ = 1, 5 do assert.is_nil(reserve(it, key, limits).refused) end
      assert.equal("monthly_quota", reserve(it, key, limits).reason)
      local other = open { url = server.url, timeout = 0.2, when_down = "alone" }
      for _ = 1, 5 do assert.is_nil(reserve(other, key, limits).refused) end -- of 55, which it has never seen
      assert.equal("monthly_quota", reserve(other, key, limits).reason)
    end)

    it("with the same share if the store fails again before it has made a change", function()
      local server = group:start()
      local it, key = open { url = server.url, timeout = 5, when_down = "alone", share = 0.1 }, key_new()
      local limits, sent, at_once = { bucket = "read", rate = 2, burst = 4, quota = 55 }, 0, 0
      for _ = 1, 5 do reserve(it, key, limits) end
      it.link.timeout = 0.2
      while_stopped(server, function()
        for _ = 1, 4 do
          it.link:disconnect()
          it.alone.is_active = false -- as if the server had answered with its clock
          for _ = 1, 3 do
            local reserved = reserve(it, key, limits)
            if not reserved.refused then sent = sent + 1 end
            if reserved.delay == 0 then at_once = at_once + 1 end
          end
        end
      end)
      assert.same({ 5, 1 }, { sent, at_once })
      it.link.timeout = 5
      it.link:disconnect()
      it.alone.is_active = false
      wait.wait(nil, wait.now() + 0.6)
      assert.equal(10, requests(it, key))
      assert.equal(10, requests(open { url = server.url }, key))
    end)

    it("and leaves what it has spent to itself, not to a forked child", function()
      local server = group:start()
      local it, key = open { url = server.url, timeout = 5, when_down = "alone" }, key_new()
      assert(reserve(it, key))
      it.link.timeout = 0.2
      while_stopped(server, function()
        for _ = 1, 4 do assert(reserve(it, key)) end
      end)
      it.link.timeout = 5
      it.link:disconnect()
      it.alone.is_active = false
      wait.wait(nil, wait.now() + 0.6)
      helper.as_child(function() assert.equal(1, requests(it, key)) end)
    end)

    it("and counts once if the reply is lost when it adds what it has spent", function()
      local server = group:start()
      local proxy = group:start_proxy(server.port)
      local it, key = open { url = proxy.url, timeout = 5, when_down = "alone" }, key_new()
      assert(reserve(it, key))
      it.link.timeout = 0.2
      server:stop()
      for _ = 1, 4 do assert(reserve(it, key)) end
      server:restart()
      becomes(3, function()
        wait.wait(nil, wait.now() + 0.05)
        requests(it, key)
        if it.link.probe and not proxy:is_waiting() then
          wait.wait(nil, wait.now() + 0.1)
          if it.link:is_back(key) then
            proxy:spoil "swallow"
            it.alone.is_active = false
          end
        end
        return not it.alone.is_active
      end)
      it.link.timeout = 5
      assert.equal(4, requests(it, key))
      assert.is_false(proxy:is_waiting())
      assert.equal(4, requests(it, key))
    end)

    it("and shares the pause that it has observed", function()
      local server = group:start()
      local it, key = open { url = server.url, timeout = 5, when_down = "alone" }, key_new()
      reserve(it, key, LIMITS)
      it.link.timeout = 0.2
      server:stop()
      reserve(it, key, LIMITS)
      store.tell(it, key, rate_state.throttled, LIMITS, MONTH, 60)
      assert.is_true(reserve(it, key, LIMITS).delay > 55)
      server:restart()
      becomes(3, function()
        wait.wait(nil, wait.now() + 0.05)
        requests(it, key)
        return not it.alone.is_active
      end)
      local other = open { url = server.url }
      assert.is_true(reserve(other, key, LIMITS).delay > 50)
      assert.equal(1, ask(other, key, rate_state.usage, MONTH).throttled)
    end)

    it("with tokens of its own", function()
      local server = group:start()
      local it, key = open { url = server.url, timeout = 5, when_down = "alone", token = true }, key_new()
      local _, _, lease = ask(it, key, token_state.acquire, 3, nil, 0, nil)
      ask(it, key, token_state.publish, lease.generation, "shared", 300)
      it.link.timeout = 0.2
      server:stop()
      _, _, lease = ask(it, key, token_state.acquire, 3, nil, 0, nil)
      ask(it, key, token_state.publish, lease.generation, "own", 300)
      assert.equal("own", select(2, ask(it, key, token_state.acquire, 3, nil, 0, nil)))
    end)

    it("only if the store is unreachable or silent", function()
      local server = group:start { args = { "--maxmemory", "1" } }
      local it = open { url = server.url, when_down = "alone" }
      assert.equal("io store_full", words(select(2, reserve(it, "x"))))
      assert.is_false(it.alone.is_active)
      while_stopped(plain(), function()
        it = open { url = plain().url, when_down = "alone", timeout = 0.2 }
        assert(reserve(it, "x"))
        assert.is_true(it.alone.is_active)
      end)
    end)
  end)
end)
