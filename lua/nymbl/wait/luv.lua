-- SPDX-License-Identifier: MIT
-- Waiting in a luv program: a call suspends only its own coroutine.

local uv = require "luv"
local wakers = require "nymbl.wait.wakers"

-- A waker is a pipe that becomes readable when its transfer is ready. luv owns the pipe. The pipe is read
-- only while a coroutine waits, because an active handle keeps uv.run() from returning. `waiting` is the
-- set of the functions that resume the waiting coroutines.
local loop = {}

-- Upper limit for a timer, in milliseconds: a deadline may be infinite.
local MAX_TIMER = 2^31 - 1

local function resume(thread, ...)
  local ok, err = coroutine.resume(thread, ...)
  if not ok then error(tostring(err), 0) end -- luv would print a table as "(null)"
end

function loop.new_waker(transfer)
  local fd = transfer:notify_fd()
  if not fd then return fd end
  local pipe = uv.new_pipe(false)
  if not (pipe and pipe:open(fd)) then
    if pipe then pipe:close() end
    transfer:release_notify_fd(fd) -- luv has not taken ownership of it
    return nil
  end
  return { pipe = pipe, waiting = {} }
end

function loop.is_idle(waker)
  return next(waker.waiting) == nil
end

function loop.close(waker)
  waker.pipe:close()
end

local function add_waiting(waker, wake)
  local is_first = loop.is_idle(waker)
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
  if not loop.is_idle(waker) then return end
  waker.pipe:read_stop()
  if waker.transfer_closed then waker.pipe:close() end
end

function loop.suspend(waker, seconds)
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

local driver = wakers.driver(loop)

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
