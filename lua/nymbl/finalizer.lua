-- SPDX-License-Identifier: MIT
-- Finalizers of tables, which Lua 5.1 does not have.

local finalizer = {}

-- Make a value that calls a function when it is garbage. Errors of the function are ignored.
-- @tparam function fn must not refer to the value
-- @return the value, to be stored in the table to which the finalizer belongs
function finalizer.new(fn)
  local function collect() pcall(fn) end
  if not newproxy then return setmetatable({}, { __gc = collect }) end -- luacheck: ignore
  local proxy = newproxy(true) -- luacheck: ignore
  getmetatable(proxy).__gc = collect
  return proxy
end

return finalizer
