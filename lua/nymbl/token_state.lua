-- SPDX-License-Identifier: MIT
-- The state that clients with the same credentials share: the token, and the lease to
-- refresh it.
--
-- Its functions are changes, under the same rules as those of rate_state.lua. Their first result
-- is always true.
--
-- The state is a flat table:
--   access_token, lifetime   the token, and the seconds for which it was issued
--   expires_at, refresh_at   when the token expires, and when it should be refreshed
--   lease_until, generation  the lease of the caller that refreshes it. The generation is a
--                            fencing token: it identifies the current lease
--   failure, failed_at       the failure of the last refresh, as a text (token.lua), and its time
--   failed_until             the time until which all callers share the failure

local token_state = {}

local MAX_LIFETIME = 24 * 3600

-- Seconds after a failed refresh before the next one: while the old token can still be used, so
-- that no call waits for an endpoint that is down; and after credentials were rejected.
local REFRESH_COOLDOWN = 5

-- Seconds before its expiry at which a token is refreshed, so that it does not expire while a
-- request is on its way.
local function refresh_margin(lifetime)
  return math.min(60, lifetime / 5)
end

-- Seconds until the token expires; 0 if it cannot be used.
local function ttl_of(state, now, rejected)
  if type(state.access_token) ~= "string" or state.access_token == rejected then return 0 end
  local ttl = state.expires_at - now
  if ttl > math.min(state.lifetime or 0, MAX_LIFETIME) then return 0 end -- the clock was set
  return math.max(0, ttl)
end

-- The failure that a caller shares, and its age; or nil. A caller shares the failure if it was
-- already waiting when the refresh failed; every caller shares it until `failed_until`.
local function shared_failure(state, now, since)
  local at, till = state.failed_at, state.failed_until
  if not state.failure or not at or at > now then return nil end
  local is_remembered = till and now < till and till <= now + REFRESH_COOLDOWN
  if (since and at >= since) or is_remembered then return state.failure, now - at end
end

-- Seconds for which the failure of a refresh is kept: by then all waiting callers have read it.
local FAILURE_RETENTION = 60

local function number_or_zero(value)
  return type(value) == "number" and value or 0
end

-- Seconds for which a state must be kept if it is not used: until the token has expired, no
-- caller refreshes it, and no caller waits for the failure of a refresh. The state may be malformed.
function token_state.retention(state, now)
  local till = math.max(number_or_zero(state.expires_at), number_or_zero(state.lease_until),
    number_or_zero(state.failed_at) + FAILURE_RETENTION)
  return math.max(0, math.min(till - now, MAX_LIFETIME))
end

-- The token, if it can be used and need not be refreshed yet.
-- @treturn boolean true
-- @treturn ?string the token
function token_state.cached(state, now)
  if ttl_of(state, now) > 0 and now < state.refresh_at then return true, state.access_token end
  return true, nil
end

-- Return the token, or a lease to refresh it.
-- @tparam number lease seconds
-- @tparam ?string rejected a token that the service has refused
-- @tparam number min_ttl seconds for which the token must last
-- @tparam ?number since when the caller began to wait for another caller's refresh
-- @treturn boolean true
-- @treturn ?string the token, if one can be used
-- @treturn ?table otherwise, what the caller must do:
--   with `generation`, refresh the token under this lease (`old_ttl`: seconds for which the old
--   token remains valid, or nil);
--   with `failure`, fail with it (`age`: seconds since that failure);
--   with `retry_in`, wait at most so many seconds for another caller (`now`: the store's time)
function token_state.acquire(state, now, lease, rejected, min_ttl, since)
  local ttl = ttl_of(state, now, rejected)
  -- half the lifetime is always enough: otherwise every call would refresh the token
  local is_enough = ttl > 0 and ttl >= math.min(min_ttl, state.lifetime / 2)
  if is_enough and now < state.refresh_at then return true, state.access_token end
  if state.failed_at and state.failed_at > now then -- the clock was set: later it would look like a new failure
    state.failure, state.failed_at, state.failed_until = nil, nil, nil
  end
  local failure, age = shared_failure(state, now, since)
  if failure then
    if ttl > 0 then return true, state.access_token end
    return true, nil, { failure = failure, age = age }
  end
  if state.lease_until and state.lease_until > now and state.lease_until <= now + lease then
    if is_enough then return true, state.access_token end
    return true, nil, { retry_in = state.lease_until - now, now = now }
  end
  -- the generation wraps around, so that every store keeps it exactly
  state.lease_until, state.generation = now + lease, (state.generation or 0) % 1e6 + 1
  return true, nil, { generation = state.generation, old_ttl = ttl > 0 and ttl or nil }
end

-- The changes below have no effect if another caller has taken over the lease.

-- Extend a lease.
function token_state.heartbeat(state, now, generation, lease)
  if state.generation == generation then state.lease_until = now + lease end
  return true
end

-- Store a new token, and end the lease.
function token_state.publish(state, now, generation, access_token, lifetime)
  if state.generation ~= generation then return true end
  state.access_token, state.lifetime = access_token, lifetime
  state.expires_at, state.refresh_at = now + lifetime, now + lifetime - refresh_margin(lifetime)
  state.lease_until, state.failure, state.failed_at, state.failed_until = nil, nil, nil, nil
  return true
end

-- End a lease without a new token. The old one is used until it expires.
-- @tparam ?string failure for the callers that wait for this refresh; nil if it concerns only
--   this caller
-- @tparam ?boolean is_remembered whether all callers share the failure for some seconds
-- @treturn boolean true
-- @treturn ?string the old token, if it can be used
function token_state.release(state, now, generation, rejected, failure, is_remembered)
  if state.generation == generation then
    state.lease_until = nil
    if failure then
      state.failure, state.failed_at = failure, now
      state.failed_until = is_remembered and now + REFRESH_COOLDOWN or nil
    end
  end
  if ttl_of(state, now, rejected) > 0 then
    state.refresh_at = math.max(state.refresh_at, now + REFRESH_COOLDOWN)
    return true, state.access_token
  end
  return true, nil
end

return token_state
