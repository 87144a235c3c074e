-- SPDX-License-Identifier: MIT
-- Lines: connections to a real redis-server, in every event loop.
local cases = require "line_cases"
local core = require "nymbl.core"
local helper = require "helper"
local nginx = require "nginx"
local redis = require "redis"
local wait = require "nymbl.wait"

local ask, command, reply = cases.ask, cases.command, cases.reply

describe("a line", function()
  local server, servers, lines

  -- A line that is closed after the test.
  local function open(options)
    lines[#lines + 1] = assert(core.line_open(options))
    return lines[#lines]
  end

  local function start(options)
    servers[#servers + 1] = redis.start(options)
    return servers[#servers]
  end

  local function line_to(to, options)
    local all = { host = "localhost", port = to.port, tls = to.ca ~= nil, ca_file = to.ca }
    for name, value in pairs(options or {}) do all[name] = value end
    return open(all)
  end

  before_each(function()
    servers, lines = {}, {}
  end)

  after_each(function()
    for _, line in ipairs(lines) do line:close() end
    for _, one in ipairs(servers) do one:stop() end
    if server then server:stop() end
    server, servers, lines = nil, nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- What cases.run() returns in every loop.
  local EXPECTED = {
    "+PONG", "*3 :1 $4 a b *0", "matched", "$4 told",
    "+PONG", "*3 :1 $4 a b *0", "matched", "$4 told",
    "+PONG", "*3 :1 $4 a b *0", "matched", "$4 told",
    "db=3", "tls certificate_untrusted, unsent",
    "not yet", "$7 awaited", "$4 next", ":1", "network reset, sent", "false true",
  }

  describe("has the same results", function()
    local settings

    before_each(function()
      local plain, verified = start(), start { tls = true, password = "secret" }
      settings = { port = plain.port, tls_port = verified.port, ca = verified.ca, path = plain.path, pid = plain.pid }
    end)

    it("in a plain script", function()
      assert.same(EXPECTED, cases.run(settings))
    end)

    it("in nymbl.each", function()
      local results
      local ticks, running = 0, true
      local function others(fn)
        local result = fn()
        running = false
        return ticks >= 5 and result or ("others had %d ticks"):format(ticks)
      end
      require("nymbl").each({ function() results = cases.run(settings, others) end, function()
        while running do
          wait.wait(nil, wait.now() + 0.01)
          ticks = ticks + 1
        end
      end }, nil, function(fn)
        fn()
        return true
      end)
      assert.same(EXPECTED, results)
    end)

    for _, loop in ipairs { "cqueues", "luv" } do
      it("in " .. loop, function()
        local output = helper.output(("%s -e 'require(\"line_cases\").main()' /dev/null %s %d %d %s %s %d 2>&1"):format(
          helper.interpreter(), loop, settings.port, settings.tls_port, settings.ca, settings.path, settings.pid))
        assert.equal(table.concat(EXPECTED, "\n"), output)
      end)
    end

    it("in nginx #nginx", function()
      server = nginx.start {
        locations = {
          ["/run"] = ([[
            local results = require("line_cases").run({ port = %d, tls_port = %d, ca = %q, path = %q, pid = %d }, function(fn)
              local ticks, running = 0, true
              local thread = ngx.thread.spawn(function()
                while running do
                  ngx.sleep(0.01)
                  ticks = ticks + 1
                end
              end)
              local result = fn()
              running = false
              ngx.thread.wait(thread)
              return ticks >= 5 and result or "others had " .. ticks .. " ticks"
            end)
            ngx.print(table.concat(results, "\n"))
          ]]):format(settings.port, settings.tls_port, settings.ca, settings.path, settings.pid),
          ["/left"] = "collectgarbage() collectgarbage() ngx.print(require 'nymbl.core'.object_count())",
        },
      }
      assert.equal(table.concat(EXPECTED, "\n"), server:get("/run"))
      assert.is_true(helper.eventually(5, function() return server:get("/left") == "0" end))
    end)
  end)

  it("is verified: by the trusted certificates and the name of the host", function()
    local to = start { tls = true, args = { "--bind", "0.0.0.0" } }
    assert.equal("+PONG", ask(line_to(to), "PING"))
    assert.equal("+PONG", ask(line_to(to, { host = "127.0.0.1" }), "PING"))
    local line = open { host = "localhost", port = to.port, tls = true }
    assert.equal("tls certificate_untrusted, unsent", ask(line, "PING"))
    assert.equal("not started: network reset", ask(line, "PING"))
    assert.equal("tls host_name, unsent", ask(line_to(to, { host = "127.0.0.2" }), "PING"))
    assert.equal("tls ca_file, unsent", ask(line_to(to, { ca_file = "/nowhere" }), "PING"))
  end)

  it("never falls back from TLS to plain, or to TLS from plain", function()
    local plain, verified = start(), start { tls = true }
    assert.equal("timeout connect, unsent",
      ask(line_to(plain, { tls = true, ca_file = verified.ca, connect_timeout = 0.3 }), "PING"))
    assert.equal("network reset, sent", ask(line_to(verified, { tls = false }), "PING"))
    assert.equal("0", plain:cli("DBSIZE"))
  end)

  it("uses no proxy, whatever the environment says", function()
    local to = start { tls = true }
    local output = helper.output(("env https_proxy=http://127.0.0.1:1 http_proxy=http://127.0.0.1:1 all_proxy=http://127.0.0.1:1 "
      .. "no_proxy= %s -e %s 2>&1"):format(helper.interpreter(), helper.quote(([[
      local cases, core = require "line_cases", require "nymbl.core"
      io.write(cases.ask(core.line_open { host = "localhost", port = %d, tls = true, ca_file = %q }, "PING"))
    ]]):format(to.port, to.ca))))
    assert.equal("+PONG", output)
  end)

  it("authenticates first, and passes on why the server refuses", function()
    local to = start { tls = true, password = "secret" }
    assert.equal("-NOAUTH Authentication required.", ask(line_to(to), "PING"))
    local line = line_to(to, { greeting = command("AUTH", "secret"), greeting_replies = 1 })
    assert.equal("+PONG", ask(line, "PING"))
    line = line_to(to, { greeting = command("AUTH", "wrong") .. command("SELECT", 1), greeting_replies = 2 })
    local first, second = line:request(command("PING")), line:request(command("PING"))
    assert.equal("-WRONGPASS", reply(first):match("%S+"))
    assert.equal("-WRONGPASS", reply(second):match("%S+"))
    assert.is_false(line:is_open())
  end)

  it("passes on that the server has too many clients", function()
    local to = start { args = { "--maxclients", "1" } }
    assert.equal("+PONG", ask(line_to(to), "PING"))
    assert.equal("-ERR max number of clients reached", ask(line_to(to), "PING"))
  end)

  it("detects that the server was killed, and another one is opened at once", function()
    local to = start { tls = true }
    local line = line_to(to)
    assert.equal("+PONG", ask(line, "PING"))
    local blocked = line:request(command("BLPOP", "none", 0))
    core.pump(0)
    to:signal "KILL"
    assert.equal("network reset, sent", reply(blocked))
    assert.is_false(line:is_open())
    to:stop() -- its port is closed from now on
    assert.equal("network connect, unsent", ask(line_to(to), "PING"))
    to:restart()
    assert.equal("+PONG", ask(line_to(to), "PING"))
  end)

  it("detects that the server has closed it, and sends nothing more", function()
    local to = start()
    local line = line_to(to)
    assert.equal("+PONG", ask(line, "PING"))
    to:cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert.equal("network reset, unsent", ask(line, "SET", "key", "1"))
    assert.equal("", to:cli("GET", "key"))
    assert.is_false(line:is_open())
  end)

  it("closes itself when it is idle", function()
    local to = start()
    local line = line_to(to, { idle_timeout = 0.5 })
    assert.equal("+PONG", ask(line, "PING"))
    assert.is_true(line:is_open())
    assert.equal(1, to:connections())
    wait.wait(nil, wait.now() + 0.7)
    assert.is_false(line:is_open())
    assert.is_true(helper.eventually(5, function() return to:connections() == 0 end))
    assert.equal("nymbl.line (closed)", tostring(line))
  end)

  it("outlives the clients of the service", function()
    helper.reset()
    local to = start()
    local line = line_to(to)
    assert.equal("+PONG", ask(line, "PING"))
    local id = to:cli("CLIENT", "LIST"):match("id=(%d+)")
    for _ = 1, 3 do
      local client = helper.client()
      assert.equal(0, client:patient("none"):count())
      local transfer = line:request(command("ECHO", "x"))
      client:close()
      assert.equal("$1 x", reply(transfer))
    end
    assert.equal(id, to:cli("CLIENT", "LIST"):match("id=(%d+)"))
  end)

  it("sends a request that nobody waits for at once, and before it is closed", function()
    local to = start { tls = true }
    local line = line_to(to)
    assert.equal("+PONG", ask(line, "PING"))
    assert.is_true(line:send(command("INCR", "told")))
    assert.is_true(helper.eventually(5, function() return to:cli("GET", "told") == "1" end))
    for _ = 1, 10 do assert.is_true(line:send(command("INCR", "told"))) end
    line:close()
    assert.is_true(helper.eventually(5, function() return to:cli("GET", "told") == "11" end))
    for _, method in ipairs { "send", "request" } do
      local done, err = line[method](line, command("INCR", "told"))
      assert.is_nil(done)
      assert.same({ kind = "network", reason = "reset" }, err)
    end
    line:close()
  end)

  it("refuses further requests if the server answers none", function()
    local to = start()
    local line = line_to(to)
    assert.equal("+PONG", ask(line, "PING"))
    to:signal "STOP"
    for _ = 1, 1024 do assert.is_true(line:send(command("INCR", "x"))) end
    local done, err = line:send(command("INCR", "x"))
    assert.is_nil(done)
    assert.equal("io line_full", err.kind .. " " .. err.reason)
    to:signal "CONT"
    assert.is_true(helper.eventually(5, function()
      core.pump(0)
      return line:send(command("PING"))
    end))
    assert.equal("$4 1024", ask(line, "GET", "x"))
  end)

  it("reports invalid options", function()
    local cases_of = {
      host = { port = 1 }, port = { host = "a" }, unix_path = { unix_path = ("x"):rep(200) }, tls = { unix_path = "/x", tls = true },
      greeting_replies = { unix_path = "/x", greeting = "x", greeting_replies = 1.5 },
      idle_timeout = { unix_path = "/x", idle_timeout = -1 }, connect_timeout = { unix_path = "/x", connect_timeout = -1 },
    }
    for name, options in pairs(cases_of) do
      local line, err = core.line_open(options)
      assert.is_nil(line)
      assert.same({ kind = "misuse", reason = name }, err)
    end
    assert.has_error(function() core.line_open { host = {} } end, "option 'host': string expected, got table")
    assert.has_error(function() core.line_open { host = "a", port = "1" } end, "option 'port': number expected, got string")
    assert.has_error(function() core.line_open { unix_path = "/x", greeting = 1 } end, "option 'greeting': string expected, got number")
    assert.has_error(function() core.line_open { unix_path = "/x\0y" } end, "option 'unix_path': string contains NUL")
  end)

  it("does not show where it leads", function()
    local line = open { host = "secret.invalid", port = 4321, greeting = "hidden", greeting_replies = 1 }
    assert.equal("nymbl.line (open)", tostring(line))
  end)

  it("leaves no descriptor and no memory after 10,000 requests and 100 connections #time", function()
    local to = start { tls = true }
    local function converse(connections, requests)
      for _ = 1, connections do
        local line = core.line_open { host = "localhost", port = to.port, tls = true, ca_file = to.ca }
        for i = 1, requests do
          local transfer = line:request(command("ECHO", "x"))
          if i % 10 == 0 then
            wait.close(transfer)
          else
            assert.equal("$1 x", reply(transfer))
          end
        end
        line:close()
      end
      collectgarbage()
      collectgarbage()
    end
    local function resident()
      return tonumber(helper.read_file("/proc/self/statm"):match("%d+ (%d+)")) * 4
    end
    converse(20, 100)
    local before, descriptors, lua_before = resident(), helper.descriptors(), collectgarbage("count")
    converse(100, 100)
    assert.equal(0, core.object_count())
    assert.is_true(helper.descriptors() <= descriptors)
    assert.is_true(collectgarbage("count") - lua_before < 100)
    assert.is_true(resident() - before < 1024, ("%d kB"):format(resident() - before))
  end)

  describe("in nginx #nginx", function()
    it("is not inherited by the workers", function()
      local to = start()
      server = nginx.start {
        init = ([[
          local cases, core = require "line_cases", require "nymbl.core"
          line = core.line_open { host = "127.0.0.1", port = %d }
          first = cases.ask(line, "PING")
          idle = core.line_open { host = "127.0.0.1", port = %d }
        ]]):format(to.port, to.port),
        locations = {
          ["/run"] = ([[
            local cases, core = require "line_cases", require "nymbl.core"
            local own = core.line_open { host = "127.0.0.1", port = %d }
            local _, err = idle:request("x")
            ngx.say(first, " ", line:is_open(), " ", idle:is_open(), " ", err.reason, " ", cases.ask(own, "PING"))
            idle:close()
          ]]):format(to.port),
        },
      }
      assert.equal("+PONG false false forked +PONG", server:get("/run"))
    end)

    it("is shared by requests, and stays in order when one of them ends", function()
      local to = start()
      server = nginx.start {
        server = "lua_check_client_abort on;",
        http = ("init_worker_by_lua_block { core = require 'nymbl.core' core.engine_prepare(true) "
          .. "line = core.line_open { host = '127.0.0.1', port = %d } }"):format(to.port),
        locations = {
          ["/echo"] = "ngx.print(require('line_cases').ask(line, 'ECHO', ngx.var.arg_word))",
          ["/left"] = "collectgarbage() collectgarbage() ngx.print(core.object_count())",
        },
      }
      assert.equal("$1 a", server:get("/echo?word=a"))
      to:signal "STOP"
      for _ = 1, 3 do server:get("/echo?word=given-up", "--max-time 0.2") end
      assert.is_true(helper.eventually(5, function() return server:get("/left") == "1" end)) -- the line
      to:signal "CONT"
      for _, word in ipairs { "b", "cc", "ddd" } do
        assert.equal(("$%d %s"):format(#word, word), server:get("/echo?word=" .. word))
      end
      assert.equal(1, to:connections())
    end)
  end)
end)
