-- SPDX-License-Identifier: MIT
-- Client options from variables: those of the environment, or others with the same names.

local core = require "nymbl.core"
local check = require "nymbl.check"
local client = require "nymbl.client"
local errors = require "nymbl.errors"
local redis_options = require "nymbl.store.redis_options"
local store = require "nymbl.store"

local system = core.system

local settings = {}

local MAX_SECRET_BYTES = 65536

-- Permission bits of a mode.
local OTHERS_READ, OTHERS_WRITE = { 32, 4 }, { 16, 2 } -- 0044, 0022

local function has_any(mode, bits)
  for _, bit in ipairs(bits) do
    if math.floor(mode / bit) % 2 == 1 then return true end
  end
  return false
end

-- Whether a path without links is below a directory in which a container runtime or systemd
-- provides secrets. Others may read the files there.
local function is_provided(path)
  for _, directory in ipairs { "/run/secrets", os.getenv "CREDENTIALS_DIRECTORY" } do
    local real = directory ~= "" and system.realpath(directory)
    if real and path:sub(1, #real + 1) == real .. "/" then return true end
  end
  return false
end

-- The content of an open file with a secret, or nil and the reason why it cannot be used.
local function read_secret(file, path)
  local status = file:stat()
  if not status or (status.owner ~= 0 and status.owner ~= system.user())
    or has_any(status.mode, OTHERS_WRITE) or (has_any(status.mode, OTHERS_READ) and not is_provided(path)) then
    return nil, "permission"
  end
  local pieces, size = {}, 0
  repeat
    local bytes, err = file:read(MAX_SECRET_BYTES)
    if err then return nil, "invalid" end
    pieces[#pieces + 1] = bytes
    size = size + #(bytes or "")
  until not bytes or size > MAX_SECRET_BYTES
  if size > MAX_SECRET_BYTES then return nil, "invalid" end
  return (table.concat(pieces):gsub("\n$", ""))
end

-- The same for the path of a file. The checks are made on the file that was opened.
local function read_secret_path(path)
  local reasons = { not_found = "not_found", not_a_directory = "not_found", permission = "permission" }
  local real, err = system.realpath(path)
  if not real then return nil, reasons[err.reason] or "invalid" end
  local file
  file, err = system.open_file(real, "read")
  if not file then return nil, reasons[err.reason] or "invalid" end
  local secret, reason = read_secret(file, real)
  file:close()
  return secret, reason
end

-- A reader has `lookup` (see settings.read), `overrides`, and the first failure, `err`.
local reader = {}
reader.__index = reader

function reader:fail(reason, name)
  self.err = self.err or errors.new { kind = "settings", reason = reason, detail = name }
end

-- The value of a variable, or nil. An empty one counts as missing.
function reader:text(name)
  local value = self.lookup(name)
  return value ~= "" and value or nil
end

-- The value of a variable that may be in a file, and the name of the variable that led to it.
function reader:secret(name)
  local value = self:text(name)
  if value then return value, name end
  local file_name = name .. "_FILE"
  local path = self:text(file_name)
  if not path then return nil, name end
  local secret, reason = read_secret_path(path)
  if secret == "" then secret, reason = nil, "missing" end
  if not secret then self:fail(reason, file_name) end
  return secret, file_name
end

-- Add an option to a table if there is a value that can be used for it.
function reader:put(options, option, checker, value, name)
  if value == nil then return end
  if value:find("\0", 1, true) or checker(value) then
    self:fail("invalid", name)
  else
    options[option] = value
  end
end

-- The same for a required option.
function reader:put_required(options, option, checker, value, name)
  if value == nil then return self:fail("missing", name) end
  self:put(options, option, checker, value, name)
end

-- A checker of URLs.
function reader:url()
  return function(value)
    return core.url_problem(value, self.overrides.allow_http)
  end
end

function reader:credentials()
  local credentials, checkers = {}, client.CREDENTIALS
  self:put_required(credentials, "token_url", self:url(), self:text "NYMBL_TOKEN_URL", "NYMBL_TOKEN_URL")
  self:put_required(credentials, "client_id", checkers.client_id, self:text "NYMBL_CLIENT_ID", "NYMBL_CLIENT_ID")
  self:put_required(credentials, "client_secret", checkers.client_secret, self:secret "NYMBL_CLIENT_SECRET")
  self:put(credentials, "scope", checkers.scope, self:text "NYMBL_SCOPE", "NYMBL_SCOPE")
  return credentials
end

local CREDENTIAL_VARIABLES = { "NYMBL_TOKEN_URL", "NYMBL_CLIENT_ID", "NYMBL_CLIENT_SECRET", "NYMBL_CLIENT_SECRET_FILE",
                               "NYMBL_SCOPE" }

-- Set `token` or `credentials`. A token wins.
function reader:authorization(options)
  local token, name = self:secret "NYMBL_TOKEN"
  if token then return self:put(options, "token", client.OPTIONS.token, token, name) end
  for _, variable in ipairs(CREDENTIAL_VARIABLES) do
    if self:text(variable) then
      options.credentials = self:credentials()
      return
    end
  end
  self:fail("missing", name)
end

-- A store in Redis, or nil.
function reader:redis_store()
  local options, checkers = {}, redis_options.CHECKERS
  self:put(options, "url", redis_options.private_url, self:text "NYMBL_STORE", "NYMBL_STORE")
  self:put(options, "username", checkers.username, self:text "NYMBL_STORE_USERNAME", "NYMBL_STORE_USERNAME")
  self:put(options, "password", checkers.password, self:secret "NYMBL_STORE_PASSWORD")
  self:put(options, "ca_file", checkers.ca_file, self:text "NYMBL_STORE_CA_FILE", "NYMBL_STORE_CA_FILE")
  self:put(options, "when_down", checkers.when_down, self:text "NYMBL_STORE_WHEN_DOWN", "NYMBL_STORE_WHEN_DOWN")
  if options.username and not options.password then self:fail("missing", "NYMBL_STORE_PASSWORD") end
  options.token = self:store_token()
  return not self.err and store.redis(options) or nil
end

-- Whether the store keeps tokens.
function reader:store_token()
  local value = self:text "NYMBL_STORE_TOKEN"
  if value and value ~= "true" and value ~= "false" then self:fail("invalid", "NYMBL_STORE_TOKEN") end
  return value == "true"
end

-- A store, or nil.
function reader:store()
  local place = self:text "NYMBL_STORE"
  if not place then return nil end
  if place:find("^rediss?:") or place:find("^unix:") then return self:redis_store() end
  if place:find("^[A-Za-z][A-Za-z0-9+.-]*://") or place:find("\0", 1, true) then
    return self:fail("invalid", "NYMBL_STORE")
  end
  return store.file(place, { token = self:store_token() })
end

-- Read client options from variables.
-- @tparam function lookup returns the value of the variable of a name, or nil
-- @tparam table overrides client options that win; their variables are not read
-- @treturn[1] table client options
-- @treturn[2] nil
-- @treturn[2] table the error, of kind "settings"
function settings.read(lookup, overrides)
  local self = setmetatable({ lookup = lookup, overrides = overrides }, reader)
  local options = {}
  if overrides.base_url == nil then
    self:put_required(options, "base_url", self:url(), self:text "NYMBL_BASE_URL", "NYMBL_BASE_URL")
  end
  if overrides.api_key == nil then
    self:put_required(options, "api_key", client.OPTIONS.api_key, self:secret "NYMBL_API_KEY")
  end
  if overrides.token == nil and overrides.credentials == nil then self:authorization(options) end
  for option, name in pairs { ca_file = "NYMBL_CA_FILE", proxy = "NYMBL_PROXY" } do
    if overrides[option] == nil then self:put(options, option, client.OPTIONS[option], self:text(name), name) end
  end
  if overrides.store == nil then options.store = self:store() end
  if self.err then return nil, self.err end
  for name, value in pairs(overrides) do options[name] = value end
  return options
end

-- nymbl.from_env(overrides), see lua/nymbl.lua.
function settings.from_env(overrides)
  if overrides ~= nil and type(overrides) ~= "table" then
    check.raise_argument(1, "from_env", check.expected("table", overrides))
  end
  return settings.read(os.getenv, overrides or {})
end

return settings
