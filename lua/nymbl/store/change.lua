-- SPDX-License-Identifier: MIT
-- Applying a change to a state that another version of nymbl may have stored.

local errors = require "nymbl.errors"

local change = {}

--- A copy of a state, or an empty one.
function change.copy(old)
  local state = {}
  if old then
    for name, value in pairs(old) do state[name] = value end
  end
  return state
end

-- Apply a change to a copy of a state.
local function changed(old, now, fn, ...)
  local state = change.copy(old)
  return { state, fn(state, now, ...) }
end

--- Apply a change to a stored state. If the change cannot use the state, it is applied to an
-- empty one.
-- @tparam ?table old is left as it is
-- @treturn table the new state
-- @return what `fn` returned, three results at most
function change.apply(old, now, fn, ...)
  local ran, all = errors.try(pcall, changed, old, now, fn, ...)
  if not ran then all = changed(nil, now, fn, ...) end
  return all[1], all[2], all[3], all[4]
end

return change
