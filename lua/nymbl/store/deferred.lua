-- SPDX-License-Identifier: MIT
-- Changes that could not be stored at once, because another process had locked the store, or there
-- was no connection to it. They are applied before the next change of this process, in their order.
-- A forked child has a copy of them, and drops it: they are its parent's to apply.

local core = require "nymbl.core"

local deferred = {}
deferred.__index = deferred

local unpack = table.unpack or unpack -- luacheck: ignore

-- The largest number of changes that are kept for one key. Further ones are lost.
local MAX_CHANGES = 100

function deferred.new()
  return setmetatable({ by_key = {}, process_id = core.system.process_id() }, deferred)
end

-- By key: the changes of this process.
local function own_lists(self)
  local process_id = core.system.process_id()
  if self.process_id ~= process_id then self.by_key, self.process_id = {}, process_id end
  return self.by_key
end

-- Keep a change.
function deferred:add(key, change, ...)
  local lists = own_lists(self)
  local list = lists[key] or {}
  lists[key] = list
  if #list < MAX_CHANGES then list[#list + 1] = { change = change, count = select("#", ...), ... } end
end

-- The changes that are kept for a key, or nil: a list of tables with `change`, its arguments, and
-- their `count`.
function deferred:list(key)
  return own_lists(self)[key]
end

-- Forget the changes that are kept for a key: they were stored.
function deferred:clear(key)
  self.by_key[key] = nil
end

-- A change that applies a list of changes, and then another one.
-- @tparam ?table list of deferred changes
-- @tparam function change
-- @treturn function
function deferred.combine(list, change)
  if not list then return change end
  return function(state, now, ...)
    for _, item in ipairs(list) do item.change(state, now, unpack(item, 1, item.count)) end
    return change(state, now, ...)
  end
end

return deferred
