-- SPDX-License-Identifier: MIT
-- A store in a shared dictionary: what the workers of one nginx share.
--
-- Lock. A dictionary has no compare-and-swap, so a state is read and written under a
-- lock, a key that is added and deleted: for microseconds, and never in a wait. It
-- does not expire, for one who was stopped with it (a signal, swapping) may go on at
-- any time. If it is held for too long the others go on to the next epoch instead,
-- with another lock and another place for the state, which begins as the last one's.
-- Whoever was stopped then writes where nobody reads, sees after it that there is
-- another epoch, and makes his change again. So no change is lost, nobody writes over
-- what others wrote, and no clock is trusted for it; at worst the change of one who
-- was stopped counts twice.
--
-- Why that is right: a change counts if there was no next epoch after it was written.
-- The next one's state is read once that epoch was opened: after the change then.
--
-- Space. Nothing here may push out another entry or expire; what finds no room fails.
-- A state is written in steps of some size, so that it nearly always takes the place
-- of the one before.

local apply = require("nymbl.store.change").apply
local check = require "nymbl.check"
local json = require "nymbl.json"
local wait = require "nymbl.wait"

-- So long no lock is held but by one that was killed or stopped. Waiters do not know
-- which, and need not.
local LEASE = 1

-- Tries at once, which take about as long as a change does; then pauses.
local TRIES = 20
local SHORTEST, LONGEST = 1 / 1000, 3 / 100

local STEP = 256

-- Locks that this process has taken or tried to.
local turns = 0

local shdict = {}
shdict.__index = shdict

-- The dictionary of a name, or nil and what is wrong.
local function find(name)
  local ngx = package.loaded.ngx
  if type(ngx) ~= "table" or not ngx.shared then return nil, "only nginx has shared dictionaries" end
  local dictionary = ngx.shared[name]
  if not dictionary then return nil, ("no lua_shared_dict '%s'"):format(name) end
  return dictionary
end

--- The store in a dictionary; raises where there is none of that name.
function shdict.new(name)
  local dictionary, problem = find(name)
  if not dictionary then check.argument(1, "shdict", problem) end
  return setmetatable({ dictionary = dictionary, seen = {} }, shdict)
end

function shdict.__tostring()
  return "nymbl.store.shdict"
end

shdict.now = wait.now

local function no_space()
  return { kind = "io", reason = "no_space" }
end

-- The names of an epoch's things: 0 is the first.
local function name(key, epoch, what)
  if epoch > 0 then key = key .. "+" .. epoch end
  return what and key .. what or key
end

-- The epoch: the last one that was opened. They are few: one for each worker that was
-- killed or stopped in a change.
local function epoch_of(dictionary, key)
  local epoch = 0
  while dictionary:get(name(key, epoch + 1, " open")) do epoch = epoch + 1 end
  return epoch
end

-- The state of an epoch; as long as nobody has written it, the one before's.
local function read(dictionary, key, epoch)
  local text
  repeat
    text = dictionary:get(name(key, epoch))
    epoch = epoch - 1
  until text or epoch < 0
  return json.decode(text) or {}, text
end

-- Whether there was room. Where there was none the old one, which may be gone already,
-- is put back: its room is free.
local function write(dictionary, place, state, old)
  local text = json.encode(state)
  if dictionary:safe_set(place, text .. (" "):rep(-#text % STEP)) then return true end
  if old then dictionary:safe_set(place, old) end
  return false
end

-- Change the state with the lock held: whether it was written, and what `change` gave.
local function turn(dictionary, key, epoch, change, ...)
  local before, old = read(dictionary, key, epoch)
  local state, a, b, c = apply(before, wait.now(), change, ...)
  return write(dictionary, name(key, epoch), state, old), a, b, c
end

-- Somebody else has the lock: wait a moment, or open the next epoch where he has it
-- for too long. Gives nil and what is known of a failure.
function shdict:stand_by(key, epoch, deadline, step)
  local dictionary = self.dictionary
  local holder = dictionary:get(name(key, epoch, " lock"))
  local now, seen = wait.now(), self.seen[key]
  if not seen or seen.holder ~= holder then
    seen = { holder = holder, first = now }
    self.seen[key] = seen
  end
  if not holder then return true end -- free by now
  if now - seen.first >= LEASE then
    local opened, problem = dictionary:safe_add(name(key, epoch + 1, " open"), true)
    if not opened and problem ~= "exists" then return nil, no_space() end
    return true
  end
  if deadline and now >= deadline then return nil, { kind = "timeout", reason = "store_locked" } end
  local waited, err = wait.wait(nil, math.min(now + step * (1 + math.random()), deadline or math.huge))
  if waited == nil then return nil, err end
  return true
end

-- Take the lock: the epoch, or nil and what is known of a failure.
function shdict:lock(key, deadline)
  local dictionary = self.dictionary
  turns = turns + 1
  local mark = turns * 2^22 + package.loaded.ngx.worker.pid() -- no holder is taken for another
  local tries, step = 0, SHORTEST
  while true do
    local epoch = epoch_of(dictionary, key)
    local taken, problem = dictionary:safe_add(name(key, epoch, " lock"), mark)
    if taken then return epoch end
    if problem ~= "exists" then return nil, no_space() end
    tries = tries + 1
    if tries > TRIES then
      local ok, err = self:stand_by(key, epoch, deadline, step)
      if not ok then return nil, err end
      step = math.min(step * 2, LONGEST)
    end
  end
end

--- Change a state; see store.lua.
function shdict:update(key, deadline, change, ...)
  local dictionary = self.dictionary
  while true do
    local epoch, err = self:lock(key, deadline)
    if not epoch then return nil, err end
    local ran, written, a, b, c = pcall(turn, dictionary, key, epoch, change, ...)
    local current = epoch_of(dictionary, key) == epoch
    dictionary:delete(name(key, epoch, " lock"))
    if not ran then error(written, 0) end
    if current then
      if not written then return nil, no_space() end
      return a, b, c
    end
  end
end

return shdict
