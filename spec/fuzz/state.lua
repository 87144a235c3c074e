-- SPDX-License-Identifier: MIT
-- The content of a file store: whatever it is, an account can be used, and counts from then on. The
-- input is the content, without the frame around it, which the target `store` tries.
local core = require "nymbl.core"
local json = require "nymbl.json"
local rate_state = require "nymbl.rate_state"
local store = require "nymbl.store"
local token_state = require "nymbl.token_state"

local MONTH = "2026-02"
local LIMITS = { bucket = "read", rate = 2, burst = 4, quota = 1e15 }

-- Seconds of the longest wait: for the end of a pause, for earlier reservations, and for the burst
local LONGEST = 3600 + 120 + 10

local path = os.tmpname()
os.remove(path)
local guard = setmetatable({}, { __gc = function() os.remove(path) end })

local function usage(self)
  local counts = assert(store.ask(self, "account", nil, rate_state.usage, MONTH))
  assert(counts.month == MONTH, "month")
  assert(type(counts.requests) == "number" and counts.requests == counts.requests, "requests")
  assert(type(counts.throttled) == "number", "throttled")
  return counts
end

-- Whether a value has only numbers that JSON can express. Nothing else was ever written.
local function is_finite(value)
  if type(value) == "number" then return math.abs(value) < math.huge end
  for _, item in pairs(type(value) == "table" and value or {}) do
    if not is_finite(item) then return false end
  end
  return true
end

local function try(content)
  if not is_finite(json.decode(content)) then return nil end
  local self = store.file(path, { token = true })
  local frame = ("nymbl store 1 %s %08x\n"):format(core.sha256(content), #content)
  local file = assert(io.open(path, "wb"))
  file:write(frame, content)
  file:close()
  local before = usage(self)
  local reservation = assert(store.ask(self, "account", nil, rate_state.reserve, LIMITS, MONTH))
  local after = usage(self)
  if reservation.refused then
    assert(after.requests == before.requests, "counted, but refused")
  else
    assert(after.requests == before.requests + 1, "not counted")
    assert(reservation.delay >= 0 and reservation.delay <= LONGEST, "a wait without end")
  end
  if not reservation.refused and not reservation.is_probe then -- a 429, and a second request that is not sent
    local asked_at = core.now()
    assert(store.ask(self, "account", nil, rate_state.throttled, LIMITS, MONTH, 60))
    local again = assert(store.ask(self, "account", nil, rate_state.reserve, LIMITS, MONTH))
    local rounding = 1 + math.abs(again.time_to_act) * 1e-13 -- stores keep 14 digits
    local passed = core.now() - asked_at -- the process may have been stopped
    assert(again.delay >= 60 - passed - rounding and again.delay <= LONGEST + rounding, "no pause, or one without end")
    assert(store.ask(self, "account", nil, rate_state.cancel, LIMITS, MONTH, again.tat))
    assert(usage(self).requests == before.requests, "a request that is not billed was counted")
  end
  local ok, token, todo = store.ask(self, "token", nil, token_state.acquire, 3, nil, 10, nil)
  assert(ok == true, "token")
  assert(token == nil or type(token) == "string", "no token")
  assert(token or todo.generation or todo.failure or (todo.retry_in > 0 and todo.retry_in <= 3), "nothing to do")
  assert(core.object_count() == 0 and guard, "objects are alive")
  if reservation.refused then return "refused" end
  if token then return "with a token" end
  return before.requests > 0 and "with counts" or "empty"
end

return { try = try, reached = { "empty", "with counts", "with a token", "refused" } }
