-- SPDX-License-Identifier: MIT
-- Settings of the command: from the environment, else from the user's configuration file. Both use
-- the names that `nymbl.from_env` reads (nymbl/settings.lua).

local core = require "nymbl.core"
local nymbl = require "nymbl"

local system = core.system

local settings = {}

-- The names in the order in which `nymbl config` shows them.
settings.NAMES = {
  "NYMBL_BASE_URL", "NYMBL_API_KEY", "NYMBL_API_KEY_FILE", "NYMBL_TOKEN", "NYMBL_TOKEN_FILE", "NYMBL_TOKEN_URL",
  "NYMBL_CLIENT_ID", "NYMBL_CLIENT_SECRET", "NYMBL_CLIENT_SECRET_FILE", "NYMBL_SCOPE", "NYMBL_CA_FILE",
  "NYMBL_PROXY", "NYMBL_STORE", "NYMBL_STORE_USERNAME", "NYMBL_STORE_PASSWORD", "NYMBL_STORE_PASSWORD_FILE",
  "NYMBL_STORE_CA_FILE", "NYMBL_STORE_TOKEN", "NYMBL_STORE_WHEN_DOWN",
}

local IS_NAME = {}
for _, name in ipairs(settings.NAMES) do IS_NAME[name] = true end

-- Settings that would win over those after them. If the environment has one of those, they are not
-- taken from the file, because the environment wins.
local RIVALS = {
  { "NYMBL_API_KEY", "NYMBL_API_KEY_FILE" },
  { "NYMBL_CLIENT_SECRET", "NYMBL_CLIENT_SECRET_FILE" },
  { "NYMBL_STORE_PASSWORD", "NYMBL_STORE_PASSWORD_FILE" },
  { "NYMBL_TOKEN", "NYMBL_TOKEN_FILE", "NYMBL_TOKEN_URL", "NYMBL_CLIENT_ID", "NYMBL_CLIENT_SECRET",
    "NYMBL_CLIENT_SECRET_FILE" },
  { "NYMBL_TOKEN_FILE", "NYMBL_TOKEN_URL", "NYMBL_CLIENT_ID", "NYMBL_CLIENT_SECRET", "NYMBL_CLIENT_SECRET_FILE" },
}

-- Permission bits of a mode: reading and writing by group and others.
local OTHERS = { 32, 16, 4, 2 }

local MAX_BYTES = 65536

local function fail(reason, detail)
  return nil, nymbl.error { kind = "settings", reason = reason, detail = detail }
end

-- A variable of the environment; an empty one counts as missing.
local function variable(name)
  local value = os.getenv(name)
  return value ~= "" and value or nil
end

-- A base directory (XDG Base Directory Specification): a path that is not absolute is ignored.
-- Returns nil if there is none.
local function base_directory(name, below_home)
  local path = variable(name)
  if path and path:sub(1, 1) == "/" then return path end
  local home = variable "HOME"
  return home and home .. below_home
end

-- The whole content of an open file.
local function read_all(file)
  local status = file:stat()
  if not status or (status.owner ~= 0 and status.owner ~= system.user()) then return fail "permission" end
  for _, bit in ipairs(OTHERS) do
    if math.floor(status.mode / bit) % 2 == 1 then return fail "permission" end
  end
  local pieces, size = {}, 0
  repeat
    local bytes, err = file:read(MAX_BYTES)
    if err then return fail "invalid" end
    pieces[#pieces + 1] = bytes
    size = size + #(bytes or "")
  until not bytes or size > MAX_BYTES
  if size > MAX_BYTES then return fail "invalid" end
  return table.concat(pieces)
end

local REASONS = { not_found = "not_found", not_a_directory = "not_found", permission = "permission" }

-- The content of the file at a path, checked on the file that was opened.
local function read_file(path)
  local real, err = system.realpath(path)
  local file
  if real then file, err = system.open_file(real, "read") end
  if not file then return fail(REASONS[err.reason] or "invalid") end
  local text
  text, err = read_all(file)
  file:close()
  return text, err
end

-- The settings in the text of a file.
local function parse(text)
  local values = {}
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    if line ~= "" and line:sub(1, 1) ~= "#" then
      local name, value = line:match "^([^=]*)=(.*)$"
      if not name then return fail "bad_line" end
      if not IS_NAME[name] then return fail("unknown_name", name) end
      values[name] = value ~= "" and value or nil
    end
  end
  return values
end

-- The path of the configuration file, or nil.
-- @tparam ?string profile
function settings.path(profile)
  local directory = base_directory("XDG_CONFIG_HOME", "/.config")
  return directory and ("%s/nymbl/%s"):format(directory, profile and profile .. ".config" or "config")
end

-- Read the configuration file. A missing one is empty, unless a profile names it.
local function from_file(profile)
  local path = settings.path(profile)
  if not path then return profile and fail "not_found" or {} end
  local text, err = read_file(path)
  if text then return parse(text) end
  if err.reason == "not_found" and not profile then return {} end
  return nil, err
end

-- Remove the settings of the file that would win over one of the environment.
local function remove_rivals(values)
  for _, names in ipairs(RIVALS) do
    for i = 2, #names do
      if variable(names[i]) then values[names[1]] = nil end
    end
  end
end

-- Find all settings.
-- @tparam ?string profile
-- @treturn[1] table by name, each `{ value =, source = "environment" or "file" }`
-- @treturn[2] nil
-- @treturn[2] table the error
function settings.find(profile)
  local values, err = from_file(profile)
  if not values then return nil, err end
  remove_rivals(values)
  local found = {}
  for _, name in ipairs(settings.NAMES) do
    local value = variable(name)
    if value then
      found[name] = { value = value, source = "environment" }
    elseif values[name] then
      found[name] = { value = values[name], source = "file" }
    end
  end
  return found
end

-- Create a directory, and those above it.
local function make_directories(path)
  local made, err = system.make_directory(path)
  if made ~= nil or err.reason ~= "not_found" then return made, err end
  local parent = path:match "^(.+)/[^/]*$"
  if not parent then return nil, err end
  made, err = make_directories(parent)
  if made == nil then return nil, err end
  return system.make_directory(path)
end

-- The path of the default store, or nil.
function settings.store_path()
  local directory = base_directory("XDG_STATE_HOME", "/.local/state")
  return directory and directory .. "/nymbl/store"
end

-- The default store; its directory is created.
local function default_store()
  local path = settings.store_path()
  if not path then return fail("missing", "NYMBL_STORE") end
  local made, err = make_directories(path:match "^(.*)/")
  if made == nil then return nil, nymbl.error { kind = "io", reason = err.reason } end
  return nymbl.store.file(path)
end

-- Client options from the settings that were found.
-- @tparam table found
-- @tparam table overrides client options that win
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] table the error
function settings.options(found, overrides)
  local function lookup(name) return found[name] and found[name].value end
  if not found.NYMBL_STORE then
    local store, err = default_store()
    if not store then return nil, err end
    overrides.store = store
  end
  return require("nymbl.settings").read(lookup, overrides)
end

return settings
