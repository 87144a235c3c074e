-- SPDX-License-Identifier: MIT
-- Bearer tokens: static, from a function, or by OAuth 2.0 client credentials.
--
-- Each of the three has a constructor that returns two functions:
--   source(deadline, rejected, min_ttl)   returns a token other than `rejected` that remains
--                                         valid for `min_ttl` seconds; nil and an error table;
--                                         or only nil if `rejected` is the only token
--   cached(deadline)                      returns the current token, or nil if it must be
--                                         refreshed. Without `deadline` it does not wait

local call = require "nymbl.call"
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local events = require "nymbl.events"
local failure = require "nymbl.failure"
local json = require "nymbl.json"
local limiter = require "nymbl.limiter"
local store = require "nymbl.store"
local token_state = require "nymbl.token_state"
local wait = require "nymbl.wait"

local token = {}

-- The longest lifetime of a token from a function that is accepted, in seconds.
local MAX_LIFETIME = 24 * 3600

-- Whether a value can follow "Bearer " in a header. RFC 6750, section 2.1, allows fewer
-- characters.
function token.is_valid(value)
  return type(value) == "string" and value:find("^[!-~]+$") ~= nil and #value <= 16384
end

-- A token that never changes.
-- @treturn function source
-- @treturn function cached
function token.static(value)
  return function(_, rejected)
    if rejected == value then return nil end
    return value
  end, function()
    return value
  end
end

-- The caller that refreshes the token holds a short lease, and extends it while it waits for
-- the token endpoint. If its process is killed, the lease soon expires. Two callers never
-- refresh at once. All in seconds:
local LEASE = 3
local HEARTBEAT = 1 -- between two extensions of the lease
local REFRESH_TIMEOUT = 15
local POLL_INTERVAL = 1 / 20 -- between two checks of another caller's refresh

-- A failed refresh is stored as one text, for the callers that wait for the refresh. The text
-- consists of fixed words and numbers: it contains nothing that the server has written.

local function format_failure(err)
  return ("%s %s %s %s"):format(err.kind, err.reason or "-", err.status and ("%d"):format(err.status) or "-",
    err.retry_after and ("%d"):format(math.ceil(err.retry_after)) or "-")
end

-- Parse the text of a failure that is `age` seconds old. Returns an error table.
local function parse_failure(text, age)
  local kind, reason, status, retry_after = text:match("^([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)$")
  if not kind then return { kind = "protocol", reason = "token_response", operation = "token" } end
  retry_after = tonumber(retry_after)
  return {
    kind = kind, reason = reason ~= "-" and reason or nil, status = tonumber(status), operation = "token",
    retry_after = retry_after and math.max(0, retry_after - age),
  }
end

-- Kinds of failures that only the refreshing caller has: another caller may succeed.
local NOT_SHARED = { canceled = true, context = true, io = true, misuse = true, no_memory = true }

-- A `cache` describes tokens that a store keeps:
--   store, key      the store that keeps the token, and its key there
--   lease_seconds   the duration of a lease
--   fetch(refresh)  returns { access_token, lifetime } (without `lifetime` the token is for
--                   this call only); or nil, an error table, and true if the call's own
--                   deadline was too early
--   failure_if_raised    the error table that waiting callers get if `fetch` raises, or nil
--   remembers_rejection  whether later callers get the same failure, for some seconds, if the
--                        credentials were rejected
--
-- Callers that wait for a refresh share its failure: otherwise one after another would try
-- an endpoint that is down.
--
-- A `refresh` is the argument of `fetch`:
--   deadline        of the call, or nil
--   must_end_at     when it must end, whatever the call's deadline is
--   is_single_try   whether a failed request is not repeated, because the old token can still
--                   be used
--   wait(transfer, deadline)   as wait.wait, but extends the lease meanwhile

local function wait_and_extend_lease(cache, generation, transfer, deadline)
  while true do
    local now = wait.now()
    local ready, err = wait.wait(transfer, math.min(deadline, now + HEARTBEAT))
    if ready ~= false then return ready, err end
    store.tell(cache.store, cache.key, token_state.heartbeat, generation, cache.lease_seconds)
    if wait.now() >= deadline then return false end
  end
end

-- Refresh the token under a lease. Returns the new token, or else the old one if that is still
-- valid; or nil and an error table.
local function refresh_token(cache, lease, deadline, rejected, must_end_at)
  local generation, old_ttl = lease.generation, lease.old_ttl
  local fetch_deadline = deadline
  if old_ttl then -- if this fails, the call needs time to use the old token
    local now = wait.now()
    fetch_deadline = now + math.min(old_ttl, deadline and deadline - now or old_ttl) / 2
  end
  local ran, fetched, err, is_own_deadline = pcall(cache.fetch, {
    deadline = fetch_deadline, must_end_at = must_end_at, is_single_try = old_ttl ~= nil,
    wait = function(transfer, till) return wait_and_extend_lease(cache, generation, transfer, till) end,
  })
  local bearer = ran and fetched and fetched.access_token ~= rejected and fetched.access_token or nil
  if ran and fetched and fetched.lifetime then
    -- The other callers wait for this, so it must not be lost for nothing. If the store fails, the
    -- token is valid anyway; when the lease has expired, it is too late.
    store.ask(cache.store, cache.key, math.min(deadline or math.huge, wait.now() + cache.lease_seconds),
      token_state.publish, generation, fetched.access_token, fetched.lifetime)
    return bearer
  end
  local shared, is_remembered = nil, false
  if not ran then
    shared = not errors.is_out_of_memory(fetched) and cache.failure_if_raised or nil
  elseif not fetched and not NOT_SHARED[err.kind] and (old_ttl or not is_own_deadline) then
    shared, is_remembered = err, cache.remembers_rejection and err.kind == "unauthorized"
  end
  local shared_failure = shared and format_failure(shared)
  if not ran or fetched or (deadline and wait.now() >= deadline) then -- nothing is left to be asked
    store.tell(cache.store, cache.key, token_state.release, generation, rejected, shared_failure, is_remembered)
    if not ran then error(fetched, 0) end
    return bearer, err
  end
  local released, old = store.ask(cache.store, cache.key, deadline, token_state.release, generation, rejected,
    shared_failure, is_remembered)
  if released and old then return old end
  return nil, err
end

-- Returns a valid token, if necessary after a refresh by this or another caller.
local function get_token(cache, deadline, rejected, min_ttl)
  local began, since = wait.now(), nil
  while true do
    local ok, bearer, action = store.ask(cache.store, cache.key, deadline, token_state.acquire, cache.lease_seconds,
      rejected, min_ttl or 0, since)
    if since and (not ok or bearer or action.generation or action.failure) then events.end_wait() end
    if not ok then return nil, bearer end -- the store's error
    if bearer then return bearer end
    if action.generation then
      -- if this caller has waited for another one's refresh, REFRESH_TIMEOUT includes that wait
      local must_end_at = since and math.max(began + REFRESH_TIMEOUT, wait.now() + LEASE) or math.huge
      return refresh_token(cache, action, deadline, rejected, must_end_at)
    end
    if action.failure then return nil, parse_failure(action.failure, action.age) end
    if not since then
      since = action.now
      events.begin_wait "token"
    end
    local now = wait.now()
    if deadline and now >= deadline then
      return nil, { kind = "timeout", reason = "token_wait", operation = "token" }
    end
    local waited, err = wait.wait(nil, math.min(now + math.min(action.retry_in, POLL_INTERVAL), deadline or math.huge))
    if waited == nil then return nil, err end
  end
end

-- The functions `source` and `cached` of a cache.
local function functions_of(cache)
  return function(deadline, rejected, min_ttl)
    return get_token(cache, deadline, rejected, min_ttl)
  end, function(deadline)
    local ok, bearer = store.ask(cache.store, cache.key, deadline or wait.now(), token_state.cached)
    return ok and bearer or nil
  end
end

-- Seconds from a number or from digits; nil for anything else. (tonumber() depends on the
-- locale.)
local function seconds_of(value)
  if type(value) == "string" then value = tonumber(value:match("^([0-9]+)%.?[0-9]*$")) end
  return type(value) == "number" and value > 0 and value or nil
end

-- Tokens from the program's function, which returns `token, expires_in`. Without `expires_in`
-- it is called for every request. Its tokens never enter a shared store.
-- @treturn function source
-- @treturn function cached
function token.from_function(fn)
  return functions_of {
    store = store.memory(), key = "token", lease_seconds = REFRESH_TIMEOUT,
    failure_if_raised = { kind = "unauthorized", reason = "token_function" },
    fetch = function()
      local value, expires_in = fn()
      if not token.is_valid(value) then
        local has_detail = not value and type(expires_in) == "string"
        return nil, { kind = "unauthorized", reason = "token_function", operation = "token",
                      detail = has_detail and expires_in or nil }
      end
      local lifetime = seconds_of(expires_in)
      return { access_token = value, lifetime = lifetime and math.min(lifetime, MAX_LIFETIME) }
    end,
  }
end

-- Add the fields that a decoded error response determines.
local function add_error_response(err, response)
  -- with a 400 the endpoint refuses the credentials (RFC 6749, section 5.2)
  if err.status == 400 then err.kind = "unauthorized" end
  if response and type(response.error) == "string" then
    err.code = response.error
    err.detail = type(response.error_description) == "string" and response.error_description or nil
  end
  return err
end

-- Wait for the response to a token request, and report it to on_event.
local function wait_and_report(transfer, refresh, deadline, pending)
  local done, err, fetched
  repeat
    done, err = transfer:result()
    if done == false then
      events.check_connection(transfer, "token")
      if not refresh.wait(transfer, deadline) then call.cancel_on_deadline(transfer) end
    end
  until done ~= false
  if done then
    local access_token, lifetime = core.token_read(transfer:body() or "")
    if access_token then
      fetched = { access_token = access_token, lifetime = lifetime }
    else
      err = lifetime -- the error table
      err.status = 200
    end
  else
    err = add_error_response(err, (json.decode_response(transfer:body())))
  end
  if err then err.operation, err.request_id = "token", transfer:request_id() end
  events.finish(pending, err)
  return fetched, err
end

-- Send one token request (RFC 6749, section 4.4). It is not an attempt of the call.
local function send_request(env, refresh, deadline, attempt, waited)
  local transfer, err = core.start_token(env.client)
  if not transfer then
    err.operation = "token"
    return nil, err
  end
  local pending
  if env.on_event then
    pending = events.begin(env, transfer, {
      operation = "token", attempt = attempt, waited = waited, tag = events.tag(),
    })
  end
  local ran, fetched, problem = pcall(wait_and_report, transfer, refresh, deadline, pending)
  pcall(events.abandon, pending) -- if it has raised an error
  wait.close(transfer)
  if not ran then error(fetched, 0) end
  return fetched, problem
end

local function closed_error()
  return { kind = "canceled", reason = "closed" }
end

-- Send token requests until one succeeds or another one would not help. They are retried like
-- the requests of a call, and at most as often.
local function fetch(env, token_store, refresh)
  -- if the store of rate limit and quota cannot be used, the call would fail anyway
  local ok, problem = true, nil
  if token_store ~= env.store then ok, problem = limiter.check_store(env, refresh.deadline) end
  if env.closed then return nil, closed_error() end
  if not ok then return nil, problem end
  local attempt, waited = 1, 0
  while true do
    local deadline = math.min(wait.now() + REFRESH_TIMEOUT, refresh.must_end_at, refresh.deadline or math.huge)
    local fetched, err = send_request(env, refresh, deadline, attempt, waited)
    if fetched then return fetched end
    if err.reason == "deadline" then
      if deadline == refresh.deadline then return nil, err, true end
      err.reason = "token_wait"
      return nil, err
    end
    -- a timeout is not retried: the callers that wait for this refresh would wait several times
    local is_last = refresh.is_single_try or attempt >= env.max_attempts
    if is_last or err.kind == "timeout" or not failure.is_transient(err) then
      return nil, err
    end
    waited = failure.backoff(attempt, err)
    if refresh.deadline and wait.now() + waited >= refresh.deadline then return nil, err, true end
    events.token_waits((err.retry_after or err.kind == "throttled") and "pause" or "retry", waited)
    local retry_at = wait.now() + waited
    repeat
      refresh.wait(nil, math.min(retry_at, wait.now() + HEARTBEAT))
      if env.closed then return nil, closed_error() end
    until wait.now() >= retry_at
    attempt = attempt + 1
  end
end

-- Tokens by OAuth 2.0 client credentials, which the client userdata holds.
-- @tparam table env the client's environment
-- @param token_store the store that keeps the token
-- @tparam string key under which it is kept there
-- @treturn function source
-- @treturn function cached
function token.from_credentials(env, token_store, key)
  return functions_of {
    store = token_store, key = key, lease_seconds = LEASE, remembers_rejection = true,
    fetch = function(refresh) return fetch(env, token_store, refresh) end,
  }
end

return token
