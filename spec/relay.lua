-- SPDX-License-Identifier: MIT
-- A relay in front of the sandbox, in its own process, that breaks connections at a byte of what one
-- side sends. It relays the TCP stream and does not look into it: offset 0 is before the first byte
-- of the TLS handshake, and an offset may be within a TLS record.
--
--   local relay = require("relay").start(port, lanes)   `port` of the server behind it
--   local lane = relay[1]     one of `lanes` (1), each with a port, a plan and a count of its own
--   lane.port
--   lane.plan(number, side, offset, action)   for the connection of this number from now on:
--     after `offset` bytes of side "client" or "server" (0: instead of the first one),
--     "fin" ends the connection in both directions, "reset" resets it,
--     "delay" passes the rest on later, "stall" passes on nothing more of this side.
--     nil: no fault
--   lane.report()             whether the fault has struck; and for each connection since the plan
--                             the bytes passed on: { { client =, server = }, … }
--   relay.stop()
local helper = require "helper"

local relay = {}

-- Commands are lines of its standard input, which ends with the spec; each has one line in response.
local SCRIPT = [==[
  local cqueues, socket, ffi = require "cqueues", require "cqueues.socket", require "ffi"
  ffi.cdef [[
    int setsockopt(int fd, int level, int name, const void *value, unsigned size);
    ssize_t read(int fd, void *buffer, size_t size);
  ]]
  local condition, errno = require "cqueues.condition", require "cqueues.errno"
  local target, count, responses = tonumber(arg[1]), tonumber(arg[2]), assert(io.open(arg[3], "w"))
  local loop, lanes = cqueues.new(), {}

  local function setsockopt(side, level, name, ...)
    local value = ffi.new("int[?]", select("#", ...), ...)
    assert(ffi.C.setsockopt(side:pollfd(), level, name, value, ffi.sizeof(value)) == 0)
  end

  -- The next bytes of a side, or nil at its end or once the connection is reset.
  local function receive(pair, from)
    local data, problem
    repeat
      if problem then cqueues.poll(from, pair.reset) end
      if pair.is_reset then return nil end
      data, problem = from:recv(-16384)
    until problem ~= errno.EAGAIN
    return data
  end

  -- What a side sends after the fault is read, too: closing a connection with unread bytes would reset it.
  local function forward(pair, name, from, to)
    local plan, sent = pair.fault and pair.fault.side == name and pair.fault, pair.sent
    while true do
      local data = receive(pair, from)
      if not data then break end
      if plan and sent[name] + #data >= plan.offset then
        local first = plan.offset - sent[name]
        if first > 0 then
          sent[name] = plan.offset
          to:xwrite(data:sub(1, first), "bn")
        end
        data = data:sub(first + 1)
        plan.struck = true
        if plan.action == "delay" then
          cqueues.sleep(0.01)
        elseif plan.action == "reset" then
          pair.is_reset = true
          pair.reset:signal()
          break
        elseif plan.action == "fin" then
          pair.silent = { client = true, server = true }
          pcall(to.shutdown, to, "w")
          pcall(from.shutdown, from, "w")
        else
          pair.silent[name] = true
        end
        plan = nil
      end
      if not pair.silent[name] and #data > 0 then
        sent[name] = sent[name] + #data
        if not to:xwrite(data, "bn") then break end
      end
    end
    if not pair.is_reset then pcall(to.shutdown, to, "w") end
    pair.open = pair.open - 1
    if pair.open > 0 then return end
    for _, side in ipairs { pair.client, pair.server } do
      if pair.is_reset then setsockopt(side, 1, 13, 1, 0) end -- SO_LINGER of no seconds
      side:close()
    end
  end

  local function serve(lane)
    while true do
      local client = lane.listener:accept()
      local plan = lane.plan
      local pair = {
        client = client, open = 2, sent = { client = 0, server = 0 }, silent = {}, reset = condition.new(),
        server = socket.connect("127.0.0.1", target),
      }
      plan.connections[#plan.connections + 1] = pair.sent
      if plan.number == #plan.connections then pair.fault = plan end
      for _, side in ipairs { pair.client, pair.server } do
        side:setmode("bn", "bn")
        side:onerror(function(_, _, code) return code end)
        setsockopt(side, 6, 1, 1) -- TCP_NODELAY
      end
      loop:wrap(function() forward(pair, "client", pair.client, pair.server) end)
      loop:wrap(function() forward(pair, "server", pair.server, pair.client) end)
    end
  end

  local commands = {}

  function commands.plan(lane, words)
    local number, side, offset, action = words:match "^(%d+) (%l+) (%d+) (%l+)$"
    lane.plan = { connections = {}, number = tonumber(number), side = side, offset = tonumber(offset), action = action }
    return "ok"
  end

  function commands.report(lane)
    local words = { lane.plan.struck and "struck" or "passed" }
    for _, sent in ipairs(lane.plan.connections) do words[#words + 1] = ("%d/%d"):format(sent.client, sent.server) end
    return table.concat(words, " ")
  end

  local function respond(text)
    responses:write(text, "\n")
    responses:flush()
  end

  local ports = {}
  for i = 1, count do
    local listener = socket.listen { host = "127.0.0.1", port = "0" }
    listener:listen()
    local lane = { listener = listener }
    lanes[i], ports[i] = lane, select(3, listener:localname())
    commands.plan(lane, "")
    loop:wrap(function() serve(lane) end)
  end
  respond(table.concat(ports, " "))
  loop:wrap(function()
    local buffer, text = ffi.new "char[4096]", ""
    while true do
      cqueues.poll { pollfd = 0, events = "r" }
      local got = tonumber(ffi.C.read(0, buffer, 4096))
      if got <= 0 then os.exit(0) end
      text = (text .. ffi.string(buffer, got)):gsub("(%l+) (%d+) ?([^\n]*)\n", function(name, lane, words)
        respond(commands[name](lanes[tonumber(lane)], words))
        return ""
      end)
    end
  end)
  while true do
    local _, problem = loop:loop()
    if problem then io.stderr:write(tostring(problem), "\n") end
  end
]==]

function relay.start(target, lanes)
  local script, fifo = helper.write_file(helper.temporary(".lua"), SCRIPT), helper.temporary(".fifo")
  assert(helper.output("mkfifo " .. helper.quote(fifo)) == "")
  local commands = assert(io.popen(("exec luajit %s %d %d %s"):format(script, target, lanes or 1, fifo), "w"))
  local responses = assert(io.open(fifo, "r"))

  local function response()
    return (assert(responses:read "*l", "the relay has ended"))
  end

  local function ask(...)
    commands:write(table.concat({ ... }, " "), "\n")
    commands:flush()
    return response()
  end

  local self = {}
  for port in response():gmatch "%d+" do
    local number = #self + 1
    local lane = { port = tonumber(port) }

    function lane.plan(...)
      ask("plan", number, ...)
    end

    function lane.report()
      local words = ask("report", number)
      local connections = {}
      for client, server in words:gmatch " (%d+)/(%d+)" do
        connections[#connections + 1] = { client = tonumber(client), server = tonumber(server) }
      end
      return words:find "^struck" ~= nil, connections
    end

    self[number] = lane
  end

  function self.stop()
    commands:close()
    responses:close()
  end

  return self
end

return relay
