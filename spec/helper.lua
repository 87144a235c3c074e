-- SPDX-License-Identifier: MIT
-- Shared by the specs: a sandbox in its own process, a client for it, files and a clock.

local json = require("cjson").new()

local helper = {}

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/helper%.lua$") or ""

-- Quote a word for the shell.
local function quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end
helper.quote = quote

--- Run a command. Returns its output without the last newline.
function helper.output(command)
  local pipe = assert(io.popen(command, "r"))
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("\n$", ""))
end

function helper.path(name)
  return root .. name
end

function helper.read_file(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

-- The same, or nil if the file cannot be opened.
function helper.read_if_there(path)
  local file = io.open(path, "rb")
  local bytes = file and file:read("*a")
  if file then file:close() end
  return bytes
end

function helper.write_file(path, bytes)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
  return path
end

function helper.sha256(path)
  return helper.output("sha256sum < " .. quote(path)):match("^%x+")
end

-- A directory for this run, deleted at its end.
helper.folder = helper.output("mktemp -d")

--- An unused name in that directory.
local names = 0
function helper.temporary(suffix)
  names = names + 1
  return ("%s/%d%s"):format(helper.folder, names, suffix or "")
end

--- Make a new directory.
function helper.directory()
  local path = helper.temporary()
  assert(os.execute("mkdir " .. quote(path)))
  return path
end

--- The names in a directory, one per line.
function helper.names(directory)
  return helper.output("ls -A " .. quote(directory))
end

--- Whether a file exists.
function helper.exists(path)
  local code = os.execute("test -e " .. quote(path))
  return code == true or code == 0
end

--- The files in spec/fixtures, each of an accepted type: its content type by name.
helper.fixtures = {
  ["referral.pdf"] = "application/pdf",
  ["insurance-card.png"] = "image/png",
  ["photo.jpg"] = "image/jpeg",
  ["scan.tiff"] = "image/tiff",
  ["referral.docx"] = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}

--- Call a function until it returns a true value, for at most so many seconds. Returns its
-- last result, and the seconds that it took.
function helper.eventually(seconds, condition)
  local now = require("nymbl.core").now
  local began = now()
  local result
  repeat
    result = condition()
    if result then break end
    os.execute("sleep 0.02")
  until now() - began > seconds
  return result, now() - began
end

--- Wait for a condition, in real time. Returns its value; raises at the caller's line if it does not
-- become true.
function helper.wait_for(condition)
  local result = helper.eventually(30, condition)
  if not result then error("the condition did not become true", 2) end
  return result
end

--- A file of `size` bytes with a PDF signature. Its content is the same each time.
function helper.big_file(size)
  local path = ("%s/big-%d.pdf"):format(helper.folder, size)
  if helper.exists(path) then return path end
  local block, state = {}, 12345
  for i = 1, 8192 do
    state = (state * 1103515245 + 12345) % 2147483648
    block[i] = string.char(math.floor(state / 65536) % 256)
  end
  block = table.concat(block)
  local file = assert(io.open(path, "wb"))
  local left, number = size, 0
  local function put(bytes)
    bytes = bytes:sub(1, left)
    file:write(bytes)
    left = left - #bytes
  end
  put("%PDF-1.4\n")
  while left > 0 do
    number = number + 1
    put(("block %d\n"):format(number)) -- so that all blocks differ
    put(block)
  end
  file:close()
  return path
end

-- What the sandbox has printed at its start. The first spec that needs the sandbox starts it. It
-- stops at the end of its standard input, which is a pipe held by this process: so it never
-- outlives this process.
local settings

local function settings_read(path)
  local read = {}
  for _ = 1, 200 do
    for line in io.lines(path) do
      if line == "ready" then return read end
      local name, value = line:match("^NYMBL_([%u_]+)=(.*)$")
      if name then read[name:lower()] = value end
    end
    os.execute("sleep 0.05")
  end
  error("the sandbox did not start")
end

function helper.sandbox()
  local parents = os.getenv "NYMBL_SPEC_SANDBOX" -- set in child processes of a spec
  if not settings and parents then settings = settings_read(parents) end
  if not settings then
    local path = helper.temporary(".env")
    local pipe = assert(io.popen(("exec %s --limits off --stdin > %s"):format(
      quote(helper.path("examples/sandbox/run")), quote(path)), "w"))
    os.execute("while [ ! -e " .. quote(path) .. " ]; do sleep 0.01; done")
    settings = settings_read(path)
    settings.pipe, settings.path = pipe, path
  end
  return settings
end

-- A finalizer deletes the directory when the process ends, however busted ends.
local guard = newproxy and newproxy(true) or setmetatable({}, {}) -- luacheck: ignore
getmetatable(guard).__gc = function() os.execute("rm -rf " .. quote(helper.folder)) end
if not newproxy then setmetatable(guard, getmetatable(guard)) end -- luacheck: ignore
helper.guard = guard

-- Send one request to the sandbox's admin port, over a persistent connection. Returns the decoded
-- body of the response, and the response itself.
local function exchange(method, path, headers, body)
  local sandbox = helper.sandbox()
  local found, http = pcall(require, "spec_http")
  assert(found, "no spec_http: configure with cmake -DNYMBL_BUILD_SPECS=ON, as spec/run does")
  local response = http.exchange(tonumber(sandbox.sandbox_admin_port), table.concat({
    ("%s %s HTTP/1.1\r\nHost: localhost"):format(method, path), headers,
    "Content-Length: " .. #body, "", body }, "\r\n"))
  return json.decode(response:match("\r\n\r\n(.*)$")), response
end

--- Send a request to the sandbox's admin paths. Returns the decoded response.
function helper.admin(method, path, value)
  local body = value == nil and "" or type(value) == "string" and value or json.encode(value)
  local decoded, response = exchange(method, "/_sandbox/" .. path,
    "x-sandbox-key: " .. helper.sandbox().sandbox_admin_key, body)
  assert(type(decoded) == "table" and not decoded.message, response)
  return decoded
end

function helper.reset()
  helper.admin("POST", "reset", { limits = false })
end

--- The requests received by the sandbox since the last reset: those of one operation, or all
-- except token requests.
function helper.journal(operation)
  local found = {}
  for _, entry in ipairs(helper.admin("GET", "journal").requests) do
    if entry.operation == operation or (not operation and entry.operation ~= "token") then
      found[#found + 1] = entry
    end
  end
  return found
end

--- The number of requests of an operation on a patient that the sandbox has received.
function helper.sent(operation, patient)
  local count = 0
  for _, entry in ipairs(helper.journal(operation)) do
    if entry.path:find("(" .. patient .. ")", 1, true) then count = count + 1 end
  end
  return count
end

--- Set fault plans: each is { operation =, action = {…}, times =, skip = }.
function helper.faults(...)
  helper.admin("POST", "faults", { ... })
end

function helper.stored(patient)
  return helper.admin("GET", "documents?patient=" .. patient)
end

--- Add a document to the sandbox; `fields` override `defaults`. Returns its id, size and SHA-256.
function helper.add_document(defaults, fields)
  local all = {}
  for name, value in pairs(defaults) do all[name] = value end
  for name, value in pairs(fields or {}) do all[name] = value end
  return helper.admin("POST", "documents", all)
end

--- Options for a client of the sandbox; `overrides` replaces some. By default there are no limits,
-- and every call sends one request.
function helper.options(overrides)
  local sandbox = helper.sandbox()
  local options = {
    base_url = sandbox.base_url,
    api_key = sandbox.api_key,
    ca_file = sandbox.ca_file,
    credentials = {
      token_url = sandbox.token_url,
      client_id = sandbox.client_id,
      client_secret = sandbox.client_secret,
      scope = sandbox.scope,
    },
    timeout = 60, -- no spec may hang
    rate = false,
    monthly_quota = false,
    max_attempts = 1,
    store = require("nymbl.store").memory(), -- a token for this client only
  }
  for name, value in pairs(overrides or {}) do options[name] = value end
  if overrides and overrides.token then options.credentials = nil end
  if options.timeout == false then options.timeout = nil end
  return options
end

function helper.client(overrides)
  return assert(require("nymbl").client(helper.options(overrides)))
end

--- A bearer token that the sandbox accepts.
function helper.token()
  local sandbox = helper.sandbox()
  return exchange("POST", "/oauth2/token", "Content-Type: application/x-www-form-urlencoded",
    ("grant_type=client_credentials&client_id=%s&client_secret=%s&scope=%s"):format(sandbox.client_id,
    sandbox.client_secret, (sandbox.scope:gsub("[^%w-]", function(c) return ("%%%02X"):format(c:byte()) end)))).access_token
end

--- A server that does not respond: "silent" accepts and sends nothing; the accept queue of "full"
-- is full; "refusing" keeps its port reserved, but does not listen. Returns its URL, and a
-- function that stops it.
function helper.unresponsive_server(kind)
  local script = helper.write_file(helper.temporary(".lua"), [==[
    local cqueues, socket, ffi = require "cqueues", require "cqueues.socket", require "ffi"
    ffi.cdef [[
      int listen(int fd, int backlog);
      int socket(int domain, int type, int protocol);
      int bind(int fd, const void *address, unsigned size);
      int getsockname(int fd, void *address, unsigned *size);
    ]]
    local kind, path = ...
    local listener, port
    if kind == "refusing" then
      local fd = ffi.C.socket(2, 1, 0) -- AF_INET, SOCK_STREAM
      local address = ffi.new("uint8_t[16]", 2, 0, 0, 0, 127, 0, 0, 1) -- struct sockaddr_in
      assert(ffi.C.bind(fd, address, 16) == 0)
      assert(ffi.C.getsockname(fd, address, ffi.new("unsigned[1]", 16)) == 0)
      port = address[2] * 256 + address[3]
    else
      listener = socket.listen { host = "127.0.0.1", port = "0" }
      listener:listen()
      _, _, port = listener:localname()
    end
    local kept = {}
    local loop = cqueues.new()
    if kind == "full" then
      ffi.C.listen(listener:pollfd(), 0)
      for i = 1, 4 do
        loop:wrap(function()
          kept[i] = socket.connect("127.0.0.1", port)
          pcall(kept[i].connect, kept[i], 0.2)
        end)
      end
    elseif kind == "silent" then
      loop:wrap(function()
        while true do kept[#kept + 1] = listener:accept() end
      end)
    end
    loop:wrap(function()
      cqueues.sleep(kind == "full" and 0.3 or 0)
      local file = io.open(path .. ".new", "w")
      file:write(port, "\n")
      file:close()
      os.rename(path .. ".new", path)
    end)
    loop:wrap(function()
      cqueues.poll { pollfd = 0, events = "r" }
      os.exit(0)
    end)
    loop:loop()
  ]==])
  local path = helper.temporary(".port")
  local pipe = assert(io.popen(("exec luajit %s %s %s"):format(script, kind, path), "w"))
  os.execute(("for i in $(seq 500); do [ -e %s ] && break; sleep 0.01; done"):format(path))
  local port = tonumber(helper.read_file(path))
  return "https://127.0.0.1:" .. port, function() pipe:close() end
end

--- The value of a header in a journal entry, and the number of its occurrences.
function helper.header(entry, name)
  local found, count = nil, 0
  for _, pair in ipairs(entry.headers) do
    if pair[1]:lower() == name:lower() then found, count = pair[2], count + 1 end
  end
  return found, count
end

--- Run a function as a forked child would: the library takes this process for another one.
function helper.as_child(fn)
  local system = require("nymbl.core").system
  local process_id = system.process_id
  function system.process_id() return -1 end
  local ran, err = pcall(fn)
  system.process_id = process_id
  if not ran then error(err, 0) end
end

--- Replace the clock by one that sleeping advances at once, while waiting for the network takes
-- real time. Returns it: `offset` is the sum of all sleeps, `slept` has each of them, and
-- `restore()` reinstates the real clock.
function helper.clock()
  local core = require "nymbl.core"
  local blocking = require "nymbl.wait.blocking"
  local real = blocking.runtime
  local clock = { real = real, offset = 0, slept = {}, wall_time = 1770000000, poll = real.poll } -- in February 2026
  function clock.now() return core.now() + clock.offset end
  function clock.wall_clock() return math.floor(clock.wall_time + clock.offset) end
  function clock.boot_clock()
    local seconds, id = core.boot_clock()
    return seconds + clock.offset, id
  end
  function clock.restore() blocking.runtime = real end
  function clock.wait(transfer, deadline, once)
    if transfer then return real.wait(transfer, deadline and deadline - clock.offset) end
    -- another coroutine may wait for the network: poll it for a moment
    if once and (core.pump(0.003) or not deadline) then return true end
    local seconds = math.max(0, deadline - clock.now())
    clock.slept[#clock.slept + 1] = seconds
    clock.offset = clock.offset + seconds
    return false
  end
  blocking.runtime = clock
  return clock
end

--- The interpreter of this run and its paths, as shell words.
function helper.interpreter()
  return ("env LUA_PATH=%s LUA_CPATH=%s %s"):format(quote(package.path), quote(package.cpath),
    jit and "luajit" or "lua" .. _VERSION:match("%d%.%d")) -- luacheck: ignore
end

--- The environment of a process that runs this Lua code before its program.
function helper.before_program(code)
  -- what measures coverage has to run first
  local first = _VERSION == "Lua 5.4" and os.getenv "LUA_INIT_5_4" or ""
  local path = helper.write_file(helper.temporary(".lua"), first .. "\n" .. code)
  return { LUA_INIT = "@" .. path, LUA_INIT_5_3 = false, LUA_INIT_5_4 = false }
end

--- Collect all garbage. Returns the number of live objects in the core.
function helper.object_count()
  if jit then jit.flush() end -- luacheck: ignore (compiled traces hold objects as constants)
  collectgarbage()
  collectgarbage()
  collectgarbage()
  return require("nymbl.core").object_count()
end

--- The number of open descriptors in this process (Linux). io.popen() closes its end of the pipe
-- only after the shell has started, so a count may include it: the result is the least of three.
function helper.descriptors()
  local counts = helper.output("for i in 1 2 3; do ls /proc/$PPID/fd | wc -l; sleep 0.005; done")
  local least = math.huge
  for count in counts:gmatch("%d+") do least = math.min(least, tonumber(count)) end
  return least
end

--- How often a file is open in this process (Linux).
function helper.times_open(path)
  return tonumber(helper.output(("find /proc/$PPID/fd -lname %s | wc -l"):format(
    quote(helper.output("realpath " .. quote(path))))))
end

function helper.pid()
  return helper.output("echo $PPID")
end

--- Print what a test has tried: so many cases of something, and details. spec/run adds them up.
function helper.tried(count, what, details)
  print(("tried %d %s%s"):format(count, what, details and " (" .. details .. ")" or ""))
end

helper.json = json

return helper
