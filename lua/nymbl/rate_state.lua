-- SPDX-License-Identifier: MIT
-- The state that the clients of one account share: rate limit, pause after a 429, monthly quota.
--
-- Its functions are changes (store.lua): pure functions of the state, the store's time `now`
-- and plain arguments. They neither wait nor use anything outside this file, so a store can
-- run them on another machine. Their results are plain too, and the first one is never nil.
--
-- The state is a flat table:
--   month, requests, throttled   a month ("2026-02"), its billable requests and its 429s
--   other_month, other_requests, other_throttled   the same of the month counted before
--   read_tat, download_tat       the theoretical arrival time of each bucket (gcra_advance)
--   paused_until                 the end of the pause after a 429
--   probe_at                     when the next probe may be sent, if the quota is exceeded
--   updated_at                   the time of the last reservation
--
-- A `spec` has what one client's options say about one bucket: `bucket` ("read" or
-- "download"), `rate` (requests per second) and `burst`, both nil if the rate is not limited,
-- and `quota` (requests per month, or nil).

local rate_state = {}

-- If the service says that the quota is exceeded, one request per hour is let through as a
-- probe, so that one wrong response does not stop all clients until the month ends.
local PROBE_INTERVAL = 3600

-- The longest waits that can be meant. Longer ones were stored by another clock.
local MAX_PAUSE = 120
local MAX_QUEUE = 3600

local TAT = { read = "read_tat", download = "download_tat" }

local TIMES = { "read_tat", "download_tat", "paused_until", "probe_at" }

-- Begin a new month with counts of 0. The counts before are kept, so that a wall clock that
-- is set over the end of a month and back loses none.
local function roll_month(state, month)
  if state.month == month then return end
  local requests, throttled = 0, 0
  if state.other_month == month then requests, throttled = state.other_requests, state.other_throttled end
  state.other_month, state.other_requests, state.other_throttled = state.month, state.requests, state.throttled
  state.month, state.requests, state.throttled, state.probe_at = month, requests, throttled, nil
end

-- If the store's clock was set back, shift all times with it, so that no wait gets longer.
local function rebase_clock(state, now)
  if state.updated_at and now < state.updated_at then
    for _, name in ipairs(TIMES) do
      state[name] = state[name] and state[name] - (state.updated_at - now)
    end
  end
  state.updated_at = now
end

-- The end of the current pause, or now if there is none.
local function pause_end(state, now)
  if not state.paused_until or state.paused_until <= now then return now end
  if state.paused_until > now + MAX_PAUSE then state.paused_until = now + MAX_PAUSE end
  return state.paused_until
end

-- The generic cell rate algorithm (ITU-T I.371): a token bucket, stored as the theoretical
-- arrival time (TAT) of its next request. After a pause the bucket starts full: otherwise all
-- callers that waited would send at once. Returns the time at which the request may be sent,
-- and the new TAT.
local function gcra_advance(state, now, spec)
  local tat_name, interval, start = TAT[spec.bucket], 1 / spec.rate, pause_end(state, now)
  local tat = state[tat_name]
  if not tat or tat < start then tat = start end
  local latest = start + spec.burst * interval + MAX_QUEUE
  if tat > latest then tat = latest end
  state[tat_name] = tat + interval
  return math.max(start, tat - (spec.burst - 1) * interval), state[tat_name]
end

--- Reserve the right to send one request, and count it.
-- @treturn[1] table the reservation: `time_to_act` (the store's time), `delay` (seconds until
--   then), `tat` (for `cancel`; nil without a rate limit), `is_probe` (whether the request is
--   the probe of a quota that is exceeded)
-- @treturn[2] table `refused` (true), `reason`, and `retry_after` (nil: the next month)
function rate_state.reserve(state, now, spec, month)
  roll_month(state, month)
  rebase_clock(state, now)
  local is_probe = false
  if state.probe_at then
    if state.probe_at > now + PROBE_INTERVAL then state.probe_at = now + PROBE_INTERVAL end
    if now < state.probe_at then
      return { refused = true, reason = "limit_exceeded", retry_after = state.probe_at - now }
    end
    state.probe_at, is_probe = now + PROBE_INTERVAL, true
  elseif spec.quota and state.requests >= spec.quota then
    return { refused = true, reason = "monthly_quota" }
  end
  state.requests = state.requests + 1
  local time_to_act, tat = now, nil
  if spec.rate then time_to_act, tat = gcra_advance(state, now, spec) end
  return { time_to_act = time_to_act, delay = time_to_act - now, tat = tat, is_probe = is_probe }
end

--- Reserve only if the request may be sent now, and not as a probe.
-- @treturn[1] table the reservation
-- @treturn[2] table `refused` (true)
function rate_state.try_reserve(state, now, spec, month)
  roll_month(state, month)
  rebase_clock(state, now)
  if state.probe_at then return { refused = true } end
  local tat_name = TAT[spec.bucket]
  local tat_before = state[tat_name]
  local reservation = rate_state.reserve(state, now, spec, month)
  if reservation.refused or reservation.delay <= 0 then return reservation end
  state[tat_name], state.requests = tat_before, state.requests - 1
  return { refused = true }
end

--- Check a reservation when its time has come. If a pause has begun since and lasts, reserve
-- again.
-- @treturn table `time_to_act`, `delay` (0: the request may be sent) and `tat`
function rate_state.rereserve(state, now, spec, time_to_act, tat)
  local start = pause_end(state, now)
  if start <= now or start <= time_to_act then return { time_to_act = time_to_act, delay = 0, tat = tat } end
  time_to_act, tat = gcra_advance(state, now, spec)
  return { time_to_act = time_to_act, delay = time_to_act - now, tat = tat }
end

--- Cancel a reservation whose request was not sent. Only the last one of a bucket becomes free
-- again: instead of an earlier one, two requests would be sent at once later.
function rate_state.cancel(state, _, spec, month, tat)
  roll_month(state, month)
  state.requests = math.max(0, state.requests - 1)
  local tat_name = TAT[spec.bucket]
  if spec.rate and state[tat_name] and math.abs(state[tat_name] - tat) < 1e-6 then
    state[tat_name] = state[tat_name] - 1 / spec.rate
  end
  return true
end

--- Record a 429 for the rate: it is not billed, and all clients of the account pause. The
-- service's bucket is empty, whatever this state says.
function rate_state.throttled(state, now, spec, month, seconds)
  roll_month(state, month)
  state.requests = math.max(0, state.requests - 1)
  state.throttled = state.throttled + 1
  state.paused_until = math.max(state.paused_until or 0, now + math.min(seconds, MAX_PAUSE))
  local tat_name = TAT[spec.bucket]
  if spec.rate then state[tat_name] = math.max(state[tat_name] or 0, now + spec.burst / spec.rate) end
  return true
end

--- Record a 429 for the quota. It is not billed either.
function rate_state.quota_exceeded(state, now, month)
  roll_month(state, month)
  state.requests = math.max(0, state.requests - 1)
  state.throttled = state.throttled + 1
  state.probe_at = now + PROBE_INTERVAL
  return true
end

--- Record that a probe was not answered with a 429 for the quota.
function rate_state.probe_succeeded(state)
  state.probe_at = nil
  return true
end

--- Record that a probe has shown nothing. The next request may be one.
function rate_state.probe_failed(state, now)
  if state.probe_at and state.probe_at > now then state.probe_at = now end
  return true
end

--- Change nothing: this shows whether the store can read and write.
function rate_state.check()
  return true
end

local to_integer = math.tointeger or function(value) return value end

--- The current month's counts.
-- @treturn table `month`, `requests` and `throttled` (integers, even if the store kept floats)
function rate_state.usage(state, _, month)
  roll_month(state, month)
  return { month = state.month, requests = to_integer(state.requests), throttled = to_integer(state.throttled) }
end

local function is_month(value)
  return type(value) == "string" and value:find("^%d%d%d%d%-%d%d$") ~= nil
end

local function is_count(value)
  return type(value) == "number" and value >= 0 and value < 2^53
end

--- Make a state from one of another version of this format, older or newer. Only the counts
-- are taken over; other keys may mean something else there.
-- @treturn table a new state, empty if there are no counts
function rate_state.from_other_version(old)
  local state = {}
  if not (is_month(old.month) and is_count(old.requests) and is_count(old.throttled)) then return state end
  state.month, state.requests, state.throttled = old.month, old.requests, old.throttled
  local other_month = old.other_month or old.other -- its name in version 1
  if is_month(other_month) and is_count(old.other_requests) and is_count(old.other_throttled) then
    state.other_month, state.other_requests, state.other_throttled =
      other_month, old.other_requests, old.other_throttled
  end
  return state
end

return rate_state
