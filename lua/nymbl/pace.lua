-- SPDX-License-Identifier: MIT
-- Keeping within the service's limits: a place for every request.

local errors = require "nymbl.errors"
local limits = require "nymbl.limits"
local wait = require "nymbl.wait"

local pace = {}

-- One below the service's bursts (facts, section 8), so that jitter on the way
-- makes no 429.
local DEFAULT = { read = { 2, 4 }, download = { 1, 2 } }

--- What a client's options say of its limits.
-- @return a table with `rate` (by bucket, or nil) and `quota` (or nil); nil where
--   both are off
function pace.new(options)
  local self = {}
  if options.rate ~= false then
    local given = options.rate or {}
    self.rate = { read = given.read or DEFAULT.read, download = given.download or DEFAULT.download }
  end
  if options.monthly_quota ~= false then self.quota = options.monthly_quota or 10000 end
  return self
end

local function change(env, deadline, name, ...)
  return env.store:update(env.account, deadline, limits[name], ...)
end

local function bucket_of(env, operation)
  local bucket = operation == "download" and "download" or "read"
  local rate = env.pace.rate and env.pace.rate[bucket]
  return bucket, rate and rate[1], rate and rate[2]
end

--- Take a place. Waits for nothing.
-- @treturn[1] table the place; `left`: seconds until its time
-- @treturn[2] nil the quota is spent, or the store failed
-- @treturn[2] table what is known of it
function pace.reserve(env, operation, deadline)
  local bucket, rate, burst = bucket_of(env, operation)
  local at, mark, asks = change(env, deadline, "reserve", wait.month(), bucket, rate, burst, env.pace.quota)
  if not at then
    if type(mark) == "table" then return nil, mark end
    -- `mark`: seconds until one call is let through to ask the service again
    return nil, { kind = "quota", reason = mark and "limit_exceeded" or "monthly_quota",
                  retry_after = mark or wait.month_left() }
  end
  return { env = env, operation = operation, deadline = deadline, at = at, left = at - env.store:now(), mark = mark,
           asks = asks }
end

--- Take a place if one is free now.
-- @treturn ?table the place
function pace.reserve_free(env, operation)
  local bucket, rate, burst = bucket_of(env, operation)
  local at, mark = change(env, wait.now(), "reserve_free", wait.month(), bucket, rate, burst, env.pace.quota)
  return at and { env = env, operation = operation, at = at, left = 0, mark = mark }
end

--- Ask again when the time of a place has come.
-- @treturn[1] number seconds that are left after all: a 429 of somebody else's has come
-- @treturn[2] nil the store failed
-- @treturn[2] table what is known of it
function pace.postpone(place)
  local env = place.env
  local at, mark = change(env, place.deadline, "postpone", place.at, bucket_of(env, place.operation))
  if type(mark) == "table" then return nil, mark end
  if not at then return 0 end
  place.at, place.mark = at, mark
  return at - env.store:now()
end

--- Look whether the store can be used.
-- @treturn[1] boolean true
-- @treturn[2] nil it cannot
-- @treturn[2] table what is known of it
function pace.look(env, deadline)
  return change(env, deadline, "look")
end

-- What comes after a request is told to the store, but a store that fails then takes
-- nothing away from what the request gave: the next reservation says so.

--- Give a place back: nothing was put on the wire.
function pace.refund(place)
  local env = place.env
  local bucket, rate = bucket_of(env, place.operation)
  change(env, place.deadline, "refund", wait.month(), bucket, rate, place.mark)
  if place.asks then change(env, place.deadline, "unanswered") end
end

-- Whether an error was the service's own reply, for which it had quota left; a
-- gateway's 401 or 403 comes before that is looked at.
local function is_answer(err)
  return err.status and not errors.is_from_proxy(err) and err.status < 500 and err.status ~= 401 and err.status ~= 403
end

--- Take in what the service answered.
-- @tparam table place the request's
-- @tparam ?table err the error, or nil
-- @tparam number seconds how long to pause where it is a 429 for the rate
function pace.answered(place, err, seconds)
  local env = place.env
  if err and err.kind == "quota" then
    change(env, place.deadline, "spent", wait.month())
    return
  elseif err and err.kind == "throttled" then
    change(env, place.deadline, "throttled", wait.month(), seconds, bucket_of(env, place.operation))
  end
  if place.asks then
    local answered = not err or (err.kind ~= "throttled" and is_answer(err))
    change(env, place.deadline, answered and "answered" or "unanswered")
  end
end

--- For `client:usage()`.
-- @treturn[1] table
-- @treturn[2] nil the store failed
-- @treturn[2] table what is known of it
function pace.usage(env)
  local month, requests, throttled = change(env, nil, "usage", wait.month())
  if not month then return nil, requests end
  return {
    month = month, requests = requests, throttled = throttled,
    remaining = env.pace.quota and math.max(0, env.pace.quota - requests) or nil,
  }
end

return pace
