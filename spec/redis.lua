-- SPDX-License-Identifier: MIT
-- A real redis-server for specs, in its own directory, on a free port and on a socket there. It
-- ends with the process that started it, also if it is stopped by a signal or busy.
local helper = require "helper"
local redis_proxy = require "redis_proxy"

local redis = {}
redis.__index = redis

local quote = helper.quote

-- Ports below those that the system gives to outgoing connections.
local FIRST_PORT, PORTS = 20000, 10000
local next_port = tonumber(helper.pid()) * 16 -- other specs run at the same time

-- An authority, and a certificate for this machine. Every server of this run has the same ones.
local function certificates()
  local folder = helper.folder .. "/redis-certificates"
  if helper.exists(folder) then return folder end
  assert(os.execute("mkdir " .. quote(folder)))
  helper.output(([[
    cd %s && exec 2>&1
    new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "$@" || exit; }
    new -keyout ca.key -out ca.pem -subj "/CN=authority of nymbl's specs"
    new -keyout server.key -out server.pem -subj /CN=localhost -CA ca.pem -CAkey ca.key \
      -addext "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
  ]]):format(quote(folder)))
  assert(helper.exists(folder .. "/server.pem"), "openssl failed")
  return folder
end

local function words(list)
  local quoted = {}
  for i, word in ipairs(list) do quoted[i] = quote(word) end
  return table.concat(quoted, " ")
end

-- Start the server on a port. Returns whether it runs: the port may be in use.
local function try(self, port)
  local folder = self.folder
  local arguments = { "--dir", folder, "--unixsocket", self.path, "--save", "", "--bind", "127.0.0.1",
                      "--port", self.ca and 0 or port }
  if self.ca then
    local tls = certificates()
    for _, word in ipairs { "--tls-port", port, "--tls-auth-clients", "no", "--tls-ca-cert-file", tls .. "/ca.pem",
                            "--tls-cert-file", tls .. "/server.pem", "--tls-key-file", tls .. "/server.key" } do
      arguments[#arguments + 1] = word
    end
  end
  if self.password then
    arguments[#arguments + 1] = "--requirepass"
    arguments[#arguments + 1] = self.password
  end
  for _, word in ipairs(self.args) do arguments[#arguments + 1] = word end
  os.execute(("rm -f %s/pid %s"):format(quote(folder), quote(self.path)))
  -- it ends with the pipe, so it cannot outlive this process
  self.pipe = assert(io.popen(("cd %s; %s redis-server %s >>log 2>&1 & child=$!; echo $child >pid; read -r _; "
    .. "kill -KILL $child 2>/dev/null; wait $child 2>/dev/null"):format(quote(folder), self.environment, words(arguments)), "w"))
  helper.eventually(10, function() -- it creates its socket last, before it loads its data
    return helper.exists(self.path)
      or helper.output(("cd %s; [ ! -s pid ] || kill -0 $(cat pid) 2>&1"):format(quote(folder))) ~= ""
  end)
  if helper.exists(self.path) then
    self.port, self.url = port, (self.ca and "rediss://localhost:%d" or "redis://127.0.0.1:%d"):format(port)
    self.pid = tonumber(helper.read_file(folder .. "/pid"):match("%d+"))
    return true
  end
  self:stop()
  return false
end

local function start(self)
  if self.port then
    assert(try(self, self.port), "redis-server did not start again")
    return self
  end
  for _ = 1, 20 do
    local port = FIRST_PORT + next_port % PORTS
    next_port = next_port + 1
    if try(self, port) then return self end
  end
  error("redis-server did not start: " .. helper.read_file(self.folder .. "/log"))
end

--- Start a redis-server. It keeps nothing on disk, unless `args` say otherwise. While it loads
-- its data, it has already started.
--
-- @tparam ?table options `tls` (its port expects TLS), `password` (of its default user), `args`
--   (a list of further arguments, such as `{ "--maxmemory", "2mb" }`), `environment` (shell words before the
--   command)
-- @treturn table `port` (of 127.0.0.1), `url` (with that), `path` (of its Unix socket), `ca` (with `tls`:
--   the file of its authority's certificate), `pid`, `folder` (with its log)
function redis.start(options)
  options = options or {}
  local self = setmetatable({ args = options.args or {}, password = options.password,
                              environment = options.environment or "" }, redis)
  self.folder = helper.directory()
  self.path = self.folder .. "/redis.sock"
  if options.tls then self.ca = certificates() .. "/ca.pem" end
  return start(self)
end

--- Start a node of a cluster. It also needs the port that is higher by 10000, which may be in use.
function redis.start_node()
  for _ = 1, 10 do
    local server = redis.start { args = { "--cluster-enabled", "yes" } }
    if helper.output(("timeout 2 redis-cli -p %d PING 2>&1"):format(server.port)) == "PONG" then return server end
    server:stop()
  end
  error "no node of a cluster did start"
end

--- Kill it, and start it again on the same port and in the same directory.
-- @tparam ?table args further arguments instead of the first ones
function redis:restart(args)
  self:stop()
  self.args = args or self.args
  return start(self)
end

--- Send it a signal: "STOP", "CONT", "TERM", "KILL".
function redis:signal(name)
  os.execute(("kill -%s %d"):format(name, self.pid))
end

--- Run redis-cli, over the socket, with these words. Returns its output.
function redis:cli(...)
  local password = self.password and "REDISCLI_AUTH=" .. quote(self.password) or ""
  return helper.output(("%s timeout 10 redis-cli -s %s %s 2>&1"):format(password, quote(self.path), words { ... }))
end

--- The number of connections to its port.
function redis:connections()
  local clients, count = self:cli("CLIENT", "LIST"), 0
  for flags in clients:gmatch("flags=(%S+)") do
    if not flags:find("U", 1, true) then count = count + 1 end -- U: by its socket
  end
  return count
end

--- The lines of its log.
function redis:log()
  return helper.read_file(self.folder .. "/log")
end

--- Kill it, and wait until it has ended.
function redis:stop()
  if not self.pipe then return end
  self.pipe:close() -- waits for its end
  self.pipe = nil
end

-- What a test has started. Its state: an array of functions.
local group = {}
group.__index = group

--- Make a group of what a test starts and its end stops.
function redis.group()
  return setmetatable({}, group)
end

--- Start a redis-server, see above.
function group:start(options)
  local server = redis.start(options)
  self:add(function() server:stop() end)
  return server
end

--- Start a proxy for the server on a port of this machine (redis_proxy.lua).
function group:start_proxy(port)
  local proxy = redis_proxy.start(port)
  self:add(function() proxy:stop() end)
  return proxy
end

--- Add a function that stops something else.
function group:add(stop)
  self[#self + 1] = stop
end

--- Stop all, in the order in which they were started. The group is empty then: LuaJIT keeps what is in a
-- frame, so a caller's frame may keep the group.
function group:stop()
  for i, stop in ipairs(self) do
    stop()
    self[i] = nil
  end
end

return redis
