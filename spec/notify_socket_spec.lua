-- SPDX-License-Identifier: MIT
-- nginx without a usable notify listener, because a cleaner of temporary files removed its directory
-- or no socket is available: calls continue without log lines, and an abort ends its transfer.
local helper = require "helper"
local nginx = require "nginx"

local server

local function is_socket(path)
  local code = os.execute("test -S " .. helper.quote(path))
  return code == true or code == 0
end

local function start(init, locations)
  locations["/count"] = "ngx.say(one:patient('p'):count())"
  locations["/stream"] = [[
    local stream = assert(one:patient("p"):document("d"):open())
    for chunk in stream do ngx.print(chunk) ngx.flush(true) end
  ]]
  locations["/sink"] = [[
    local bytes, err = one:patient("p"):document("d"):download(function() return 1 end)
    ngx.say(bytes or tostring(err))
  ]]
  server = nginx.start {
    init = "one = client { max_connections = 100, max_attempts = 1 } " .. init,
    http = "lua_check_client_abort on; init_worker_by_lua_block { collectgarbage('stop') }",
    locations = locations,
  }
end

-- Abort some requests whose responses stall. Returns the seconds until their connections are closed.
local function aborted_end(seconds)
  local before = helper.admin("GET", "state").connections
  helper.admin("DELETE", "journal")
  helper.faults { operation = "download", times = 10, action = { stall = 200000 } }
  local pids = server:curls(5, "/stream")
  for _, pid in ipairs(server:curls(5, "/sink")) do pids[#pids + 1] = pid end
  assert.is_true((helper.eventually(20, function() return #helper.journal("download") == 10 end)))
  os.execute("sleep 0.2")
  os.execute("kill " .. table.concat(pids, " "))
  return helper.eventually(seconds, function() return helper.admin("GET", "state").connections <= before end)
end

describe("the directory of the notify sockets in nginx #nginx", function()
  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "d", size = 3000000, content_type = "application/pdf" })
  end)

  after_each(function()
    server:stop()
    assert.is_nil(server:log():match("%[crit%]"), server:log())
    assert.is_nil(server:log():match("%[alert%]"), server:log())
    server = nil
  end)

  for what, command in pairs {
    ["the directory is deleted"] = "rm -rf %s",
    ["the socket is deleted"] = "rm %s/notify",
    ["a file replaces the directory"] = "rm -rf %s && touch %s",
    ["another directory replaces it"] = "rm -rf %s && mkdir -m 755 %s",
  } do
    it("is created again if " .. what, function()
      start("", {})
      local worker = server:workers()[1]
      for _ = 1, 3 do
        assert.equal("1", server:get("/count"))
        local folders = nginx.engine_dirs(worker)
        assert.equal(1, #folders)
        os.execute((command:gsub("%%s", folders[1])))
        assert.equal("3000000", server:get("/sink"))
        local found
        for _, folder in ipairs(nginx.engine_dirs(worker)) do found = found or is_socket(folder .. "/notify") end
        assert.is_true(found)
        if command:find "touch" then os.remove(folders[1]) end
        if command:find "mkdir" then os.execute("rmdir " .. folders[1]) end
      end
      assert.is_true((aborted_end(2)))
    end)
  end

  for how, code in pairs {
    ["no socket can be created"] = "ngx.socket.tcp = function() return nil, 'no' end",
    ["the connection fails"] = [[
      local tcp = ngx.socket.tcp
      ngx.socket.tcp = function()
        local socket = tcp()
        return setmetatable({ connect = function() return nil, "no" end, close = function() end },
          { __index = function(_, name) return function(_, ...) return socket[name](socket, ...) end end })
      end]],
    ["the token cannot be sent"] = [[
      local tcp = ngx.socket.tcp
      ngx.socket.tcp = function()
        local socket = tcp()
        return setmetatable({ send = function() return nil, "no" end },
          { __index = function(_, name) return function(_, ...) return socket[name](socket, ...) end end })
      end]],
  } do
    it("is not needed to end the transfers of aborted requests: " .. how, function()
      start("", { ["/break"] = code .. " ngx.say('broken')" })
      assert.equal("1", server:get("/count"))
      assert.equal("broken", server:get("/break"))
      assert.is_true((aborted_end(15)))
      -- a slow request is not aborted
      helper.faults { operation = "download", action = { delay = 6 } }
      assert.equal("3000000", server:get("/sink"))
    end)
  end
end)
