-- SPDX-License-Identifier: MIT
-- An independent model of the rules for rate limit, pauses and quota: what the service may see, and what
-- every caller has a right to. It keeps all reservations, looks at all spans of time, and shares neither
-- code nor ideas (such as arrival times) with rate_state.lua. Its results are exact.
local observer = {}
observer.__index = observer

local HOUR, MAX_PAUSE = 3600, 120

-- @tparam table limits by bucket: `rate`, `burst`
-- @tparam number quota requests per month
function observer.new(limits, quota)
  local self = setmetatable({ limits = limits, quota = quota, marks = {}, places = {}, counts = {} }, observer)
  for bucket in pairs(limits) do self.marks[bucket], self.places[bucket] = {}, {} end
  self.paused_until = -math.huge
  self.probe_at = nil -- set if the quota is exceeded
  self.seen = -math.huge -- the last time at which something has happened
  return self
end

-- ---- the clock ----

-- Something happens. If the clock was set back since the last time, no time has passed: what had to be
-- waited for then has to be waited for now.
function observer:look(now)
  local step = now - self.seen
  if step < 0 then
    for bucket, marks in pairs(self.marks) do
      for _, mark in ipairs(marks) do mark.at = mark.at + step end
      self.places[bucket] = {} -- nobody knows them by their time now, so they cannot be given back
    end
    self.paused_until = self.paused_until + step
    self.probe_at = self.probe_at and self.probe_at + step
  end
  self.seen = now
end

-- ---- the rate ----

-- The end of a pause that is not over, or nil.
function observer:pause(now)
  return self.paused_until > now and self.paused_until or nil
end

-- The earliest time at which one more request may be sent, after those with a place. A mark is the
-- beginning of a span of time, and the number of requests that it has `taken`: never more than burst +
-- rate x time.
function observer:earliest(bucket, now)
  local limits, at = self.limits[bucket], math.max(now, self.paused_until)
  for _, mark in ipairs(self.marks[bucket]) do
    at = math.max(at, mark.at + (mark.taken + 1 - limits.burst) / limits.rate)
  end
  return at
end

-- Take that place.
function observer:take(bucket, now)
  local marks, places = self.marks[bucket], self.places[bucket]
  local place = { at = self:earliest(bucket, now), taken = 1 }
  for _, mark in ipairs(marks) do mark.taken = mark.taken + 1 end
  marks[#marks + 1], places[#places + 1] = place, place
  return place
end

-- Give a place back. Only the last one can be: a later request would otherwise be too close to the
-- next.
function observer:give_back(bucket, place)
  local marks, places = self.marks[bucket], self.places[bucket]
  if places[#places] ~= place then return end
  places[#places] = nil
  for i, mark in ipairs(marks) do
    if mark == place then
      table.remove(marks, i)
      break
    end
    mark.taken = mark.taken - 1
  end
end

-- A 429 for the rate: all pause, and the service has no room left in its bucket.
function observer:throttled(bucket, now, seconds)
  self:look(now)
  self.paused_until = math.max(self.paused_until, now + math.min(seconds, MAX_PAUSE))
  table.insert(self.marks[bucket], { at = now, taken = self.limits[bucket].burst })
end

-- ---- the month ----

function observer:count(month)
  self.counts[month] = self.counts[month] or { requests = 0, throttled = 0 }
  return self.counts[month]
end

-- A month begins, or its begin is taken back. The counts of two months are kept.
function observer:change_month(month)
  if month == self.month then return end
  if month ~= self.other_month then self.counts[month] = nil end
  self.other_month, self.month, self.probe_at = self.month, month, nil
end

function observer:uncount(month, throttled)
  local count = self:count(month)
  count.requests, count.throttled = math.max(0, count.requests - 1), count.throttled + (throttled or 0)
end

-- Whether the quota lets a request be sent, and whether that is a probe. Otherwise nil, the reason and the
-- seconds until the next probe.
function observer:admit(now)
  if self.probe_at then
    if now < self.probe_at then return nil, "limit_exceeded", self.probe_at - now end
    self.probe_at = now + HOUR
    return true, true
  end
  if self:count(self.month).requests >= self.quota then return nil, "monthly_quota" end
  return true, false
end

-- A 429 for the quota.
function observer:quota_exceeded(now)
  self:look(now)
  self.probe_at = now + HOUR
end

-- The response to a probe. It may have shown that there is some quota left, or nothing.
function observer:probed(now, is_within_quota)
  if is_within_quota then
    self.probe_at = nil -- whatever the time is
  else
    self:look(now)
    self.probe_at = self.probe_at and math.min(self.probe_at, now)
  end
end

return observer
