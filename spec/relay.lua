-- SPDX-License-Identifier: MIT
-- A relay in front of the sandbox, in its own process, that breaks connections: at a byte of what
-- one side sends, TLS handshake included, it ends, stalls or delays the connection.
--
--   local relay = require("relay").start(port)   `port` of the server behind it
--   relay.port
--   relay.plan(number, side, offset, action)     for the connection of this number from now on:
--     side "client" or "server"; action "fin", "reset", "stall" or "delay". nil: no fault
--   relay.connections()                          the number of connections since the plan
--   relay.stop()
local helper = require "helper"

local relay = {}

local SCRIPT = [==[
  local cqueues, socket, ffi = require "cqueues", require "cqueues.socket", require "ffi"
  ffi.cdef "int setsockopt(int fd, int level, int name, const void *value, unsigned size);"
  local target, folder = ...
  local loop, listener, count, serial = cqueues.new(), socket.listen { host = "127.0.0.1", port = "0" }, 0, nil
  listener:listen()
  local _, _, port = listener:localname()

  local function write_file(name, text)
    local file = io.open(folder .. "/" .. name .. ".new", "w")
    file:write(text)
    file:close()
    os.rename(folder .. "/" .. name .. ".new", folder .. "/" .. name)
  end

  -- The fault of the next connection, if it has one.
  local function fault_next()
    local file = io.open(folder .. "/plan")
    local plan = file and file:read "*a" or ""
    if file then file:close() end
    if plan ~= serial then serial, count = plan, 0 end
    count = count + 1
    write_file("count", plan:match "^%d*" .. " " .. count)
    local number, side, offset, action = plan:match "^%d+ (%d+) (%l+) (%d+) (%l+)"
    if tonumber(number) == count then return { side = side, offset = tonumber(offset), action = action } end
  end

  local function finish(pair, how)
    if pair.ended then return end
    pair.ended = true
    for _, side in ipairs { pair.client, pair.server } do
      if how == "reset" then ffi.C.setsockopt(side:pollfd(), 1, 13, ffi.new("int[2]", 1, 0), 8) end -- SO_LINGER
      side:close()
    end
  end

  local function forward(pair, name, from, to)
    local fault = pair.fault and pair.fault.side == name and pair.fault
    local sent = 0
    while not pair.ended do
      local data = from:read(-16384)
      if not data or pair.ended then break end
      if fault and sent + #data > fault.offset then
        local first = fault.offset - sent
        if first > 0 then to:xwrite(data:sub(1, first), "bn") end
        if fault.action == "delay" then
          cqueues.sleep(0.03)
        elseif fault.action == "stall" then
          return -- the other direction goes on
        else
          finish(pair, fault.action)
          return
        end
        data, sent, fault = data:sub(first + 1), fault.offset, nil
      end
      if not to:xwrite(data, "bn") then break end
      sent = sent + #data
    end
    if not pair.ended then pcall(to.shutdown, to, "w") end
    pair.open = pair.open - 1
    if pair.open == 0 then finish(pair) end
  end

  loop:wrap(function()
    while true do
      local client = listener:accept()
      local pair = { client = client, server = socket.connect("127.0.0.1", target), fault = fault_next(), open = 2 }
      for _, side in ipairs { pair.client, pair.server } do
        side:setmode("bn", "bn")
        side:onerror(function(_, _, code) return code end)
      end
      loop:wrap(function() forward(pair, "client", pair.client, pair.server) end)
      loop:wrap(function() forward(pair, "server", pair.server, pair.client) end)
    end
  end)
  loop:wrap(function() -- its standard input ends with the spec
    cqueues.poll { pollfd = 0, events = "r" }
    os.exit(0)
  end)
  write_file("port", tostring(port))
  while true do
    local _, problem = loop:loop()
    if problem then io.stderr:write(tostring(problem), "\n") end
  end
]==]

function relay.start(target)
  local folder, serial = helper.directory(), 0
  local script = helper.write_file(helper.temporary(".lua"), SCRIPT)
  local pipe = assert(io.popen(("exec luajit %s %d %s 2>%s/errors"):format(script, target, folder, folder), "w"))
  helper.wait_for(function() return helper.exists(folder .. "/port") end)
  local self = { port = tonumber(helper.read_file(folder .. "/port")) }

  function self.plan(number, side, offset, action)
    serial = serial + 1
    helper.write_file(folder .. "/plan.new",
      number and ("%d %d %s %d %s"):format(serial, number, side, offset, action) or ("%d"):format(serial))
    assert(os.rename(folder .. "/plan.new", folder .. "/plan"))
  end

  function self.connections()
    local file = io.open(folder .. "/count")
    local text = file and file:read "*a" or ""
    if file then file:close() end
    local of, count = text:match "^(%d+) (%d+)$"
    return tonumber(of) == serial and tonumber(count) or 0
  end

  function self.stop()
    pipe:close()
  end

  self.plan()
  return self
end

return relay
