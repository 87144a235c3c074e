-- SPDX-License-Identifier: MIT
-- The states of a process that continues alone, because the store that it shares with other
-- machines is down. It keeps to a share of the rate and of what was left of the month. What it
-- counts is added to the shared state later.

local rate_state = require "nymbl.rate_state"

local alone = {}
alone.__index = alone

-- @tparam number share of the rate, and of what is left of the month
function alone.new(share)
  return setmetatable({
    share = share,
    is_active = false, -- whether the process continues alone
    states = {},       -- by key: the state that it has by itself
    seen = {},         -- by key: `month` and `requests`, as they were last seen in the shared state
    bases = {},        -- by key: those when the process began to continue alone
    counts = {},       -- by key: what is still to be added to the shared state (redis.lua)
  }, alone)
end

-- Note what the result of a change shows of the shared state.
function alone:observe(key, change, result, ...)
  if change == rate_state.reserve and result.requests then
    local _, month = ...
    self.seen[key] = { month = month, requests = result.requests }
  elseif change == rate_state.usage then
    self.seen[key] = { month = result.month, requests = result.requests }
  end
end

-- The state of this process, which begins with the month's count as last seen.
local function own_state(self, key)
  local state = self.states[key]
  if not state then
    local seen = self.seen[key]
    state = seen and { month = seen.month, requests = seen.requests, throttled = 0 } or {}
    self.states[key], self.bases[key] = state, seen
  end
  return state
end

-- Limits for this process alone.
local function scaled_limits(self, key, limits, month)
  local base, share = self.bases[key], self.share
  local used = base and base.month == month and base.requests or 0
  return {
    bucket = limits.bucket,
    rate = limits.rate and limits.rate * share,
    burst = limits.burst and math.max(1, limits.burst * share),
    quota = limits.quota and used + math.floor(math.max(0, limits.quota - used) * share),
  }
end

-- Apply a change to the state of this process. Returns what the change returned.
function alone:change(key, now, change, limits, month, ...)
  local state = own_state(self, key)
  if type(limits) == "table" then limits = scaled_limits(self, key, limits, month) end -- in rate_state.lua
  return change(state, now, limits, month, ...)
end

-- End the state of this process. Returns what is to be added to the shared state: a list of further
-- arguments for rate_state.add.
function alone:take_counts(key)
  local state, base, counts = self.states[key], self.bases[key], {}
  self.states[key], self.bases[key] = nil, nil
  local function add(month, requests, throttled)
    if base and base.month == month then requests = requests - base.requests end
    if requests ~= 0 or throttled ~= 0 then
      counts[#counts + 1] = { month, requests, throttled, state.paused_until }
    end
  end
  if state and state.month then add(state.month, state.requests, state.throttled) end
  if state and state.other_month then add(state.other_month, state.other_requests, state.other_throttled) end
  return counts
end

return alone
