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

-- A new month begins with nothing spent.
local function turn(account, month)
  if account.month ~= month then
    account.month, account.requests, account.throttled, account.probe = month, 0, 0, nil
  end
end

-- When the next request of a bucket may go out: a token bucket kept as the time at
-- which it would be empty (the generic cell rate algorithm, ITU-T I.371).
local function place(account, now, bucket, rate, burst)
  local interval = 1 / rate
  local empty = account[bucket]
  if not empty or empty < now then empty = now end
  if empty > now + LONGEST_QUEUE then empty = now + LONGEST_QUEUE end
  account[bucket] = empty + interval
  local at = empty - (burst - 1) * interval
  if at < now then at = now end
  local pause = limits.pause(account, now)
  return at < now + pause and now + pause or at
end

--- Take a place for a request.
-- @treturn[1] number when it may go out, by the store's time
-- @treturn[2] nil the quota is spent
-- @treturn[2] ?number seconds until it is worth asking again; nil: next month
function limits.reserve(account, now, month, bucket, rate, burst, quota)
  turn(account, month)
  if account.probe then
    if account.probe > now + PROBE then account.probe = now + PROBE end
    if now < account.probe then return nil, account.probe - now end
    account.probe = now + PROBE -- this one goes and asks
  elseif quota and account.requests >= quota then
    return nil
  end
  account.requests = account.requests + 1
  if not rate then return now end
  return place(account, now, bucket, rate, burst)
end

--- Give a place back: nothing was put on the wire. Only the last one can be: in an
-- earlier one's stead two would go out at once later.
function limits.refund(account, month, bucket, rate, burst, at)
  turn(account, month)
  account.requests = math.max(0, account.requests - 1)
  if rate and account[bucket] and math.abs(account[bucket] - burst / rate - at) < 1e-6 then
    account[bucket] = account[bucket] - 1 / rate
  end
end

--- A 429: it is not billed, and all who share the account pause.
function limits.throttled(account, now, month, seconds)
  turn(account, month)
  account.requests = math.max(0, account.requests - 1)
  account.throttled = account.throttled + 1
  account.resume = math.max(account.resume or 0, now + math.min(seconds, LONGEST_PAUSE))
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

--- Seconds that a pause still lasts.
function limits.pause(account, now)
  if not account.resume or account.resume <= now then return 0 end
  if account.resume > now + LONGEST_PAUSE then account.resume = now + LONGEST_PAUSE end
  return account.resume - now
end

--- The month, and requests and 429s in it.
function limits.usage(account, month)
  turn(account, month)
  return account.month, account.requests, account.throttled
end

return limits
