-- SPDX-License-Identifier: MIT
-- The states of a process that continues alone, because the store that it shares with other
-- machines is down. It keeps to a share of the rate and of what was left of the month. What it
-- counts is added to the shared state later.

--
-- The store may fail again before it has accepted these counts. Then the process continues with the
-- state that it had, not with a full bucket and another share of the month. That state ends when the
-- store has made a change again.

local core = require "nymbl.core"
local rate_state = require "nymbl.rate_state"

local alone = {}
alone.__index = alone

-- @tparam number share of the rate, and of what is left of the month
function alone.new(share)
  return setmetatable({
    share = share,
    is_active = false, -- whether the process continues alone
    seen = {},         -- by key: `month` and `requests`, as they were last seen in the shared state
    own = {},          -- by key: see own_of()
    queues = {},       -- by key: see alone:queue()
    process_id = core.system.process_id(),
  }, alone)
end

-- In a forked child: forget what its parent has counted, because the parent adds it.
local function leave_parent(self)
  local process_id = core.system.process_id()
  if self.process_id ~= process_id then self.own, self.queues, self.process_id = {}, {}, process_id end
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

-- What this process has by itself for a key:
--   state   begins with the month's count as last seen
--   base    that count, or nil
--   taken   by month: the counts in `state` that are not to be added (any more)
local function own_of(self, key)
  leave_parent(self)
  local own = self.own[key]
  if not own then
    local seen = self.seen[key]
    own = { state = {}, base = seen, taken = {} }
    if seen then
      own.state = { month = seen.month, requests = seen.requests, throttled = 0 }
      own.taken[seen.month] = { requests = seen.requests, throttled = 0 }
    end
    self.own[key] = own
  end
  return own
end

-- Limits for this process alone.
local function scaled_limits(self, base, limits, month)
  local share = self.share
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
  local own = own_of(self, key)
  if type(limits) == "table" then limits = scaled_limits(self, own.base, limits, month) end -- in rate_state.lua
  return change(own.state, now, limits, month, ...)
end

-- Take what has been counted and not taken yet. Returns it as a list of further arguments for
-- rate_state.add.
function alone:take_counts(key)
  leave_parent(self)
  local own, counts = self.own[key], {}
  local function take(month, requests, throttled)
    local taken = own.taken[month] or { requests = 0, throttled = 0 }
    local new_requests, new_throttled = requests - taken.requests, throttled - taken.throttled
    own.taken[month] = { requests = requests, throttled = throttled }
    if new_requests ~= 0 or new_throttled ~= 0 then
      counts[#counts + 1] = { month, new_requests, new_throttled, own.state.paused_until }
    end
  end
  local state = own and own.state or {}
  if state.month then take(state.month, state.requests, state.throttled) end
  if state.other_month then take(state.other_month, state.other_requests, state.other_throttled) end
  return counts
end

-- The list of what was taken and is still to be added to the shared state, for the caller to keep.
function alone:queue(key)
  leave_parent(self)
  local queue = self.queues[key] or {}
  self.queues[key] = queue
  return queue
end

-- End the state of this process: the shared one can be used. All counts must have been taken.
function alone:forget(key)
  self.own[key] = nil
end

return alone
