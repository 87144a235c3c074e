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

-- A request that dies while it asks again and again is not told from one that goes on;
-- so the transfer is canceled where nobody has asked for so many seconds.
local GONE = 3

-- Seconds until another try to have a socket: nginx logs each that fails.
local AGAIN = 1
local tried = setmetatable({}, { __mode = "k" })

-- Gives a socket, or false where none could be had, or nil where the transfer has ended.
local function lease_new(transfer)
  local path, token = transfer:lease()
  if path == false then return nil end
  leases[transfer], tried[transfer] = false, core.now()
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
  if not ok then errors.rethrow_out_of_memory(bytes) end
  if ok and not bytes and err ~= "socket busy reading" then leases[transfer] = false end -- it was closed
  return ok and bytes ~= nil
end

-- Whether a socket is to be asked for.
local function is_due(transfer)
  local lease = leases[transfer]
  return lease == nil or (lease == false and core.now() >= tried[transfer] + AGAIN)
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
  if is_due(transfer) and lease_new(transfer) == nil then return true end
  transfer:alarm(deadline or 0)
  local watched, result = false, nil
  while result == nil do
    if deadline and core.now() >= deadline then
      result = false
    elseif transfer:news() then
      result = true
    else
      local socket = leases[transfer]
      if not (socket and listen(transfer, socket)) and not transfer:news() then
        if not leases[transfer] then -- else that one ends with its request
          transfer:watch(core.now() + GONE)
          watched = true
        end
        ngx.sleep(POLL)
      end
    end
  end
  if watched then transfer:watch(0) end
  return result
end

--- A transfer has been closed.
function driver.release(transfer)
  local socket = leases[transfer]
  leases[transfer], tried[transfer] = nil, nil
  -- not in every phase; where another light thread reads, it sees the other end's close
  local ok, problem = true, nil
  if socket then ok, problem = pcall(socket.close, socket) end
  if not ok then errors.rethrow_out_of_memory(problem) end
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
