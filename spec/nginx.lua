-- SPDX-License-Identifier: MIT
-- A real nginx for specs, in its own directory and listening on a socket there. It ends with the
-- process that started it.
local helper = require "helper"

local nginx = {}
nginx.__index = nginx

local quote = helper.quote

-- Another nginx than the system's, by its path. If it has ngx_lua built in, as OpenResty's
-- has, no module is loaded.
local PROGRAM = os.getenv "NYMBL_NGINX" or "nginx"
local MODULES = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;]]
if helper.output(quote(PROGRAM) .. " -V 2>&1"):find("%-%-add%-module=%S*lua") then MODULES = "" end

-- What counts the lines that it executes (spec/coverage).
local COUNT = ""
if os.getenv "NYMBL_LINES" then
  COUNT = ("assert(package.loadlib(%q, 'luaopen_spec_lines'))(%q)"):format(helper.path("build-jit/spec_lines.so"),
    os.getenv "NYMBL_LINES")
end

-- In every handler: a client of the sandbox. `client(given)` has the defaults of helper.options,
-- except the store.
local PRELUDE = [[
  local nymbl = require "nymbl"
  function client(given)
    local options = {
      base_url = os.getenv "NYMBL_BASE_URL", api_key = os.getenv "NYMBL_API_KEY", ca_file = os.getenv "NYMBL_CA_FILE",
      timeout = 60, rate = false, monthly_quota = false, max_attempts = 1,
      credentials = { token_url = os.getenv "NYMBL_TOKEN_URL", client_id = os.getenv "NYMBL_CLIENT_ID",
                      client_secret = os.getenv "NYMBL_CLIENT_SECRET", scope = os.getenv "NYMBL_SCOPE" },
    }
    for name, value in pairs(given or {}) do options[name] = value end
    return assert(nymbl.client(options))
  end
]]

local CONFIGURATION = [[
%s
%s
daemon off;
worker_processes %d;
pid %s/nginx.pid;
error_log %s/error.log info;
%s
%s
events { worker_connections %d; }
http {
  access_log off;
  client_body_temp_path %s/body;
  proxy_temp_path %s/proxy;
  fastcgi_temp_path %s/fastcgi;
  uwsgi_temp_path %s/uwsgi;
  scgi_temp_path %s/scgi;
  client_max_body_size 64m;
  lua_package_path "%s;%s;;";
  lua_package_cpath "%s;;";
  init_by_lua_block { %s
    %s }
  %s
  server {
    listen unix:%s/http.sock;
    %s
    %s
  }
}
]]

local NAMES = { "BASE_URL", "API_KEY", "CA_FILE", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "SCOPE" }

local function is_root()
  return helper.output("id -u") == "0"
end

--- Start an nginx. All options are text for its configuration file:
--
-- @tparam table options `workers` (1), `connections` (4096), `init` (Lua of init_by_lua, after the
--   definition of `client(options)`), `main`, `http`, `server` (directives), `locations`
--   (Lua of content handlers by path), `environment` (shell commands before it starts); or
--   `configuration(folder, text)`, which returns another configuration file than the text
function nginx.start(options)
  local folder = helper.temporary(".nginx")
  assert(os.execute("mkdir " .. quote(folder)))
  local sandbox = helper.sandbox()
  local exports = { "export NYMBL_SPEC_SANDBOX=" .. quote(sandbox.path) .. "; " .. (options.environment or "") }
  local env = { "env NYMBL_SPEC_SANDBOX;" }
  for _, name in ipairs(NAMES) do
    exports[#exports + 1] = ("export NYMBL_%s=%s;"):format(name, quote(sandbox[name:lower()]))
    env[#env + 1] = ("env NYMBL_%s;"):format(name)
  end
  local locations = {}
  for path, code in pairs(options.locations or {}) do
    locations[#locations + 1] = ("location = %s { content_by_lua_block { %s } }"):format(path, code)
  end
  -- only its user can read the directory of the sandbox's certificate
  local user = is_root() and "user root;" or ""
  helper.write_file(folder .. "/nginx.conf", CONFIGURATION:format(
    MODULES, user, options.workers or 1, folder, folder, table.concat(env, "\n"), options.main or "",
    options.connections or 4096, folder, folder, folder, folder, folder,
    helper.path("lua/?.lua"), helper.path("spec/?.lua"), helper.path("build-jit/?.so"), COUNT .. PRELUDE, options.init or "",
    options.http or "", folder, options.server or "", table.concat(locations, "\n")))
  if options.configuration then
    local path = folder .. "/nginx.conf"
    helper.write_file(path, options.configuration(folder, helper.read_file(path)))
  end
  local self = setmetatable({ folder = folder }, nginx)
  -- it ends with the pipe, so it cannot outlive this process
  self.pipe = assert(io.popen(("%s %s -p %s -c %s/nginx.conf >%s/out 2>&1 & child=$!; read -r _; "
    .. "kill -TERM $child 2>/dev/null; wait $child"):format(table.concat(exports, " "), quote(PROGRAM), quote(folder), quote(folder),
    quote(folder)), "w"))
  for _ = 1, 200 do
    local is_ready = ("test -S %s/http.sock && test -s %s/nginx.pid && pgrep -P $(cat %s/nginx.pid)"):format(folder, folder, folder)
    if helper.output(is_ready .. " >/dev/null && echo yes") == "yes" then return self end
    os.execute("sleep 0.05")
  end
  error("nginx did not start: " .. helper.output(("cat %s/out %s/error.log 2>&1"):format(folder, folder)))
end

--- The error log.
function nginx:log()
  return helper.read_file(self.folder .. "/error.log")
end

--- Run curl on a path. Returns its output.
function nginx:get(path, arguments)
  return helper.output(self:command(path, arguments))
end

--- Start so many curl processes for a path in the background; each writes the response to its
-- own file. Returns their process ids and these files.
function nginx:curls(count, path)
  local files, lines = {}, {}
  for i = 1, count do
    files[i] = helper.temporary()
    lines[i] = ("%s >%s & echo $!"):format(self:command(path):gsub(" 2>&1$", " 2>/dev/null"), files[i])
  end
  local script = helper.write_file(helper.temporary(".sh"), table.concat(lines, "\n") .. "\n")
  local list = helper.temporary()
  os.execute(("sh %s >%s"):format(script, list))
  local pids = {}
  for pid in helper.read_file(list):gmatch("%d+") do pids[#pids + 1] = pid end
  return pids, files
end

--- The curl command for a path.
function nginx:command(path, arguments)
  return ("curl -sS --max-time 60 --unix-socket %s/http.sock %s 'http://localhost%s' 2>&1"):format(
    self.folder, arguments or "", path)
end

function nginx:master()
  return tonumber(helper.read_file(self.folder .. "/nginx.pid"):match("%d+"))
end

--- Process ids of the workers.
function nginx:workers()
  local pids = {}
  for pid in helper.output("pgrep -P " .. self:master()):gmatch("%d+") do pids[#pids + 1] = tonumber(pid) end
  return pids
end

--- The directories of a worker's engine, from the names of its sockets.
function nginx.engine_dirs(pid)
  local own, list = {}, {}
  for inode in helper.output(("ls -l /proc/%d/fd"):format(pid)):gmatch("socket:%[(%d+)%]") do own[inode] = true end
  for line in io.lines("/proc/net/unix") do
    local inode, path = line:match("(%d+) (/%S+)/notify$")
    if inode and own[inode] and not list[path] then list[#list + 1], list[path] = path, true end
  end
  return list
end

--- The directory of a worker's engine, or nil.
function nginx.engine_dir(pid)
  return nginx.engine_dirs(pid)[1]
end

-- The identity of a directory: its number may be used again, but not at the same time.
local function identity(dir)
  return helper.output(("stat -c '%%d:%%i %%w' %s 2>/dev/null"):format(quote(dir)))
end

--- The directory of a worker's engine, to be given to is_left_behind() later; or nil.
function nginx.engine_dir_now(pid)
  local path = nginx.engine_dir(pid)
  return path and { path = path, identity = identity(path) }
end

--- Whether a directory of an engine was left behind: it exists, and no process holds its lock.
-- Processes of other runs share the names, and may have taken this one since.
function nginx.is_left_behind(dir)
  return identity(dir.path) == dir.identity
    and helper.output(("(flock -n 9 && echo free) 9<%s 2>/dev/null"):format(quote(dir.path))):find("free", 1, true) ~= nil
end

--- Signal the master: "HUP", "QUIT", "TERM".
function nginx:signal(name)
  os.execute(("kill -%s %d"):format(name, self:master()))
end

--- Stop it and wait until it has ended.
function nginx:stop()
  if not self.pipe then return end
  self.pipe:close() -- waits for its end
  self.pipe = nil
end

return nginx
