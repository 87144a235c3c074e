-- SPDX-License-Identifier: MIT
-- Changes of a state, as every store makes them.

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

-- Change a copy of a state.
local function changed(old, now, fn, ...)
  local state = change.copy(old)
  return { state, fn(state, now, ...) }
end

--- Change a state that another version may have kept: if it makes no sense to the change,
-- that begins with an empty one.
-- @tparam table old is left as it is
-- @treturn table the state
-- @return what `fn` gave, three results at most
function change.apply(old, now, fn, ...)
  local ran, all = errors.try(pcall, changed, old, now, fn, ...)
  if not ran then all = changed(nil, now, fn, ...) end
  return all[1], all[2], all[3], all[4]
end

return change
