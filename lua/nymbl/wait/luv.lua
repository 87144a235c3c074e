-- SPDX-License-Identifier: MIT
-- Waiting in a luv program: only the calling coroutine does.

local core = require "nymbl.core"
local uv = require "luv"

local driver = { threaded = true }

-- What each transfer rings: a pipe that luv owns. It is read only while somebody
-- waits, or uv.run() would never return. `waiting` holds what wakes each of them.
local bells = setmetatable({}, { __mode = "k" })

-- Without one (no descriptor left), in seconds.
local POLL = 1 / 200

-- Longest time of a timer, in milliseconds: there are deadlines that never come.
local LONGEST = 2^31 - 1

local function go_on(thread, ...)
  local ok, err = coroutine.resume(thread, ...)
  if not ok then error(err, 0) end
end

-- Gives false where the transfer has ended, nil where none could be had.
local function bell_new(transfer)
  local fd = transfer:pair()
  if not fd then return fd end
  local pipe = uv.new_pipe(false)
  if not (pipe and pipe:open(fd)) then
    if pipe then pipe:close() end
    transfer:unpair(fd) -- it is still ours
    return nil
  end
  bells[transfer] = { pipe = pipe, waiting = {} }
  return bells[transfer]
end

local function bell_listen(bell, wake)
  local first = next(bell.waiting) == nil
  bell.waiting[wake] = true
  if not first then return end
  bell.pipe:read_start(function()
    local list = {}
    for each in pairs(bell.waiting) do list[#list + 1] = each end
    for _, each in ipairs(list) do each() end
  end)
end

local function bell_leave(bell, wake)
  bell.waiting[wake] = nil
  if next(bell.waiting) then return end
  bell.pipe:read_stop()
  if bell.released then bell.pipe:close() end
end

-- Stop until the bell is rung, or some seconds have passed.
local function pause(bell, seconds)
  local thread = coroutine.running()
  local timer = seconds and uv.new_timer()
  local function wake()
    if not thread then return end
    local waiting = thread
    thread = nil
    if timer then timer:close() end
    if bell then bell_leave(bell, wake) end
    go_on(waiting)
  end
  if timer then timer:start(math.min(math.ceil(seconds * 1000), LONGEST), 0, wake) end
  if bell then bell_listen(bell, wake) end
  repeat coroutine.yield() until not thread
end

function driver.wait(transfer, deadline)
  if not transfer then
    local left = deadline - core.now()
    if left > 0 then pause(nil, left) end
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
    pause(bell, bell and left or POLL)
  end
end

--- A transfer has been closed. Whoever still waits sees the other end's close.
function driver.release(transfer)
  local bell = bells[transfer]
  bells[transfer] = nil
  if not bell then return end
  bell.released = true
  if not next(bell.waiting) then bell.pipe:close() end
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
    if waiting then go_on(waiting) end
  end)
  self.running = self.running + 1
  go_on(thread)
end

--- Wait until one more has ended.
function group:wait()
  self.waiting = coroutine.running()
  coroutine.yield()
end

function driver.group()
  return setmetatable({ running = 0 }, group)
end

return driver
