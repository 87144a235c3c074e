-- SPDX-License-Identifier: MIT

--- A client: the service, the credentials and the settings of calls. Made by `nymbl.client`.
-- @classmod client

local core = require "nymbl.core"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local events = require "nymbl.events"
local headers = require "nymbl.headers"
local lazy = require "nymbl.lazy"
local limiter = require "nymbl.limiter"
local patient = require "nymbl.patient"
local store = require "nymbl.store"
local token = require "nymbl.token"

local CLASS = "nymbl.client"
local methods = core.class(CLASS)

-- The state of a client (see lua/object.h) is its environment alone: `env`, a table with
--   client       the client userdata
--   token        returns a token, if necessary after a refresh (`source` in token.lua)
--   cached_token returns the current token (`cached` in token.lua)
--   timeout      seconds for a call, or nil
--   headers      of all requests to the service: a table, a function of the operation, or nil
--   on_event, on_wait   functions, or nil (events.lua)
--   pending_events, collected_events   with on_event: the events of requests that have not ended,
--                as keys; and those of requests whose owners were collected
--   store        the store of the rate and quota state (store.lua)
--   account      the key of the account's state in that store
--   limits       the client's limits by bucket (limiter.lua)
--   max_attempts the largest number of attempts of a call
--   token_store  the store of the token, or nil if the program supplies the tokens
--   token_key    the token's key in that store
--   detach_store, store_finalizer   what store.attach has set, if the store has connections
--   closed       true once the client is closed

local client = {}

-- The environments of the open clients in this process that share a token:
-- token_users[store][key] is a set of them.
local token_users = setmetatable({}, { __mode = "k" })

local function add_token_user(env, token_store, key)
  local keys = token_users[token_store] or {}
  token_users[token_store] = keys
  keys[key] = keys[key] or setmetatable({}, { __mode = "k" })
  keys[key][env] = true
  env.token_store, env.token_key = token_store, key
end

-- If no other open client uses the token, this also removes it from the memory of this
-- process.
local function remove_token_user(env)
  local token_store, key = env.token_store, env.token_key
  if not token_store then return end
  local keys = token_users[token_store]
  keys[key][env] = nil
  if next(keys[key]) then return end
  keys[key] = nil
  store.delete_from_memory(token_store, key)
end

-- Checkers of options (see check.lua).

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
  if type(value) ~= "table" or type(value.update) ~= "function" or type(value.now) ~= "function" then
    return check.expected("store", value)
  end
end

local CREDENTIALS = {
  token_url = check.nonempty,
  client_id = check.printable,
  client_secret = check.printable,
  scope = check.printable,
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
  api_key = check.printable,
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
  user_agent = check.printable,
  headers = headers.client_checker,
  on_event = check["function"],
  on_wait = check["function"],
}

client.OPTIONS, client.CREDENTIALS = CLIENT_OPTIONS, CREDENTIALS -- for settings.lua

local function check_url(options, url, name)
  local problem = core.url_problem(url, options.allow_http)
  if problem then check.raise_argument(1, "client", ("option '%s' %s"):format(name, problem)) end
end

local function check_options(options)
  if type(options) ~= "table" then
    check.raise_argument(1, "client", check.expected("table", options))
  end
  check.options(options, CLIENT_OPTIONS, 1, "client")
  for _, name in ipairs { "base_url", "api_key" } do
    if options[name] == nil then check.raise_argument(1, "client", ("option '%s' is required"):format(name)) end
  end
  if options.credentials == nil and options.token == nil then
    check.raise_argument(1, "client", "one of the options 'credentials' and 'token' is required")
  elseif options.credentials ~= nil and options.token ~= nil then
    check.raise_argument(1, "client", "only one of the options 'credentials' and 'token' may be given")
  end
  check_url(options, options.base_url, "base_url")
  if options.credentials then check_url(options, options.credentials.token_url, "credentials.token_url") end
end

-- The options of core.client.
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

-- nymbl.client(options), see lua/nymbl.lua. Returns a client, or nil and an error.
function client.new(options)
  check_options(options)
  local env = {
    timeout = options.timeout, headers = headers.copy(options.headers), store = options.store or store.default,
    on_event = options.on_event, on_wait = options.on_wait, limits = limiter.limits_from_options(options),
    max_attempts = options.max_attempts or 5,
  }
  if env.on_event or env.on_wait then events.are_used = true end
  if env.on_event then
    env.pending_events, env.collected_events = setmetatable({}, { __mode = "k" }), {}
  end
  local self, err = core.client(core_options(options), { env = env })
  if not self then
    if err.kind == "misuse" then check.raise_argument(1, "client", ("option '%s'"):format(err.reason)) end
    return nil, errors.new(err)
  end
  env.client, env.account = self, core.account(self, "limits")
  store.attach(env.store, env)
  if options.credentials then
    local token_store, key = store.of_tokens(env.store), core.account(self, "token")
    env.token, env.cached_token = token.from_credentials(env, token_store, key)
    add_token_user(env, token_store, key)
  elseif type(options.token) == "function" then
    env.token, env.cached_token = token.from_function(options.token)
  else
    env.token, env.cached_token = token.static(options.token)
  end
  return self
end

--- Create a patient object. Sends no request.
-- @function patient
-- @tparam string|integer id of the patient
-- @treturn patient
-- @raise on a wrong argument or a closed client
-- @usage
-- local patient = client:patient(12345)
function methods.patient(self, id)
  local state = check.object(self, CLASS, "patient")
  return patient.new(state.env, check.id(id, 1, "patient"))
end

--- Iterate over all patients of the account. Sends one request per page of 100 patients, as
-- @{patient:documents} does. No patient is returned twice, and none is skipped if others are added or
-- removed meanwhile.
-- @function patients
-- @tparam[opt] table options
-- @tparam[opt] string options.filter an OData filter; make it with `nymbl.filter`
-- @tparam[opt] string|table options.select names of the fields to request (default: only the id); they can
--   be read from the patients: `patient.first_name`
-- @tparam[opt] string|table options.orderby names with `asc` or `desc` (default: the id); the id is always added
-- @tparam[opt] integer options.top the largest number of patients in total
-- @tparam[opt=0] integer options.skip patients to skip at the beginning
-- @tparam[opt=100] integer options.page_size patients per request, 1 to 100
-- @tparam[opt=true] boolean options.count whether to request the total number
-- @tparam[opt] number options.timeout seconds for each page (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn function an iterator of patients for a `for` loop. It waits for each page, and raises the
--   error if a page fails
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- for patient in client:patients() do
--   print(patient.id, assert(patient:count()))
-- end
function methods.patients(self, options)
  return lazy.load("nymbl.patients").list(check.object(self, CLASS, "patients").env, options)
end

--- Report the use of this month's quota by all clients of the account that share the store.
-- Sends no request; waits only for the store.
-- @function usage
-- @treturn[1] table `month` (such as `"2026-02"`, UTC), `requests`, `throttled` (responses with
--   status 429) and `remaining` (nil without a quota)
-- @treturn[2] nil the store failed
-- @treturn[2] table the error
-- @raise on a closed client
-- @usage
-- local usage = assert(client:usage())
-- print(usage.month, usage.requests, usage.remaining)
function methods.usage(self)
  local usage, err = limiter.usage(check.object(self, CLASS, "usage").env)
  if not usage then return nil, errors.new(err) end
  return usage
end

-- A checker (see check.lua) of a patient or an id.
local function patient_option(value)
  if type(value) == "number" then return check.integer(-2^53, 2^53)(value) end
  if type(value) == "string" then return check.nonempty(value) end
  if not core.state(value, "nymbl.patient") then return check.expected("patient or id", value) end
end

local CHECK_OPTIONS = { patient = patient_option, timeout = check.seconds }

--- Check the set-up, step by step. Sends one token request, unless the token is cached, and
-- requests one row of a listing; waits for both.
-- @function check
-- @tparam[opt] table options
-- @tparam[opt] patient|string|integer options.patient the patient whose documents are listed (default:
--   the patients are listed)
-- @tparam[opt] number options.timeout seconds (default: the client's)
-- @treturn table an array of steps (@{nymbl.step}), in a fixed order: settings, name, connection,
--   certificate, clock, token, key, quota
-- @treturn boolean whether no step failed
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local steps, ok = client:check()
-- for _, step in ipairs(steps) do
--   print(step.step, step.state, step.err or "")
-- end
function methods.check(self, options)
  local state = check.object(self, CLASS, "check")
  options = check.options(options, CHECK_OPTIONS, 1, "check")
  local given, id = options.patient, nil
  if given ~= nil then
    local patient_state = type(given) == "userdata" and core.state(given, "nymbl.patient")
    id = patient_state and patient_state.id or check.id(given, 1, "check")
  end
  return lazy.load("nymbl.diagnosis").check(state.env, id, options.timeout or state.env.timeout)
end

--- Write every document of some patients to a file, with a manifest. Can be called again and again:
-- only new and changed documents are downloaded. After a kill or a power cut, the next run continues.
--
-- The file is `folder/PATIENT/NAME`: PATIENT is the id, or its safe form, and NAME is
-- `doc:safe_name { unique = true }`. `folder/manifest.jsonl` has one JSON object per document:
-- `patient_id`, `id`, `path`, `size`, `sha256`, `content_type`, `document_type`, `file_name`,
-- `description` and `uploaded_at`; of several lines of a document the last one counts.
-- @function export
-- @tparam string folder is created if it does not exist; its parent must
-- @tparam[opt] table options
-- @tparam[opt] table|function options.patients an array or an iterator of ids or patients (default: all
--   patients)
-- @tparam[opt] string options.filter an OData filter of the documents; make it with `nymbl.filter`
-- @tparam[opt=4] integer options.concurrency downloads at once
-- @tparam[opt] integer options.budget the largest number of requests that this run may send, retries included,
--   token requests not. The next run continues with the patients who have waited longest
-- @tparam[opt=false] boolean options.dry_run list, but download and write nothing
-- @tparam[opt=false] boolean options.verify read existing files again, and download those whose SHA-256 differs
-- @tparam[opt] function options.progress called with the @{nymbl.export_report} now and then, and once at the end;
--   return false to cancel
-- @tparam[opt] number options.timeout seconds for each page and each document (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] table what was done (@{nymbl.export_report}), also if some or all of it failed
-- @treturn[2] nil the run could not begin
-- @treturn[2] table the error; reason `in_use`: another run uses the folder; `other_service`: the folder
--   belongs to another one
-- @raise on a wrong argument, an unknown option or a closed client; and what `progress` or an iterator
--   raised
-- @usage
-- local report = assert(client:export("backup", { budget = 300 }))
-- print(report.complete, report.downloaded, report.failed)
function methods.export(self, folder, options)
  return lazy.load("nymbl.export").export(check.object(self, CLASS, "export").env, folder, options)
end

--- Close the client. Cancels its transfers, wipes its secrets from memory, and closes the
-- connections that no other client uses. The token is removed as well, unless another open
-- client in this process has the same credentials; a store that processes share keeps it.
-- Later calls raise, but a second close does nothing. Does not wait.
-- @function close
-- @treturn boolean true
-- @usage
-- client:close()
function methods.close(self)
  local state = core.state(self, CLASS)
  if not state then check.object(self, CLASS, "close") end
  local env = state.env
  if env.closed then return true end
  -- in this order: an error of a debug hook (Ctrl-C) may end this function anywhere
  core.client_close(self)
  state.closed, env.closed = true, true
  env.token, env.cached_token = nil, nil
  remove_token_user(env)
  store.detach(env)
  local ok, raised = events.close(env)
  if not ok then error(raised, 0) end
  return true
end

return client
