-- SPDX-License-Identifier: MIT
-- Waiting in cqueues: a call suspends only its own coroutine.

local errors = require "nymbl.errors"
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local socket = require "cqueues.socket"
local wakers = require "nymbl.wait.wakers"

-- A waker is a socket that becomes readable when its transfer is ready. cqueues owns the socket, so that
-- it stops polling the descriptor before closing it. `waiting` counts the coroutines that wait for the
-- socket.
local loop = {}

function loop.new_waker(transfer)
  local fd = transfer:notify_fd()
  if not fd then return fd end
  local ran, wrapped = pcall(socket.fdopen, fd)
  if not (ran and wrapped) then
    transfer:release_notify_fd(fd) -- cqueues has not taken ownership of it
    if not ran then errors.rethrow_out_of_memory(wrapped) end
    return nil
  end
  wrapped:setmode("bn", "bn")
  return { socket = wrapped, waiting = 0 }
end

function loop.is_idle(waker)
  return waker.waiting == 0
end

function loop.close(waker)
  waker.socket:close()
end

function loop.suspend(waker, seconds)
  if not waker then return cqueues.sleep(seconds) end
  waker.waiting = waker.waiting + 1
  cqueues.poll({ pollfd = waker.socket:pollfd(), events = "r", timeout = seconds })
  waker.waiting = waker.waiting - 1
  waker.socket:recv(-64)
  waker.socket:clearerr()
  if waker.transfer_closed and waker.waiting == 0 then waker.socket:close() end
end

local driver = wakers.driver(loop)

local group = {}
group.__index = group

function group:spawn(body)
  cqueues.running():wrap(function()
    body()
    self.running = self.running - 1
    self.changed:signal()
  end)
  self.running = self.running + 1 -- after wrap(), which may raise but does not run the body yet
end

-- Wait until one more coroutine has ended.
function group:wait()
  local before = self.running
  while self.running >= before do self.changed:wait() end
end

function driver.group()
  return setmetatable({ running = 0, changed = condition.new() }, group)
end

return driver
