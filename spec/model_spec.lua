-- SPDX-License-Identifier: MIT
-- The shared states against models: of rate limit and quota over random histories, of the token's
-- lease over all histories of a few steps. NYMBL_SPEC_LARGE has them run for minutes; NYMBL_SEED repeats
-- one random history.
local helper = require "helper"
local rate_state = require "nymbl.rate_state"
local token_state = require "nymbl.token_state"

local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil

-- A state as a store keeps it: JSON, with 14 digits.
local function stored(state)
  return helper.json.decode(helper.json.encode(state))
end

-- ---- rate limit and quota ----

local MONTHS = { "2026-02", "2026-03", "2026-04" }
local HOUR, MAX_PAUSE, MAX_QUEUE = 3600, 120, 3600

local function generator(seed)
  local state = (seed * 48271 + 11) % 2147483647
  return function(most)
    state = (state * 16807) % 2147483647
    return math.floor(state / 7) % most + 1
  end
end

-- What the service and an observer know: what was sent when, what is counted, until when nobody may
-- send. It shares no code and no idea (such as arrival times) with rate_state.lua.
local observer = {}
observer.__index = observer

local function observer_new(limits)
  return setmetatable({ limits = limits, counts = {}, sent = { read = {}, download = {} }, quiet_until = -1 }, observer)
end

function observer:counted(month)
  self.counts[month] = self.counts[month] or { requests = 0, throttled = 0 }
  return self.counts[month]
end

-- No span of time has more requests than burst + rate x time. Spans with a clock step in them are
-- not checked: nobody knows how long they are.
function observer:check_rate(bucket)
  local times, limits = self.sent[bucket], self.limits[bucket]
  local last = times[#times]
  for i = #times, 1, -1 do
    if #times - i + 1 > limits.burst + limits.rate * (last - times[i]) + 1e-3 then
      error(("%d requests in %g s"):format(#times - i + 1, last - times[i]), 0)
    end
  end
end

function observer:send(client, now)
  assert(now >= self.quiet_until - 1e-3 or client.time_to_act < self.paused_at, "sent in a pause")
  local times = self.sent[client.bucket]
  times[#times + 1] = now
  self:check_rate(client.bucket)
end

-- After a step of the clock, earlier times say nothing.
function observer:forget()
  self.sent, self.quiet_until, self.paused_at = { read = {}, download = {} }, -1, nil
end

-- One history of many clients of an account.
local function rate_history(seed)
  local random = generator(seed)
  local limits = {
    read = { bucket = "read", rate = random(4) / 2, burst = random(5), quota = random(3) == 1 and 20 + random(60) or 1e6 },
    download = { bucket = "download", rate = random(3), burst = random(3), quota = 1e6 },
  }
  limits.download.quota = limits.read.quota
  local state, now, month = {}, random(1000000), 1
  local it, clients = observer_new(limits), {}
  local probe_until, is_exceeded -- of an exceeded quota

  local function apply(name, ...)
    state = stored(state)
    return rate_state[name](state, now, ...)
  end
  local function count(of_month)
    return it:counted(MONTHS[of_month or month])
  end
  local function uncount(client, throttled)
    local counted = count(client.month)
    counted.requests, counted.throttled = math.max(0, counted.requests - 1), counted.throttled + throttled
  end
  local function check_counts()
    local usage = apply("usage", MONTHS[month])
    assert(usage.month == MONTHS[month] and usage.requests == count().requests
      and usage.throttled == count().throttled,
      ("%g counted, %g expected"):format(usage.requests, count().requests))
  end
  local function new_client()
    local bucket = random(3) == 1 and "download" or "read"
    local place = apply("reserve", limits[bucket], MONTHS[month])
    if place.refused then
      if place.reason == "monthly_quota" then
        assert(count().requests >= limits.read.quota, "refused for a quota that is not spent")
      else
        assert(is_exceeded and now < probe_until + 1e-3, "refused without a reason")
        assert(place.retry_after > 0 and place.retry_after <= HOUR + 1e-3, "retry_after")
      end
      return
    end
    assert(count().requests < limits.read.quota or is_exceeded, "more than the quota")
    if is_exceeded then
      assert(place.is_probe and now >= probe_until - 1e-3, "not a probe")
      probe_until = now + HOUR
    else
      assert(not place.is_probe, "a probe of a quota that is not exceeded")
    end
    count().requests = count().requests + 1
    assert(place.delay >= 0 and place.delay <= MAX_PAUSE + MAX_QUEUE + 2 * (1 / limits[bucket].rate), "a long wait")
    place.bucket, place.month = bucket, month
    clients[#clients + 1] = place
  end
  local function change_month() -- the month ends, or its end is taken back
    local next_month = math.max(1, math.min(#MONTHS, month + (random(3) == 1 and -1 or 1)))
    if next_month == month then return end
    -- the counts of two months are kept
    if next_month ~= it.other_month then it.counts[MONTHS[next_month]] = nil end
    it.other_month, month = month, next_month
    is_exceeded, probe_until = false, nil
    apply("usage", MONTHS[month])
  end
  -- A client whose time has come sends, or gives up.
  local function act(client)
    local again = apply("recheck", limits[client.bucket], client.time_to_act, client.tat, MONTHS[client.month],
      MONTHS[month])
    if client.month ~= month then
      uncount(client, 0)
      count().requests = count().requests + 1
      client.month = month
    end
    client.time_to_act, client.tat, client.delay = again.time_to_act, again.tat, again.delay
    if again.delay > 0 then return false end
    local fate = random(12)
    if random(3) == 1 then change_month() end -- before the response
    if fate <= 2 then
      apply("cancel", limits[client.bucket], MONTHS[client.month], client.tat)
      uncount(client, 0)
      if client.is_probe then
        apply "probe_failed"
        probe_until = math.min(probe_until or now, now)
      end
      return true
    end
    it:send(client, now)
    if fate == 3 then
      local seconds = random(200)
      apply("throttled", limits[client.bucket], MONTHS[client.month], seconds)
      uncount(client, 1)
      it.quiet_until, it.paused_at = math.max(it.quiet_until, now + math.min(seconds, MAX_PAUSE)), now
    elseif fate == 4 and random(4) == 1 then
      apply("quota_exceeded", MONTHS[client.month])
      uncount(client, 1)
      is_exceeded, probe_until = true, now + HOUR
      return true
    end
    if client.is_probe and is_exceeded then
      if fate == 3 then
        apply "probe_failed"
        probe_until = math.min(probe_until, now)
      else
        apply "probe_succeeded"
        is_exceeded, probe_until = false, nil
      end
    end
    return true
  end
  -- Let time pass. Each client acts when its time has come.
  local function advance(till)
    while true do
      local first
      for i, client in ipairs(clients) do
        if client.time_to_act <= till and (not first or client.time_to_act < clients[first].time_to_act) then first = i end
      end
      if not first then break end
      local client = table.remove(clients, first)
      now = math.max(now, client.time_to_act)
      if not act(client) then clients[#clients + 1] = client end
    end
    now = till
  end
  for _ = 1, 120 do
    local step = random(20)
    if step <= 9 then
      new_client()
    elseif step <= 16 then
      advance(now + random(50) / 10)
    elseif step == 17 then
      advance(now + random(2) * 1800)
    elseif step == 18 and random(3) == 1 then
      change_month()
    elseif step == 19 and random(4) == 1 then -- the store's clock is set
      now = math.max(0, now + (random(2) == 1 and -1 or 1) * random(100000))
      it:forget()
      clients = {}
      if probe_until then probe_until = -math.huge end
      local place = apply("reserve", { bucket = "read", rate = 1, burst = 1 }, MONTHS[month])
      if not place.refused then
        count().requests = count().requests + 1
        assert(place.delay <= MAX_PAUSE + MAX_QUEUE + 2, "a clock step makes callers wait")
        if place.is_probe then probe_until = now + HOUR end
      else
        assert(place.retry_after <= HOUR + 1e-3, "a clock step makes probes wait")
        probe_until = now + place.retry_after
      end
      -- after so long nothing can be left to wait for
      now = now + 2 * HOUR
    end
    check_counts()
  end
  return #it.sent.read + #it.sent.download
end

describe("rate limit and quota", function()
  it("agree with an observer over random histories, with clocks and months that step", function()
    local only = tonumber(os.getenv "NYMBL_SEED" or "")
    local last = long and 20000 or 400
    for seed = only or 1, only or last do
      local ok, problem = pcall(rate_history, seed)
      if not ok then error(("NYMBL_SEED=%d: %s"):format(seed, tostring(problem)), 0) end
    end
    helper.tried(only and 1 or last, "histories of rate and quota", ("seeds to %d"):format(only or last))
  end)
end)

-- ---- the token and its lease ----

-- Small times, so that few steps reach everything. The margin of a refresh is a fifth of the lifetime.
local LEASE, LIFETIME, COOLDOWN = 3, 10, 5

-- A world has the stored state, the time, and callers. Every caller is in a `phase`: "idle",
-- "waiting" for another caller's refresh since `since`, "refreshing" with its `generation`, or
-- "dead". `issued` has the lifetimes of tokens that were published, in order.
local function copy(value)
  if type(value) ~= "table" then return value end
  local copied = {}
  for name, item in pairs(value) do copied[name] = copy(item) end
  return copied
end

-- All that distinguishes two worlds, with times relative to now.
local TIMES = { "expires_at", "refresh_at", "lease_until", "failed_at", "failed_until" }
local function key_of(world)
  local words = {}
  local function add(value) words[#words + 1] = tostring(value) end
  local function add_time(value) add(value and math.max(-COOLDOWN - 1, value - world.now)) end
  local state = world.state
  for _, name in ipairs(TIMES) do add_time(state[name]) end
  add(state.access_token)
  add(state.failure)
  add(state.generation)
  for _, caller in ipairs(world.callers) do
    add(caller.phase)
    add(caller.generation)
    add_time(caller.since)
    add_time(caller.lease_until)
    add(caller.rejected)
    add(caller.token)
  end
  add_time(world.failed_at)
  add_time(world.waits_from)
  return table.concat(words, " ")
end

local function apply(world, name, ...)
  return token_state[name](world.state, world.now, ...)
end

local function check_token(world, caller, token)
  local expires_at = world.expires[token]
  assert(expires_at, "a token that nobody published")
  assert(token ~= caller.rejected, "a token that the service has rejected")
  assert(world.now < expires_at, "a token that has expired")
end

local actions = {}

function actions.acquire(world, caller)
  if caller.phase ~= "idle" and caller.phase ~= "waiting" then return false end
  local was_valid = world.expires[world.state.access_token or ""] or -1
  local ok, token, todo = apply(world, "acquire", LEASE, caller.rejected, 0, caller.since)
  assert(ok == true and (token == nil) == (todo ~= nil), "result")
  if token then
    check_token(world, caller, token)
    caller.phase, caller.since, caller.token = "idle", nil, token
  elseif todo.generation then
    for _, other in ipairs(world.callers) do
      assert(other.phase ~= "refreshing" or other.lease_until <= world.now, "two callers refresh at once")
    end
    assert(not todo.old_ttl or todo.old_ttl <= was_valid - world.now, "validity of the old token")
    -- while the old token is good, a failed endpoint is left alone for some seconds
    assert(not (todo.old_ttl and world.failed_at and world.now < world.failed_at + COOLDOWN),
      "a refresh right after one that failed")
    caller.phase, caller.generation, caller.lease_until = "refreshing", todo.generation, world.now + LEASE
    caller.since = nil
  elseif todo.failure then
    local at = world.now - todo.age
    assert(todo.age >= 0, "age of a failure")
    assert(world.failures[at], "a failure that did not happen")
    assert((caller.since and caller.since <= at) or (world.failures[at] == "remembered" and todo.age < COOLDOWN),
      "another caller's failure")
    caller.phase, caller.since, caller.rejected = "idle", nil, nil
  else
    assert(todo.retry_in > 0 and todo.retry_in <= LEASE, "retry_in")
    if caller.phase ~= "waiting" then caller.phase, caller.since = "waiting", todo.now end
    assert(todo.now == world.now, "now")
  end
  return true
end

function actions.heartbeat(world, caller)
  if caller.phase ~= "refreshing" then return false end
  local is_mine = world.state.generation == caller.generation
  apply(world, "heartbeat", caller.generation, LEASE)
  if is_mine then caller.lease_until = world.now + LEASE end
  return true
end

function actions.publish(world, caller)
  if caller.phase ~= "refreshing" then return false end
  world.published = world.published % 3 + 1 -- three names are enough to tell tokens apart
  local token, before = "token" .. world.published, world.state.access_token
  if before == token then return false end
  local is_mine = world.state.generation == caller.generation
  apply(world, "publish", caller.generation, token, LIFETIME)
  if is_mine then
    world.expires[token], world.failed_at = world.now + LIFETIME, nil
  end
  assert(world.state.access_token == (is_mine and token or before), "published under an old lease")
  caller.phase, caller.generation, caller.rejected = "idle", nil, nil
  return true
end

local function release(world, caller, failure, is_remembered)
  if caller.phase ~= "refreshing" then return false end
  local is_mine, state_token = world.state.generation == caller.generation, world.state.access_token
  local ok, token = apply(world, "release", caller.generation, caller.rejected, failure, is_remembered)
  assert(ok == true, "result")
  if token then check_token(world, caller, token) end
  if is_mine and failure then
    -- a token that the service has refused is no reason to wait
    if state_token ~= caller.rejected then world.failed_at = world.now end
    world.failures[world.now] = is_remembered and "remembered" or "shared"
  end
  caller.phase, caller.generation, caller.rejected = "idle", nil, nil
  return true
end

function actions.fail(world, caller) return release(world, caller, "network - - -") end
function actions.refuse(world, caller) return release(world, caller, "unauthorized - 401 -", true) end
function actions.cancel(world, caller) return release(world, caller) end

-- The service refuses the token that the caller got.
function actions.reject(_, caller)
  if caller.phase ~= "idle" or not caller.token or caller.rejected then return false end
  caller.rejected, caller.token = caller.token, nil
  return true
end

function actions.die(world, caller)
  if caller.phase ~= "refreshing" or world.deaths > 0 then return false end
  caller.phase, world.deaths = "dead", 1
  return true
end

local NAMES = { "acquire", "heartbeat", "publish", "fail", "refuse", "cancel", "reject", "die" }

-- However it goes on, a caller that is left alone gets an answer before two leases are over.
local function check_liveness(world)
  local alone = copy(world)
  for index, caller in ipairs(alone.callers) do
    if caller.phase == "idle" or caller.phase == "waiting" then
      for _ = 0, 2 * LEASE do
        actions.acquire(alone, caller)
        if caller.phase ~= "waiting" then break end
        alone.now = alone.now + 1
      end
      assert(caller.phase ~= "waiting", "caller " .. index .. " waits for nobody")
      return
    end
  end
end

-- All histories of so many steps. Returns the number of different worlds.
local function search(callers, depth)
  local first = { state = {}, now = 0, callers = {}, published = 0, expires = {}, failures = {}, deaths = 0 }
  for i = 1, callers do first.callers[i] = { phase = "idle" } end
  local seen, count, level, trail = {}, 0, { first }, nil
  local function try(world, next_level, name, act)
    local after = copy(world)
    after.history = (world.history or "") .. " " .. name
    trail = after.history
    if act(after) == false then return end
    local key = key_of(after)
    if seen[key] then return end
    seen[key], count = true, count + 1
    check_liveness(after)
    next_level[#next_level + 1] = after
  end
  local ok, problem = pcall(function()
    for _ = 1, depth do
      local next_level = {}
      for _, world in ipairs(level) do
        for i = 1, callers do
          for _, name in ipairs(NAMES) do
            try(world, next_level, name .. i, function(after) return actions[name](after, after.callers[i]) end)
          end
        end
        for _, seconds in ipairs { 1, LEASE } do
          try(world, next_level, "+" .. seconds, function(after) after.now = after.now + seconds end)
        end
      end
      level = next_level
    end
  end)
  if not ok then error(("%s, after:%s"):format(tostring(problem), trail), 0) end
  return count
end

describe("the token's lease", function()
  it("keeps its rules in all histories of a few steps", function()
    for callers, depth in ipairs { long and 14 or 10, long and 10 or 7, long and 7 or 5 } do
      helper.tried(search(callers, depth), "states of the token", ("%d callers, %d steps"):format(callers, depth))
    end
  end)
end)
