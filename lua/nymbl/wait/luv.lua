-- SPDX-License-Identifier: MIT
-- Waiting in a luv program: a call suspends only its own coroutine.

local core = require "nymbl.core"
local uv = require "luv"

local driver = { threaded = true }

-- A waker for each transfer: a pipe that becomes readable when the transfer is ready. luv
-- owns the pipe. The pipe is read only while a coroutine waits, because an active handle
-- keeps uv.run() from returning. `waiting` is the set of the functions that resume the waiting
-- coroutines.
local wakers = setmetatable({}, { __mode = "k" })

-- Seconds between two checks of a transfer that has no waker.
local POLL_INTERVAL = 1 / 200

-- Upper limit for a timer, in milliseconds: a deadline may be infinite.
local MAX_TIMER = 2^31 - 1

local function resume(thread, ...)
  local ok, err = coroutine.resume(thread, ...)
  if not ok then error(tostring(err), 0) end -- luv would print a table as "(null)"
end

-- Create a waker. Returns false if the transfer has ended, nil if the process is out of
-- descriptors.
local function new_waker(transfer)
  local fd = transfer:notify_fd()
  if not fd then return fd end
  local pipe = uv.new_pipe(false)
  if not (pipe and pipe:open(fd)) then
    if pipe then pipe:close() end
    transfer:release_notify_fd(fd) -- luv has not taken ownership of it
    return nil
  end
  wakers[transfer] = { pipe = pipe, waiting = {} }
  return wakers[transfer]
end

local function add_waiting(waker, wake)
  local is_first = next(waker.waiting) == nil
  waker.waiting[wake] = true
  if not is_first then return end
  waker.pipe:read_start(function()
    local copy = {} -- each function removes itself from the set
    for wake_waiting in pairs(waker.waiting) do copy[#copy + 1] = wake_waiting end
    for _, wake_waiting in ipairs(copy) do wake_waiting() end
  end)
end

local function remove_waiting(waker, wake)
  waker.waiting[wake] = nil
  if next(waker.waiting) then return end
  waker.pipe:read_stop()
  if waker.transfer_closed then waker.pipe:close() end
end

-- Suspend the running coroutine until the waker's pipe is readable, or for at most `seconds`.
-- One of the two arguments may be nil.
local function suspend(waker, seconds)
  local thread = coroutine.running()
  local timer = seconds and uv.new_timer()
  local function wake()
    if not thread then return end
    local suspended = thread
    thread = nil
    if timer then timer:close() end
    if waker then remove_waiting(waker, wake) end
    resume(suspended)
  end
  if timer then timer:start(math.min(math.ceil(seconds * 1000), MAX_TIMER), 0, wake) end
  if waker then add_waiting(waker, wake) end
  repeat coroutine.yield() until not thread
end

function driver.wait(transfer, deadline)
  if not transfer then
    local left = deadline - core.now()
    if left > 0 then suspend(nil, left) end
    return false
  end
  if transfer:is_ready() then return true end
  local waker = wakers[transfer]
  if not waker then
    waker = new_waker(transfer)
    if waker == false then return true end
  end
  while true do
    local left = deadline and deadline - core.now()
    if left and left <= 0 then return false end
    if transfer:is_ready() then return true end
    suspend(waker, waker and left or POLL_INTERVAL)
  end
end

-- Free the waker of a closed transfer. If a coroutine still waits for the pipe, the close of
-- its other end wakes that coroutine, which then closes the pipe.
function driver.release(transfer)
  local waker = wakers[transfer]
  wakers[transfer] = nil
  if not waker then return end
  waker.transfer_closed = true
  if not next(waker.waiting) then waker.pipe:close() end
end

function driver.run(body)
  return body()
end

local group = {}
group.__index = group

function group:spawn(body)
  local thread = coroutine.create(function()
    body()
    self.running = self.running - 1
    local waiting = self.waiting
    self.waiting = nil
    if waiting then resume(waiting) end
  end)
  self.running = self.running + 1
  resume(thread)
end

-- Wait until one more coroutine has ended.
function group:wait()
  self.waiting = coroutine.running()
  coroutine.yield()
end

function driver.group()
  return setmetatable({ running = 0 }, group)
end

return driver
