-- SPDX-License-Identifier: MIT
-- The state that clients with the same credentials share: the token, and the lease to
-- refresh it.
--
-- Its functions are changes, as in rate_state.lua: pure functions of the state, the store's
-- time `now` and plain arguments. Their first result is true.
--
-- The state is a flat table:
--   access_token, lifetime   the token, and the seconds for which it was issued
--   expires_at, refresh_at   when it expires, and when it should be refreshed
--   lease_until, generation  the lease of the caller that refreshes it. The generation is a
--                            fencing token: it identifies the current lease
--   failure, failed_at       the failure of the last refresh, as a text (token.lua), and its time
--   failed_until             until when all callers share the failure

local token_state = {}

local MAX_LIFETIME = 24 * 3600

-- Seconds for which a failed refresh is not repeated while the old token can still be used, so
-- that no call waits for an endpoint that is down. Also the longest time for which rejected
-- credentials are remembered.
local REFRESH_COOLDOWN = 5

-- Seconds before the expiry at which a token is refreshed, so that none expires on the way.
local function refresh_margin(lifetime)
  return math.min(60, lifetime / 5)
end

-- Seconds until the token expires; 0 if it cannot be used.
local function ttl_of(state, now, rejected)
  if not state.access_token or state.access_token == rejected then return 0 end
  local ttl = state.expires_at - now
  if ttl > math.min(state.lifetime or 0, MAX_LIFETIME) then return 0 end -- stored by another clock
  return math.max(0, ttl)
end

-- The failure that a caller shares, and its age. A caller that has waited since before the
-- failure shares it; until `failed_until` every caller does.
local function shared_failure(state, now, since)
  local at, till = state.failed_at, state.failed_until
  if not state.failure or not at or at > now then return nil end
  local is_remembered = till and now < till and till <= now + REFRESH_COOLDOWN
  if (since and at >= since) or is_remembered then return state.failure, now - at end
end

--- The token, if it can be used and need not be refreshed yet.
-- @treturn boolean true
-- @treturn ?string the token
function token_state.cached(state, now)
  if ttl_of(state, now) > 0 and now < state.refresh_at then return true, state.access_token end
  return true, nil
end

--- Return the token, or a lease to refresh it.
-- @tparam number lease seconds
-- @tparam ?string rejected a token that the service has refused
-- @tparam number min_ttl seconds for which the token must last
-- @tparam ?number since when the caller began to wait for another caller's refresh
-- @treturn boolean true
-- @treturn ?string the token, if one can be used
-- @treturn ?table if not, what the caller is to do. `generation`: refresh the token under this
--   lease (`old_ttl`: seconds for which the old token lasts, or nil). `failure`: fail with it
--   (`age`: seconds since). `retry_in`: wait at most so long for another caller (`now`: the
--   store's time).
function token_state.acquire(state, now, lease, rejected, min_ttl, since)
  local ttl = ttl_of(state, now, rejected)
  -- half the lifetime is always enough: otherwise every call would refresh the token
  local is_enough = ttl > 0 and ttl >= math.min(min_ttl, state.lifetime / 2)
  if is_enough and now < state.refresh_at then return true, state.access_token end
  local failure, age = shared_failure(state, now, since)
  if failure then
    if ttl > 0 then return true, state.access_token end
    return true, nil, { failure = failure, age = age }
  end
  if state.lease_until and state.lease_until > now and state.lease_until <= now + lease then
    if is_enough then return true, state.access_token end
    return true, nil, { retry_in = state.lease_until - now, now = now }
  end
  -- wraps, so that every store keeps it exactly
  state.lease_until, state.generation = now + lease, (state.generation or 0) % 1e6 + 1
  return true, nil, { generation = state.generation, old_ttl = ttl > 0 and ttl or nil }
end

-- Changes by a caller whose lease another caller has taken over are ignored.

--- Extend a lease.
function token_state.heartbeat(state, now, generation, lease)
  if state.generation == generation then state.lease_until = now + lease end
  return true
end

--- Store a new token, and end the lease.
function token_state.publish(state, now, generation, access_token, lifetime)
  if state.generation ~= generation then return true end
  state.access_token, state.lifetime = access_token, lifetime
  state.expires_at, state.refresh_at = now + lifetime, now + lifetime - refresh_margin(lifetime)
  state.lease_until, state.failure, state.failed_at, state.failed_until = nil, nil, nil, nil
  return true
end

--- End a lease without a new token. The old one is used until it expires.
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
  if state.access_token and state.access_token ~= rejected and now < state.expires_at then
    state.refresh_at = math.max(state.refresh_at, now + REFRESH_COOLDOWN)
    return true, state.access_token
  end
  return true, nil
end

return token_state
