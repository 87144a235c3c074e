-- SPDX-License-Identifier: MIT
-- A server between a client and a Redis, which can spoil a reply. It runs in a process of its own, and
-- ends with the one that started it.
local helper = require "helper"

local redis_proxy = {}
redis_proxy.__index = redis_proxy

local quote = helper.quote

local SCRIPT = [==[
  local cqueues, socket = require "cqueues", require "cqueues.socket"
  local port, path = ...
  local listener = socket.listen { host = "127.0.0.1", port = "0" }
  listener:listen()
  local loop = cqueues.new()

  -- What to do with the next reply, once.
  local function task()
    local file = io.open(path .. ".task")
    if not file then return "pass" end
    local text = file:read("*a")
    file:close()
    os.remove(path .. ".task")
    return text
  end

  local function forward(from, to, is_reply)
    local last = ""
    while true do
      local bytes = from:read(-65536)
      if not bytes then break end
      local what = is_reply and task() or "pass"
      if what == "swallow" then break end
      if what == "cut" then bytes = bytes:sub(1, #bytes / 2) end
      local is_kept = what == "pass" or what == "again" or what == "twice"
      if what == "again" then bytes = last .. bytes end
      if what == "twice" then bytes = bytes .. bytes end
      if not is_kept and what ~= "cut" then bytes = what end
      last = bytes
      to:write(bytes)
      to:flush()
      if not is_kept then
        cqueues.sleep(0.05)
        break
      end
    end
    from:shutdown "rw"
    to:shutdown "rw"
  end

  loop:wrap(function()
    while true do
      local client = listener:accept()
      local server = socket.connect("127.0.0.1", tonumber(port))
      for _, it in ipairs { client, server } do
        it:setmode("bn", "bn")
        it:onerror(function(_, _, code) return code end)
      end
      loop:wrap(function() forward(client, server) end)
      loop:wrap(function() forward(server, client, true) end)
    end
  end)
  local file = io.open(path .. ".new", "w")
  file:write((select(3, listener:localname())), "\n")
  file:close()
  os.rename(path .. ".new", path)
  loop:wrap(function()
    cqueues.poll { pollfd = 0, events = "r" }
    os.exit(0)
  end)
  loop:loop()
]==]

--- Start a proxy for the server on a port of this machine.
-- @treturn table `port`, `url`
function redis_proxy.start(port)
  local self = setmetatable({ path = helper.temporary(".proxy") }, redis_proxy)
  local script = helper.write_file(helper.temporary(".lua"), SCRIPT)
  self.pipe = assert(io.popen(("exec luajit %s %d %s"):format(quote(script), port, quote(self.path)), "w"))
  helper.eventually(5, function() return helper.exists(self.path) end)
  self.port = tonumber(helper.read_file(self.path))
  self.url = "redis://127.0.0.1:" .. self.port
  return self
end

--- Replace the next reply, and then close the connection: "swallow" (nothing is sent), "cut" (half of it
-- is sent), or the bytes to send instead. Or send a reply too many: "twice" (the next one again), or
-- "again" (the one before the next one).
function redis_proxy:spoil(task)
  helper.write_file(self.path .. ".task.new", task)
  os.rename(self.path .. ".task.new", self.path .. ".task")
end

--- Whether the next reply is still to be spoilt.
function redis_proxy:is_waiting()
  return helper.exists(self.path .. ".task")
end

function redis_proxy:stop()
  self.pipe:close()
end

return redis_proxy
