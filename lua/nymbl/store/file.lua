-- SPDX-License-Identifier: MIT
-- A store in a file, which the processes of one machine share.
--
-- Content. One JSON object, in the frame that core/file/store.c writes:
--   version           the version of this format; missing in version 1
--   time, wall_time   the store's time and the wall clock's time when the file was written
--   clocks            by boot id: `offset` of the store's time from the boot clock, `last_used`
--   entries           by key: `state`, `last_used`
-- Content that is not a JSON object counts as empty. If another version of nymbl wrote it, older or
-- newer, or if a field is malformed, the months' counts are kept if they have the names that
-- rate_state.lua expects.
--
-- Lock. flock(2), held for one change of a few microseconds and never while waiting. If the
-- holder is killed, the kernel releases the lock. If it is stopped, the kernel does not: after
-- STALE_AFTER seconds the others break the lock: they replace the file by a copy. When the
-- stopped process continues, it detects that its file was replaced, and repeats its change.
--
-- Time. The store has a time of its own, which is 0 when the file is created. Each boot of a
-- machine has a clock that cannot be set (CLOCK_BOOTTIME), and `clocks` has its offset. The
-- offset is determined once, at the first change after a boot (or by another machine on a
-- shared directory): the seconds that have passed on the wall clock since the last change are
-- added to `time`, but never less than 0. So the store's time never goes back, and stored times
-- need no conversion. A wall clock that was set has an effect only at the first change after a
-- boot: at most, all buckets are then full. On a machine without a boot id, the wall clock
-- replaces the boot clock.

local change = require "nymbl.store.change"
local core = require "nymbl.core"
local deferred = require "nymbl.store.deferred"
local events = require "nymbl.events"
local json = require "nymbl.json"
local rate_state = require "nymbl.rate_state"
local token_state = require "nymbl.token_state"
local wait = require "nymbl.wait"

local VERSION = 2

-- Bytes of the longest content that the core accepts.
local MAX_CONTENT = 1048576

-- Seconds after which the holder of a lock counts as stopped. The file's modification time says
-- when it was locked, so that a caller that arrives later waits only for the rest of this time.
-- But the wall clock can be set, so every caller itself observes the lock for at least
-- MIN_OBSERVED seconds.
local STALE_AFTER = 15
local MIN_OBSERVED = 1 / 2

-- Seconds between attempts to lock the file.
local MIN_PAUSE, MAX_PAUSE = 1 / 1000, 1 / 20

-- Seconds for which an unused entry is kept: after that its month and all its waits are over.
local RETENTION = 32 * 86400

local file = {}
file.__index = file

-- Make the store. Opens nothing.
-- @tparam string path
-- @tparam ?boolean token whether it keeps tokens, too
function file.new(path, token)
  return setmetatable({ path = path, token = token, deferred = deferred.new() }, file)
end

-- The path could identify a person, so it is not part of the text.
function file.__tostring()
  return "nymbl.store.file"
end

local function is_number(value)
  return type(value) == "number" and value == value and math.abs(value) < 2^53
end

local function empty_content(wall_time)
  return { version = VERSION, time = 0, wall_time = wall_time, clocks = {}, entries = {} }
end

-- Convert content that is malformed, or of another version. Only the months' counts are kept.
local function counts_of(other, wall_time)
  local data = empty_content(wall_time)
  if type(other.entries) ~= "table" then return data end
  for key, entry in pairs(other.entries) do
    local state = type(key) == "string" and type(entry) == "table" and type(entry.state) == "table"
      and rate_state.from_other_version(entry.state)
    if state and state.month then
      state.version = change.VERSION
      data.entries[key] = { last_used = data.time, state = state }
    end
  end
  return data
end

-- Decode a content, and check the fields that this module uses.
local function decode(text, wall_time)
  local data = json.decode(text)
  if not data then return empty_content(wall_time) end
  if data.version ~= VERSION then return counts_of(data, wall_time) end
  if not is_number(data.time) or not is_number(data.wall_time) or type(data.clocks) ~= "table"
    or type(data.entries) ~= "table" then
    return counts_of(data, wall_time)
  end
  for _, clock in pairs(data.clocks) do
    if type(clock) ~= "table" or not is_number(clock.offset) or not is_number(clock.last_used) then
      return counts_of(data, wall_time)
    end
  end
  for _, entry in pairs(data.entries) do
    if type(entry) ~= "table" or not is_number(entry.last_used) or type(entry.state) ~= "table" then
      return counts_of(data, wall_time)
    end
  end
  return data
end

-- Advance the store's time. Returns the new time, and its offset from the boot clock.
local function advance_clock(data, wall_time)
  local seconds, id = wait.boot_clock()
  local clock = data.clocks[id]
  local now = clock and seconds + clock.offset or data.time + wall_time - data.wall_time
  if now < data.time then now = data.time end -- a clock was set back
  data.clocks[id] = { offset = now - seconds, last_used = now }
  data.time, data.wall_time = now, wall_time
  return now, now - seconds
end

-- Whether an entry can be removed.
local function is_expired(entry, now)
  local state = entry.state
  if state.expires_at or state.lease_until or state.failed_at then -- the state of a token
    return token_state.retention(state, now) <= 0
  end
  return now - entry.last_used > RETENTION
end

local function prune(data, now)
  for key, entry in pairs(data.entries) do
    if is_expired(entry, now) then data.entries[key] = nil end
  end
  for id, clock in pairs(data.clocks) do
    if now - clock.last_used > RETENTION then data.clocks[id] = nil end
  end
end

-- Encode the content. If it is too large or cannot be encoded, drop all entries except that of
-- `key`; if that does not help, drop that one too.
local function encode(data, key)
  local text = json.encode(data)
  if text and #text <= MAX_CONTENT then return text end
  data.entries = { [key] = data.entries[key] }
  text = json.encode(data)
  if text and #text <= MAX_CONTENT then return text end
  data.entries = {}
  return json.encode(data)
end

-- Apply a change under the lock. Returns true and the results of the change; false if another
-- process has broken the lock meanwhile; or nil and an error table.
function file:transact(lock, key, fn, ...)
  local wall_time = wait.wall_clock()
  local data = decode(lock:content(), wall_time)
  local now, offset = advance_clock(data, wall_time)
  local entry = data.entries[key] or { state = {} }
  local state, a, b, c = change.apply(entry.state, now, fn, ...)
  entry.state, entry.last_used = state, now
  prune(data, now)
  data.entries[key] = entry
  local written, err = lock:write(encode(data, key))
  if not written then return written, err end
  self.clock_offset = offset
  return true, a, b, c
end

-- The store's time.
function file:now()
  return (wait.boot_clock()) + (self.clock_offset or 0)
end

-- Another process holds the lock: pause, or break the lock if it is stale. Returns true, or nil
-- and an error table.
-- @tparam table observed keeps this caller's observations of the lock between calls
-- @tparam string fingerprint identifies the holder of the lock
-- @tparam number since when the file was locked, by the wall clock
function file:wait_or_break_lock(observed, deadline, fingerprint, since)
  local now = wait.now()
  if observed.fingerprint ~= fingerprint then observed.fingerprint, observed.since = fingerprint, now end
  local held = now - observed.since
  if held >= STALE_AFTER or (held >= MIN_OBSERVED and wait.wall_clock() - since >= STALE_AFTER) then
    observed.fingerprint = nil
    return core.store_break_lock(self.path, fingerprint)
  end
  if deadline and now >= deadline then return nil, { kind = "timeout", reason = "store_locked" } end
  if not observed.pause then events.begin_wait "store" end
  observed.pause = math.min((observed.pause or MIN_PAUSE / 2) * 2, MAX_PAUSE)
  local waited, err = wait.wait(nil, math.min(now + observed.pause * (1 + math.random()) / 2, deadline or math.huge))
  if waited == nil then return nil, err end
  return true
end

-- Apply a change under the lock, after those that were deferred. Returns as transact() does.
function file:update_locked(lock, key, fn, ...)
  local list = self.deferred:list(key)
  local ran, written, a, b, c = pcall(self.transact, self, lock, key, deferred.combine(list, fn), ...)
  lock:close()
  if not ran then error(written, 0) end
  if written then self.deferred:clear(key) end
  return written, a, b, c
end

-- Change a state (store.lua).
function file:update(key, deadline, fn, ...)
  local observed = {}
  deadline = deadline and wait.now() + (deadline - self:now())
  while true do
    local lock, holder, since = core.store_open(self.path)
    if lock ~= false and observed.pause then
      observed.pause = nil
      events.end_wait()
    end
    if lock then
      local written, a, b, c = self:update_locked(lock, key, fn, ...)
      if written then return a, b, c end
      if written == nil then return nil, a end
    elseif lock == nil then
      return nil, holder -- the error table
    else
      local ok, err = self:wait_or_break_lock(observed, deadline, holder, since)
      if not ok then
        if observed.pause then events.end_wait() end
        return nil, err
      end
    end
  end
end

-- Change a state without waiting (store.lua).
function file:tell(key, fn, ...)
  local lock = core.store_open(self.path)
  if not (lock and self:update_locked(lock, key, fn, ...)) then self.deferred:add(key, fn, ...) end
end

return file
