-- SPDX-License-Identifier: MIT
-- Many items at once in a plain script: coroutines whose waits are shared.

local check = require "nymbl.check"
local wait = require "nymbl.wait"

local DEFAULT_CONCURRENCY = 8

-- The items one by one, as a function.
local function drawer(items)
  if type(items) ~= "table" or (getmetatable(items) or {}).__call then return items end
  local i = 0
  return function()
    i = i + 1
    return items[i]
  end
end

local function is_callable(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(value) == "function" or (type(meta) == "table" and meta.__call ~= nil)
end

--- Run a function for every item, some at once. While one waits for the service the
-- others go on.
--
-- @param items an array, or an iterator
-- @tab[opt] options `concurrency`: how many at once (default 8); no more items are
--   drawn ahead
-- @tparam function fn called with each item; it succeeded if it returns a true value
-- @treturn integer how many succeeded
-- @treturn table an array of `{ item =, err = }` for the others; `err` is what `fn`
--   raised, or returned second
-- @raise on a wrong argument, and what the iterator raises, once the items that run
--   are finished
local function each(items, options, fn)
  if type(items) ~= "table" and not is_callable(items) then
    check.argument(1, "each", check.expected("array or iterator", items))
  end
  options = check.options(options, { concurrency = check.integer(1, 100000) }, 2, "each")
  if not is_callable(fn) then check.argument(3, "each", check.expected("function", fn)) end

  local draw = drawer(items)
  local succeeded, failed = 0, {}
  local drawing, ended, raised = false, false, nil

  -- One item, or nil at the end. An iterator may wait itself, and then must not be
  -- entered by another thread.
  local function next_item()
    wait.until_true(function() return not drawing end)
    if ended then return nil end
    drawing = true
    local ok, item = pcall(draw)
    drawing = false
    if not ok then
      ended, raised = true, { item }
    elseif item == nil then
      ended = true
    end
    return ok and item or nil
  end

  local function work()
    while not ended do
      local item = next_item()
      if item == nil then return end
      local ok, result, err = pcall(fn, item)
      if ok and result then
        succeeded = succeeded + 1
      else
        if not ok then err = result end
        failed[#failed + 1] = { item = item, err = err }
      end
    end
  end

  wait.together(work, options.concurrency or DEFAULT_CONCURRENCY)
  if raised then error(raised[1], 0) end
  return succeeded, failed
end

return each
