-- SPDX-License-Identifier: MIT
-- Waiting in a luv program: only the calling coroutine does.

local core = require "nymbl.core"
local uv = require "luv"

local driver = { threaded = true }

-- What each transfer wakes: a pipe that luv owns. It is read only while somebody
-- waits, or uv.run() would never return.
local pipes = setmetatable({}, { __mode = "k" })

local function go_on(thread, ...)
  local ok, err = coroutine.resume(thread, ...)
  if not ok then error(err, 0) end
end

local function pipe_new(transfer)
  local fd, err = transfer:pair()
  if not fd then return fd, err end
  local pipe = uv.new_pipe(false)
  assert(pipe:open(fd))
  pipes[transfer] = pipe
  return pipe
end

-- Stop until the pipe is written to, or some seconds have passed.
local function pause(pipe, seconds)
  local thread = coroutine.running()
  local timer = seconds and uv.new_timer()
  local function wake()
    if not thread then return end
    local waiting = thread
    thread = nil
    if timer then timer:close() end
    if pipe then pipe:read_stop() end
    go_on(waiting)
  end
  if timer then timer:start(math.ceil(seconds * 1000), 0, wake) end
  if pipe then pipe:read_start(wake) end
  coroutine.yield()
end

function driver.wait(transfer, deadline)
  if not transfer then
    local left = deadline - core.now()
    if left > 0 then pause(nil, left) end
    return false
  end
  local pipe = pipes[transfer]
  if not pipe then
    if transfer:news() then return true end
    local err
    pipe, err = pipe_new(transfer)
    if pipe == false then return true end
    assert(pipe, err and err.reason)
  end
  while true do
    local left = deadline and deadline - core.now()
    if left and left <= 0 then return false end
    if transfer:news() then return true end
    pause(pipe, left)
  end
end

--- A transfer is about to be closed.
function driver.release(transfer)
  local pipe = pipes[transfer]
  pipes[transfer] = nil
  if pipe then pipe:close() end
end

function driver.run(body)
  return body()
end

local group = {}
group.__index = group

function group:spawn(body)
  self.running = self.running + 1
  go_on(coroutine.create(function()
    body()
    self.running = self.running - 1
    local waiting = self.waiting
    self.waiting = nil
    if waiting then go_on(waiting) end
  end))
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
