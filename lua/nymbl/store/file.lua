-- SPDX-License-Identifier: MIT
-- A store in a file: what processes of one machine share.
--
-- Content. One JSON object, in the frame that core/file/store.c makes: `entries` (the
-- states by their keys, each with when it was last used), `at` and `wall` (the
-- store's time and the wall clock's when it was written) and `boots`. What cannot
-- be read counts as empty.
--
-- Lock. flock(2), held for one change of a few microseconds and never in a wait. The
-- kernel takes it from a process that dies. From one that was stopped it cannot be
-- taken: after a lease the others go on with a copy of the file in its place, and
-- the stopped one, when it goes on, sees that it wrote to a file without a name and
-- makes its change again.
--
-- Time. The store has a time of its own, which begins at 0 with the file. Every
-- start of a machine has a clock that nobody sets (CLOCK_BOOTTIME); `boots` holds
-- how far the store's time is ahead of each. A start that is new (a reboot, another
-- machine on a shared folder) is tied in once: the store's time goes on from `at` by
-- what has passed on the wall clock since, and by nothing where that was set back. A
-- tie that would put the time behind `at` is moved up to it. So time never goes
-- back; setting a wall clock moves nothing but a tie under way, which at worst fills
-- the buckets once; and what is stored needs no conversion, whatever it means.
-- Without a boot id the wall clock stands in for the machine's, by the same rules.

local apply = require("nymbl.store.change").apply
local core = require "nymbl.core"
local json = require "nymbl.json"
local wait = require "nymbl.wait"

-- Longest content that the core takes.
local LARGEST = 1048576

-- A lock that is held for so long is that of a process which was stopped. How long
-- it is held tells the file's time, for those who come late and cannot wait: but
-- that is of a clock that may be set, so they look for a moment themselves.
local LEASE = 15
local LOOK = 1 / 2

-- Pauses between tries for the lock.
local SHORTEST, LONGEST = 1 / 1000, 1 / 20

-- What was not used for so long is of a month that is over, and its waits are.
local KEPT = 32 * 86400

local file = {}
file.__index = file

-- `tokens` is the store for tokens, or nil for this one.
function file.new(path, tokens)
  return setmetatable({ path = path, tokens = tokens }, file)
end

-- Nothing of where it is.
function file.__tostring()
  return "nymbl.store.file"
end

local function is_number(value)
  return type(value) == "number" and value == value and math.abs(value) < 2^53
end

local function empty(wall)
  return { at = 0, wall = wall, boots = {}, entries = {} }
end

-- What a content says; all that is used here is checked here.
local function read(text, wall)
  local data = json.decode(text)
  if not data or not is_number(data.at) or not is_number(data.wall) or type(data.boots) ~= "table"
    or type(data.entries) ~= "table" then
    return empty(wall)
  end
  for _, boot in pairs(data.boots) do
    if type(boot) ~= "table" or not is_number(boot.ahead) or not is_number(boot.used) then return empty(wall) end
  end
  for _, entry in pairs(data.entries) do
    if type(entry) ~= "table" or not is_number(entry.used) or type(entry.state) ~= "table" then
      return empty(wall)
    end
  end
  return data
end

-- The store's time, and how far it is ahead of this machine's clock.
local function tell(data, wall)
  local seconds, id = wait.boot_clock()
  local tie = data.boots[id]
  local now = tie and seconds + tie.ahead or data.at + wall - data.wall
  if now < data.at then now = data.at end -- a clock was set back
  data.boots[id] = { ahead = now - seconds, used = now }
  data.at, data.wall = now, wall
  return now, now - seconds
end

-- Seconds in which all who wait for a renewal of the token have seen that it failed.
local FAILURE_KEPT = 60

-- A token that is dead, and no renewal under way or failed just now; else what is old.
local function is_over(entry, now)
  local state = entry.state
  if state.dies or state.lease or state.failed_at then
    return not (is_number(state.dies) and state.dies > now or is_number(state.lease) and state.lease > now
      or is_number(state.failed_at) and now - state.failed_at < FAILURE_KEPT)
  end
  return now - entry.used > KEPT
end

local function prune(data, now)
  for key, entry in pairs(data.entries) do
    if is_over(entry, now) then data.entries[key] = nil end
  end
  for id, boot in pairs(data.boots) do
    if now - boot.used > KEPT then data.boots[id] = nil end
  end
end

-- The content; where it cannot be one, that of the entry at hand, or of none.
local function write(data, key)
  local text = json.encode(data)
  if text and #text <= LARGEST then return text end
  data.entries = { [key] = data.entries[key] }
  text = json.encode(data)
  if text and #text <= LARGEST then return text end
  data.entries = {}
  return json.encode(data)
end

-- One turn with the lock: whether it was written, and what `change` gave.
function file:turn(lock, key, change, ...)
  local wall = wait.wall_clock()
  local data = read(lock:content(), wall)
  local now, ahead = tell(data, wall)
  local entry = data.entries[key] or { state = {} }
  local state, a, b, c = apply(entry.state, now, change, ...)
  entry.state, entry.used = state, now
  prune(data, now)
  data.entries[key] = entry
  local written, err = lock:write(write(data, key))
  if not written then return written, err end
  self.ahead = ahead
  return true, a, b, c
end

--- The store's time.
function file:now()
  return (wait.boot_clock()) + (self.ahead or 0)
end

-- Somebody else has the lock: wait a moment, or take the place of who has it for
-- too long. Gives nil and what is known of a failure.
function file:stand_by(seen, deadline, mark, since)
  local now = wait.now()
  if seen.mark ~= mark then seen.mark, seen.first = mark, now end
  local held = now - seen.first
  if held >= LEASE or (held >= LOOK and wait.wall_clock() - since >= LEASE) then
    seen.mark = nil
    return core.store_replace(self.path, mark)
  end
  if deadline and now >= deadline then return nil, { kind = "timeout", reason = "store_locked" } end
  seen.step = math.min((seen.step or SHORTEST / 2) * 2, LONGEST)
  local waited, err = wait.wait(nil, math.min(now + seen.step * (1 + math.random()) / 2, deadline or math.huge))
  if waited == nil then return nil, err end
  return true
end

--- Change a state; see store.lua.
function file:update(key, deadline, change, ...)
  local seen = {}
  while true do
    local lock, mark, since = core.store_open(self.path)
    if lock then
      local ran, written, a, b, c = pcall(self.turn, self, lock, key, change, ...)
      lock:close()
      if not ran then error(written, 0) end
      if written then return a, b, c end
      if written == nil then return nil, a end
    elseif lock == nil then
      return nil, mark
    else
      local ok, err = self:stand_by(seen, deadline, mark, since)
      if not ok then return nil, err end
    end
  end
end

return file
