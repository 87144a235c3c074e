-- SPDX-License-Identifier: MIT
-- Waiting in cqueues: only the calling coroutine does.

local core = require "nymbl.core"
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local driver = { threaded = true }

-- What each transfer wakes: a socket that cqueues owns, so that it forgets the
-- descriptor before it closes it.
local sockets = setmetatable({}, { __mode = "k" })

function driver.wait(transfer, deadline)
  if not transfer then
    local left = deadline - core.now()
    if left > 0 then cqueues.sleep(left) end
    return false
  end
  local waker = sockets[transfer]
  if not waker then
    if transfer:news() then return true end
    local fd, err = transfer:pair()
    if fd == false then return true end
    waker = assert(socket.fdopen(assert(fd, err and err.reason)))
    waker:setmode("bn", "bn")
    sockets[transfer] = waker
  end
  while true do
    local left = deadline and deadline - core.now()
    if left and left <= 0 then return false end
    if transfer:news() then return true end
    cqueues.poll({ pollfd = waker:pollfd(), events = "r", timeout = left })
    waker:recv(-64)
    waker:clearerr()
  end
end

--- A transfer is about to be closed.
function driver.release(transfer)
  local waker = sockets[transfer]
  sockets[transfer] = nil
  if waker then waker:close() end
end

function driver.run(body)
  return body()
end

local group = {}
group.__index = group

function group:spawn(body)
  self.running = self.running + 1
  cqueues.running():wrap(function()
    body()
    self.running = self.running - 1
    self.changed:signal()
  end)
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
