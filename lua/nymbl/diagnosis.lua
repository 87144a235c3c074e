-- SPDX-License-Identifier: MIT
-- Diagnosis of a set-up: client:check(). Every step is derived from the outcome of one listing
-- of one row, and of the token request before it. If there is no token, the listing is sent
-- with a placeholder, because its refusal shows that the service can be reached.

local call = require "nymbl.call"
local document = require "nymbl.document"
local errors = require "nymbl.errors"
local limiter = require "nymbl.limiter"
local page = require "nymbl.page"
local query = require "nymbl.query"
local token = require "nymbl.token"
local wait = require "nymbl.wait"

local diagnosis = {}

local STEPS = { "settings", "name", "connection", "certificate", "clock", "token", "key", "quota" }

-- The step that a failed listing belongs to, by reason or else by kind. All other failures
-- show that base_url does not lead to the service, or that this process cannot send.
local STEP_BY_REASON = {
  resolve = "name",
  certificate_expired = "certificate",
  certificate_not_yet_valid = "certificate",
  certificate_self_signed = "certificate",
  certificate_untrusted = "certificate",
  certificate_revoked = "certificate",
  host_name = "certificate",
  ca_file = "settings",
  ca_path = "settings",
  store_locked = "settings",
  unknown_route = "settings",
  rate_limit = "quota",
}
local STEP_BY_KIND = {
  network = "connection", tls = "connection", timeout = "connection", truncated = "connection",
  server = "connection", canceled = "connection",
  unauthorized = "token",
  forbidden = "key",
  quota = "quota", throttled = "quota",
}

-- The largest difference between the clocks that is no failure, in seconds. Certificates and
-- tokens are valid for longer, but their ends are missed by as much.
local MAX_SKEW = 60

local SECONDS_PER_DAY = 86400

-- Sent if there is no token.
local PLACEHOLDER = "none"

-- The environment of the check's own requests. It differs from the client's in that no request
-- is repeated, and that a failure to get a token is recorded in `facts`:
--   token_err      the error table, if there is no token
--   bearer         the token
--   was_cached     whether no token request was needed
--   rejected       a cached token that the service has refused
--   rejection      the error with which it did
local function environment(env, facts)
  local own = setmetatable({ max_attempts = 1 }, { __index = env })
  local source, cached = env.token, env.cached_token
  if env.token_store then source, cached = token.from_credentials(own, env.token_store, env.token_key) end
  function own.token(deadline, _, min_ttl)
    if facts.token_err then return PLACEHOLDER end
    facts.was_cached = env.token_store ~= nil and not facts.rejected and cached(deadline or math.huge) ~= nil
    local ran, bearer, err = pcall(source, deadline, facts.rejected, min_ttl)
    if not ran then
      errors.rethrow_out_of_memory(bearer)
      bearer, err = nil, { kind = "unauthorized", reason = "token_function", operation = "token" }
    end
    facts.bearer = bearer
    if bearer then return bearer end
    err = err or facts.rejection
    if err and err.operation ~= "token" then return nil, err end
    facts.token_err = err
    if deadline and wait.now() >= deadline then return nil, err end
    return PLACEHOLDER
  end
  return own
end

-- List one row. Records in `facts` what the exchange shows: `sent`, `certificate_lifetime` and
-- `clock_skew` (see transfer:peer() in lua/transfer.c). Returns the error, or nil.
local function list_one(env, patient_id, key, deadline, facts)
  local collection = patient_id and document.collection(env, patient_id)
    or { operation = "patients", path = { "Patients", false } }
  local plan = query.plan({ select = key, count = false }, "check", key)
  local request = page.request(collection, plan, 1, 0)
  local read = request.run
  request.inspect = true
  function request.run(transfer, till)
    local ok, result = read(transfer, till)
    facts.sent = transfer:was_sent()
    facts.certificate_lifetime, facts.clock_skew = transfer:peer()
    return ok, result
  end
  local timeout = deadline and math.max(0, deadline - wait.now())
  local ok, err = call.perform(env, collection.operation, { timeout = timeout }, request)
  return not ok and err or nil
end

-- Make the requests. Returns the facts, with `err` if the listing failed.
local function examine(env, patient_id, timeout)
  local facts = {}
  local own = environment(env, facts)
  local deadline = timeout and wait.now() + timeout
  local err = list_one(own, patient_id, "id", deadline, facts)
  if err and err.status == 401 and facts.was_cached then -- as for every call: once, with another token
    facts.rejected, facts.rejection = facts.bearer, err
    err = list_one(own, patient_id, "id", deadline, facts)
  end
  if err and err.status == 400 and not patient_id then -- the key of a patient may have another name
    err = list_one(own, patient_id, "patient_id", deadline, facts)
  end
  -- without a token, 401 is the expected response, and there is no other listing
  if facts.token_err and err and (err.status == 401 or err.operation == "token") then
    err = nil
  end
  facts.err = err
  return facts
end

-- The step that the listing's failure belongs to, or nil.
local function failed_step(err)
  if not err then return nil end
  if errors.is_from_proxy(err) then return "connection" end
  return STEP_BY_REASON[err.reason] or STEP_BY_KIND[err.kind] or "settings"
end

-- Whether the host name was resolved, as far as the listing shows it.
local function is_resolved(facts)
  local err = facts.err
  return facts.sent or (err ~= nil and not errors.is_from_proxy(err)
    and (err.kind == "tls" and failed_step(err) ~= "settings" or err.kind == "network" and err.reason ~= "resolve"))
end

-- Whether token request and listing have failed for the same cause, such as a proxy.
local function is_same_failure(token_err, err)
  return err ~= nil and err.reason ~= nil and err.kind == token_err.kind and err.reason == token_err.reason
end

local function add_token(env, facts, found, failed)
  local err = facts.err
  local is_accepted = not err and facts.sent or failed == "key" or (err and err.status == 429)
  if facts.token_err then
    if not is_same_failure(facts.token_err, err) then found.token = { err = facts.token_err } end
  elseif not found.token and (is_accepted or (env.token_store and facts.bearer)) then
    found.token = {}
  end
end

-- The month may be spent, although the service has accepted the listing.
local function quota_error(env)
  local usage, err = limiter.usage(env)
  if not usage then return errors.new(err) end
  if usage.remaining ~= 0 then return nil end
  return errors.new { kind = "quota", reason = "monthly_quota", retry_after = wait.seconds_left_in_month() }
end

-- Derive the steps from the facts. Returns a table by step; steps that are missing in it are
-- undecided.
local function derive(env, facts)
  local err, found = facts.err, { settings = {} }
  local failed = failed_step(err)
  if failed then found[failed] = { err = err } end
  if is_resolved(facts) then found.name = found.name or {} end
  if facts.sent or failed == "certificate" then found.connection = found.connection or {} end
  if facts.certificate_lifetime then
    found.certificate = { days = math.floor(facts.certificate_lifetime / SECONDS_PER_DAY) }
  end
  if facts.clock_skew then
    found.clock = { skew = facts.clock_skew }
    if math.abs(facts.clock_skew) > MAX_SKEW then found.clock.err = { kind = "io", reason = "clock_skew" } end
  end
  add_token(env, facts, found, failed)
  if not facts.token_err and facts.sent and (not err or err.status == 429) then
    found.key = {}
    found.quota = found.quota or { err = quota_error(env) }
  end
  return found
end

-- Check the set-up of a client.
-- @tparam table env the client's environment
-- @tparam ?string patient_id whose documents are listed; nil: the patients
-- @tparam ?number timeout seconds
-- @treturn table steps
-- @treturn boolean whether none of them failed
function diagnosis.check(env, patient_id, timeout)
  local found, steps, ok = derive(env, examine(env, patient_id, timeout)), {}, true
  for i, name in ipairs(STEPS) do
    local step = found[name]
    if not step then
      step = { state = ok and "unknown" or "skipped" }
    elseif step.err then
      step.err = errors.is(step.err) and step.err or errors.new(step.err)
      step.state, ok = "failed", false
    else
      step.state = "ok"
    end
    step.step = name
    steps[i] = step
  end
  return steps, ok
end

return diagnosis
