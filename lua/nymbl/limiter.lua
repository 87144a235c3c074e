-- SPDX-License-Identifier: MIT
-- The rate limiter: every request needs a reservation, and its response may change the limits.
--
-- A reservation is the table that rate_state.reserve returned, with `env`, `operation`, `spec`
-- and `deadline` of its call.

local errors = require "nymbl.errors"
local rate_state = require "nymbl.rate_state"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local limiter = {}

-- Bursts are one below the service's (lua/README.md, "Facts about the service"), so that
-- jitter on the network causes no 429.
local DEFAULT_RATE = { read = { 2, 4 }, download = { 1, 2 } }
local DEFAULT_QUOTA = 10000

--- Make the limits of a client.
-- @tparam table options the client's: `rate` and `monthly_quota`
-- @treturn table by bucket, a `spec` as rate_state.lua describes it
function limiter.new(options)
  local quota
  if options.monthly_quota ~= false then quota = options.monthly_quota or DEFAULT_QUOTA end
  local function spec_new(bucket)
    if options.rate == false then return { bucket = bucket, quota = quota } end
    local pair = options.rate and options.rate[bucket] or DEFAULT_RATE[bucket]
    return { bucket = bucket, rate = pair[1], burst = pair[2], quota = quota }
  end
  return { read = spec_new "read", download = spec_new "download" }
end

local function spec_of(env, operation)
  return operation == "download" and env.limiter.download or env.limiter.read
end

-- Complete a reservation that the store has returned.
local function reservation_of(result, env, operation, spec, deadline)
  result.env, result.operation, result.spec, result.deadline = env, operation, spec, deadline
  return result
end

--- Reserve the right to send one request. Does not wait for its time.
-- @treturn[1] table the reservation; `delay`: seconds until the request may be sent
-- @treturn[2] nil the quota is spent, or the store failed
-- @treturn[2] table error
function limiter.reserve(env, operation, deadline)
  local spec = spec_of(env, operation)
  local result, err = store.update(env.store, env.account, deadline, rate_state.reserve, spec, wait.month())
  if not result then return nil, err end
  if result.refused then
    local retry_after = result.retry_after or wait.seconds_left_in_month()
    return nil, { kind = "quota", reason = result.reason, retry_after = retry_after }
  end
  return reservation_of(result, env, operation, spec, deadline)
end

--- Reserve only if the request may be sent now.
-- @treturn ?table the reservation
function limiter.try_reserve(env, operation)
  local spec = spec_of(env, operation)
  local result = store.update(env.store, env.account, wait.now(), rate_state.try_reserve, spec, wait.month())
  if not result or result.refused then return nil end
  return reservation_of(result, env, operation, spec)
end

local function update(reservation, change, ...)
  return store.update(reservation.env.store, reservation.env.account, reservation.deadline, change, ...)
end

--- Check a reservation when its time has come: another client's 429 may have begun a pause.
-- @treturn[1] number seconds that are left; 0 if the request may be sent
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function limiter.rereserve(reservation)
  local result, err = update(reservation, rate_state.rereserve, reservation.spec, reservation.time_to_act,
    reservation.tat)
  if not result then return nil, err end
  reservation.time_to_act, reservation.delay, reservation.tat = result.time_to_act, result.delay, result.tat
  return result.delay
end

--- Check whether the store can be used.
-- @treturn[1] boolean true
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function limiter.check(env, deadline)
  return store.update(env.store, env.account, deadline, rate_state.check)
end

-- If the store fails after a request, the call's result stands. The next reservation reports
-- the failure.

--- Cancel a reservation: its request was not sent.
function limiter.cancel(reservation)
  update(reservation, rate_state.cancel, reservation.spec, wait.month(), reservation.tat)
  if reservation.is_probe then update(reservation, rate_state.probe_failed) end
end

-- Whether an error shows that the service had quota left for the request. A gateway answers
-- 401 and 403 before it checks the quota.
local function is_within_quota(err)
  return err.status and not errors.is_from_proxy(err) and err.status < 500 and err.status ~= 401 and err.status ~= 403
end

--- Record the response to a request.
-- @tparam table reservation of the request
-- @tparam ?table err the error, or nil
-- @tparam ?number seconds length of the pause if the error is a 429 for the rate
function limiter.record(reservation, err, seconds)
  if err and err.kind == "quota" then
    update(reservation, rate_state.quota_exceeded, wait.month())
    return
  elseif err and err.kind == "throttled" then
    update(reservation, rate_state.throttled, reservation.spec, wait.month(), seconds)
  end
  if reservation.is_probe then
    local succeeded = not err or (err.kind ~= "throttled" and is_within_quota(err))
    update(reservation, succeeded and rate_state.probe_succeeded or rate_state.probe_failed)
  end
end

--- The counts for `client:usage()`.
-- @treturn[1] table
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function limiter.usage(env)
  local usage, err = store.update(env.store, env.account, nil, rate_state.usage, wait.month())
  if not usage then return nil, err end
  local quota = env.limiter.read.quota
  usage.remaining = quota and math.max(0, quota - usage.requests) or nil
  return usage
end

return limiter
