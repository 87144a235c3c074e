-- SPDX-License-Identifier: MIT
-- Applying a change to a state that another version of nymbl may have stored.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local rate_state = require "nymbl.rate_state"

local change = {}

-- Version of the stored states (rate_state.lua, token_state.lua), which is their key
-- `version`. States of version 1 have no such key.
change.VERSION = 2

-- A copy of a state, or an empty one.
function change.copy(old)
  return old and core.copy(old) or {}
end

-- The counts of a stored state, as a state of this version.
local function counts_of(old)
  local state = type(old) == "table" and rate_state.from_other_version(old) or {}
  state.version = change.VERSION
  return state
end

-- Apply a change to a copy of a state. Returns an array: the new state, and the results.
local function apply_to_copy(old, now, fn, ...)
  local state = old and old.version ~= change.VERSION and counts_of(old) or change.copy(old)
  state.version = change.VERSION
  return { state, fn(state, now, ...) }
end

-- Apply a change to a stored state. Only the month's counts are kept if another version of
-- nymbl stored it, older or newer, or if the change raises an error because the state is
-- malformed.
-- @tparam ?table old the stored state; not modified
-- @treturn table the new state
-- @return the results of `fn`, at most three
function change.apply(old, now, fn, ...)
  local ran, results = errors.try(pcall, apply_to_copy, old, now, fn, ...)
  if not ran then results = apply_to_copy(counts_of(old), now, fn, ...) end
  return results[1], results[2], results[3], results[4]
end

return change
