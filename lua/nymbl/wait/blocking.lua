-- SPDX-License-Identifier: MIT
-- Waiting in a plain script: the caller runs the engine itself until its wait is over.
-- The coroutines of `nymbl.each` share one such loop, so that none blocks the others.

local core = require "nymbl.core"

local blocking = {}

-- The longest time within one C call, in seconds: Lua handles signals (Ctrl-C) only between C
-- calls.
local POLL_SLICE = 1 / 10

-- Clocks and I/O. Specs replace this table to control the time.
local runtime = {
  now = core.now,
  wall_clock = os.time, -- seconds since 1970, for the calendar only
}
blocking.runtime = runtime

-- Run the engine until a transfer is ready (returns true) or until the deadline (returns
-- false). With `once`, return after one slice at the latest, or when any transfer is ready.
function runtime.wait(transfer, deadline, once)
  if transfer and transfer:is_ready() then return true end
  while true do
    local seconds = POLL_SLICE
    if deadline then
      local left = deadline - core.now()
      if left <= 0 then return false end
      if left < seconds then seconds = left end
    end
    if core.pump(seconds, transfer) then return true end
    if once then return false end
  end
end

-- Let transfers make progress. Does not block.
function runtime.poll()
  core.pump(0)
end

-- The coroutines of all groups ("threads"), each mapped to its wait request: a table with any
-- of `transfer`, `condition` and `deadline`. A thread waits by yielding to the loop in run().
local threads = {}

-- The same threads in the order in which they were started. The outermost run() resumes
-- all of them; a nested one starts no loop of its own.
local run_queue = {}

local READY = { deadline = -math.huge }

-- Whether the running coroutine belongs to a group.
function blocking.is_thread()
  if not run_queue[1] then return false end
  local thread = coroutine.running()
  return thread and threads[thread] ~= nil
end

local function is_due(request, now)
  return (request.transfer and request.transfer:is_ready())
    or (request.condition and request.condition())
    or (request.deadline and now >= request.deadline) or false
end

-- Suspend the running thread until its wait request is due.
local function yield_until(request)
  threads[coroutine.running()] = request
  coroutine.yield()
end

function blocking.wait(transfer, deadline)
  if not blocking.is_thread() then return blocking.runtime.wait(transfer, deadline) end
  yield_until { transfer = transfer, deadline = deadline }
  return transfer ~= nil and transfer:is_ready()
end

-- Resume each thread whose wait request is due. Returns whether any thread was resumed.
local function resume_due()
  local now, resumed = blocking.runtime.now(), false
  local i = 1
  while i <= #run_queue do
    local thread = run_queue[i]
    if is_due(threads[thread], now) then
      resumed = true
      threads[thread] = READY
      local ok, err = coroutine.resume(thread)
      if coroutine.status(thread) == "dead" then
        threads[thread] = nil
        table.remove(run_queue, i)
        if not ok then error(err, 0) end
        i = i - 1
      end
    end
    i = i + 1
  end
  return resumed
end

-- The earliest deadline of all wait requests, or nil.
local function next_deadline()
  local first
  for _, thread in ipairs(run_queue) do
    local deadline = threads[thread].deadline
    if deadline and (not first or deadline < first) then first = deadline end
  end
  return first
end

local function add_thread(body)
  local thread = coroutine.create(body)
  threads[thread] = READY
  run_queue[#run_queue + 1] = thread
end

-- Run a function that creates groups. The outermost call runs the loop.
function blocking.run(body)
  if blocking.is_thread() then return body() end
  add_thread(body)
  local ok, err = pcall(function()
    while #run_queue > 0 do
      if not resume_due() then blocking.runtime.wait(nil, next_deadline(), true) end
    end
  end)
  if ok then return end
  -- Interrupted: drop the threads that still wait, or the next run() would resume them.
  for i = #run_queue, 1, -1 do
    threads[run_queue[i]], run_queue[i] = nil, nil
  end
  error(err, 0)
end

local group = {}
group.__index = group

function group:spawn(body)
  add_thread(function()
    body()
    self.running = self.running - 1
  end)
  self.running = self.running + 1
end

-- Wait until one more thread has ended.
function group:wait()
  local before = self.running
  yield_until { condition = function() return self.running < before end }
end

function blocking.group()
  return setmetatable({ running = 0 }, group)
end

return blocking
