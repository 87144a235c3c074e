-- SPDX-License-Identifier: MIT
-- The state that the clients of one account share: rate limit, pause after a 429, monthly quota.
--
-- Its functions are changes (store.lua): pure functions of the state, the store's time `now`
-- and plain arguments. They neither wait nor use anything outside this file except Lua's own
-- libraries as of 5.1: the store in Redis sends this file there, and runs it. Their results are
-- plain too, and the first one is never nil. Stores may keep numbers as JSON, with 14 digits:
-- that is 0.1 ms of a time since 1970.
--
-- The state is a flat table:
--   month, requests, throttled   a month ("2026-02"), its billable requests and its 429s
--   other_month, other_requests, other_throttled   the same for the month counted before it
--   read_tat, download_tat       the theoretical arrival time of each bucket (gcra_advance())
--   read_floor, download_floor   the least TAT since a 429 has shown that the service's bucket is empty
--   paused_until                 the end of the pause after a 429
--   probe_at                     when the next probe may be sent, if the quota is exceeded
--   updated_at                   the time of the last change that used the time
--
-- `limits` are those of one client for one bucket: `bucket` ("read" or "download"), `rate`
-- (requests per second) and `burst`, both nil if the rate is not limited, and `quota` (requests
-- per month, or nil).

local rate_state = {}

-- Seconds between two probes. If the service reports that the quota is exceeded, one request
-- is sent per interval, so that one wrong response does not stop all clients until the month
-- ends.
local PROBE_INTERVAL = 3600

-- The longest plausible waits, in seconds: for the end of a pause, and for the requests that
-- have reservations already. A longer one results from a clock that was set.
local MAX_PAUSE = 120
local MAX_QUEUE = 3600

-- The state's keys for each bucket.
local TAT_KEY = { read = "read_tat", download = "download_tat" }
local FLOOR_KEY = { read = "read_floor", download = "download_floor" }

-- The state's keys whose values are times.
local TIME_KEYS = { "read_tat", "download_tat", "read_floor", "download_floor", "paused_until", "probe_at" }

local function is_count(value)
  return type(value) == "number" and value >= 0 and value < 2^53
end

-- The counts of a month; nothing if a stored state has other values there.
local function counts(month, requests, throttled)
  if is_count(requests) and is_count(throttled) then return month, requests, throttled end
end

-- Begin a new month with counts of 0. The counts of the month before are kept, so that they
-- are not lost if a wall clock is set over the end of a month and back.
local function roll_month(state, month)
  if state.month == month and is_count(state.requests) and is_count(state.throttled) then return end
  state.month, state.requests, state.throttled = counts(state.month, state.requests, state.throttled)
  if state.month == month then return end
  local other, requests, throttled = counts(state.other_month, state.other_requests, state.other_throttled)
  if other ~= month then requests, throttled = 0, 0 end
  state.other_month, state.other_requests, state.other_throttled = state.month, state.requests, state.throttled
  state.month, state.requests, state.throttled, state.probe_at = month, requests, throttled, nil
end

-- Take a request out of the count of its month, which may have ended meanwhile. It is counted as
-- throttled instead if it was answered with a 429.
local function uncount(state, month, is_throttled)
  if not state.month then roll_month(state, month) end
  local throttled = is_throttled and 1 or 0
  if state.month == month then
    state.requests, state.throttled = math.max(0, state.requests - 1), state.throttled + throttled
  elseif state.other_month == month then
    state.other_requests, state.other_throttled =
      math.max(0, state.other_requests - 1), state.other_throttled + throttled
  end
end

-- If the store's time went back, shift all times with it, so that no wait gets longer. Every change
-- that compares or sets a time begins with this: a later shift would move what was set since.
local function rebase_clock(state, now)
  if state.updated_at and now < state.updated_at then
    for _, name in ipairs(TIME_KEYS) do
      state[name] = state[name] and state[name] - (state.updated_at - now)
    end
  end
  state.updated_at = now
end

-- The end of the current pause, or `now` outside a pause.
local function pause_end(state, now)
  if not state.paused_until or state.paused_until <= now then return now end
  if state.paused_until > now + MAX_PAUSE then state.paused_until = now + MAX_PAUSE end
  return state.paused_until
end

-- The generic cell rate algorithm (ITU-T I.371): a token bucket, stored as the theoretical
-- arrival time (TAT) of its next request. After a pause the bucket starts full: otherwise all
-- callers that waited would send at once. Returns the time at which the request may be sent,
-- and the new TAT.
local function gcra_advance(state, now, limits)
  local tat_key, interval, start = TAT_KEY[limits.bucket], 1 / limits.rate, pause_end(state, now)
  local tat = state[tat_key]
  if not tat or tat < start then tat = start end
  local latest = start + limits.burst * interval + MAX_QUEUE
  if tat > latest then tat = latest end
  state[tat_key] = tat + interval
  return math.max(start, tat - (limits.burst - 1) * interval), state[tat_key]
end

-- Reserve the right to send one request, and count it.
-- @treturn[1] table the reservation: `time_to_act` (the store's time), `delay` (seconds until
--   then), `tat` (for `cancel`; nil without a rate limit), `is_probe` (whether the request is
--   the probe of an exceeded quota), `requests` (the month's count, with this one)
-- @treturn[2] table `refused` (true), `reason`, and `retry_after` (seconds; nil if no request
--   can be sent this month)
function rate_state.reserve(state, now, limits, month)
  roll_month(state, month)
  rebase_clock(state, now)
  local is_probe = false
  if state.probe_at then
    if state.probe_at > now + PROBE_INTERVAL then state.probe_at = now + PROBE_INTERVAL end
    if now < state.probe_at then
      return { refused = true, reason = "limit_exceeded", retry_after = state.probe_at - now }
    end
    state.probe_at, is_probe = now + PROBE_INTERVAL, true
  elseif limits.quota and state.requests >= limits.quota then
    return { refused = true, reason = "monthly_quota" }
  end
  state.requests = state.requests + 1
  local time_to_act, tat = now, nil
  if limits.rate then time_to_act, tat = gcra_advance(state, now, limits) end
  return {
    time_to_act = time_to_act, delay = time_to_act - now, tat = tat, is_probe = is_probe,
    requests = state.requests, is_paused = pause_end(state, now) > now or nil,
  }
end

-- Reserve only if the request may be sent now, and not as a probe.
-- @treturn[1] table the reservation
-- @treturn[2] table `refused` (true)
function rate_state.try_reserve(state, now, limits, month)
  roll_month(state, month)
  rebase_clock(state, now)
  if state.probe_at then return { refused = true } end
  local tat_key = TAT_KEY[limits.bucket]
  local tat_before = state[tat_key]
  local reservation = rate_state.reserve(state, now, limits, month)
  if reservation.refused or reservation.delay <= 0 then return reservation end
  state[tat_key], state.requests = tat_before, state.requests - 1
  return { refused = true }
end

-- Check a reservation once more when its time has come. If a pause has begun since it was
-- made, make a new one. If a month has begun, count the request there.
-- @treturn table `time_to_act`, `delay` (0 if the request may be sent) and `tat`
function rate_state.recheck(state, now, limits, time_to_act, tat, counted_month, month)
  if counted_month ~= month then
    uncount(state, counted_month)
    roll_month(state, month)
    state.requests = state.requests + 1
  end
  rebase_clock(state, now)
  local start = pause_end(state, now)
  if start <= now or start <= time_to_act then return { time_to_act = time_to_act, delay = 0, tat = tat } end
  time_to_act, tat = gcra_advance(state, now, limits)
  return { time_to_act = time_to_act, delay = time_to_act - now, tat = tat, is_paused = true }
end

-- Whether two times are the same, as exactly as stores keep them.
local function is_same_time(a, b, interval)
  return math.abs(a - b) < math.min(1e-3, interval / 2)
end

-- In the next three functions, `month` is that in which the request was counted.

-- Cancel a reservation whose request was not sent. The bucket gets it back only if it is the
-- bucket's last one. For an earlier one, a later request would be sent too close to the next. A
-- bucket that a 429 has emptied since the reservation was made stays empty.
function rate_state.cancel(state, _, limits, month, tat)
  uncount(state, month)
  local tat_key = TAT_KEY[limits.bucket]
  local last = state[tat_key]
  if limits.rate and last and is_same_time(last, tat, 1 / limits.rate) then
    local floor = state[FLOOR_KEY[limits.bucket]] or -math.huge
    state[tat_key] = math.min(last, math.max(last - 1 / limits.rate, floor))
  end
  return true
end

-- Record a 429 for the rate: it is not billed, and all clients of the account pause. It also
-- empties the bucket of this state, because the service's bucket is empty.
function rate_state.throttled(state, now, limits, month, seconds)
  uncount(state, month, true)
  rebase_clock(state, now)
  state.paused_until = math.max(state.paused_until or 0, now + math.min(seconds, MAX_PAUSE))
  if limits.rate then
    local tat_key, floor = TAT_KEY[limits.bucket], now + limits.burst / limits.rate
    state[tat_key], state[FLOOR_KEY[limits.bucket]] = math.max(state[tat_key] or floor, floor), floor
  end
  return true
end

-- Record a 429 for the quota. It is not billed either.
function rate_state.quota_exceeded(state, now, month)
  uncount(state, month, true)
  rebase_clock(state, now)
  state.probe_at = now + PROBE_INTERVAL
  return true
end

-- Record that the response to a probe was not a 429 for the quota.
function rate_state.probe_succeeded(state)
  state.probe_at = nil
  return true
end

-- Record that a probe has shown nothing about the quota. The next request may be a probe.
function rate_state.probe_failed(state, now)
  rebase_clock(state, now)
  if state.probe_at and state.probe_at > now then state.probe_at = now end
  return true
end

-- Add what one process has counted by itself (store/alone.lua). The numbers may be negative.
-- @tparam string month the current one
-- @tparam string counted_month the month in which the process has counted
-- @tparam ?number paused_until the end of a pause that the process has observed
function rate_state.add(state, _, month, counted_month, requests, throttled, paused_until)
  roll_month(state, month)
  if paused_until then state.paused_until = math.max(state.paused_until or 0, paused_until) end
  if counted_month == state.month then
    state.requests = math.max(0, state.requests + requests)
    state.throttled = math.max(0, state.throttled + throttled)
  elseif counted_month == state.other_month then
    state.other_requests = math.max(0, state.other_requests + requests)
    state.other_throttled = math.max(0, state.other_throttled + throttled)
  end
  return true
end

-- Show that the store can be used: it reads the state, and writes the time into it.
function rate_state.touch(state, now)
  rebase_clock(state, now)
  return true
end

-- The current month's counts.
-- @treturn table `month`, `requests` and `throttled`
function rate_state.usage(state, _, month)
  roll_month(state, month)
  return { month = state.month, requests = state.requests, throttled = state.throttled }
end

-- Seconds for which a state must be kept if it is not used: until its month and all its waits are
-- over, and the month after that has begun.
function rate_state.retention()
  return 40 * 86400
end

local function is_month(value)
  return type(value) == "string" and value:find("^%d%d%d%d%-%d%d$") ~= nil
end

-- Convert a state of another version of this format, older or newer, or a malformed one. Only the
-- counts are kept: other keys may have another meaning in that version.
-- @treturn table a new state, empty if `other` has no counts
function rate_state.from_other_version(other)
  local state = {}
  if not (is_month(other.month) and is_count(other.requests) and is_count(other.throttled)) then return state end
  state.month, state.requests, state.throttled = other.month, other.requests, other.throttled
  local other_month = other.other_month or other.other -- its name in version 1
  if is_month(other_month) and is_count(other.other_requests) and is_count(other.other_throttled) then
    state.other_month, state.other_requests, state.other_throttled =
      other_month, other.other_requests, other.other_throttled
  end
  return state
end

return rate_state
