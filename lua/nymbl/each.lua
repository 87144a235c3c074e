-- SPDX-License-Identifier: MIT
-- Many items at once: threads whose waits are shared.

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
  local concurrency = options.concurrency or DEFAULT_CONCURRENCY
  local succeeded, failed = 0, {}
  local broken, problem = false, nil -- what ends the run, once the items that run are finished

  local function work(item)
    local ok, result, err = pcall(fn, item)
    if ok and result then
      succeeded = succeeded + 1
    else
      if not ok then err = result end
      failed[#failed + 1] = { item = item, err = err }
    end
  end

  local function draw_all(group)
    while not broken do
      while group.running >= concurrency do group:wait() end
      local item = draw()
      if item == nil then break end
      -- a thread never raises, or its group would wait for it without end
      group:spawn(function()
        local ok, err = pcall(work, item)
        if not ok then broken, problem = true, err end
      end)
    end
  end

  wait.run(function()
    local group = wait.group()
    local ok, err = pcall(draw_all, group)
    if not ok then broken, problem = true, err end
    while group.running > 0 do group:wait() end
  end)
  if broken then error(problem, 0) end
  return succeeded, failed
end

return { each = each }
