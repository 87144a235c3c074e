-- SPDX-License-Identifier: MIT
-- The error table: the fields that describe a failure. Its tostring() is one line of
-- fixed words that is safe to log.

local core = require "nymbl.core"
local check = require "nymbl.check"

local errors = {}

local metatable = { __name = "nymbl.error" }

local NOT_A_FILE = "no file can be created there: pass a file handle or a sink"
local CLOCK = "the server's certificate is not valid today: check the clock of this machine"
local SIGNER = "no trusted authority has signed the certificate: check ca_file"

-- Advice by reason: the cause, and what to do about it. The key "kind.reason" takes
-- precedence over the reason alone, and a reason over the kind (core.kinds). All reasons
-- that only Lua finds are here, with false if the kind's advice applies; those of the core
-- are in core/base/reasons.def.
local BY_REASON = {
  resolve = "the host has no address: check the host name in the URL",
  connect = "no connection could be made: check the network, then try again",
  reset = "the connection broke: try again",
  early_response = "the response came before the document was sent: try again",
  proxy = "the proxy cannot be reached or refuses: check the option proxy",
  proxy_auth = "the proxy wants another user or password: check those in the option proxy",
  stall = "nothing has moved for too long: try again",
  deadline = "the call took longer than its timeout: allow more time",
  rate_limit = "the rate limit would take longer than the timeout: allow more time",
  token_wait = "the token took too long: try again",
  store_locked = "the store is locked: try again",
  store_down = "the store in Redis does not answer: check that it runs and can be reached, then try again",
  store_auth = "the store in Redis refuses the user, the password or a command: check username and password",
  store_certificate = "the certificate of the store in Redis cannot be verified: check url and ca_file",
  store_full = "the store in Redis has no memory left: raise its maxmemory",
  store_readonly = "the store in Redis accepts no writes: name the primary in urls",
  store_protocol = "that is no store in Redis: check url, and that no other program uses its keys",
  cluster = "another node of the cluster has the keys: use a Redis that is no cluster",

  handshake = "no TLS connection could be made: check the port in the URL",
  protocol_version = "the server does not speak TLS 1.2 or newer: report it to the service",
  certificate_expired = CLOCK,
  certificate_not_yet_valid = CLOCK,
  certificate_self_signed = SIGNER,
  certificate_untrusted = SIGNER,
  certificate_revoked = "the certificate is revoked: report it to the service",
  host_name = "the certificate is for another host: check the host name in the URL",
  ca_file = "the trusted certificates cannot be read: check ca_file",
  ca_path = "the trusted certificates cannot be read: check ca_path",

  api_key = "the gateway refuses the key: check api_key",
  unknown_route = "the gateway knows no such path: check the prefix in base_url",
  url_too_long = "an id, a filter or a link is too long for a URL: check it",
  token_function = "the token function gave no token: check what it returns",
  monthly_quota = "this month's budget is spent: wait for the next month",
  limit_exceeded = "the service says that the month's quota is spent: ask it for more",
  token_response = false,

  clock_skew = "this machine's clock differs from the service's: set it",

  too_many_files = "no descriptor is left: raise the limit of open files",
  too_many_threads = "no thread is left: raise the limit of processes and threads",
  no_space = "no space is left: make room there",
  exists = "there is a file of that name: choose another one, or let it be replaced",
  reserved_name = "incomplete files have such names: choose another one",
  permission = "it is not permitted: check the owner and mode of the path",
  ["io.not_found"] = "there is no such file or directory: check the path",
  directory = "it is a directory: pass the path of a file",
  not_a_directory = "a part of the path is no directory: check the path",
  name_too_long = "the path is too long: choose a shorter one",
  too_many_links = "the path has too many links: choose another one",
  too_many_entries = "the directory has too many entries: divide it",
  read_only = "the file system is read-only: choose another path",
  file_too_big = "the file would be larger than is allowed: raise the limit of file sizes",
  ["io.changed"] = "another program changed the file meanwhile: try again",
  not_open_for_access = "the handle is not open for this: open it in another mode",
  in_use = "another run uses these files: wait until it has ended",
  other_service = "the files belong to another service: choose other ones",
  ["io.size_mismatch"] = "the source does not have the stated size: check size",

  signature = "the bytes are not of that type: check the file",
  empty = "there are no bytes: check the file",
  no_length = "nothing says where the response ends: report it to the service",
  bad_json = false,
  unexpected_json = false,
  bad_id = false,
  bad_next_link = false,
  bad_metadata = "a text of the document cannot be sent as it is: pass another one as an option",
  patient_mismatch = false,
  document_mismatch = false,
  pagination_loop = false,
  rows_missing = false,

  ["settings.missing"] = "the variable is not set: set it",
  ["settings.not_found"] = "the file that the variable, or the profile, names does not exist: check its path",
  ["settings.permission"] = "only you or root may own the file, and only its owner may read or write it: "
    .. "check owner and mode",
  ["settings.invalid"] = "the variable has a value that cannot be used: check it",
  bad_line = "a line of the configuration file is no setting: check it",
  unknown_name = "the configuration file has a name that is no setting: check it",

  raised = false,
  unconfirmed = false,
  budget = "the run's budget is spent: continue with another run",
  stopped = false,
  c_call_boundary = false,
  coroutine = false,
  main_coroutine = false,
  -- phases of nginx in which nothing may wait, as ngx.get_phase() calls them
  set = false,
  header_filter = false,
  body_filter = false,
  log = false,
  balancer = false,
  init_worker = false,
  exit_worker = false,
  ssl_session_store = false,
}

-- Advice by HTTP status, if there is none for the reason.
local BY_STATUS = {
  [411] = "the service must know the size beforehand: pass the option size",
}

-- Advice by kind if the token request failed (operation "token").
local TOKEN_BY_KIND = {
  bad_request = "the token endpoint refuses the request: check credentials",
  unauthorized = "the token endpoint refuses the credentials: check client_id and client_secret",
  forbidden = "the token endpoint is not open to this client: check token_url",
  not_found = "there is no token endpoint: check token_url",
  http = "that is no token endpoint: check token_url",
  redirect = "that is no token endpoint: check token_url",
  protocol = "the response is no token: check token_url",
  throttled = "the token endpoint is asked too often: try again later",
  server = "the token endpoint failed: try again later",
  truncated = "the token response ended too early: try again",
}

errors.reasons = BY_REASON -- for the spec that compares them with the code

-- A list of patients has no ids that could be wrong.
local NO_PATIENTS = "there is no list of patients: check the prefix in base_url"

local OUTCOME_UNKNOWN = "it may have been carried out: look before you repeat it"

local function advice(err)
  if err.outcome_unknown then return OUTCOME_UNKNOWN end
  local kind, reason = err.kind, err.reason
  if err.operation == "download" and (reason == "not_a_file" or reason == "mount_point") then return NOT_A_FILE end
  if err.operation == "patients" and kind == "not_found" then return NO_PATIENTS end
  if err.operation == "token" and err.code == "invalid_scope" then
    return "the token endpoint refuses the scope: check credentials.scope"
  end
  return reason and (BY_REASON[kind .. "." .. reason] or BY_REASON[reason])
    or err.operation == "token" and TOKEN_BY_KIND[kind]
    or BY_STATUS[err.status] or core.kinds[kind] or ""
end

-- The line consists of fixed words only: it must hold no URL, id, name, secret or
-- server-supplied text.
function metatable.__tostring(err)
  local words = { "nymbl: " }
  if err.operation then words[#words + 1] = err.operation .. ": " end
  words[#words + 1] = err.kind
  if err.status then
    words[#words + 1] = " " .. string.format("%d", err.status)
  end
  if err.reason then
    words[#words + 1] = " (" .. err.reason .. ")"
  end
  if err.retry_after and not err.outcome_unknown then
    words[#words + 1] = string.format(", retry after %.0f s", math.ceil(err.retry_after))
  end
  -- The name of a variable identifies no patient. Other kinds have the server's words there.
  if err.kind == "settings" and tostring(err.detail):find("^NYMBL_[A-Z_]+$") then
    words[#words + 1] = ": " .. err.detail
  end
  words[#words + 1] = ": " .. advice(err)
  return table.concat(words)
end

function metatable.__concat(a, b)
  return tostring(a) .. tostring(b)
end

-- Turn a table of error fields (README.md, "Errors") into an error.
-- @tparam table fields at least `kind`; this table itself becomes the error
-- @tparam ?string operation the operation, unless the fields have one
-- @treturn table the error
function errors.new(fields, operation)
  fields.from_store = nil
  fields.attempts = fields.attempts or 0
  fields.operation = fields.operation or operation
  return setmetatable(fields, metatable)
end

-- Checkers of fields (see check.lua). Kind, reason and operation get into tostring().

local function kind(value)
  local problem = check.string(value)
  if problem then return problem end
  if not core.kinds[value] then return "unknown kind" end
end

local function word(value)
  local problem = check.string(value)
  if problem then return problem end
  if not value:find("^[a-z][a-z0-9_]*$") then return "not a word of lower-case letters" end
end

local function seconds(value)
  if type(value) ~= "number" then return check.expected("number", value) end
  if not (value >= 0 and value < math.huge) then return "must not be negative" end
end

local FIELDS = {
  kind = kind,
  status = check.integer(100, 999),
  reason = word,
  code = check.string,
  detail = check.string,
  operation = word,
  request_id = check.string,
  attempts = check.integer(0, 2^53),
  retry_after = seconds,
  outcome_unknown = check.boolean,
}

-- nymbl.error(fields), see lua/nymbl.lua.
function errors.error(fields)
  if type(fields) ~= "table" then check.raise_argument(1, "error", check.expected("table", fields)) end
  if fields.kind == nil then check.raise_argument(1, "error", "option 'kind' is required") end
  local err = {}
  for name, value in pairs(check.options(fields, FIELDS, 1, "error")) do err[name] = value end
  return errors.new(err)
end

-- Whether a proxy caused the failure. `status`, if set, is then the proxy's.
function errors.is_from_proxy(err)
  return err.reason == "proxy" or err.reason == "proxy_auth"
end

-- Whether a value is an error made by errors.new().
function errors.is(value)
  return getmetatable(value) == metatable
end

local NO_MEMORY = "not enough memory"

-- Whether a caught error is Lua's out-of-memory error.
function errors.is_out_of_memory(err)
  return type(err) == "string" and err:find(NO_MEMORY, 1, true) ~= nil
end

-- Raise a caught error again if it is Lua's out-of-memory error. That error says nothing about
-- the function that was called, so this library never reports it as that function's failure.
-- The message is Lua's own: `require` adds a prefix to it, and Lua 5.3's buffers add a suffix.
-- @param err the error value that `pcall` returned
function errors.rethrow_out_of_memory(err)
  if errors.is_out_of_memory(err) then error(NO_MEMORY, 0) end
end

-- Call a pure function, and distinguish its own errors from those of other causes. Wrong
-- arguments make it raise the same error at every call. An error that does not recur has
-- another cause: out of memory, or a debug hook (`lua` handles Ctrl-C by a hook, and
-- programs use hooks to stop code that runs for too long).
-- @tparam function call `pcall`, or a function that behaves like it
-- @tparam function fn the pure function
-- @param ... its arguments
-- @treturn[1] boolean true
-- @return[1] the first result
-- @treturn[2] boolean false: the arguments make the function fail
-- @raise an error that the arguments did not cause
function errors.try(call, fn, ...)
  local ran, first = call(fn, ...)
  if ran then return true, first end
  errors.rethrow_out_of_memory(first)
  local second, third
  ran, second = call(fn, ...)
  if ran then error(first, 0) end
  errors.rethrow_out_of_memory(second)
  if first == second then return false end
  ran, third = call(fn, ...)
  error(not ran and third == first and second or first, 0)
end

return errors
