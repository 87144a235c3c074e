-- SPDX-License-Identifier: MIT
-- Waiting in nginx: a cosocket for each transfer is wake-up and lease. nginx closes
-- it when the request dies, and the transfer is canceled at once.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local ngx = require "ngx"
local semaphore = require "ngx.semaphore"

local driver = { threaded = true }

-- The sockets, by transfer. A cosocket belongs to the request that has made it.
local leases = setmetatable({}, { __mode = "k" })

-- nginx logs its own timeouts: so the transfer rings when the deadline comes, and
-- this one, in milliseconds, never runs out.
local NEVER = 2 ^ 31 - 1

-- Where there is none to be read: no place or descriptor for one, one of another
-- request, one that another light thread reads.
local POLL = 1 / 200

-- Gives a socket, or false where none could be had, or nil where the transfer has ended.
local function lease_new(transfer)
  local path, token = transfer:lease()
  if path == false then return nil end
  leases[transfer] = false
  local socket = path and ngx.socket.tcp()
  if not socket then return false end
  socket:settimeouts(NEVER, NEVER, NEVER)
  if not socket:connect("unix:" .. path) then return false end
  if not socket:send(token) then
    socket:close()
    return false
  end
  leases[transfer] = socket
  return socket
end

-- Wait for a byte. Gives false where that cannot be.
local function listen(transfer, socket)
  local ok, bytes, err = pcall(socket.receiveany, socket, 64)
  if not ok then errors.pass_memory(bytes) end
  if ok and not bytes and err ~= "socket busy reading" then leases[transfer] = false end -- it was closed
  return ok and bytes ~= nil
end

function driver.wait(transfer, deadline)
  if not transfer then
    -- ngx.sleep cuts off what is less than 1 ms, and counts from when nginx last looked
    local left = deadline - core.now()
    while left > 0 do
      ngx.sleep(math.ceil(left * 1000) / 1000)
      left = deadline - core.now()
    end
    return false
  end
  if transfer:news() then return true end
  if leases[transfer] == nil and lease_new(transfer) == nil then return true end
  transfer:alarm(deadline or 0)
  while true do
    if deadline and core.now() >= deadline then return false end
    if transfer:news() then return true end
    local socket = leases[transfer]
    if not (socket and listen(transfer, socket)) and not transfer:news() then ngx.sleep(POLL) end
  end
end

--- A transfer has been closed.
function driver.release(transfer)
  local socket = leases[transfer]
  leases[transfer] = nil
  -- not in every phase; where another light thread reads, it sees the other end's close
  local ok, problem = true, nil
  if socket then ok, problem = pcall(socket.close, socket) end
  if not ok then errors.pass_memory(problem) end
end

function driver.run(body)
  return body()
end

-- ngx.thread.wait() for several threads leaves a mark on those that it did not wait
-- out: when they end they resume whoever has spawned them, whatever he waits for by
-- then. So threads ring, and are waited for when they have ended.
local group = {}
group.__index = group

-- What has ended is kept by nginx until it is waited for.
local function reap(self)
  for i = #self.ended, 1, -1 do
    local entry = self.ended[i]
    self.ended[i] = nil
    ngx.thread.wait(entry.thread)
  end
end

function group:spawn(body)
  reap(self)
  self.running = self.running + 1
  local entry = {}
  local ok, thread = pcall(ngx.thread.spawn, function()
    body()
    self.running = self.running - 1
    self.ended[#self.ended + 1] = entry
    self.bell:post()
  end)
  if not ok then -- none was started
    self.running = self.running - 1
    error(thread, 0)
  end
  entry.thread = thread
end

--- Wait until one more has ended.
function group:wait()
  while #self.ended == 0 do self.bell:wait(3600) end
  reap(self)
end

function driver.group()
  return setmetatable({ running = 0, bell = semaphore.new(), ended = {} }, group)
end

return driver
