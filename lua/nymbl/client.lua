-- SPDX-License-Identifier: MIT
-- A client: its options, and the environment that all its objects share.

local core = require "nymbl.core"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local pace = require "nymbl.pace"
local patient = require "nymbl.patient"
local store = require "nymbl.store"
local token = require "nymbl.token"

local CLASS = "nymbl.client"
local methods = core.class(CLASS)

-- State: 1 the environment, a table with
--   client   the client userdata
--   token    a token source (token.lua)
--   token_at_hand  the same, without waiting
--   timeout  seconds for a call, or nil
--   on_event a function, or nil
--   store    where state is shared (store.lua), and there
--   account  the name of the account
--   pace     its limits (pace.lua)
--   max_attempts
--   keeper, key  where the token is kept, and under which name
--   closed   true once closed

local client = {}

-- The clients that are open in this process and may share a token: by the store that keeps
-- it, by its key there, their environments.
local open = setmetatable({}, { __mode = "k" })

local function open_add(env, keeper, key)
  local keys = open[keeper] or {}
  open[keeper] = keys
  keys[key] = keys[key] or setmetatable({}, { __mode = "k" })
  keys[key][env] = true
  env.keeper, env.key = keeper, key
end

-- The last one that is closed takes the token with it.
local function open_remove(env)
  local keeper, key = env.keeper, env.key
  if not keeper then return end
  local keys = open[keeper]
  keys[key][env] = nil
  if next(keys[key]) then return end
  keys[key] = nil
  store.forget(keeper, key)
end

local function rate(value)
  if value == false then return nil end
  if type(value) ~= "table" then return check.expected("table or false", value) end
  for key, pair in pairs(value) do
    if key ~= "read" and key ~= "download" then return ("unknown bucket '%s'"):format(tostring(key)) end
    if type(pair) ~= "table" or check.seconds(pair[1]) or check.seconds(pair[2]) then
      return ("bucket '%s': { rate, burst } expected"):format(key)
    end
  end
end

local function quota(value)
  if value == false then return nil end
  return check.integer(1, 2^53)(value)
end

local function token_option(value)
  if type(value) == "function" then return nil end
  if type(value) ~= "string" then return check.expected("string or function", value) end
  if not token.is_valid(value) then return "not a bearer token" end
end

local function store_option(value)
  if type(value) ~= "table" or type(value.update) ~= "function" then return check.expected("store", value) end
end

local CREDENTIALS = {
  token_url = check.nonempty,
  client_id = check.clean,
  client_secret = check.clean,
  scope = check.clean,
}

local function credentials(value)
  if type(value) ~= "table" then return check.expected("table", value) end
  for key, item in pairs(value) do
    local checker = CREDENTIALS[key]
    if not checker then return ("unknown option '%s'"):format(tostring(key)) end
    local problem = checker(item)
    if problem then return ("'%s': %s"):format(key, problem) end
  end
  for _, key in ipairs { "token_url", "client_id", "client_secret" } do
    if value[key] == nil then return ("'%s' is required"):format(key) end
  end
end

local CLIENT_OPTIONS = {
  base_url = check.nonempty,
  api_key = check.clean,
  credentials = credentials,
  token = token_option,
  ca_file = check.nonempty,
  ca_path = check.nonempty,
  proxy = check.string,
  connect_timeout = check.seconds,
  stall_timeout = check.seconds,
  timeout = check.seconds,
  allow_http = check.boolean,
  max_attempts = check.integer(1, 1000),
  rate = rate,
  monthly_quota = quota,
  store = store_option,
  max_upload_bytes = check.integer(1, 2^53),
  max_connections = check.integer(1, 1000000),
  user_agent = check.clean,
  on_event = check["function"],
}

local function url_check(options, url, name)
  local problem = core.url_problem(url, options.allow_http)
  if problem then check.argument(1, "client", ("option '%s' %s"):format(name, problem)) end
end

local function options_check(options)
  if type(options) ~= "table" then
    check.argument(1, "client", check.expected("table", options))
  end
  check.options(options, CLIENT_OPTIONS, 1, "client")
  for _, name in ipairs { "base_url", "api_key" } do
    if options[name] == nil then check.argument(1, "client", ("option '%s' is required"):format(name)) end
  end
  if options.credentials == nil and options.token == nil then
    check.argument(1, "client", "one of the options 'credentials' and 'token' is required")
  elseif options.credentials ~= nil and options.token ~= nil then
    check.argument(1, "client", "only one of the options 'credentials' and 'token' may be given")
  end
  url_check(options, options.base_url, "base_url")
  if options.credentials then url_check(options, options.credentials.token_url, "credentials.token_url") end
end

-- The options as the core takes them.
local function core_options(options)
  local plain = {}
  for _, name in ipairs { "base_url", "api_key", "ca_file", "ca_path", "proxy", "connect_timeout",
                          "stall_timeout", "allow_http", "max_upload_bytes", "max_connections",
                          "user_agent" } do
    plain[name] = options[name]
  end
  for name in pairs(CREDENTIALS) do
    plain[name] = options.credentials and options.credentials[name]
  end
  return plain
end

--- Make a client. Sends nothing.
-- @tab options see the README's table
-- @treturn[1] client
-- @treturn[2] nil
-- @treturn[2] table the error
-- @raise on a wrong or unknown option; never with a secret's value
function client.new(options)
  options_check(options)
  local env = {
    timeout = options.timeout, on_event = options.on_event, store = options.store or store.default,
    pace = pace.new(options), max_attempts = options.max_attempts or 5,
  }
  local self, err = core.client(core_options(options), { env })
  if not self then
    if err.kind == "misuse" then check.argument(1, "client", ("option '%s'"):format(err.reason)) end
    return nil, errors.new(err)
  end
  env.client, env.account = self, core.account(self)
  if options.credentials then
    local keeper, key = env.store.tokens or env.store, core.account(self, true)
    env.token, env.token_at_hand = token.from_credentials(env, keeper, key)
    open_add(env, keeper, key)
  elseif type(options.token) == "function" then
    env.token, env.token_at_hand = token.from_function(options.token)
  else
    env.token, env.token_at_hand = token.given(options.token)
  end
  return self
end

--- A patient of the service. No request.
-- @tparam string|integer id
-- @treturn patient
-- @raise on a wrong argument or a closed client
function methods.patient(self, id)
  local state = check.object(self, CLASS, "patient")
  return patient.new(state[1], check.id(id, 1, "patient"))
end

--- What was used of this month's quota, by all who share the store.
-- @treturn[1] table `month` ("2026-02", UTC), `requests`, `throttled` and
--   `remaining` (nil without a quota)
-- @treturn[2] nil the store failed
-- @treturn[2] table the error
-- @raise on a closed client
function methods.usage(self)
  local usage, err = pace.usage(check.object(self, CLASS, "usage")[1])
  if not usage then return nil, errors.new(err) end
  return usage
end

--- Cancel what runs, forget the secrets, close connections that no other client
-- uses. The token goes too, unless another open client of this process has the same
-- credentials; in a store that processes share it stays. Later calls raise; a second close
-- is harmless.
-- @treturn boolean true
function methods.close(self)
  local state = core.state(self, CLASS)
  if not state then check.object(self, CLASS, "close") end
  local env = state[1]
  if env.closed then return true end
  state[0], env.closed, env.token, env.token_at_hand = true, true, nil, nil
  core.client_close(self)
  open_remove(env)
  return true
end

return client
