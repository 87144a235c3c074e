-- SPDX-License-Identifier: MIT
-- A store in a shared dictionary, which the workers of one nginx share.
--
-- Content. The dictionary has each state as JSON, under the store's key. The states have a
-- version (change.lua), so that the months' counts survive a reload with another version of
-- nymbl.
--
-- Lock. A dictionary has no compare-and-swap. So a state is read and written under a lock. The
-- lock is a key that is added and deleted: it is held for microseconds, and never while waiting.
-- It does not expire, because a worker that was stopped while holding it (by a signal, by
-- swapping) may continue at any time. If a lock is held for too long, the other workers start
-- a new epoch. An epoch has its own lock and its own key for the state, which begins as a copy
-- of the state of the epoch before. If the stopped worker continues, it writes to the old key,
-- which is no longer read; then it detects the new epoch, and repeats its change. So no change
-- is lost, and no worker overwrites another one's change, whatever the clocks say. At worst,
-- the change of a stopped worker counts twice.
--
-- Why this is correct: a worker considers its change final if it finds no newer epoch after the
-- write. An epoch that starts later copies the state after its start, so it has the change.
--
-- Space. Entries do not expire, and a write evicts no other entry: without room it fails. The
-- length of a state is rounded up, so that a new state nearly always fits into the room of the
-- old one.

local apply = require("nymbl.store.change").apply
local check = require "nymbl.check"
local deferred = require "nymbl.store.deferred"
local events = require "nymbl.events"
local json = require "nymbl.json"
local wait = require "nymbl.wait"

-- Seconds after which the holder of a lock counts as killed or stopped.
local STALE_AFTER = 1

-- Attempts to lock without a pause, which together take about as long as one change.
local ATTEMPTS_WITHOUT_PAUSE = 20

-- Seconds between further attempts.
local MIN_PAUSE, MAX_PAUSE = 1 / 1000, 3 / 100

-- The length of a state in bytes is a multiple of this.
local LENGTH_STEP = 256

-- The number of locks that this worker has tried to take.
local lock_seq = 0

local shdict = { token = true }
shdict.__index = shdict

-- Returns the dictionary of a name, or nil and the problem.
local function find_dictionary(name)
  local ngx = package.loaded.ngx
  if type(ngx) ~= "table" or not ngx.shared then return nil, "only nginx has shared dictionaries" end
  local dictionary = ngx.shared[name]
  if not dictionary then return nil, ("no lua_shared_dict '%s'"):format(name) end
  return dictionary
end

-- Make the store.
-- @tparam string name of the dictionary
-- @raise if there is no dictionary of that name
function shdict.new(name)
  local dictionary, problem = find_dictionary(name)
  if not dictionary then check.raise_argument(1, "shdict", problem) end
  return setmetatable({ dictionary = dictionary, observed = {}, deferred = deferred.new() }, shdict)
end

function shdict.__tostring()
  return "nymbl.store.shdict"
end

-- The store's time.
shdict.now = wait.now

local function no_space()
  return { kind = "io", reason = "no_space" }
end

-- The dictionary's keys for a state of the store. The first epoch is 0.

local function state_key(key, epoch)
  return epoch > 0 and key .. "+" .. epoch or key
end

local function lock_key(key, epoch)
  return state_key(key, epoch) .. " lock"
end

-- This key exists if the epoch has started.
local function started_key(key, epoch)
  return state_key(key, epoch) .. " open"
end

-- The newest epoch. There are few epochs: each one follows a worker that was killed or stopped
-- within a change.
local function newest_epoch(dictionary, key)
  local epoch = 0
  while dictionary:get(started_key(key, epoch + 1)) do epoch = epoch + 1 end
  return epoch
end

-- Read the state of an epoch, or of the epoch before if this one has no state yet. Returns the
-- state and its text.
local function read(dictionary, key, epoch)
  local text
  repeat
    text = dictionary:get(state_key(key, epoch))
    epoch = epoch - 1
  until text or epoch < 0
  return json.decode(text) or {}, text
end

-- Write a state. Returns false if there is no room. A failed write may have removed the old
-- state, so its text is then written again: its own room is still free.
local function write(dictionary, key, state, old_text)
  local text = json.encode(state)
  if dictionary:safe_set(key, text .. (" "):rep(-#text % LENGTH_STEP)) then return true end
  if old_text then dictionary:safe_set(key, old_text) end
  return false
end

-- Apply a change under the lock, after those that were deferred. Returns whether the new state was
-- written, and the results of the change; or nil if another worker has started a new epoch meanwhile.
local function transact(dictionary, key, epoch, list, change, ...)
  local old, old_text = read(dictionary, key, epoch)
  local state, a, b, c = apply(old, wait.now(), deferred.combine(list, change), ...)
  local next_epoch = started_key(key, epoch + 1) -- before the write: nothing may raise after it
  local written = write(dictionary, state_key(key, epoch), state, old_text)
  if dictionary:get(next_epoch) then return nil end
  return written, a, b, c
end

-- Another worker holds the lock: pause, or start the next epoch if the lock is stale. Returns
-- true, or nil and an error table.
function shdict:wait_or_break_lock(key, epoch, deadline, pause)
  local dictionary = self.dictionary
  local owner_id = dictionary:get(lock_key(key, epoch))
  local now, observed = wait.now(), self.observed[key]
  if not observed or observed.owner_id ~= owner_id then
    observed = { owner_id = owner_id, since = now }
    self.observed[key] = observed
  end
  if not owner_id then return true end -- released meanwhile
  if now - observed.since >= STALE_AFTER then
    local started, problem = dictionary:safe_add(started_key(key, epoch + 1), true)
    if not started and problem ~= "exists" then return nil, no_space() end
    return true
  end
  if deadline and now >= deadline then return nil, { kind = "timeout", reason = "store_locked" } end
  local waited, err = wait.wait(nil, math.min(now + pause * (1 + math.random()), deadline or math.huge))
  if waited == nil then return nil, err end
  return true
end

local function new_owner_id()
  lock_seq = lock_seq + 1
  return lock_seq * 2^22 + package.loaded.ngx.worker.pid() -- unique among the workers
end

-- Try to lock a key. Returns the epoch, nil, the epoch, and the lock's key; or nil and an error table;
-- or only nil, and the epoch, if another worker holds the lock.
local function try_lock(dictionary, key, owner_id)
  local epoch = newest_epoch(dictionary, key)
  local lock = lock_key(key, epoch)
  local locked, problem = dictionary:safe_add(lock, owner_id)
  if locked then return epoch, nil, epoch, lock end
  return nil, problem ~= "exists" and no_space() or nil, epoch
end

-- Lock a key. Returns the epoch, or nil and an error table; whether this has begun a wait, for
-- events.lua; and the lock's key.
function shdict:lock(key, deadline)
  local owner_id, pause, waits = new_owner_id(), MIN_PAUSE, false
  for attempt = 1, math.huge do
    local epoch, err, locked_epoch, lock = try_lock(self.dictionary, key, owner_id)
    if epoch or err then return epoch, err, waits, lock end
    if attempt > ATTEMPTS_WITHOUT_PAUSE then
      if not waits then events.begin_wait "store" end
      waits = true
      local ok
      ok, err = self:wait_or_break_lock(key, locked_epoch, deadline, pause)
      if not ok then return nil, err, waits end
      pause = math.min(pause * 2, MAX_PAUSE)
    end
  end
end

-- Apply a change under the lock, after those that were deferred, and unlock. The key of the lock
-- exists already, so that the lock is released even if there is no memory. Returns true and the
-- results of the change; false if another worker has started a new epoch meanwhile; or nil and an
-- error table.
function shdict:update_locked(lock, key, epoch, change, ...)
  local dictionary = self.dictionary
  local ran, written, a, b, c = pcall(transact, dictionary, key, epoch, self.deferred:list(key), change, ...)
  dictionary:delete(lock)
  if not ran then error(written, 0) end
  if written == nil then return false end
  if not written then return nil, no_space() end
  self.deferred:clear(key)
  return true, a, b, c
end

-- Change a state (store.lua).
function shdict:update(key, deadline, change, ...)
  while true do
    local epoch, err, has_waited, lock = self:lock(key, deadline)
    if has_waited then events.end_wait() end
    if not epoch then return nil, err end
    local written, a, b, c = self:update_locked(lock, key, epoch, change, ...)
    if written then return a, b, c end
    if written == nil then return nil, a end
  end
end

-- Change a state without waiting (store.lua).
function shdict:tell(key, change, ...)
  local owner_id = new_owner_id()
  for _ = 1, ATTEMPTS_WITHOUT_PAUSE do
    local epoch, err, _, lock = try_lock(self.dictionary, key, owner_id)
    if err then break end
    if epoch and self:update_locked(lock, key, epoch, change, ...) then return end
  end
  self.deferred:add(key, change, ...)
end

return shdict
