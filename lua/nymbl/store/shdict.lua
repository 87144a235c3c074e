-- SPDX-License-Identifier: MIT
-- A store in a shared dictionary, which the workers of one nginx share.
--
-- Content. Under each key of the store, its state as JSON. The states have a version
-- (change.lua), so that a reload with another version of nymbl keeps the months' counts.
--
-- Lock. A dictionary has no compare-and-swap. So a state is read and written under a lock,
-- which is a key that is added and deleted: for microseconds, and never while waiting. The
-- lock does not expire, because a worker that was stopped while holding it (by a signal, by
-- swapping) may continue at any time. If a lock is held for too long, the others start the
-- next epoch instead. It has a lock and a key of its own, and its state begins as a copy of
-- the last epoch's. A worker that was stopped then writes to a key that is not read any more,
-- finds after that that there is a newer epoch, and repeats its change. So no change is lost,
-- and no worker overwrites what others wrote, whatever the clocks say. The change of a worker
-- that was stopped counts twice at worst.
--
-- Why this is correct: a change is final if there was no newer epoch after it was written. The
-- newer epoch's state is read after that epoch was started, so it contains the change.
--
-- Space. No write may evict another entry, and none expires; a write that finds no room fails.
-- The length of a state is rounded up, so that a state nearly always fits into the room of the
-- one before.

local apply = require("nymbl.store.change").apply
local check = require "nymbl.check"
local json = require "nymbl.json"
local wait = require "nymbl.wait"

-- Seconds after which a lock is that of a worker that was killed or stopped. The others do not
-- know which, and need not.
local STALE_AFTER = 1

-- Attempts without a pause, which take about as long as one change; then pauses.
local ATTEMPTS = 20
local MIN_PAUSE, MAX_PAUSE = 1 / 1000, 3 / 100

-- Lengths of states are multiples of this.
local LENGTH_STEP = 256

-- Counts this process's attempts to lock.
local lock_seq = 0

local shdict = {}
shdict.__index = shdict

-- The dictionary of a name; or nil and what is wrong.
local function find(name)
  local ngx = package.loaded.ngx
  if type(ngx) ~= "table" or not ngx.shared then return nil, "only nginx has shared dictionaries" end
  local dictionary = ngx.shared[name]
  if not dictionary then return nil, ("no lua_shared_dict '%s'"):format(name) end
  return dictionary
end

--- Make the store.
-- @tparam string name of the dictionary
-- @raise if there is none of that name
function shdict.new(name)
  local dictionary, problem = find(name)
  if not dictionary then check.argument(1, "shdict", problem) end
  return setmetatable({ dictionary = dictionary, observed = {} }, shdict)
end

function shdict.__tostring()
  return "nymbl.store.shdict"
end

--- The store's time.
shdict.now = wait.now

local function no_space()
  return { kind = "io", reason = "no_space" }
end

-- The dictionary's key for a store's key in an epoch (the first is 0), or for what belongs to it.
local function key_of(key, epoch, suffix)
  if epoch > 0 then key = key .. "+" .. epoch end
  return suffix and key .. suffix or key
end

-- The newest epoch. There are few: one for each worker that was killed or stopped in a change.
local function epoch_of(dictionary, key)
  local epoch = 0
  while dictionary:get(key_of(key, epoch + 1, " open")) do epoch = epoch + 1 end
  return epoch
end

-- The state of an epoch, or of the one before if nothing was written in it yet; and its text.
local function read(dictionary, key, epoch)
  local text
  repeat
    text = dictionary:get(key_of(key, epoch))
    epoch = epoch - 1
  until text or epoch < 0
  return json.decode(text) or {}, text
end

-- Write a state. Returns false if there was no room. nginx may have removed the old text by
-- then, so it is written back into its room.
local function write(dictionary, key, state, old_text)
  local text = json.encode(state)
  if dictionary:safe_set(key, text .. (" "):rep(-#text % LENGTH_STEP)) then return true end
  if old_text then dictionary:safe_set(key, old_text) end
  return false
end

-- Apply a change under the lock. Returns whether it was written, and what the change returned.
local function transact(dictionary, key, epoch, change, ...)
  local old, old_text = read(dictionary, key, epoch)
  local state, a, b, c = apply(old, wait.now(), change, ...)
  return write(dictionary, key_of(key, epoch), state, old_text), a, b, c
end

-- Another worker has the lock: pause, or start the next epoch if the lock is stale. Returns
-- true, or nil and an error table.
function shdict:wait_or_break_lock(key, epoch, deadline, pause)
  local dictionary = self.dictionary
  local owner_id = dictionary:get(key_of(key, epoch, " lock"))
  local now, observed = wait.now(), self.observed[key]
  if not observed or observed.owner_id ~= owner_id then
    observed = { owner_id = owner_id, since = now }
    self.observed[key] = observed
  end
  if not owner_id then return true end -- released meanwhile
  if now - observed.since >= STALE_AFTER then
    local opened, problem = dictionary:safe_add(key_of(key, epoch + 1, " open"), true)
    if not opened and problem ~= "exists" then return nil, no_space() end
    return true
  end
  if deadline and now >= deadline then return nil, { kind = "timeout", reason = "store_locked" } end
  local waited, err = wait.wait(nil, math.min(now + pause * (1 + math.random()), deadline or math.huge))
  if waited == nil then return nil, err end
  return true
end

-- Lock a key. Returns the epoch, or nil and an error table.
function shdict:lock(key, deadline)
  local dictionary = self.dictionary
  lock_seq = lock_seq + 1
  local owner_id = lock_seq * 2^22 + package.loaded.ngx.worker.pid() -- unique
  local attempts, pause = 0, MIN_PAUSE
  while true do
    local epoch = epoch_of(dictionary, key)
    local locked, problem = dictionary:safe_add(key_of(key, epoch, " lock"), owner_id)
    if locked then return epoch end
    if problem ~= "exists" then return nil, no_space() end
    attempts = attempts + 1
    if attempts > ATTEMPTS then
      local ok, err = self:wait_or_break_lock(key, epoch, deadline, pause)
      if not ok then return nil, err end
      pause = math.min(pause * 2, MAX_PAUSE)
    end
  end
end

--- Change a state (store.lua).
function shdict:update(key, deadline, change, ...)
  local dictionary = self.dictionary
  while true do
    local epoch, err = self:lock(key, deadline)
    if not epoch then return nil, err end
    local ran, written, a, b, c = pcall(transact, dictionary, key, epoch, change, ...)
    local is_newest = epoch_of(dictionary, key) == epoch
    dictionary:delete(key_of(key, epoch, " lock"))
    if not ran then error(written, 0) end
    if is_newest then
      if not written then return nil, no_space() end
      return a, b, c
    end
  end
end

return shdict
