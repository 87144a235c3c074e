-- SPDX-License-Identifier: MIT
-- A reply that the store in Redis gets for a change: whatever it is, it has a reason that the guide
-- lists, or results that the rest of the library can use. The target `reply` tries the bytes before.
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local redis_script = require "nymbl.store.redis_script"
local resp = require "nymbl.store.resp"

local CHANGES = { "reserve", "usage", "acquire", "publish" }

-- What the callers of a change do with its results.
local USES = {
  reserve = function(result)
    if result.refused then return end
    return result.delay <= 0, result.time_to_act + 1, result.tat and result.tat + 1
  end,
  usage = function(result) return result.requests + result.throttled, #result.month end,
  acquire = function(ok, bearer, action)
    assert(ok == true)
    if bearer then return #bearer end
    if action.generation then return action.generation + 1, action.old_ttl and action.old_ttl + 1 end
    if action.failure then return #action.failure + action.age end
    return action.retry_in + action.now
  end,
  publish = function(ok) assert(ok == true) end,
}

local function try(reply)
  local answer, message = resp.read(reply)
  if message then
    local reason = resp.reason(message)
    assert(errors.reasons[reason], reason)
    return resp.is_no_script(message) and "no script" or reason
  end
  if not answer then return "another reply" end
  local reached
  for _, name in ipairs(CHANGES) do
    local time, results = redis_script.read(name, "5eed:1", answer)
    assert(time == nil or time == time, "no time")
    if time and not results then reached = "too late" end
    if not time and results then reached = "another request" end
    if time and results then
      USES[name](results[1], results[2], results[3])
      reached = reached or name
    end
  end
  assert(core.object_count() == 0, "objects are alive")
  return reached or "no results"
end

return {
  try = try,
  reached = { "reserve", "usage", "acquire", "publish", "too late", "another request", "no results", "another reply",
              "no script", "cluster", "store_full", "store_auth" },
}
