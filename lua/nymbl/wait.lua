-- SPDX-License-Identifier: MIT
-- The one place where anything waits, and the one clock.
--
-- A driver is a table with `wait(transfer or nil, deadline or nil)`, `now()` and
-- `wall()`. Here is the plain one: the caller pumps the engine itself.

local core = require "nymbl.core"

local block = {}

-- A turn is bounded so that Lua's own signal handling (Ctrl-C) gets its chance.
local TURN = 0.1

-- `once`: come back with any transfer's news, or after a turn.
function block.wait(transfer, deadline, once)
  if transfer and transfer:news() then return true end
  while true do
    local seconds = TURN
    if deadline then
      local left = deadline - core.now()
      if left <= 0 then return false end
      if left < seconds then seconds = left end
    end
    if core.pump(seconds, transfer) then return true end
    if once then return false end
  end
end

block.now = core.now

-- Seconds since 1970 on the wall clock: for the calendar alone.
block.wall = os.time

local wait = { driver = block }

-- Threads of `wait.together`: what each waits for. A wait in one of them yields to
-- the loop that runs them all; one in any other coroutine waits as a script does.
local threads = {}

local function is_due(request, now)
  return (request.transfer and request.transfer:news())
    or (request.condition and request.condition())
    or (request.deadline and now >= request.deadline) or false
end

-- Let another thread go on until something has come of a request.
local function give_way(thread, request)
  threads[thread] = request
  coroutine.yield()
end

--- Wait until a transfer has news, or for a time to pass.
-- @param transfer a transfer, or nil to sleep
-- @tparam ?number deadline as `now()` counts; nil: none
-- @treturn boolean true with news, false at the deadline
function wait.wait(transfer, deadline)
  local thread = coroutine.running()
  if thread and threads[thread] then
    give_way(thread, { transfer = transfer, deadline = deadline })
    return transfer ~= nil and transfer:news()
  end
  return wait.driver.wait(transfer, deadline)
end

--- Wait until other threads have made a condition true.
function wait.until_true(condition)
  if not condition() then give_way(coroutine.running(), { condition = condition }) end
end

--- Seconds on a clock that never goes back.
function wait.now()
  return wait.driver.now()
end

local READY = { deadline = -math.huge }

-- Resume the threads of a list that are due; gives whether any was.
local function threads_run(list)
  local now, ran = wait.now(), false
  local i = 1
  while i <= #list do
    local thread = list[i]
    local request = threads[thread]
    if is_due(request, now) then
      ran = true
      threads[thread] = READY
      local ok, err = coroutine.resume(thread)
      if coroutine.status(thread) == "dead" then
        threads[thread] = nil
        table.remove(list, i)
        if not ok then error(err, 0) end
        i = i - 1
      end
    end
    i = i + 1
  end
  return ran
end

-- The earliest time at which a thread of a list wants to go on.
local function earliest(list)
  local first
  for _, thread in ipairs(list) do
    local deadline = threads[thread].deadline
    if deadline and (not first or deadline < first) then first = deadline end
  end
  return first
end

-- Every thread that waits, whoever runs it: the outermost loop runs them all, so
-- that nested calls are no loops of their own.
local all = {}

--- Run a function in several threads until all have returned.
function wait.together(work, count)
  local mine = {}
  for i = 1, count do
    local thread = coroutine.create(work)
    mine[i], threads[thread] = thread, READY
    all[#all + 1] = thread
  end
  local function finished()
    for _, thread in ipairs(mine) do
      if threads[thread] then return false end
    end
    return true
  end
  local outer = coroutine.running()
  if outer and threads[outer] then
    give_way(outer, { condition = finished })
    return
  end
  local ok, err = pcall(function()
    while #all > 0 do
      if not threads_run(all) then wait.driver.wait(nil, earliest(all), true) end
    end
  end)
  if not ok then -- interrupted: what still waits must not go on with the next call
    for i = #all, 1, -1 do
      threads[all[i]], all[i] = nil, nil
    end
    error(err, 0)
  end
end

--- The month of a quota, as in "2026-02" (UTC: the limits page, "Monthly quota").
function wait.month()
  return os.date("!%Y-%m", wait.driver.wall())
end

--- Seconds until the next one begins.
function wait.month_left()
  local today = os.date("!*t", wait.driver.wall())
  local days = { 31, today.year % 4 == 0 and (today.year % 100 ~= 0 or today.year % 400 == 0) and 29 or 28,
                 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  return (days[today.month] - today.day) * 86400 + (24 - today.hour) * 3600 - today.min * 60 - today.sec
end

return wait
