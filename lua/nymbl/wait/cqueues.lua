-- SPDX-License-Identifier: MIT
-- Waiting in cqueues: only the calling coroutine does.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local driver = { threaded = true }

-- What each transfer rings: a socket that cqueues owns, so that it forgets the
-- descriptor before it closes it. `waiting` counts those who wait for it.
local bells = setmetatable({}, { __mode = "k" })

-- Without one (no descriptor left).
local POLL = 1 / 200

-- Gives false where the transfer has ended, nil where none could be had.
local function bell_new(transfer)
  local fd = transfer:pair()
  if not fd then return fd end
  local ran, made = pcall(socket.fdopen, fd)
  if not (ran and made) then
    transfer:unpair(fd) -- it is still ours
    if not ran then errors.rethrow_out_of_memory(made) end
    return nil
  end
  made:setmode("bn", "bn")
  bells[transfer] = { socket = made, waiting = 0 }
  return bells[transfer]
end

-- Wait until it is rung, or some seconds have passed.
local function listen(bell, seconds)
  bell.waiting = bell.waiting + 1
  cqueues.poll({ pollfd = bell.socket:pollfd(), events = "r", timeout = seconds })
  bell.waiting = bell.waiting - 1
  bell.socket:recv(-64)
  bell.socket:clearerr()
  if bell.released and bell.waiting == 0 then bell.socket:close() end
end

function driver.wait(transfer, deadline)
  if not transfer then
    local left = deadline - core.now()
    if left > 0 then cqueues.sleep(left) end
    return false
  end
  if transfer:news() then return true end
  local bell = bells[transfer]
  if not bell then
    bell = bell_new(transfer)
    if bell == false then return true end
  end
  while true do
    local left = deadline and deadline - core.now()
    if left and left <= 0 then return false end
    if transfer:news() then return true end
    if bell then
      listen(bell, left)
    else
      cqueues.sleep(POLL)
    end
  end
end

--- A transfer has been closed. Whoever still waits sees the other end's close.
function driver.release(transfer)
  local bell = bells[transfer]
  bells[transfer] = nil
  if not bell then return end
  bell.released = true
  if bell.waiting == 0 then bell.socket:close() end
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
  self.running = self.running + 1 -- it has not begun yet
end

--- Wait until one more has ended.
function group:wait()
  local before = self.running
  while self.running >= before do self.changed:wait() end
end

function driver.group()
  return setmetatable({ running = 0, changed = condition.new() }, group)
end

return driver
