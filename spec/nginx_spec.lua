-- SPDX-License-Identifier: MIT
-- The same objects inside nginx: only the request that makes a call waits for it.
local helper = require "helper"
local nginx = require "nginx"

local server

local function setup()
  helper.reset()
end

local function teardown()
  if server then
    server:stop()
    assert.is_nil(server:log():match("%[alert%]"), server:log())
    assert.is_nil(server:log():match("open socket"), server:log())
    assert.is_nil(server:log():match("%[error%][^\n]*socket"), server:log()) -- nginx reports a timeout, or a read from a closed socket
  end
  server = nil
end

local function document(size, id)
  helper.admin("POST", "documents", { patient = "p", id = id or "d", size = size, content_type = "application/pdf" })
end

local function connections()
  return helper.admin("GET", "state").connections
end

-- A process that has ended but was not reaped does not count.
local function is_running(pid)
  return helper.output(("grep '^State:' /proc/%s/status 2>/dev/null"):format(pid)):match("^State:%s+[^Z]") ~= nil
end

-- The number of a process's descriptors, and the number of TCP sockets among them.
local function descriptors(pid)
  local inodes = {}
  for inode in helper.output("cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '{print $10}'"):gmatch("%d+") do
    inodes[inode] = true
  end
  local count, tcp = 0, 0
  for line in helper.output(("ls -l /proc/%d/fd"):format(pid)):gmatch("[^\n]+") do
    local to = line:match("%-> (.*)$")
    if to then count = count + 1 end
    local inode = to and to:match("^socket:%[(%d+)%]$")
    if inode and inodes[inode] then tcp = tcp + 1 end
  end
  return count, tcp
end

local function kill(pids)
  os.execute("kill " .. table.concat(pids, " ") .. " 2>/dev/null")
end

describe("in nginx #nginx", function()
  before_each(setup)
  after_each(teardown)

  it("uploads, lists, downloads and deletes", function()
    server = nginx.start {
      init = "one = client()",
      locations = {
        ["/all"] = [[
          local patient = one:patient("p")
          local doc = assert(patient:upload({ data = "%PDF-1.4 " .. ("x"):rep(300000) }, { file_name = "a.pdf" }))
          for found in patient:documents() do ngx.say(found.id == doc.id) end
          ngx.say(#assert(assert(doc:open()):read("a")))
          ngx.say(assert(doc:delete()))
          ngx.say(assert(patient:count()))
        ]],
      },
    }
    assert.equal("true\n300009\ntrue\n0", server:get("/all"))
  end)

  it("works in rewrite and access phases, in timers, also of init_worker, and in user coroutines", function()
    document(1000)
    server = nginx.start {
      init = "one = client() seen = {}",
      http = [[init_worker_by_lua_block {
        assert(ngx.timer.at(0, function() seen.timer = one:patient("p"):count() end))
      }]],
      server = [[location = /phases {
        rewrite_by_lua_block { seen.rewrite = one:patient("p"):count() }
        access_by_lua_block { seen.access = one:patient("p"):count() }
        content_by_lua_block {
          local read = coroutine.wrap(function()
            local stream = assert(one:patient("p"):document("d"):open())
            for chunk in stream do coroutine.yield(#chunk) end
            coroutine.yield(one:patient("p"):count())
          end)
          seen.coroutine = read() .. " " .. read()
          while not seen.timer do ngx.sleep(0.01) end
          ngx.say(seen.rewrite, " ", seen.access, " ", seen.timer, " ", seen.coroutine)
        }
      }]],
    }
    assert.equal("1 1 1 1000 1", server:get("/phases"))
  end)

  it("works with lua_code_cache off, and leaks nothing of a request", function()
    document(1000)
    server = nginx.start {
      http = "lua_code_cache off;",
      locations = { ["/count"] = [[
        local one = client()
        ngx.say(one:patient("p"):count(), " ", (assert(one:patient("p"):document("d"):download(function() return 1 end))))
      ]] },
    }
    for _ = 1, 3 do assert.equal("1 1000", server:get("/count")) end
    local worker = server:workers()[1]
    assert.is_true((helper.eventually(5, function() return select(2, descriptors(worker)) == 0 end)))
    assert.equal("1", helper.output("ls /proc/" .. worker .. "/task | wc -l"))
    assert.is_nil(nginx.engine_dir(worker))
  end)

  it("blocks in init, and no worker inherits a connection or a thread", function()
    document(1000)
    server = nginx.start {
      workers = 2,
      init = [[
        one = client()
        count = assert(one:patient("p"):count())
        bytes = assert(one:patient("p"):document("d"):download(function() return 1 end))
        each = require("nymbl").each({ "d" }, nil, function(id) return one:patient("p"):get(id) end)
        local _, err = one:patient("p"):get("none")
        kind = err.kind
      ]],
      locations = { ["/seen"] = "ngx.say(count, ' ', bytes, ' ', each, ' ', kind, ' ', one:patient('p'):count())" },
    }
    local pids
    assert.is_true((helper.eventually(5, function()
      pids = server:workers() -- one after the other
      return #pids == 2
    end)))
    pids[#pids + 1] = server:master()
    for _, pid in ipairs(pids) do
      assert.equal(0, (select(2, descriptors(pid))))
      assert.equal("1", helper.output("ls /proc/" .. pid .. "/task | wc -l"))
      assert.is_nil(nginx.engine_dir(pid))
    end
    assert.equal("1 1000 1 not_found 1", server:get("/seen"))
    assert.equal("1 1000 1 not_found 1", server:get("/seen"))
  end)

  it("is refused in phases that cannot wait, names an alternative, and sends nothing", function()
    document(1000)
    local exit = helper.temporary()
    server = nginx.start {
      init = ([[
        one, seen = client(), {}
        function try(phase)
          local patient, list = one:patient("p"), {}
          local doc = patient:document("d")
          local path = %q
          local calls = {
            function() return patient:count() end,
            function() return patient:get("d") end,
            function() return patient:page() end,
            function() return patient:upload({ data = "%%PDF-1.4 x" }, { file_name = "a.pdf" }) end,
            function() return patient:upload({ data = "%%PDF-1.4 x" }, { file_name = "a.pdf", reconcile = true }) end,
            function() return doc:download(path .. ".pdf") end,
            function() return doc:download(function() return 1 end) end,
            function() return doc:open() end,
            function() return doc:refresh() end,
            function() return doc:delete() end,
            function() return nil, select(2, pcall(patient:documents())) end,
            function()
              local count, failed = require("nymbl").each({ "d" }, nil, function(id) return patient:get(id) end)
              return count > 0 or nil, failed[1].err
            end,
            function() return nil, select(2, pcall(require("nymbl").each, patient:documents(), nil, print)) end,
          }
          for i, call in ipairs(calls) do
            local ran, result, err = pcall(call)
            local word = ran and result == nil and type(err) == "table" and err.attempts == 0 and tostring(err)
              or "call " .. i .. ": " .. tostring(result) .. " " .. tostring(err)
            if list[#list] ~= word then list[#list + 1] = word end
          end
          seen[phase] = table.concat(list, "\n")
          if phase == "exit_worker" then
            local file = io.open(path, "w")
            file:write(seen[phase])
            file:close()
          end
        end
      ]]):format(exit),
      http = [[
        init_worker_by_lua_block { try "init_worker" }
        exit_worker_by_lua_block { try "exit_worker" }
        upstream balanced {
          server 0.0.0.1;
          balancer_by_lua_block { try "balancer" }
        }
      ]],
      server = [[
        location = /filters {
          set_by_lua_block $x { try "set" return 1 }
          content_by_lua_block { ngx.say("hello") }
          header_filter_by_lua_block { try "header_filter" }
          body_filter_by_lua_block { try "body_filter" }
          log_by_lua_block { try "log" }
        }
        location = /balancer { proxy_connect_timeout 100ms; proxy_pass http://balanced; }
      ]],
      locations = { ["/seen"] = "ngx.say(require('cjson').encode(seen))" },
    }
    helper.admin("DELETE", "journal")
    assert.equal("hello", server:get("/filters"))
    server:get("/balancer")
    local seen = helper.json.decode(server:get("/seen"))
    server:stop()
    seen.exit_worker = helper.read_file(exit)
    for _, phase in ipairs { "init_worker", "set", "header_filter", "body_filter", "log", "balancer", "exit_worker" } do
      local lines = 0
      for line in seen[phase]:gmatch "[^\n]+" do
        lines = lines + 1
        assert.equal(("nymbl: %s: context (%s): the call may not wait here: in nginx call from a rewrite, access or "
          .. "content handler or from ngx.timer.at, in an event loop from one of its coroutines, and not from within "
          .. "gsub, sort, require or another C function"):format(line:match "^nymbl: (%l+)", phase), line)
      end
      assert.is_true(lines > 0)
    end
    assert.same({}, helper.admin("GET", "journal").requests)
    assert.is_false(helper.exists(exit .. ".pdf"))
  end)

  it("reads a stream that another request has opened, while that request is active", function()
    document(300000)
    server = nginx.start {
      init = "one = client()",
      locations = {
        ["/open"] = [[
          stream = assert(one:patient("p"):document("d"):open())
          while not done do ngx.sleep(0.01) end
          ngx.say("done")
        ]],
        ["/read"] = [[
          while not stream do ngx.sleep(0.01) end
          local all, err = stream:read("a")
          ngx.say(all and #all or tostring(err))
          if ngx.var.arg_done then done = true end
        ]],
        ["/ended"] = [[
          local all, err = left:read("a")
          ngx.say(err.kind, " ", err.reason)
        ]],
        ["/leave"] = [[
          left = assert(one:patient("p"):document("d"):open())
          assert(left:read(1000))
          has_begun = true
          while not may_end do ngx.sleep(0.01) end
          ngx.say("left")
        ]],
        ["/begun"] = "while not has_begun do ngx.sleep(0.01) end",
        ["/end"] = "may_end = true",
      },
    }
    helper.faults({ operation = "download", action = { drip = 1000000 } },
      { operation = "download", action = { stall = 2000 } })
    local pids = server:curls(1, "/open")
    assert.equal("300000", server:get("/read?done=1"))
    local leaving = server:curls(1, "/leave")
    server:get "/begun"
    local open = connections()
    server:get "/end"
    -- a reader that comes before the end is noticed takes the stream over
    helper.wait_for(function() return connections() < open end)
    assert.equal("canceled disconnected", server:get("/ended"))
    kill(pids)
    kill(leaving)
  end)
end)

describe("nginx without a free connection #nginx", function()
  before_each(setup)

  it("is polled instead", function()
    helper.admin("POST", "seed", { patient = "p", count = 40 })
    server = nginx.start {
      connections = 20,
      init = "one = client()",
      locations = { ["/all"] = [[
        local count, failed = require("nymbl").each(one:patient("p"):documents(), { concurrency = 40 }, function(doc)
          return doc:download(function() return 1 end)
        end)
        ngx.say(count, " ", #failed, " ", tostring(failed[1] and failed[1].err))
      ]] },
    }
    helper.faults { operation = "download", times = -1, action = { delay = 0.1 } }
    assert.equal("40 0 nil", server:get("/all"))
    server:stop()
    assert.is_truthy(server:log():match("worker_connections are not enough"))
    server = nil
  end)
end)

describe("aborted requests in nginx #nginx", function()
  before_each(setup)
  after_each(teardown)

  it("end their transfers and connections without garbage collection", function()
    document(3000000)
    server = nginx.start {
      init = "one = client { max_connections = 100, max_attempts = 1 }",
      http = "lua_check_client_abort on; init_worker_by_lua_block { collectgarbage('stop') }",
      locations = {
        ["/download"] = [[
          local stream = assert(one:patient("p"):document("d"):open())
          for chunk in stream do ngx.print(chunk) ngx.flush(true) end
        ]],
        ["/path"] = ([[
          one:patient("p"):document("d"):download(%q .. ngx.var.arg_n)
        ]]):format(helper.folder .. "/aborted-"),
        ["/count"] = "ngx.say(one:patient('p'):count())",
        ["/live"] = "ngx.say(require('nymbl.core').object_count())",
        ["/collect"] = "collectgarbage() collectgarbage() ngx.say(require('nymbl.core').object_count())",
      },
    }
    local worker = server:workers()[1]
    assert.equal("1", server:get("/count"))
    local before, tcp = connections(), select(2, descriptors(worker))
    local live = tonumber(server:get("/live"))
    helper.faults { operation = "download", times = -1, action = { stall = 200000 } }
    local pids = server:curls(20, "/download")
    for i = 1, 10 do pids[#pids + 1] = server:curls(1, "/path?n=" .. i)[1] end
    assert.is_true((helper.eventually(20, function() return #helper.journal("download") == 30 end)))
    assert.is_true(select(2, descriptors(worker)) >= 30)
    kill(pids)
    local gone, seconds = helper.eventually(20, function()
      return select(2, descriptors(worker)) <= tcp and connections() <= before
    end)
    assert.is_true(gone)
    if os.getenv "NYMBL_SPEC_TIMES" then print("gone after", seconds) end
    assert.equal("", helper.output("ls -A " .. helper.folder .. " | grep aborted"))
    assert.is_true(tonumber(server:get("/live")) <= live + 30) -- objects that Lua still refers to
    assert.equal(live, tonumber(server:get("/collect")))
  end)

  it("do not keep the folder of an export locked", function()
    for i = 1, 6 do document(1000, "d" .. i) end
    local folder = helper.temporary()
    server = nginx.start {
      init = "one = client { max_attempts = 1 }",
      http = "lua_check_client_abort on;",
      locations = {
        ["/export"] = ([[
          local report, err = one:export(%q, { patients = { "p" } })
          ngx.say(report and report.downloaded + report.unchanged or err.reason)
        ]]):format(folder),
      },
    }
    helper.faults { operation = "download", times = -1, action = { stall = 200 } }
    local pids = server:curls(1, "/export")
    assert.is_true((helper.eventually(20, function() return #helper.journal("download") == 4 end)))
    assert.equal("in_use", server:get("/export"))
    kill(pids)
    helper.faults()
    assert.is_truthy((helper.eventually(20, function() return server:get("/export") == "6" end)))
  end)

  it("leak no descriptor and no memory, ten thousand of them #slow", function()
    document(100000)
    local plain = helper.admin("POST", "listen", { tls = "none", name = "plain" })
    server = nginx.start {
      init = ("one = client { base_url = %q, allow_http = true, max_connections = 40 }"):format(plain.url),
      locations = {
        ["/abort"] = [[
          local begun = 0
          for i = 1, 50 do
            ngx.thread.spawn(function()
              local stream = assert(one:patient("p"):document("d"):open())
              begun = begun + 1
              stream:read("a")
            end)
          end
          while begun < tonumber(ngx.var.arg_begun) do ngx.sleep(0.001) end
          ngx.exit(200)
        ]],
        ["/count"] = "ngx.say(one:patient('p'):count())",
        ["/collect"] = [[
          collectgarbage()
          collectgarbage()
          local ffi = require "ffi"
          pcall(ffi.cdef, "int malloc_trim(size_t pad);")
          ffi.C.malloc_trim(0)
          ngx.say(require("nymbl.core").object_count())
        ]],
      },
    }
    helper.faults { operation = "download", times = -1, action = { stall = 50000 } }
    local worker = server:workers()[1]
    local function abort(requests)
      for i = 1, requests / 10 do
        -- between none and the maximum of transfers are in the middle of their body
        local codes = server:get(("/abort?begun=%d&n=[1-10]"):format(i % 5 * 10), "-o /dev/null -w '%{http_code} '")
        assert.equal(("200 "):rep(10), codes)
      end
    end
    local function memory()
      server:get("/collect")
      return tonumber(helper.read_file("/proc/" .. worker .. "/status"):match("VmRSS:%s+(%d+)"))
    end
    abort(100)
    local live = tonumber(server:get("/collect"))
    local before, rss = descriptors(worker), memory()
    abort(100)
    assert.is_true(#helper.journal("download") > 1000) -- the others were waiting to be sent
    assert.is_true((helper.eventually(10, function() return tonumber(server:get("/collect")) <= live end)))
    assert.is_true((helper.eventually(10, function() return descriptors(worker) <= before + 2 end)))
    local grown = memory() - rss
    assert.is_true(grown < 4096, grown .. " KB in 5000") -- so no request can have leaked a KB
    if os.getenv "NYMBL_SPEC_TIMES" then print("on the wire", #helper.journal("download"), "KB", rss, grown) end
    helper.admin("DELETE", "listen?name=plain")
  end)
end)

describe("nginx shutdown #nginx", function()
  before_each(setup)
  after_each(teardown)

  local function start(given)
    local options = {
      workers = 2,
      init = "one = client { max_connections = 100 }",
      locations = {
        ["/download"] = [[
          local bytes, err = one:patient("p"):document("d"):download(function() return 1 end)
          ngx.say(bytes or tostring(err))
        ]],
        ["/ping"] = "ngx.say('pong')",
      },
    }
    for name, value in pairs(given or {}) do options[name] = value end
    server = nginx.start(options)
  end

  -- Ten running downloads. Returns the files that their clients write.
  local function downloads(action)
    document(300000)
    helper.faults { operation = "download", times = -1, action = action }
    local pids, files = server:curls(10, "/download")
    helper.eventually(20, function() return #helper.journal("download") == 10 end)
    return pids, files
  end

  local function folders(pids)
    local list = {}
    for _, pid in ipairs(pids) do list[#list + 1] = nginx.engine_dir_now(pid) end
    assert.is_true(#list > 0)
    return list
  end

  -- Each of these downloads ended well, and nothing is left of these processes.
  local function all_complete(clients, files, workers, dirs)
    assert.is_true((helper.eventually(30, function()
      for _, pid in ipairs(clients) do
        if is_running(pid) then return false end
      end
      return true
    end)))
    for _, file in ipairs(files) do assert.equal("300000\n", helper.read_file(file)) end
    for _, pid in ipairs(workers) do
      assert.is_true((helper.eventually(30, function() return not is_running(pid) end)))
    end
    for _, dir in ipairs(dirs) do assert.is_false(nginx.is_left_behind(dir), dir.path) end
  end

  it("lets running transfers finish on reload, and deletes its directories", function()
    start()
    local clients, files = downloads { drip = 300000 }
    local workers = server:workers()
    local dirs = folders(workers)
    server:signal("HUP")
    assert.equal("pong", server:get("/ping"))
    all_complete(clients, files, workers, dirs)
    helper.faults()
    assert.equal("300000", server:get("/download")) -- the new workers'
  end)

  it("deletes the directory of a killed worker once another one runs", function()
    start()
    downloads { stall = 1000 }
    local killed = server:workers()
    local dirs = folders(killed)
    for _, pid in ipairs(killed) do os.execute("kill -KILL " .. pid) end
    assert.is_true((helper.eventually(10, function()
      local workers = server:workers()
      for _, pid in ipairs(killed) do
        if is_running(pid) then return false end
        for _, new in ipairs(workers) do
          if new == pid then return false end
        end
      end
      return #workers == #killed
    end)))
    helper.faults()
    assert.equal("300000", server:get("/download"))
    for _, dir in ipairs(dirs) do assert.is_false(nginx.is_left_behind(dir), dir.path) end
    server:stop()
    for _, dir in ipairs(dirs) do assert.is_false(nginx.is_left_behind(dir), dir.path) end
    assert.truthy(server:log():find("exited on signal 9", 1, true))
    server = nil
  end)

  it("lets running transfers finish on quit", function()
    start()
    local clients, files = downloads { drip = 300000 }
    local workers = server:workers()
    local dirs = folders(workers)
    workers[#workers + 1] = server:master()
    server:signal("QUIT")
    all_complete(clients, files, workers, dirs)
  end)

  it("ends at once on stop", function()
    start()
    local clients = downloads { stall = 1000 }
    local workers = server:workers()
    local dirs = folders(workers)
    workers[#workers + 1] = server:master()
    local before = connections()
    server:signal("TERM")
    local gone, seconds = helper.eventually(20, function()
      for _, pid in ipairs(workers) do
        if is_running(pid) then return false end
      end
      return true
    end)
    assert.is_true(gone)
    if os.getenv "NYMBL_SPEC_TIMES" then print("stopped after", seconds) end
    for _, dir in ipairs(dirs) do assert.is_false(nginx.is_left_behind(dir), dir.path) end
    assert.is_true((helper.eventually(5, function() return connections() <= before - 10 end)))
    kill(clients)
  end)

  it("is not delayed by a slow name lookup", function()
    local prefix = helper.temporary()
    local code = helper.write_file(helper.temporary(".c"), ([[
      #define _GNU_SOURCE
      #include <dlfcn.h>
      #include <netdb.h>
      #include <stdio.h>
      #include <string.h>
      #include <unistd.h>
      int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
      {
          int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
              (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
          if (node == NULL || strcmp(node, "slow.test") != 0)
              return next(node, service, hints, out);
          fclose(fopen("%s.begun", "w"));
          sleep(5);
          fclose(fopen("%s.ended", "w"));
          return EAI_NONAME;
      }
    ]]):format(prefix, prefix))
    local library = helper.temporary(".so")
    assert.equal("", helper.output(("gcc -shared -fPIC -o %s %s -ldl 2>&1"):format(library, code)))
    start {
      workers = 1,
      environment = ("export LD_PRELOAD=%s;"):format(library),
      init = [[slow = client { base_url = "https://slow.test", timeout = 1 }]],
      locations = {
        ["/slow"] = [[
          local _, err = slow:patient("p"):count()
          ngx.say(err.kind, " ", err.reason)
        ]],
        ["/ping"] = "ngx.say('pong')",
      },
    }
    local clients, files = server:curls(1, "/slow")
    assert.is_true((helper.eventually(10, function() return helper.exists(prefix .. ".begun") end)))
    for _ = 1, 10 do assert.equal("pong", server:get("/ping")) end
    assert.is_true((helper.eventually(10, function() return not is_running(clients[1]) end)))
    assert.equal("timeout deadline\n", helper.read_file(files[1]))
    assert.is_false(helper.exists(prefix .. ".ended"))
    local master = server:master()
    server:signal("QUIT")
    assert.is_true((helper.eventually(20, function() return not is_running(master) end)))
    assert.is_false(helper.exists(prefix .. ".ended"))
  end)

  it("waits until the given time, and no shorter", function()
    server = nginx.start {
      locations = {
        ["/short"] = [[
          local wait = require "nymbl.wait"
          local early = 0
          for i = 1, 60 do
            local deadline = wait.now() + i * 0.0001
            wait.wait(nil, deadline)
            if wait.now() < deadline then early = early + 1 end
          end
          ngx.say(early)
        ]],
      },
    }
    assert.equal("0", server:get("/short"))
    assert.is_nil(server:log():match("%[warn%][^\n]*sleep"))
  end)
end)
