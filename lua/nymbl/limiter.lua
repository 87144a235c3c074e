-- SPDX-License-Identifier: MIT
-- The rate limiter. Every request needs a reservation. The response is recorded: a 429 pauses
-- all clients of the account.
--
-- A reservation is the table that rate_state.reserve returned, with `env`, `limits` and
-- `deadline` of its call, and the `month` in which it is counted.

local errors = require "nymbl.errors"
local rate_state = require "nymbl.rate_state"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local limiter = {}

-- Bursts are one below the service's (lua/README.md, "Facts about the service"), so that
-- jitter on the network causes no 429.
local DEFAULT_RATE = { read = { 2, 4 }, download = { 1, 2 } }
local DEFAULT_QUOTA = 10000

-- Returns the limits of a client.
-- @tparam table options the client's: `rate` and `monthly_quota`
-- @treturn table by bucket, the `limits` that rate_state.lua describes
function limiter.limits_from_options(options)
  local quota
  if options.monthly_quota ~= false then quota = options.monthly_quota or DEFAULT_QUOTA end
  local function limits_of_bucket(bucket)
    local pair = options.rate and options.rate[bucket] or DEFAULT_RATE[bucket]
    local rate, burst = pair[1], pair[2]
    -- stores cannot keep an infinite number
    if options.rate == false or rate == math.huge or burst == math.huge then rate, burst = nil, nil end
    return { bucket = bucket, rate = rate, burst = burst, quota = quota }
  end
  return { read = limits_of_bucket "read", download = limits_of_bucket "download" }
end

local function limits_of(env, operation)
  return operation == "download" and env.limits.download or env.limits.read
end

-- Add to a reservation what the store does not know.
local function complete(reservation, env, operation, limits, month, deadline)
  reservation.env, reservation.operation, reservation.limits = env, operation, limits
  reservation.month, reservation.deadline = month, deadline
  return reservation
end

-- Reserve the right to send one request. Does not wait for its time.
-- @treturn[1] table the reservation; `delay`: seconds until the request may be sent
-- @treturn[2] nil the quota is spent, or the store failed
-- @treturn[2] table error
function limiter.reserve(env, operation, deadline)
  local limits, month = limits_of(env, operation), wait.month()
  local result, err = store.ask(env.store, env.account, deadline, rate_state.reserve, limits, month)
  if not result then return nil, err end
  if result.refused then
    local retry_after = result.retry_after or wait.seconds_left_in_month()
    return nil, { kind = "quota", reason = result.reason, retry_after = retry_after }
  end
  return complete(result, env, operation, limits, month, deadline)
end

-- Reserve only if the request may be sent now, and if the store needs no wait to tell. (A store on
-- another machine does, so this always fails there.)
-- @treturn ?table the reservation
function limiter.try_reserve(env, operation)
  local limits, month = limits_of(env, operation), wait.month()
  local result = store.ask(env.store, env.account, wait.now(), rate_state.try_reserve, limits, month)
  if not result or result.refused then return nil end
  return complete(result, env, operation, limits, month)
end

-- Check a reservation once more when its time has come. If a pause has begun since, because
-- of another client's 429, this makes a new reservation for the time after the pause.
-- @treturn[1] number seconds that are left; 0 if the request may be sent
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function limiter.recheck(reservation)
  local env, month = reservation.env, wait.month()
  local result, err = store.ask(env.store, env.account, reservation.deadline, rate_state.recheck, reservation.limits,
    reservation.time_to_act, reservation.tat, reservation.month, month)
  if not result then return nil, err end
  reservation.month = month
  reservation.time_to_act, reservation.delay, reservation.tat = result.time_to_act, result.delay, result.tat
  reservation.is_paused = result.is_paused
  return result.delay
end

-- Check whether the store can be read and written.
-- @treturn[1] boolean true
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function limiter.check_store(env, deadline)
  return store.ask(env.store, env.account, deadline, rate_state.touch)
end

-- The next two functions do not wait for the store, and ignore its failure: the result of the
-- request does not depend on it, and the next reservation reports it.

-- Tell the store of a change to the state in which a reservation was made.
local function tell(reservation, change, ...)
  store.tell(reservation.env.store, reservation.env.account, change, ...)
end

-- Cancel a reservation: its request was not sent.
function limiter.cancel(reservation)
  tell(reservation, rate_state.cancel, reservation.limits, reservation.month, reservation.tat)
  if reservation.is_probe then tell(reservation, rate_state.probe_failed) end
end

-- Whether an error shows that the service had quota left for the request. The gateway checks
-- the quota after the token and the API key (401, 403).
local function is_within_quota(err)
  return err.status and not errors.is_from_proxy(err) and err.status < 500 and err.status ~= 401 and err.status ~= 403
end

-- Record the response to a request.
-- @tparam table reservation of the request
-- @tparam ?table err the error, or nil
-- @tparam ?number seconds length of the pause if the error is a 429 for the rate
function limiter.record(reservation, err, seconds)
  if err and err.kind == "quota" then
    tell(reservation, rate_state.quota_exceeded, reservation.month)
    return
  elseif err and err.kind == "throttled" then
    tell(reservation, rate_state.throttled, reservation.limits, reservation.month, seconds)
  end
  if reservation.is_probe then
    local succeeded = not err or (err.kind ~= "throttled" and is_within_quota(err))
    tell(reservation, succeeded and rate_state.probe_succeeded or rate_state.probe_failed)
  end
end

local to_integer = math.tointeger or function(value) return value end

-- The counts for `client:usage()`, as integers even if the store keeps floats.
-- @treturn[1] table
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function limiter.usage(env)
  local usage, err = store.ask(env.store, env.account, nil, rate_state.usage, wait.month())
  if not usage then return nil, err end
  usage.requests, usage.throttled = to_integer(usage.requests), to_integer(usage.throttled)
  local quota = env.limits.read.quota
  usage.remaining = quota and math.max(0, quota - usage.requests) or nil
  return usage
end

return limiter
