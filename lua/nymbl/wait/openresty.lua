-- SPDX-License-Identifier: MIT
-- Waiting in nginx. Each transfer has a notify socket: a cosocket on which a byte arrives
-- when the transfer is ready. nginx closes the cosockets of a request that ends, and
-- the close cancels the transfer at once.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local ngx = require "ngx"
local semaphore = require "ngx.semaphore"

local driver = { threaded = true }

-- The cosocket of each transfer, or false if it has none. A cosocket can only be used
-- by the request that created it.
local sockets = setmetatable({}, { __mode = "k" })

-- Socket timeout in milliseconds, practically infinite: nginx writes a line to its error
-- log for each timeout, so the engine sends a byte at the deadline instead.
local NO_TIMEOUT = 2 ^ 31 - 1

-- Seconds between two checks of a transfer without a usable cosocket: the cosocket could not be
-- connected, belongs to another request, or is read by another light thread.
local POLL_INTERVAL = 1 / 200

-- Without a connected cosocket, the engine cannot detect that nginx has ended the request. So
-- it cancels a transfer that was not checked for so many seconds.
local ABANDONED_AFTER = 3

-- Seconds between two attempts to connect: nginx logs each failure.
local RECONNECT_INTERVAL = 1
local last_connect = setmetatable({}, { __mode = "k" })

-- Connect a cosocket. Returns it, false if that failed, or nil if the transfer has ended.
local function connect(transfer)
  local path, token = transfer:notify_socket()
  if path == false then return nil end
  sockets[transfer], last_connect[transfer] = false, core.now()
  local socket = path and ngx.socket.tcp()
  if not socket then return false end
  socket:settimeouts(NO_TIMEOUT, NO_TIMEOUT, NO_TIMEOUT)
  if not socket:connect("unix:" .. path) then return false end
  if not socket:send(token) then
    socket:close()
    return false
  end
  sockets[transfer] = socket
  return socket
end

-- Wait until a byte arrives. Returns false if the cosocket cannot be read.
local function receive(transfer, socket)
  local ran, bytes, err = pcall(socket.receiveany, socket, 64)
  if not ran then errors.rethrow_out_of_memory(bytes) end
  if ran and not bytes and err ~= "socket busy reading" then sockets[transfer] = false end -- it was closed
  return ran and bytes ~= nil
end

local function should_connect(transfer)
  local socket = sockets[transfer]
  return socket == nil or (socket == false and core.now() >= last_connect[transfer] + RECONNECT_INTERVAL)
end

function driver.wait(transfer, deadline)
  if not transfer then
    -- ngx.sleep truncates to milliseconds and counts from nginx's cached time, so it may
    -- return too early
    local left = deadline - core.now()
    while left > 0 do
      ngx.sleep(math.ceil(left * 1000) / 1000)
      left = deadline - core.now()
    end
    return false
  end
  if transfer:is_ready() then return true end
  if should_connect(transfer) and connect(transfer) == nil then return true end
  transfer:wake_at(deadline or 0)
  local watched, is_ready = false, nil
  while is_ready == nil do
    if deadline and core.now() >= deadline then
      is_ready = false
    elseif transfer:is_ready() then
      is_ready = true
    else
      local socket = sockets[transfer]
      if not (socket and receive(transfer, socket)) and not transfer:is_ready() then
        if not sockets[transfer] then -- a connected cosocket is closed when its request ends
          transfer:set_watchdog(core.now() + ABANDONED_AFTER)
          watched = true
        end
        ngx.sleep(POLL_INTERVAL)
      end
    end
  end
  if watched then transfer:set_watchdog(0) end
  return is_ready
end

-- Free the cosocket of a transfer that was closed.
function driver.release(transfer)
  local socket = sockets[transfer]
  sockets[transfer], last_connect[transfer] = nil, nil
  -- Closing raises in phases without cosockets. If another light thread is reading, close()
  -- fails, and that light thread notices that the engine closed the other end.
  local ran, err = true, nil
  if socket then ran, err = pcall(socket.close, socket) end
  if not ran then errors.rethrow_out_of_memory(err) end
end

function driver.run(body)
  return body()
end

-- ngx.thread.wait() for several light threads leaves a flag on those that have not ended
-- yet: at their end, they would resume the parent, whatever it waits for by then. So each
-- light thread posts to a semaphore at its end, and is waited for only after that.
local group = {}
group.__index = group

-- nginx keeps a light thread that has ended until it is waited for.
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
    self.end_signal:post()
  end)
  if not ok then -- spawn raised, so the body did not run
    self.running = self.running - 1
    error(thread, 0)
  end
  entry.thread = thread
end

-- Wait until one more light thread has ended.
function group:wait()
  while #self.ended == 0 do self.end_signal:wait(3600) end
  reap(self)
end

function driver.group()
  return setmetatable({ running = 0, end_signal = semaphore.new(), ended = {} }, group)
end

return driver
