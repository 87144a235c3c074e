-- SPDX-License-Identifier: MIT
-- Listeners and connections: accept, TLS handshake, and one request after the other.

local admin = require "admin"
local certificates = require "certificates"
local cqueues = require "cqueues"
local errno = require "cqueues.errno"
local exchange = require "exchange"
local h1_connection = require "http.h1_connection"
local request = require "request"
local socket = require "cqueues.socket"
local wire = require "wire"

local server = {}
server.__index = server

local HANDSHAKE_SECONDS = 20
local ADMIN_IDLE_SECONDS = 86400
local SETTLING_PASSES = 8 -- iterations of the loop: to accept a connection, read its request, and carry it out
local BUFFER_BYTES, MAX_LINE = 65536, 65536

--- A server of `state`, run by the controller `loop`, its certificates signed by `authority`.
function server.new(loop, authority, state)
  return setmetatable({
    loop = loop, authority = authority, state = state, listeners = {}, connections = 0, accepted = 0,
  }, server)
end

-- An error handler for sockets that returns errors as values instead of raising them: clients may misbehave.
local function return_error(_, _, why)
  return why
end

local function secure(listener, connection)
  if not listener.context then
    return true
  elseif not connection.socket:starttls(listener.context, HANDSHAKE_SECONDS) then
    return false
  end
  connection.tls = connection.socket:checktls()
  return true
end

-- The admin port serves the admin paths and the token endpoint. It does not serve documents: they are
-- served over TLS only.
local function serve_admin_request(self, connection)
  if not connection.socket:fill(1, ADMIN_IDLE_SECONDS) then
    return false
  end
  local received = request.read(connection)
  if not received then
    return false
  end
  self.state.api:classify(received)
  if received.operation == "token" then
    return exchange.serve(self.state, received)
  end
  -- Let earlier requests on other connections be read first: a test may ask about them, or reset.
  for _ = 1, SETTLING_PASSES do
    cqueues.sleep(0)
  end
  return admin.serve(self.state, received)
end

local function serve_request(self, connection)
  if connection.listener.admin then
    return serve_admin_request(self, connection)
  end
  local idle = connection.idle_seconds or self.state.settings.keep_alive
  if idle <= 0 or not connection.socket:fill(1, idle) then
    return false
  end
  local received, problem = request.read(connection)
  if not received then
    if problem then
      wire.write(connection, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    end
    return false
  end
  self.state.api:classify(received)
  if received.operation == "admin" then
    return admin.serve(self.state, received)
  end
  return exchange.serve(self.state, received)
end

local function serve_connection(self, connection)
  local listener = connection.listener
  connection.socket:onerror(return_error)
  connection.socket:setbufsiz(BUFFER_BYTES, BUFFER_BYTES)
  connection.socket:setmaxline(MAX_LINE)
  if not secure(listener, connection) then
    wire.close(connection, "cut")
    return
  end
  local plan = not listener.admin and self.state.faults:take_connection(listener)
  if plan then
    wire.close(connection, plan.action.accept == "reset" and "reset" or "clean")
    return
  end
  connection.http = h1_connection.new(connection.socket, "server", 1.1)
  connection.socket:onerror(return_error)
  while not connection.closed and serve_request(self, connection) do end
  wire.close(connection, "clean")
end

-- Serve a connection. An error is printed, and does not end the server.
local function run_connection(self, connection)
  local counted = connection.listener.admin and 0 or 1
  self.connections = self.connections + counted
  local ok, problem = xpcall(serve_connection, debug.traceback, self, connection)
  if not ok then
    io.stderr:write("sandbox: ", tostring(problem), "\n")
    pcall(connection.socket.close, connection.socket)
  end
  self.connections = self.connections - counted
end

local function accept(self, listener)
  while listener.open do
    -- raises if unlisten() closes the socket during the wait
    local ran, accepted, why = pcall(listener.socket.accept, listener.socket, { nodelay = true }, nil)
    if ran and accepted then
      self.accepted = self.accepted + 1
      local connection = { number = self.accepted, listener = listener, socket = accepted }
      self.loop:wrap(run_connection, self, connection)
    elseif listener.open and why ~= errno.ETIMEDOUT then
      cqueues.sleep(0.05) -- out of descriptors, most likely
    end
  end
end

--- Open a listener with a certificate of some kind ("none": plain HTTP). Returns nil and a problem on failure.
function server:listen(kind, name, port)
  local listener = { name = name, open = true }
  if kind ~= "none" then
    local context, problem = certificates.context(kind, self.authority)
    if not context then
      return nil, problem
    end
    listener.context = context
  end
  listener.socket = socket.listen { host = "127.0.0.1", port = tostring(port or 0), reuseaddr = true }
  listener.socket:onerror(return_error)
  local ok, why = listener.socket:listen()
  if not ok then
    return nil, errno.strerror(why)
  end
  local _, _, bound = listener.socket:localname()
  listener.port = bound
  listener.url = ("%s://localhost:%d"):format(listener.context and "https" or "http", bound)
  self.listeners[name] = listener
  self.loop:wrap(accept, self, listener)
  return listener
end

--- Open the admin port: plain HTTP, for the admin paths and the token endpoint only.
function server:listen_admin()
  local listener, problem = self:listen("none", "admin")
  if listener then
    listener.admin = true
  end
  return listener, problem
end

--- Close a listener; its connections stay open.
function server:unlisten(name)
  local listener = self.listeners[name]
  if not listener or name == "main" or listener.admin then
    return false
  end
  self.listeners[name] = nil
  listener.open = false
  cqueues.cancel(listener.socket:pollfd())
  listener.socket:close()
  return true
end

return server
