-- SPDX-License-Identifier: MIT
-- Changes that could not be stored at once, because another process had locked the store. They
-- are applied before the next change of this process, in their order.

local deferred = {}
deferred.__index = deferred

local unpack = table.unpack or unpack -- luacheck: ignore

-- The largest number of changes that are kept for one key. Further ones are lost.
local MAX_CHANGES = 100

function deferred.new()
  return setmetatable({ by_key = {} }, deferred)
end

-- Keep a change.
function deferred:add(key, change, ...)
  local list = self.by_key[key] or {}
  self.by_key[key] = list
  if #list < MAX_CHANGES then list[#list + 1] = { change = change, count = select("#", ...), ... } end
end

-- The changes that are kept for a key, or nil: a list of tables with `change`, its arguments, and
-- their `count`.
function deferred:list(key)
  return self.by_key[key]
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
