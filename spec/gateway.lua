-- SPDX-License-Identifier: MIT
-- examples/gateway for specs: started by its run command, in front of the sandbox. It ends with
-- the process that started it.
local helper = require "helper"

local quote = helper.quote

local gateway = {}
gateway.__index = gateway

--- The checkout.
gateway.root = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")

local SETTINGS = { "BASE_URL", "API_KEY", "CA_FILE", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "SCOPE" }

--- Wait for a condition; `what` is for the error message.
function gateway.wait_until(what, condition)
  if not helper.eventually(20, condition) then error("in vain: " .. what, 2) end
end

--- A port of 127.0.0.1 that is free at present.
function gateway.free_port()
  return tonumber(helper.output [[luajit -e '
    local listener = require("cqueues.socket").listen { host = "127.0.0.1", port = "0" }
    listener:listen()
    print((select(3, listener:localname())))']])
end

--- Start the run command.
-- @tparam table options `folder` (the checkout), `sandbox` (settings of the service; without them it
--   starts its own), `listen` (default: a socket), `users` (a file)
function gateway.start(options)
  local self = setmetatable({ out = helper.temporary ".out", socket = helper.temporary ".sock",
                              temporary = helper.directory(), jar = helper.temporary ".jar" }, gateway)
  local words = { "cd / && exec env", "TMPDIR=" .. self.temporary }
  for _, name in ipairs(options.sandbox and SETTINGS or {}) do
    words[#words + 1] = ("NYMBL_%s=%s"):format(name, quote(options.sandbox[name:lower()]))
  end
  words[#words + 1] = ("%s/examples/gateway/run --stdin --limits off --listen %s %s >%s 2>&1"):format(
    quote(options.folder or gateway.root), options.listen or "unix:" .. self.socket,
    options.users and "--users " .. options.users or "", self.out)
  self.pipe = assert(io.popen(table.concat(words, " "), "w")) -- it ends with the pipe
  helper.wait_for(function()
    local text = helper.exists(self.out) and helper.read_file(self.out) or ""
    self.logs = text:match "Its logs are in (%S+),"
    self.password = text:match "password (%x+)%."
    return self.logs or text:find "\ngateway: "
  end)
  return self
end

--- The same on a free port. The result also has `url`.
function gateway.start_on_port(options)
  for _ = 1, 5 do -- another program may take the port first
    local port = gateway.free_port()
    local self = gateway.start { sandbox = options.sandbox, users = options.users, listen = "127.0.0.1:" .. port }
    self.url = "http://127.0.0.1:" .. port
    if self.logs then return self end
    self:stop()
    print(self:output())
  end
  error "no gateway has started"
end

--- Stop it and wait until it has ended.
function gateway:stop()
  if self.pipe then self.pipe:close() end
  self.pipe = nil
end

--- What it printed.
function gateway:output()
  return helper.read_file(self.out)
end

--- All of its logs.
function gateway:log()
  return helper.output(("cat %s/*"):format(self.logs))
end

--- The curl command for a path, without a session.
function gateway:anonymous(path, arguments)
  return ("curl -s --max-time 60 --unix-socket %s %s 'http://localhost%s'"):format(self.socket, arguments or "", path)
end

--- The curl command for a path, in a session and, unless the arguments have another one, with the
-- page's origin.
function gateway:command(path, arguments)
  local origin = not (arguments or ""):find("Origin:", 1, true) and "-H 'Origin: http://localhost'" or ""
  return self:anonymous(path, ("-b %s %s %s"):format(self.jar, origin, arguments or ""))
end

-- Run a command of curl. Returns the response's status, the file with its body, curl's exit
-- status, the head.
local function curl(self, command, path, arguments)
  local body, head = helper.temporary ".body", helper.temporary ".head"
  local text = helper.output(("%s; echo \" $?\""):format(command(self, path,
    ("-o %s -D %s -w '%%{http_code}' %s"):format(body, head, arguments or ""))))
  local status, exit = text:match "(%d+) (%d+)$"
  if not helper.exists(body) then helper.write_file(body, "") end
  return tonumber(status), body, tonumber(exit), helper.exists(head) and helper.read_file(head) or ""
end

--- Request a path. Returns the response's status, the file with its body, curl's exit status, and
-- the head.
function gateway:curl(path, arguments)
  return curl(self, self.command, path, arguments)
end

local function decoded(status, body, _, head)
  return status, helper.json.decode(helper.read_file(body)), head
end

--- Request JSON. Returns the status, the decoded body, and the head.
function gateway:json(path, arguments)
  return decoded(self:curl(path, arguments))
end

--- The same without a session.
function gateway:anonymous_json(path, arguments)
  return decoded(curl(self, self.anonymous, path, arguments))
end

--- Sign in. Later requests are in this session.
function gateway:sign_in()
  local status = self:curl("/login", ("-c %s -d user=demo -d password=%s"):format(self.jar, self.password))
  assert(status == 204, status)
  self.cookie = "nymbl_session=" .. helper.read_file(self.jar):match "nymbl_session%s+(%x+)"
end

-- Send bytes over a new connection, then read until it ends or until the expected number of
-- responses has arrived.
local RAW = [[
  local socket = require "cqueues.socket"
  local path, file, response_count = ...
  local connection = socket.connect { path = path }
  connection:setmode("bn", "bn")
  connection:settimeout(20)
  connection:onerror(function(_, _, why) return why end)
  connection:write(assert(io.open(file, "rb")):read("*a"))
  local text, count = "", 0
  repeat
    local bytes = connection:read(-4096)
    text = text .. (bytes or "")
    _, count = text:gsub("HTTP/1%.1 %d", "")
  until not bytes or count == tonumber(response_count) and text:find("}\n[\r0\n]*$")
  print(count)
  print(text)
]]

--- Send bytes over a new connection. Returns the number of responses, and what was received.
function gateway:raw(bytes, response_count)
  local script = helper.write_file(helper.temporary ".lua", RAW)
  local file = helper.write_file(helper.temporary ".raw", bytes)
  local text = helper.output(("luajit %s %s %s %d"):format(script, self.socket, file, response_count))
  return tonumber(text:match "^%d+"), text
end

--- The head of a request in the session, for `raw`.
function gateway:head(method, path, ...)
  local lines = { ("%s %s HTTP/1.1"):format(method, path), "Host: localhost", "Origin: http://localhost",
                  "Cookie: " .. self.cookie, ... }
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

--- The process id of the worker. It must have one.
function gateway:worker()
  local master = helper.read_file(self.logs .. "/nginx.pid"):match "%d+"
  return helper.output("pgrep -P " .. master):match "%d+"
end

--- The most memory that the worker has used, in kilobytes.
function gateway:peak()
  return tonumber(helper.read_file("/proc/" .. self:worker() .. "/status"):match "VmHWM:%s*(%d+)")
end

return gateway
