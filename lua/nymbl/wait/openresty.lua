-- SPDX-License-Identifier: MIT
-- Waiting in nginx: a cosocket for each transfer is wake-up and lease. nginx closes
-- it when the request dies, and the transfer is canceled at once.

local core = require "nymbl.core"
local ngx = require "ngx"

local driver = { threaded = true }

-- The sockets, by transfer. A cosocket belongs to the request that has made it.
local leases = setmetatable({}, { __mode = "k" })

-- nginx logs its own timeouts: so the transfer rings when the deadline comes, and
-- this one, in milliseconds, never runs out.
local NEVER = 2 ^ 31 - 1

-- Without a socket (no file system to make one in, no descriptor left).
local POLL = 0.005

local function lease_new(transfer)
  local path, token = transfer:lease()
  if not path then return path end
  local socket = ngx.socket.tcp()
  socket:settimeouts(NEVER, NEVER, NEVER)
  if not socket:connect("unix:" .. path) or not socket:send(token) then return nil end
  leases[transfer] = socket
  return socket
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
  local socket = leases[transfer]
  if not socket then
    if transfer:news() then return true end
    socket = lease_new(transfer)
  end
  transfer:alarm(deadline or 0)
  while true do
    if deadline and core.now() >= deadline then return false end
    if socket == false or transfer:news() then return true end
    if not socket then
      ngx.sleep(POLL)
    elseif not socket:receiveany(64) then
      socket = transfer:news() and socket -- its end is news; else look again and again
    end
  end
end

--- A transfer is about to be closed.
function driver.release(transfer)
  local socket = leases[transfer]
  leases[transfer] = nil
  if socket then pcall(socket.close, socket) end -- not in every phase
end

function driver.run(body)
  return body()
end

local group = {}
group.__index = group

function group:spawn(body)
  self.running = self.running + 1
  local thread
  local ended = false
  thread = ngx.thread.spawn(function()
    body()
    self.running = self.running - 1
    ended = true
    if thread then self.ended[#self.ended + 1] = thread end
  end)
  if not ended then self.threads[thread] = true end
end

--- Wait until one more has ended.
function group:wait()
  local list = {}
  for thread in pairs(self.threads) do list[#list + 1] = thread end
  ngx.thread.wait(unpack(list))
  for i = #self.ended, 1, -1 do
    self.threads[self.ended[i]], self.ended[i] = nil, nil
  end
end

function driver.group()
  return setmetatable({ running = 0, threads = {}, ended = {} }, group)
end

return driver
