-- SPDX-License-Identifier: MIT
-- Programs in network namespaces of their own, as on other machines. They reach ports of 127.0.0.1 here by two
-- relays, one on each side, with Unix sockets between them: those cross namespaces.
--
--   local network, stop = namespace.serve(ports)   nil if this process may not create namespaces
--   network.command                                the words before a program's that give it a namespace
--   namespace.enter(network)                       in that program, which gets `network` as JSON: it reaches the
--                                                  same ports on its own 127.0.0.1
--
-- A relay ends with the process that started it.
local helper = require "helper"

local namespace = {}

local quote = helper.quote

local SCRIPT = [==[
  local ffi = require "ffi"
  local side, folder = ...
  if side == "inside" then -- a new namespace has a loopback interface, but it is down
    ffi.cdef "int socket(int domain, int type, int protocol); int ioctl(int fd, unsigned long request, ...);"
    local request = ffi.new("struct { char name[16]; short flags; char rest[22]; }", "lo", 1) -- struct ifreq, IFF_UP
    assert(ffi.C.ioctl(ffi.C.socket(2, 2, 0), 0x8914, request) == 0, "lo stays down") -- AF_INET, SOCK_DGRAM; SIOCSIFFLAGS
  end
  if not folder then return end -- it was a trial

  local cqueues, socket = require "cqueues", require "cqueues.socket"
  local loop = cqueues.new()

  local function forward(from, to)
    repeat
      local bytes = from:read(-65536)
    until not bytes or not to:xwrite(bytes, "bn")
    from:shutdown "rw"
    to:shutdown "rw"
  end

  for _, port in ipairs { select(3, ...) } do
    local tcp, unix = { host = "127.0.0.1", port = port }, { path = folder .. "/" .. port }
    local from, to = unix, tcp
    if side == "inside" then from, to = tcp, unix end
    local listener = socket.listen(from)
    assert(listener:listen())
    loop:wrap(function()
      while true do
        local client, server = listener:accept(), socket.connect(to)
        for _, it in ipairs { client, server } do
          it:setmode("bn", "bn")
          it:onerror(function(_, _, code) return code end)
        end
        loop:wrap(function() forward(client, server) end)
        loop:wrap(function() forward(server, client) end)
      end
    end)
  end
  print "ready"
  io.stdout:flush()
  loop:wrap(function()
    cqueues.poll { pollfd = 0, events = "r" }
    os.exit(0)
  end)
  assert(loop:loop())
]==]

local function script()
  return helper.write_file(helper.temporary(".lua"), SCRIPT)
end

local function start_relay(side, network)
  local ready = helper.temporary(".ready")
  -- the paths of this interpreter may be those of another Lua
  local pipe = assert(io.popen(("exec env -u LUA_PATH -u LUA_CPATH luajit %s %s %s %s >%s"):format(quote(script()), side,
    quote(network.folder), network.ports, quote(ready)), "w"))
  helper.wait_for(function() return helper.exists(ready) and helper.read_file(ready) == "ready\n" end)
  return pipe
end

function namespace.serve(ports)
  for _, command in ipairs { "unshare -n", "unshare -rn" } do -- -r: for a user who is not root
    if helper.output(("%s luajit %s inside 2>&1 && echo works"):format(command, quote(script()))) == "works" then
      local network = { command = command, folder = helper.directory(), ports = table.concat(ports, " ") }
      local pipe = start_relay("outside", network)
      return network, function() pipe:close() end
    end
  end
end

function namespace.enter(network)
  namespace.relay = start_relay("inside", network) -- kept until the end of the program
end

--- The network namespace of this process.
function namespace.name()
  return helper.output "readlink /proc/self/ns/net"
end

return namespace
