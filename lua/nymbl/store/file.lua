-- SPDX-License-Identifier: MIT
-- A store in a file, which the processes of one machine share.
--
-- Content. One JSON object, in the frame that core/file/store.c writes:
--   version           of this format; version 1 had none
--   time, wall_time   the store's time and the wall clock's when the file was written
--   clocks            by boot id: `offset` of the store's time from the machine's clock, and
--                     `last_used`
--   entries           by key: `state`, and `last_used`
-- A content that cannot be read counts as empty. Of another version's content, older or newer,
-- the months' counts are kept if they have the names that rate_state.lua expects.
--
-- Lock. flock(2), held for one change of a few microseconds and never while waiting. If the
-- holder is killed, the kernel releases the lock. If it is stopped, the kernel does not: after
-- STALE_AFTER seconds the others break the lock, which replaces the file by a copy. When the
-- stopped process continues, it finds that its file has no name any more, and repeats its
-- change.
--
-- Time. The store has a time of its own, which starts at 0 with the file. Each boot of a
-- machine has a clock that cannot be set (CLOCK_BOOTTIME); `clocks` has its offset. A boot that
-- is new to the file (after a restart, or another machine on a shared directory) gets its
-- offset once: the store's time continues from `time` by what has passed on the wall clock
-- since. If that would set the store's time back, it continues from `time` itself. So the
-- store's time never goes back, stored times need no conversion, and setting a wall clock
-- matters only at the first change after a boot, where it fills the buckets at most once. If
-- there is no boot id, the wall clock replaces the machine's clock by the same rules.

local change = require "nymbl.store.change"
local core = require "nymbl.core"
local json = require "nymbl.json"
local rate_state = require "nymbl.rate_state"
local wait = require "nymbl.wait"

local VERSION = 2

-- Longest content that the core accepts.
local MAX_CONTENT = 1048576

-- Seconds after which a lock is that of a stopped process. The file's time says when it was
-- locked, so that a caller that comes late need not wait as long. But that clock can be set, so
-- every caller observes the lock itself for at least MIN_OBSERVED seconds.
local STALE_AFTER = 15
local MIN_OBSERVED = 1 / 2

-- Pauses between attempts to lock the file.
local MIN_PAUSE, MAX_PAUSE = 1 / 1000, 1 / 20

-- Seconds for which an unused entry is kept: its month is over then, and so are its waits.
local RETENTION = 32 * 86400

-- Seconds for which a token's failure is kept: within them every caller that waits has seen it.
local FAILURE_RETENTION = 60

local file = {}
file.__index = file

--- Make the store. Opens nothing.
-- @tparam string path
-- @param tokens the store for tokens, or nil for this one
function file.new(path, tokens)
  return setmetatable({ path = path, tokens = tokens }, file)
end

-- The path could identify a person, so it is not part of the text.
function file.__tostring()
  return "nymbl.store.file"
end

local function is_number(value)
  return type(value) == "number" and value == value and math.abs(value) < 2^53
end

local function empty(wall_time)
  return { version = VERSION, time = 0, wall_time = wall_time, clocks = {}, entries = {} }
end

-- An empty content with the counts from another version's entries.
local function from_other_version(old, wall_time)
  local data = empty(wall_time)
  if type(old.entries) ~= "table" then return data end
  for key, entry in pairs(old.entries) do
    local state = type(key) == "string" and type(entry) == "table" and type(entry.state) == "table"
      and rate_state.from_other_version(entry.state)
    if state and state.month then
      state.version = change.VERSION
      data.entries[key] = { last_used = data.time, state = state }
    end
  end
  return data
end

-- Decode a content. All fields that are used here are checked here.
local function decode(text, wall_time)
  local data = json.decode(text)
  if not data then return empty(wall_time) end
  if data.version ~= VERSION then return from_other_version(data, wall_time) end
  if not is_number(data.time) or not is_number(data.wall_time) or type(data.clocks) ~= "table"
    or type(data.entries) ~= "table" then
    return empty(wall_time)
  end
  for _, clock in pairs(data.clocks) do
    if type(clock) ~= "table" or not is_number(clock.offset) or not is_number(clock.last_used) then
      return empty(wall_time)
    end
  end
  for _, entry in pairs(data.entries) do
    if type(entry) ~= "table" or not is_number(entry.last_used) or type(entry.state) ~= "table" then
      return empty(wall_time)
    end
  end
  return data
end

-- Advance the store's time to now. Returns it, and its offset from this machine's clock.
local function advance_clock(data, wall_time)
  local seconds, id = wait.boot_clock()
  local clock = data.clocks[id]
  local now = clock and seconds + clock.offset or data.time + wall_time - data.wall_time
  if now < data.time then now = data.time end -- a clock was set back
  data.clocks[id] = { offset = now - seconds, last_used = now }
  data.time, data.wall_time = now, wall_time
  return now, now - seconds
end

local function is_after(value, time)
  return is_number(value) and value > time
end

-- Whether an entry can be dropped: a token that has expired and is not being refreshed, and
-- whose last failure is not recent; or any other state that was not used for long.
local function is_expired(entry, now)
  local state = entry.state
  if state.expires_at or state.lease_until or state.failed_at then
    return not (is_after(state.expires_at, now) or is_after(state.lease_until, now)
      or is_after(state.failed_at, now - FAILURE_RETENTION))
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

-- Encode the content. If it is too large or cannot be encoded, then only the entry of `key`,
-- and if that is the cause, no entry.
local function encode(data, key)
  local text = json.encode(data)
  if text and #text <= MAX_CONTENT then return text end
  data.entries = { [key] = data.entries[key] }
  text = json.encode(data)
  if text and #text <= MAX_CONTENT then return text end
  data.entries = {}
  return json.encode(data)
end

-- Apply a change under the lock. Returns true and what it returned; false if the lock was
-- broken meanwhile; or nil and an error table.
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

--- The store's time.
function file:now()
  return (wait.boot_clock()) + (self.clock_offset or 0)
end

-- Another process has the lock: pause, or break the lock if it is stale. `fingerprint`
-- identifies this locking; `since` is its time by the wall clock; `observed` is kept
-- between calls. Returns true, or nil and an error table.
function file:wait_or_break_lock(observed, deadline, fingerprint, since)
  local now = wait.now()
  if observed.fingerprint ~= fingerprint then observed.fingerprint, observed.since = fingerprint, now end
  local held = now - observed.since
  if held >= STALE_AFTER or (held >= MIN_OBSERVED and wait.wall_clock() - since >= STALE_AFTER) then
    observed.fingerprint = nil
    return core.store_break_lock(self.path, fingerprint)
  end
  if deadline and now >= deadline then return nil, { kind = "timeout", reason = "store_locked" } end
  observed.pause = math.min((observed.pause or MIN_PAUSE / 2) * 2, MAX_PAUSE)
  local waited, err = wait.wait(nil, math.min(now + observed.pause * (1 + math.random()) / 2, deadline or math.huge))
  if waited == nil then return nil, err end
  return true
end

--- Change a state (store.lua).
function file:update(key, deadline, fn, ...)
  local observed = {}
  while true do
    local lock, fingerprint, since = core.store_open(self.path)
    if lock then
      local ran, written, a, b, c = pcall(self.transact, self, lock, key, fn, ...)
      lock:close()
      if not ran then error(written, 0) end
      if written then return a, b, c end
      if written == nil then return nil, a end
    elseif lock == nil then
      return nil, fingerprint -- the error table
    else
      local ok, err = self:wait_or_break_lock(observed, deadline, fingerprint, since)
      if not ok then return nil, err end
    end
  end
end

return file
