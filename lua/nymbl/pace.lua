-- SPDX-License-Identifier: MIT
-- Keeping within the service's limits: a place for every request, waited for.

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

-- A place that was taken: enough to give it back.
local function change(env, name, ...)
  return env.store:update(env.account, limits[name], ...)
end

local function bucket_of(env, operation)
  local bucket = operation == "download" and "download" or "read"
  local rate = env.pace.rate and env.pace.rate[bucket]
  return bucket, rate and rate[1], rate and rate[2]
end

--- Wait for a place.
-- @treturn[1] number its time, for `refund`
-- @treturn[1] number seconds that were waited
-- @treturn[2] nil the quota is spent, or the deadline comes first
-- @treturn[2] table what is known of it
function pace.reserve(env, operation, deadline)
  local bucket, rate, burst = bucket_of(env, operation)
  local at, retry = change(env, "reserve", env.store:now(), wait.month(), bucket, rate, burst, env.pace.quota)
  if not at then
    return nil, { kind = "quota", reason = "monthly_quota", retry_after = retry or wait.month_left() }
  end
  local began = wait.now()
  local left = at - env.store:now()
  while left > 0 do
    if deadline and wait.now() + left > deadline then
      pace.refund(env, operation, at)
      return nil, { kind = "timeout", reason = "pace", retry_after = left }
    end
    wait.wait(nil, wait.now() + left)
    -- a 429 of somebody else's may have come meanwhile
    left = change(env, "pause", env.store:now())
  end
  return at, wait.now() - began
end

--- Give a place back: nothing was put on the wire.
function pace.refund(env, operation, at)
  local bucket, rate, burst = bucket_of(env, operation)
  change(env, "refund", wait.month(), bucket, rate, burst, at)
end

--- Take in what the service answered.
-- @tparam ?table err the error, or nil
-- @tparam number seconds how long to pause where it is a 429 for the rate
function pace.answered(env, err, seconds)
  if not err then
    change(env, "answered")
  elseif err.kind == "throttled" then
    change(env, "throttled", env.store:now(), wait.month(), seconds)
  elseif err.kind == "quota" then
    change(env, "spent", env.store:now(), wait.month())
  end
end

--- For `client:usage()`.
function pace.usage(env)
  local month, requests, throttled = change(env, "usage", wait.month())
  return {
    month = month, requests = requests, throttled = throttled,
    remaining = env.pace.quota and math.max(0, env.pace.quota - requests) or nil,
  }
end

return pace
