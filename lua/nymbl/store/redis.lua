-- SPDX-License-Identifier: MIT
-- A store in Redis, which processes on many machines share.
--
-- Content. By key: the state as JSON, which expires if it is not used; and the results of each
-- change, for a minute longer than it may be asked for again. redis_script.lua makes the changes, at
-- the server's time. redis_link.lua asks for them. While the server is down, a process may continue
-- alone (alone.lua).

local alone = require "nymbl.store.alone"
local finalizer = require "nymbl.finalizer"
local rate_state = require "nymbl.rate_state"
local redis_link = require "nymbl.store.redis_link"
local redis_options = require "nymbl.store.redis_options"
local redis_script = require "nymbl.store.redis_script"
local wait = require "nymbl.wait"

local unpack = table.unpack or unpack -- luacheck: ignore

local redis = {}
redis.__index = redis

-- Make the store. Connects to nothing.
-- @tparam ?table options see nymbl.store.redis
-- @raise on wrong options
function redis.new(options)
  local given, servers = redis_options.read(options)
  redis_script.text() -- raises if that is impossible
  return setmetatable({
    token = given.token == true,
    link = redis_link.new(servers, given),
    alone = given.when_down == "alone" and alone.new(given.share or 0.1) or nil,
    users = 0,         -- the clients that are registered
    had_users = false, -- whether there ever was one
  }, redis)
end

function redis.__tostring()
  return "nymbl.store.redis"
end

-- The server's time, as far as it is known.
function redis:now()
  return self.link:now()
end

-- Whether a connection may stay open: not after the last client was closed.
function redis:is_in_use()
  return self.users > 0 or not self.had_users
end

-- Whether this process continues alone. This looks whether the server is back.
function redis:is_alone(key)
  local is_active = self.alone and self.alone.is_active
  if is_active and self:is_in_use() and wait.prepare() and self.link:is_back(key) then
    self.alone.is_active, is_active = false, false
  end
  return is_active
end

-- What this process has counted alone and is still to be added to a state: a list of requests.
function redis:queued_counts(key)
  local requests = self.alone:queue(key)
  for _, count in ipairs(self.alone:take_counts(key)) do
    requests[#requests + 1] = redis_link.request(key, rate_state.add, wait.month(), unpack(count, 1, 4))
  end
  return requests
end

-- Add to the state what this process has counted alone. Returns true; or nil and an error table.
function redis:add_counts(key, till)
  local requests = self:queued_counts(key)
  while requests[1] do
    local request = requests[1]
    local results, err = self.link:ask(request, till)
    if not results then return nil, err end
    if requests[1] == request then table.remove(requests, 1) end -- another coroutine asks for the same one
  end
  return true
end

-- Change a state together with other machines. Returns the results; or nil and an error table.
function redis:update_together(key, till, change, ...)
  local ready, err = wait.prepare()
  if not ready then return nil, err end
  local request = redis_link.request(key, change, ...)
  if self.alone then
    local ok
    ok, err = self:add_counts(key, till)
    if not ok then return nil, err end
  end
  local results
  results, err = self.link:ask(request, till)
  if self.alone and results then
    self.alone:observe(key, change, results[1], ...)
    if not self.alone.is_active then -- another coroutine may have continued alone meanwhile
      self:queued_counts(key)
      self.alone:forget(key)
    end
  end
  return results, err
end

-- Change a state (store.lua).
function redis:update(key, deadline, change, ...)
  if self:is_alone(key) then return self.alone:change(key, self:now(), change, ...) end
  local now = wait.now()
  local till = now + math.min(self.link.timeout, deadline and deadline - self:now() or math.huge)
  if till <= now then return nil, { kind = "timeout", reason = "deadline" } end -- a reply takes some time
  local ran, results, err = pcall(self.update_together, self, key, till, change, ...)
  if not self:is_in_use() then self.link:close() end -- it was opened again
  wait.call_ended()
  if not ran then error(results, 0) end
  if results then return results[1], results[2], results[3] end
  if not (err.is_down and self.alone) then return nil, err end
  self.alone.is_active = true
  return self.alone:change(key, self:now(), change, ...)
end

-- Change a state without waiting (store.lua). Opens no connection.
function redis:tell(key, change, ...)
  if self.alone and self.alone.is_active then
    self.alone:change(key, self:now(), change, ...)
  else
    self.link:tell(key, change, ...)
  end
end

-- Register a client. The connection is closed with the last one.
-- @treturn function ends the registration
-- @return a value that also ends it, when it is garbage
function redis:attach()
  local is_attached = true
  self.users, self.had_users = self.users + 1, true
  local function detach()
    if not is_attached then return end
    is_attached = false
    self.users = self.users - 1
    if self.users == 0 then self.link:close() end
  end
  return detach, finalizer.new(detach)
end

return redis
