-- SPDX-License-Identifier: MIT
-- Many clients on several machines share an account through a real Redis, in real time. A machine is a
-- process in a network namespace of its own, or only a process if this one may not create namespaces: each
-- has its own connections, and knows nothing of the others.
local helper = require "helper"
local namespace = require "namespace"
local nymbl = require "nymbl"
local redis = require "redis"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local quote = helper.quote

-- A machine: four clients, each with a store object of its own. It prints its network namespace, and a line
-- for each failed call.
local MACHINE = [==[
  local helper, namespace, nymbl = require "helper", require "namespace", require "nymbl"
  local options = helper.json.decode(arg[1])
  if options.network then namespace.enter(options.network) end
  print(namespace.name())
  local clients = {}
  for i = 1, 4 do
    clients[i] = helper.client {
      store = nymbl.store.redis(options.store), rate = options.rate, monthly_quota = 10000, max_attempts = 5,
    }
  end
  nymbl.each(clients, { concurrency = 4 }, function(client)
    for _ = 1, options.calls do
      local page, err = client:patient("p"):page()
      if not page then print(err) end
    end
    return true
  end)
  for _, client in ipairs(clients) do client:close() end
]==]

local function sleep(seconds)
  wait.wait(nil, wait.now() + seconds)
end

-- Start a machine. It ends by itself.
local function start_machine(options)
  local script = helper.temporary(".lua")
  helper.write_file(script, MACHINE)
  return assert(io.popen(("NYMBL_SPEC_SANDBOX=%s timeout 90 %s %s %s %s 2>&1"):format(quote(helper.sandbox().path),
    options.network and options.network.command or "", helper.interpreter(), quote(script), quote(helper.json.encode(options)))))
end

-- Wait for machines; no call may have failed. If they are in `network`, each had a namespace of its own.
local function finish(machines, network)
  local failures, known, count = {}, { [namespace.name()] = true }, 0
  for i, machine in ipairs(machines) do
    local output = machine:read "*a"
    machine:close()
    local name, rest = output:match "^(net:%S+)\n(.*)$"
    failures[i] = rest or output
    if name and not known[name] then known[name], count = true, count + 1 end
  end
  assert.equal("", table.concat(failures))
  assert.equal(network and #machines or 0, count)
  print(("%d machines, which are %s"):format(#machines, network and "network namespaces" or "processes"))
end

-- In each period the service received at most `burst`, and `rate` for each second.
local function assert_within(entries, rate, burst)
  for first = 1, #entries do
    for last = first, #entries do
      local seconds = entries[last].time - entries[first].time
      assert.is_true(last - first + 1 <= burst + rate * seconds + 1e-6,
        ("%d requests within %.3f s"):format(last - first + 1, seconds))
    end
  end
end

local function with_status(entries, status)
  local found = {}
  for _, entry in ipairs(entries) do
    if entry.status == status then found[#found + 1] = entry end
  end
  return found
end

-- The number of requests, token requests included, that the sandbox has received.
local function sent()
  return #helper.admin("GET", "journal").requests
end

describe("a fleet #slow", function()
  local group

  before_each(function()
    helper.reset()
    store.default.states = {}
    group = redis.group()
  end)

  after_each(function()
    group:stop()
    group = nil
    assert.equal(0, helper.object_count())
  end)

  -- A client with its own store, which is closed at the end of the test.
  local function client_of(options, overrides)
    local all = { store = nymbl.store.redis(options), monthly_quota = 10000 }
    for name, value in pairs(overrides or {}) do all[name] = value end
    local client = helper.client(all)
    group:add(function() client:close() end)
    return client
  end

  -- Three machines that reach one Redis by TLS, through its socket, and by TCP through a proxy.
  local function start_machines(options)
    local server = group:start { tls = true, password = "word" }
    local port = require("gateway").free_port()
    server:cli("CONFIG", "SET", "port", port)
    local proxy = group:start_proxy(port)
    local network, stop = namespace.serve { helper.sandbox().base_url:match ":(%d+)", server.port, proxy.port }
    group:add(stop)
    local machines = {}
    for i, place in ipairs {
      { url = server.url, ca_file = server.ca },
      { url = "unix:" .. server.path },
      { url = proxy.url },
    } do
      place.password, place.token, place.timeout = "word", true, 5
      machines[i] = start_machine { store = place, rate = options.rate, calls = options.calls, network = network }
    end
    return machines, network, proxy, client_of { url = "unix:" .. server.path, password = "word" }
  end

  it("stays within the service's limits, counts its requests, and refreshes its token once in each lifetime", function()
    helper.admin("POST", "reset", { limits = true, token_life = 10 })
    helper.faults({ operation = "list", skip = 8, times = 2, action = { lost_reply = "reset" } }, -- counted by the service
      { operation = "list", skip = 16, times = 2, action = { before = "reset" } })                -- not counted
    local machines, network, proxy, client = start_machines { rate = { read = { 2, 4 } }, calls = 3 }
    for _ = 1, 8 do -- while they run, replies of Redis are lost
      sleep(1)
      proxy:spoil "swallow"
    end
    finish(machines, network)
    assert.is_false(proxy:is_waiting())

    local entries = helper.journal "list"
    assert.equal(40, #entries) -- of which four were repeated
    assert.equal(0, #with_status(entries, 429))
    assert.equal(0, #with_status(entries, 401))
    assert_within(entries, 2, 5)
    assert.equal(38, helper.admin("GET", "settings").quota_used)
    assert.equal(40, client:usage().requests)

    local tokens = helper.journal "token"
    for i = 2, #tokens do assert.is_true(tokens[i].time - tokens[i - 1].time > 7.5) end -- 8 s is a fifth before the end
    local seconds = entries[#entries].time - tokens[1].time
    assert.is_true(#tokens >= math.floor(seconds / 10) and #tokens <= 1 + seconds / 7.5, #tokens)
  end)

  it("pauses altogether after a 429", function()
    helper.faults { operation = "list", skip = 10, times = 1, action = {
      status = 429, body_kind = "gateway", headers = { { "Retry-After", "3" } } } }
    local machines, network, _, client = start_machines { rate = { read = { 10, 5 } }, calls = 3 }
    finish(machines, network)
    local entries = helper.journal "list"
    assert.equal(37, #entries)
    local refused = with_status(entries, 429)
    assert.equal(1, #refused)
    local after = 0
    for _, entry in ipairs(entries) do
      local seconds = entry.time - refused[1].time
      -- some were on their way
      assert.is_false(seconds > 0.5 and seconds < 2.95, ("a request %.3f s after the 429"):format(seconds))
      if seconds >= 2.95 then after = after + 1 end
    end
    assert.is_true(after > 12, after)
    local usage = client:usage()
    assert.same({ 36, 1 }, { usage.requests, usage.throttled }) -- what was refused does not count
  end)

  -- The client is not created again.
  describe("sends nothing to the service without a reservation, and recovers, if Redis", function()
    local function breaks(how)
      it(how.name, function()
        local server = how.start and how.start() or group:start()
        -- a server that answers may take long on a busy machine
        local client = client_of { url = server.url, token = true, timeout = how.reason == "store_down" and 0.5 or 3 }
        local function call()
          return client:patient("p"):page()
        end
        if how.is_down_first then
          server:stop()
        else
          assert(call())
          how.fail(server)
        end
        local before = sent()
        for _ = 1, 2 do
          local page, err = call()
          assert.is_nil(page)
          assert.equal("io " .. how.reason, ("%s %s"):format(err.kind, err.reason))
          assert.equal(0, err.attempts)
        end
        assert.equal(before, sent())
        how.repair(server)
        assert(helper.eventually(10, call))
        assert(call())
        assert.equal(how.keeps_data and #helper.journal "list" or 2, client:usage().requests)
      end)
    end

    local function restart(server) server:restart() end

    local function config(...)
      local words = { ... }
      return function(server) assert.equal("OK", server:cli("CONFIG", "SET", (unpack or table.unpack)(words))) end -- luacheck: ignore
    end

    breaks { name = "is down at first", is_down_first = true, reason = "store_down", repair = restart }

    breaks {
      name = "is killed, and then restarted empty", reason = "store_down",
      fail = function(server) server:stop() end,
      repair = restart,
    }

    breaks {
      name = "is stopped, and then continued", reason = "store_down", keeps_data = true,
      fail = function(server) server:signal "STOP" end,
      repair = function(server) server:signal "CONT" end,
    }

    breaks {
      name = "asks for a password", reason = "store_auth", keeps_data = true,
      fail = function(server)
        server:cli("CONFIG", "SET", "requirepass", "word")
        server.password = "word"
        server:cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      end,
      repair = function(server)
        server:cli("CONFIG", "SET", "requirepass", "")
        server.password = nil
      end,
    }

    breaks {
      name = "loads its data", reason = "store_down", keeps_data = true,
      fail = function(server)
        server:cli("CONFIG", "SET", "rdbcompression", "no")
        for i = 1, 25 do server:cli("SET", "key" .. i, ("x"):rep(1500)) end
        server:cli("SAVE")
        -- 5 seconds, in which it answers
        server:restart { "--key-load-delay", "200000", "--loading-process-events-interval-bytes", "1024" }
        assert.matches("LOADING", server:cli("PING"))
      end,
      repair = function() end,
    }

    breaks {
      name = "has no memory left", reason = "store_full", keeps_data = true,
      fail = config("maxmemory", "1"),
      repair = config("maxmemory", "0"),
    }

    breaks {
      name = "becomes a replica", reason = "store_readonly", keeps_data = true,
      fail = function(server) server:cli("REPLICAOF", "127.0.0.1", "1") end,
      repair = function(server) server:cli("REPLICAOF", "NO", "ONE") end,
    }

    breaks {
      name = "is a cluster of one that loses its slots", reason = "store_down", keeps_data = true,
      start = function()
        local node = redis.start_node()
        group:add(function() node:stop() end)
        node:cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        assert(helper.eventually(10, function() return node:cli("CLUSTER", "INFO"):find "cluster_state:ok" end))
        return node
      end,
      fail = function(server)
        server:cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
        server:cli("CLUSTER", "DELSLOTSRANGE", "0", "16383")
      end,
      repair = function(server) server:cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383") end,
    }

    it("answers with garbage, or with a part", function()
      local server = group:start()
      local proxy = group:start_proxy(server.port)
      local client = client_of { url = proxy.url, token = true, timeout = 0.5 }
      assert(client:patient("p"):page())
      for _, garbage in ipairs { "HTTP/1.1 400 Bad Request\r\n\r\n", "$-1\r\n", "$4\r\n[1]x\r\n", "*1\r\n$1\r\nx\r\n" } do
        local before = sent()
        proxy:spoil(garbage)
        local page, err = client:patient("p"):page()
        assert.is_nil(page)
        assert.same({ "io", "store_protocol", 0 }, { err.kind, err.reason, err.attempts })
        assert.equal(before, sent())
        assert(client:patient("p"):page())
      end
      proxy:spoil "cut"
      assert(client:patient("p"):page())
      local usage = client:usage().requests -- some garbage came instead of a reservation's reply
      assert.is_true(usage >= 6 and usage <= 10, usage)
    end)
  end)

  it("does not notice if Redis forgets its scripts, or closes its connections", function()
    local server = group:start()
    local client = client_of { url = server.url, token = true }
    for _ = 1, 5 do
      assert(client:patient("p"):page())
      server:cli("SCRIPT", "FLUSH")
      assert(client:patient("p"):page())
      server:cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    end
    assert.equal(10, client:usage().requests)
    assert.equal(1, #helper.journal "token")
  end)

  it("continues after a failover that lost the last changes, with at most one burst too many", function()
    local primary, replica = group:start(), group:start()
    replica:cli("REPLICAOF", "127.0.0.1", primary.port)
    assert(helper.eventually(10, function() return replica:cli("INFO", "replication"):find "master_link_status:up" end))
    local urls = { replica.url, primary.url } -- the replica first
    local clients = {}
    for i = 1, 3 do
      clients[i] = client_of({ urls = urls, token = true, timeout = 2 }, { rate = { read = { 2, 4 } } })
    end
    local function call(i) assert(clients[i % 3 + 1]:patient("p"):page()) end
    for i = 1, 3 do call(i) end -- each client is connected
    assert(helper.eventually(5, function() -- these changes are there
      return replica:cli("INFO", "replication"):match "slave_repl_offset:(%d+)"
        == primary:cli("INFO", "replication"):match "master_repl_offset:(%d+)"
    end))
    replica:cli("REPLICAOF", "NO", "ONE")
    for i = 4, 6 do call(i) end
    primary:stop()
    for i = 7, 12 do call(i) end
    local entries = helper.journal "list"
    assert.equal(12, #entries)
    assert_within(entries, 2, 4 * 2 + 1) -- a burst too many, and one delayed on its way
    assert.equal(9, clients[1]:usage().requests) -- three are lost
    assert.is_true(#helper.journal "token" <= 2)
  end)

  -- A Redis whose clock can be set. Returns it, and a function that sets the clock by some seconds.
  local function start_with_clock()
    local file, library, code = helper.temporary(), helper.temporary(".so"), helper.temporary(".c")
    helper.write_file(code, [==[
      #define _GNU_SOURCE
      #include <fcntl.h>
      #include <stdlib.h>
      #include <sys/mman.h>
      #include <sys/syscall.h>
      #include <sys/time.h>
      #include <time.h>
      #include <unistd.h>

      /* The clock is ahead by so many seconds as the file CLOCK says. */
      int gettimeofday(struct timeval *now, void *zone)
      {
          static const volatile char *text;
          struct timespec real;

          (void)zone;
          if (!text)
              text = mmap(NULL, 16, PROT_READ, MAP_SHARED, open(getenv("CLOCK"), O_RDONLY), 0);
          syscall(SYS_clock_gettime, CLOCK_REALTIME, &real);
          now->tv_sec = real.tv_sec + atol((const char *)text);
          now->tv_usec = real.tv_nsec / 1000;
          return 0;
      }
    ]==])
    assert.equal("", helper.output(("cc -shared -fPIC -o %s %s 2>&1"):format(quote(library), quote(code))))
    local function set(seconds)
      local handle = assert(io.open(file, helper.exists(file) and "r+b" or "wb"))
      handle:write(("%015d\0"):format(seconds))
      handle:close()
    end
    set(0)
    local server = group:start { environment = ("env LD_PRELOAD=%s CLOCK=%s"):format(quote(library), quote(file)) }
    return server, set
  end

  for what, seconds in pairs { forward = 86400, back = -86400 } do
    it("waits no longer than the limits demand if the clock of Redis is set " .. what, function()
      local server, set = start_with_clock()
      local client = client_of({ url = server.url, token = true }, { rate = { read = { 4, 4 } } })
      local function work()
        for _ = 1, 6 do assert(client:patient("p"):page { timeout = 5 }) end
      end
      work()
      set(seconds)
      assert.is_true(math.abs(tonumber(server:cli("TIME"):match "%d+") - os.time() - seconds) < 5)
      work()
      set(0)
      work()
      assert.equal(18, client:usage().requests)
      assert_within(helper.journal "list", 4, 4 * 3 + 1) -- a burst too many at each step, and one delayed on its way
    end)

    it("fails over to a Redis whose clock is set " .. what, function()
      local first, second, set = group:start(), start_with_clock()
      second:cli("REPLICAOF", "127.0.0.1", first.port)
      assert(helper.eventually(10, function() return second:cli("INFO", "replication"):find "master_link_status:up" end))
      local client = client_of({ urls = { first.url, second.url }, timeout = 2 }, { rate = { read = { 4, 4 } } })
      for _ = 1, 6 do assert(client:patient("p"):page { timeout = 5 }) end
      assert(helper.eventually(5, function()
        return second:cli("INFO", "replication"):match "slave_repl_offset:(%d+)"
          == first:cli("INFO", "replication"):match "master_repl_offset:(%d+)"
      end))
      first:stop()
      set(seconds)
      second:cli("REPLICAOF", "NO", "ONE")
      for _ = 1, 6 do assert(client:patient("p"):page { timeout = 5 }) end
      assert.equal(12, client:usage().requests)
      assert_within(helper.journal "list", 4, 4 * 2 + 1)
    end)
  end
end)

describe("the store #memory", function()
  it("leaves no memory and no descriptor behind, after 10,000 changes and 100 connections", function()
    local script = helper.write_file(helper.temporary(".lua"), [==[
      local helper, nymbl, redis = require "helper", require "nymbl", require "redis"
      local store, rate_state, wait = require "nymbl.store", require "nymbl.rate_state", require "nymbl.wait"
      local server = redis.start { tls = true }
      local it = nymbl.store.redis { url = server.url, ca_file = server.ca }

      local function work(changes, connections)
        for i = 1, changes do
          assert(store.ask(it, "key", wait.now() + 5, rate_state.reserve, { bucket = "read", quota = 1e9 }, "2026-02"))
          if i % (changes / connections) == 0 then it.link:disconnect() end
        end
        collectgarbage()
        collectgarbage()
        local status = helper.read_file "/proc/self/status"
        return tonumber(status:match "VmRSS:%s*(%d+)"), helper.descriptors()
      end

      work(2000, 20)
      local kilobytes, descriptors = work(2000, 20)
      local kilobytes_after, descriptors_after = work(10000, 100)
      print(kilobytes_after - kilobytes, descriptors_after - descriptors)
      it.link:close()
      server:stop()
    ]==])
    local output = helper.output(("timeout 100 %s %s 2>&1"):format(helper.interpreter(), quote(script)))
    local kilobytes, descriptors = output:match "^(%-?%d+)\t(%-?%d+)$"
    assert.is_truthy(kilobytes, output)
    assert.is_true(tonumber(kilobytes) < 512, output)
    assert.is_true(tonumber(descriptors) <= 0, output)
  end)
end)

describe("examples/fleet #nginx #slow", function()
  local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")

  -- What still runs, of what the example has started.
  local function left(folder)
    local pattern = folder:gsub("(%w)/", "[%1]/", 1) -- not the command that looks for it
    return helper.output(("ps -eo args | grep %s"):format(quote(pattern)))
  end

  it("shows that three workers stay within the limits", function()
    local folder = helper.directory()
    local output = helper.output(("cd / && TMPDIR=%s timeout 100 %s/examples/fleet/run </dev/null 2>&1; echo $?"):format(
      quote(folder), quote(ROOT)))
    local sum, last = 0, nil
    for second, one, other, nginx, together in output:gmatch "\n +(%d+) +(%d+) +(%d+) +(%d+) +(%d+)" do
      assert.equal(tonumber(together), one + other + nginx)
      sum, last = sum + together, tonumber(second)
    end
    assert.equal(30, sum, output)
    assert.is_true(last >= 13, output)
    assert.matches("30 requests arrived, and the service has refused 0 of them with 429%. The count in Redis for [%d-]+: 30%.", output)
    assert.matches("token requests: 1%.\n0$", output)
    assert.equal("", left(folder))
    assert.equal("", helper.names(folder))
  end)

  it("ends everything on Ctrl-C", function()
    local folder, out = helper.directory(), helper.temporary(".out")
    local pipe = io.popen(("cd / && echo $$ && exec env TMPDIR=%s %s/examples/fleet/run </dev/null >%s 2>&1"):format(
      quote(folder), quote(ROOT), quote(out)))
    local pid = pipe:read "*n"
    helper.wait_for(function() return helper.exists(out) and helper.read_file(out):find "Three workers" end)
    assert.is_truthy(left(folder):find "redis%-server")
    os.execute("kill -INT " .. pid)
    pipe:read "*a"
    pipe:close()
    assert.equal("", left(folder))
    assert.equal("", helper.names(folder))
  end)
end)
