-- SPDX-License-Identifier: MIT
-- Where state is shared: by the clients of this process.
--
-- A store has
--   now()                   its time in seconds, which never goes back
--   update(key, change, …)  calls `change(state, …)` on the table kept under a key,
--                           alone, and gives what it gives

local wait = require "nymbl.wait"

local store = {}

local memory = {}
memory.__index = memory

function memory.now()
  return wait.now()
end

function memory:update(key, change, ...)
  local state = self[key]
  if not state then
    state = {}
    self[key] = state
  end
  return change(state, ...)
end

--- A store of its own in this process.
function store.memory()
  return setmetatable({}, memory)
end

--- The store that clients share unless they are given another.
store.default = store.memory()

return store
