-- SPDX-License-Identifier: MIT
-- nymbl.each: a function for many items, several at once. It runs them in a group of
-- coroutines ("threads" here, in every event loop).

local check = require "nymbl.check"
local wait = require "nymbl.wait"

local DEFAULT_CONCURRENCY = 8

-- A function that returns the next item of an array or iterator, or nil at the end.
local function item_iterator(items)
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

-- A checker (see check.lua) of arrays and iterators.
local function check_items(value)
  if type(value) ~= "table" and not is_callable(value) then return check.expected("array or iterator", value) end
end

-- nymbl.each(items, [options,] fn), see lua/nymbl.lua.
local function each(items, options, fn)
  local problem = check_items(items)
  if problem then check.raise_argument(1, "each", problem) end
  if fn == nil and is_callable(options) then options, fn = nil, options end
  options = check.options(options, { concurrency = check.integer(1, 100000) }, 2, "each")
  if not is_callable(fn) then check.raise_argument(3, "each", check.expected("function", fn)) end

  local next_item = item_iterator(items)
  local concurrency = options.concurrency or DEFAULT_CONCURRENCY
  local succeeded, failed = 0, {}
  local is_aborted, abort_error = false, nil -- raised after the running items have finished

  local function abort(err)
    is_aborted, abort_error = true, err
  end

  local function process(item)
    local ok, result, err = pcall(fn, item)
    if ok and result then
      succeeded = succeeded + 1
    else
      if not ok then err = result end
      failed[#failed + 1] = { item = item, err = err }
    end
  end

  local function start_all(group)
    while not is_aborted do
      while group.running >= concurrency do group:wait() end
      local item = next_item()
      if item == nil then break end
      -- A thread must not raise: the group would count it as running for ever.
      group:spawn(function()
        local ok, err = pcall(process, item)
        if not ok then abort(err) end
      end)
    end
  end

  wait.run(function()
    local group = wait.group()
    local ok, err = pcall(start_all, group)
    if not ok then abort(err) end
    while group.running > 0 do group:wait() end
  end)
  if is_aborted then error(abort_error, 0) end
  return succeeded, failed
end

return { each = each, iterator = item_iterator, check_items = check_items }
