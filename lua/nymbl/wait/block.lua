-- SPDX-License-Identifier: MIT
-- Waiting in a plain script: whoever waits pumps. Coroutines of `nymbl.each` share
-- the wait, so that one of them never stops the others.

local core = require "nymbl.core"

local block = {}

-- A turn is bounded so that Lua's own signal handling (Ctrl-C) gets its chance.
local TURN = 1 / 10

-- What the rest stands on; specs put another clock in its place.
local pump = {
  now = core.now,
  -- Seconds since 1970 on the wall clock: for the calendar alone.
  wall = os.time,
}
block.pump = pump

-- `once`: come back with any transfer's news, or after a turn.
function pump.wait(transfer, deadline, once)
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

--- Let transfers that nobody waits for at the moment go on. Does not wait.
function pump.turn()
  core.pump(0)
end

-- Threads of groups: what each waits for. A wait in one of them yields to the loop
-- that runs them all.
local threads = {}

-- The same in an order: the outermost loop runs all, so that nested groups are no
-- loops of their own.
local all = {}

local READY = { deadline = -math.huge }

--- Whether the running coroutine is one of ours.
function block.is_thread()
  local thread = coroutine.running()
  return thread and threads[thread] ~= nil
end

local function is_due(request, now)
  return (request.transfer and request.transfer:news())
    or (request.condition and request.condition())
    or (request.deadline and now >= request.deadline) or false
end

-- Let other threads go on until something has come of a request.
local function give_way(request)
  threads[coroutine.running()] = request
  coroutine.yield()
end

function block.wait(transfer, deadline)
  if not block.is_thread() then return block.pump.wait(transfer, deadline) end
  give_way { transfer = transfer, deadline = deadline }
  return transfer ~= nil and transfer:news()
end

-- Resume the threads that are due; gives whether any was.
local function threads_run()
  local now, ran = block.pump.now(), false
  local i = 1
  while i <= #all do
    local thread = all[i]
    if is_due(threads[thread], now) then
      ran = true
      threads[thread] = READY
      local ok, err = coroutine.resume(thread)
      if coroutine.status(thread) == "dead" then
        threads[thread] = nil
        table.remove(all, i)
        if not ok then error(err, 0) end
        i = i - 1
      end
    end
    i = i + 1
  end
  return ran
end

-- The earliest time at which a thread wants to go on.
local function earliest()
  local first
  for _, thread in ipairs(all) do
    local deadline = threads[thread].deadline
    if deadline and (not first or deadline < first) then first = deadline end
  end
  return first
end

local function thread_add(body)
  local thread = coroutine.create(body)
  threads[thread] = READY
  all[#all + 1] = thread
end

--- Run a function that makes groups: the first one runs the loop.
function block.run(body)
  if block.is_thread() then return body() end
  thread_add(body)
  local ok, err = pcall(function()
    while #all > 0 do
      if not threads_run() then block.pump.wait(nil, earliest(), true) end
    end
  end)
  if ok then return end
  for i = #all, 1, -1 do -- interrupted: what still waits must not go on with the next call
    threads[all[i]], all[i] = nil, nil
  end
  error(err, 0)
end

local group = {}
group.__index = group

function group:spawn(body)
  thread_add(function()
    body()
    self.running = self.running - 1
  end)
  self.running = self.running + 1
end

--- Wait until one more has ended.
function group:wait()
  local before = self.running
  give_way { condition = function() return self.running < before end }
end

function block.group()
  return setmetatable({ running = 0 }, group)
end

return block
