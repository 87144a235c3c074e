-- SPDX-License-Identifier: MIT
-- Applying a change to a state that another version of nymbl may have stored.

local errors = require "nymbl.errors"
local rate_state = require "nymbl.rate_state"

local change = {}

--- Version of the stored states (rate_state.lua, token_state.lua), which is their key
-- `version`. States of version 1 have no such key.
change.VERSION = 2

--- A copy of a state, or an empty one.
function change.copy(old)
  local state = {}
  if old then
    for name, value in pairs(old) do state[name] = value end
  end
  return state
end

-- A copy of a state, of this version.
local function upgraded_copy(old)
  local state = old and old.version ~= change.VERSION and rate_state.from_other_version(old) or change.copy(old)
  state.version = change.VERSION
  return state
end

-- Apply a change to a copy of a state.
local function changed(old, now, fn, ...)
  local state = upgraded_copy(old)
  return { state, fn(state, now, ...) }
end

--- Apply a change to a stored state. Of a state of another version, older or newer, only the
-- month's counts are kept. If the change cannot use the state, it is applied to an empty one.
-- @tparam ?table old is left as it is
-- @treturn table the new state
-- @return what `fn` returned, three results at most
function change.apply(old, now, fn, ...)
  local ran, all = errors.try(pcall, changed, old, now, fn, ...)
  if not ran then all = changed(nil, now, fn, ...) end
  return all[1], all[2], all[3], all[4]
end

return change
