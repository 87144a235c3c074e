-- SPDX-License-Identifier: MIT
-- What is kept of an account: its pace, its pause after a 429, its month's quota.
--
-- Functions of a plain table of numbers and strings, the account, and of the
-- store's time. A store runs them one at a time (`store:update`), so they neither
-- wait nor call anything that does.

local limits = {}

-- A quota that the service says is spent is asked about again after an hour, so
-- that one wrong answer does not stop a fleet until the month ends.
local PROBE = 3600

-- Longest waits that can be meant; what is beyond was stored by another clock.
local LONGEST_PAUSE = 120
local LONGEST_QUEUE = 3600

-- A new month begins with nothing spent. The one before is kept, so that a wall
-- clock set back and forth over the end of a month forgets nothing.
local function turn(account, month)
  if account.month == month then return end
  local requests, throttled = 0, 0
  if account.other == month then requests, throttled = account.other_requests, account.other_throttled end
  account.other, account.other_requests, account.other_throttled =
    account.month, account.requests, account.throttled
  account.month, account.requests, account.throttled, account.probe = month, requests, throttled, nil
end

local TIMES = { "read", "download", "resume", "probe" }

-- Where the clock was put back, so is all that was timed by it: a wait stays as long
-- as it was.
local function keep_up(account, now)
  if account.seen and now < account.seen then
    for _, name in ipairs(TIMES) do
      account[name] = account[name] and account[name] - (account.seen - now)
    end
  end
  account.seen = now
end

-- When a pause ends, or now.
local function resume(account, now)
  if not account.resume or account.resume <= now then return now end
  if account.resume > now + LONGEST_PAUSE then account.resume = now + LONGEST_PAUSE end
  return account.resume
end

-- When the next request of a bucket may go out: a token bucket kept as the time at
-- which it would be empty (the generic cell rate algorithm, ITU-T I.371). It begins
-- anew with the end of a pause, or all who waited would go out at once.
local function place(account, now, bucket, rate, burst)
  local interval, from = 1 / rate, resume(account, now)
  local empty = account[bucket]
  if not empty or empty < from then empty = from end
  local longest = from + burst * interval + LONGEST_QUEUE
  if empty > longest then empty = longest end
  account[bucket] = empty + interval
  return math.max(from, empty - (burst - 1) * interval), account[bucket]
end

--- Take a place for a request.
-- @treturn[1] number when it may go out, by the store's time
-- @treturn[1] ?number its mark, for `refund`
-- @treturn[1] ?boolean whether it goes to ask if the quota is still spent
-- @treturn[2] nil the quota is spent
-- @treturn[2] ?number seconds until it is worth asking again; nil: next month
function limits.reserve(account, now, month, bucket, rate, burst, quota)
  turn(account, month)
  keep_up(account, now)
  local asks
  if account.probe then
    if account.probe > now + PROBE then account.probe = now + PROBE end
    if now < account.probe then return nil, account.probe - now end
    account.probe, asks = now + PROBE, true
  elseif quota and account.requests >= quota then
    return nil
  end
  account.requests = account.requests + 1
  if not rate then return now, nil, asks end
  local at, mark = place(account, now, bucket, rate, burst)
  return at, mark, asks
end

--- Another place for a request whose time has come within a pause that has begun
-- since.
-- @treturn[1] number when it may go out
-- @treturn[1] number its mark
-- @treturn[2] nil it may go out now
function limits.postpone(account, now, at, bucket, rate, burst)
  local from = resume(account, now)
  if from <= now or from <= at then return nil end
  return place(account, now, bucket, rate, burst)
end

--- Take a place that is free now and sure to be worth a request, or none.
-- @treturn[1] number its time
-- @treturn[1] ?number its mark, for `refund`
-- @treturn[2] nil there is none
function limits.reserve_free(account, now, month, bucket, rate, burst, quota)
  turn(account, month)
  keep_up(account, now)
  if account.probe then return nil end -- the quota is in doubt
  local before = account[bucket]
  local at, mark = limits.reserve(account, now, month, bucket, rate, burst, quota)
  if not at or at <= now then return at, mark end
  account[bucket], account.requests = before, account.requests - 1
  return nil
end

--- Give a place back: nothing was put on the wire. Only the last one can be: in an
-- earlier one's stead two would go out at once later.
function limits.refund(account, _, month, bucket, rate, mark)
  turn(account, month)
  account.requests = math.max(0, account.requests - 1)
  if rate and account[bucket] and math.abs(account[bucket] - mark) < 1e-6 then
    account[bucket] = account[bucket] - 1 / rate
  end
end

--- A 429: it is not billed, and all who share the account pause. The service's
-- bucket is empty, whatever was thought of it here.
function limits.throttled(account, now, month, seconds, bucket, rate, burst)
  turn(account, month)
  account.requests = math.max(0, account.requests - 1)
  account.throttled = account.throttled + 1
  account.resume = math.max(account.resume or 0, now + math.min(seconds, LONGEST_PAUSE))
  if rate then account[bucket] = math.max(account[bucket] or 0, now + burst / rate) end
end

--- A 429 that says the month's quota is spent.
function limits.spent(account, now, month)
  turn(account, month)
  account.requests = math.max(0, account.requests - 1)
  account.throttled = account.throttled + 1
  account.probe = now + PROBE
end

--- The service has answered otherwise: it is not spent.
function limits.answered(account)
  account.probe = nil
end

--- It was asked in vain: the next one may ask.
function limits.unanswered(account, now)
  if account.probe and account.probe > now then account.probe = now end
end

--- Only look whether the account can be read and written.
function limits.look()
  return true
end

local to_integer = math.tointeger or function(value) return value end

--- The month, and requests and 429s in it: integers, whatever the store made of them.
function limits.usage(account, _, month)
  turn(account, month)
  return account.month, to_integer(account.requests), to_integer(account.throttled)
end

return limits
