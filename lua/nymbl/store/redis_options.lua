-- SPDX-License-Identifier: MIT
-- The options of nymbl.store.redis, and the URLs of servers.

local check = require "nymbl.check"
local core = require "nymbl.core"

local redis_options = {}

local DEFAULT_PORT = 6379

-- Bytes of the longest path of a Unix socket (`sun_path` in Linux).
local LONGEST_PATH = 107

local function is_loopback(host)
  return core.lower(host) == "localhost" or host == "::1" or host:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

-- Split `host[:port]`. Returns both as texts, or nil.
local function split_authority(authority)
  local host, port = authority:match("^%[([0-9A-Fa-f:.]+)%](.*)$")
  if host and not host:find(":", 1, true) then return nil end
  if not host then host, port = authority:match("^([A-Za-z0-9._-]+)(.*)$") end
  if not host or not (port == "" or port:find("^:%d+$")) then return nil end
  return host, port:sub(2)
end

-- Parse a URL. Returns a table with `unix_path`, or else `host`, `port` and `tls`; and `db`, the
-- number of the database as a text or nil. Or returns nil and the problem.
local function parse(url)
  local path, query = url:match("^unix:(/[^?#%z]*)(.*)$")
  if path then
    local db = query:match("^%?db=(%d+)$")
    if query ~= "" and not db then return nil, "malformed URL" end
    if #path > LONGEST_PATH then return nil, "path too long" end
    return { unix_path = path, db = db }
  end
  local scheme, authority, rest = url:match("^(rediss?)://([^/?#]*)(.*)$")
  if not scheme then return nil, "rediss://, redis:// or unix:/ expected" end
  if authority:find("@", 1, true) then return nil, "has a user or password: use the options for these" end
  local host, port = split_authority(authority)
  local db = rest:match("^/(%d*)$")
  if not host or not (rest == "" or db) then return nil, "malformed URL" end
  port = port == "" and DEFAULT_PORT or tonumber(port)
  if port < 1 or port > 65535 then return nil, "malformed URL" end
  return { host = host, port = port, tls = scheme == "rediss", db = db ~= "" and db or nil }
end

-- A checker (check.lua) of a URL.
local function url_checker(value)
  local problem = check.nonempty(value)
  if problem then return problem end
  local _, malformed = parse(value)
  return malformed
end

local function urls_checker(value)
  if type(value) ~= "table" then return check.expected("table", value) end
  if #value == 0 then return "empty table" end
  for key, url in pairs(value) do
    if type(key) ~= "number" then return "array expected" end
    local problem = url_checker(url)
    if problem then return problem end
  end
end

-- A checker of prefixes, which may be empty.
local function prefix_checker(value)
  if value ~= "" then return check.printable(value) end
end

local function when_down_checker(value)
  if value ~= "fail" and value ~= "alone" then return '"fail" or "alone" expected' end
end

local function share_checker(value)
  if type(value) ~= "number" then return check.expected("number", value) end
  if not (value > 0 and value <= 1) then return "must be above 0 and at most 1" end
end

local OPTIONS = {
  url = url_checker,
  urls = urls_checker,
  username = check.printable,
  password = check.printable,
  ca_file = check.nonempty,
  prefix = prefix_checker,
  token = check.boolean,
  timeout = check.seconds,
  when_down = when_down_checker,
  share = share_checker,
  allow_plain = check.boolean,
}
redis_options.CHECKERS = OPTIONS -- for settings.lua

local function is_private(server, allow_plain)
  return server.unix_path or server.tls or allow_plain or is_loopback(server.host)
end

local NOT_PRIVATE = "redis:// leaves this machine unencrypted: use rediss://"

-- A checker of a URL for which `allow_plain` is not set.
function redis_options.private_url(value)
  local problem = url_checker(value)
  if problem then return problem end
  if not is_private(parse(value)) then return NOT_PRIVATE end
end

local function raise(problem)
  check.raise_argument(1, "redis", problem)
end

-- Check the options of nymbl.store.redis.
-- @treturn table the options
-- @treturn table the servers: tables as those of `parse`
-- @raise on wrong options
function redis_options.read(options)
  options = check.options(options, OPTIONS, 1, "redis")
  if options.url == nil and options.urls == nil then raise "one of the options 'url' and 'urls' is required" end
  if options.url ~= nil and options.urls ~= nil then raise "only one of the options 'url' and 'urls' may be given" end
  if options.username ~= nil and options.password == nil then raise "option 'username' needs 'password'" end
  local servers = {}
  for i, url in ipairs(options.urls or { options.url }) do
    servers[i] = parse(url)
    if not is_private(servers[i], options.allow_plain) then
      raise(("option '%s': %s"):format(options.url and "url" or "urls", NOT_PRIVATE))
    end
  end
  return options, servers
end

return redis_options
