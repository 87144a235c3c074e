-- SPDX-License-Identifier: MIT
-- Waiting in cqueues: a call suspends only its own coroutine.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local driver = { threaded = true }

-- A waker for each transfer: a socket that becomes readable when the transfer is ready.
-- cqueues owns the socket, so that it stops polling the descriptor before closing it.
-- `waiting` counts the coroutines that wait for the socket.
local wakers = setmetatable({}, { __mode = "k" })

-- Seconds between two checks of a transfer that has no waker.
local POLL_INTERVAL = 1 / 200

-- Create a waker. Returns false if the transfer has ended, nil if the process is out of
-- descriptors.
local function new_waker(transfer)
  local fd = transfer:notify_fd()
  if not fd then return fd end
  local ran, wrapped = pcall(socket.fdopen, fd)
  if not (ran and wrapped) then
    transfer:release_notify_fd(fd) -- cqueues has not taken ownership of it
    if not ran then errors.rethrow_out_of_memory(wrapped) end
    return nil
  end
  wrapped:setmode("bn", "bn")
  wakers[transfer] = { socket = wrapped, waiting = 0 }
  return wakers[transfer]
end

-- Wait until the socket is readable, for at most `seconds` (nil: without limit).
local function wait_readable(waker, seconds)
  waker.waiting = waker.waiting + 1
  cqueues.poll({ pollfd = waker.socket:pollfd(), events = "r", timeout = seconds })
  waker.waiting = waker.waiting - 1
  waker.socket:recv(-64)
  waker.socket:clearerr()
  if waker.transfer_closed and waker.waiting == 0 then waker.socket:close() end
end

function driver.wait(transfer, deadline)
  if not transfer then
    local left = deadline - core.now()
    if left > 0 then cqueues.sleep(left) end
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
    if waker then
      wait_readable(waker, left)
    else
      cqueues.sleep(POLL_INTERVAL)
    end
  end
end

-- Free the waker of a closed transfer. If a coroutine still waits for the socket, the close of
-- its other end has woken that coroutine, which then closes the socket.
function driver.release(transfer)
  local waker = wakers[transfer]
  wakers[transfer] = nil
  if not waker then return end
  waker.transfer_closed = true
  if waker.waiting == 0 then waker.socket:close() end
end

function driver.run(body)
  return body()
end

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
