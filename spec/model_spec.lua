-- SPDX-License-Identifier: MIT
-- The shared states against models: of rate limit and quota over random histories, of the token's
-- lease over all histories of a few steps. NYMBL_SPEC_LARGE has them run for minutes; NYMBL_SEED repeats
-- one random history.
local helper = require "helper"
local limiter = require "nymbl.limiter"
local rate_observer = require "rate_observer"
local token_state = require "nymbl.token_state"
local wait = require "nymbl.wait"

local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil

-- A state as a store keeps it: JSON, with 14 digits.
local function stored(state)
  return helper.json.decode(helper.json.encode(state))
end

-- ---- rate limit and quota ----

local MONTHS = { "2026-02", "2026-03", "2026-04" }
local SECONDS_LEFT = 86400 -- in each month

local function generator(seed)
  local state = (seed * 48271 + 11) % 2147483647
  return function(most)
    state = (state * 16807) % 2147483647
    return math.floor(state / 7) % most + 1
  end
end

-- What a request can end with, and what that shows of the quota if it was a probe.
local ENDS = {
  { err = nil, is_within_quota = true },
  { err = { kind = "not_found", status = 404 }, is_within_quota = true },
  { err = { kind = "server", status = 503 }, is_within_quota = false },
  { err = { kind = "unauthorized", status = 401 }, is_within_quota = false },
  { err = { kind = "forbidden", status = 403 }, is_within_quota = false },
  { err = { kind = "network", reason = "connect" }, is_within_quota = false },
}

-- One history of many clients of an account. All times are multiples of 1/128, and the intervals between
-- two requests are powers of 2, so that no sum is rounded: what the limiter says must be exactly what
-- the observer says, neither sooner nor later.
--   real   the time, as it passes for those who wait
--   clock  the store's, which steps
local function rate_history(seed, tried)
  local random = generator(seed)
  local rates = { read = { 2 ^ (random(4) - 2), random(5) }, download = { 2 ^ (random(3) - 1), random(3) } }
  local quota = random(3) == 1 and 20 + random(60) or 1e6
  local limits = {}
  for bucket, pair in pairs(rates) do limits[bucket] = { rate = pair[1], burst = pair[2] } end
  local observer = rate_observer.new(limits, quota)
  local real, offset, month = 0, random(1000000), 1
  local shared = { state = {} }
  local env = { store = shared, account = "account", limits = limiter.limits_from_options { rate = rates, monthly_quota = quota } }
  local clients = {}
  -- Requests that were sent, for a second look: by bucket, their real times. The clock makes a new `era`
  -- when it is set forward: earlier reservations are then forgotten, so that each era may have its burst.
  local era, sent, quiet_until = 1, {}, -1

  local function now() return real + offset end
  shared.now = now
  function shared:update(_, _, change, ...)
    self.state = stored(self.state)
    return change(self.state, now(), ...)
  end
  function wait.month() return MONTHS[month] end
  function wait.seconds_left_in_month() return SECONDS_LEFT end

  local function check_counts()
    local usage, count = assert(limiter.usage(env)), observer:count(MONTHS[month])
    assert(usage.month == MONTHS[month] and usage.requests == count.requests and usage.throttled == count.throttled
      and usage.remaining == math.max(0, quota - count.requests),
      ("%g counted, %g expected"):format(usage.requests, count.requests))
  end

  -- The reservation has exactly the place that the observer gives it.
  local function check_place(client, delay)
    local expected = client.place.at - now()
    if delay ~= expected then error(("a delay of %.9g s instead of %.9g s"):format(delay, expected), 0) end
    client.wakes_at, client.era, client.time_to_act = real + delay, era, client.place.at
    tried.reservations = tried.reservations + 1
    if delay > 0 then tried.delayed = tried.delayed + 1 end
  end

  local function new_client()
    local operation = random(3) == 1 and "download" or "list"
    local bucket = operation == "download" and "download" or "read"
    observer:look(now())
    -- without a wait only if the request may be sent now, and is no probe
    local can_wait = random(4) > 1
    local may_be_sent = can_wait or not observer.probe_at and observer:earliest(bucket, now()) == now()
    local admitted, is_probe, seconds
    if may_be_sent then admitted, is_probe, seconds = observer:admit(now()) end
    local reservation, err = limiter[can_wait and "reserve" or "try_reserve"](env, operation)
    if not admitted then
      tried.refused = tried.refused + 1
      assert(not reservation, "a request that must not be sent")
      if can_wait then
        assert(err.kind == "quota" and err.reason == is_probe and err.retry_after == (seconds or SECONDS_LEFT), "refusal")
      end
      return
    end
    assert(reservation, "refused without a reason")
    assert((reservation.is_probe or false) == is_probe, "is_probe")
    local count = observer:count(MONTHS[month])
    count.requests = count.requests + 1
    assert(reservation.requests == count.requests, "the month's requests")
    assert((reservation.is_paused or false) == (observer:pause(now()) ~= nil), "is_paused")
    local client = { reservation = reservation, bucket = bucket, month = MONTHS[month], is_probe = is_probe }
    client.place = observer:take(bucket, now())
    check_place(client, reservation.delay)
    clients[#clients + 1] = client
  end

  local function change_month() -- the month ends, or its end is taken back
    month = math.max(1, math.min(#MONTHS, month + (random(3) == 1 and -1 or 1)))
    observer:change_month(MONTHS[month])
    check_counts()
  end

  local function cancel(client)
    limiter.cancel(client.reservation)
    observer:uncount(client.month)
    observer:give_back(client.bucket, client.place)
    if client.is_probe then observer:probed(now(), false) end
  end

  -- A second look, by the time that really passes: no span has more requests than burst + rate x time,
  -- and none is sent in a pause, unless the client has waited since before the clock was set back.
  local function send(client)
    assert(real >= quiet_until or client.is_older_than_step, "sent in a pause")
    local key = client.bucket .. client.era
    local times, rule = sent[key] or {}, limits[client.bucket]
    sent[key], times[#times + 1] = times, real
    for i = #times, 1, -1 do
      if #times - i + 1 > rule.burst + rule.rate * (real - times[i]) then
        error(("%d requests in %g s"):format(#times - i + 1, real - times[i]), 0)
      end
    end
    tried.sent = tried.sent + 1
  end

  -- A client whose time has come sends, or gives up. Returns false if it has to wait again.
  local function act(client)
    observer:look(now())
    local pause = observer:pause(now())
    -- after a step back, the time at which it may send is one of another clock, and later than all pauses
    local has_to_wait = pause and pause > client.time_to_act
    if client.month ~= MONTHS[month] then
      observer:uncount(client.month)
      client.month = MONTHS[month]
      observer:count(client.month).requests = observer:count(client.month).requests + 1
    end
    local delay = assert(limiter.recheck(client.reservation))
    if has_to_wait then
      client.place, client.is_older_than_step = observer:take(client.bucket, now()), nil
      check_place(client, delay)
      assert(delay > 0, "a pause")
      return false
    end
    if delay ~= 0 then error(("has to wait %.9g s again"):format(delay), 0) end
    if random(6) == 1 then
      cancel(client)
      return true
    end
    send(client)
    client.is_sent, client.wakes_at = true, real + random(80) / 8
    return false
  end

  -- The response arrives; meanwhile another month may have begun, or the clock was set.
  local function finish(client)
    if random(3) == 1 then change_month() end
    local fate, ending = random(10), ENDS[random(#ENDS)]
    if fate == 1 then
      local seconds = random(random(2) == 1 and 24 or 1600) / 8
      limiter.record(client.reservation, { kind = "throttled", status = 429 }, seconds)
      observer:uncount(client.month, 1)
      observer:throttled(client.bucket, now(), seconds)
      quiet_until = math.max(quiet_until, real + math.min(seconds, 120))
      if client.is_probe then observer:probed(now(), false) end
    elseif fate == 2 and random(4) == 1 then
      limiter.record(client.reservation, { kind = "quota", status = 429 })
      observer:uncount(client.month, 1)
      observer:quota_exceeded(now())
    else
      limiter.record(client.reservation, ending.err)
      if client.is_probe then observer:probed(now(), ending.is_within_quota) end
    end
  end

  -- Let time pass. Each client acts when its time has come.
  local function advance(seconds)
    local till = real + seconds
    while true do
      local first
      for i, client in ipairs(clients) do
        if client.wakes_at <= till and (not first or client.wakes_at < clients[first].wakes_at) then first = i end
      end
      if not first then break end
      local client = table.remove(clients, first)
      real = math.max(real, client.wakes_at)
      if client.is_sent then
        finish(client)
      elseif not act(client) then
        clients[#clients + 1] = client
      end
    end
    real = till
  end

  local function set_clock()
    -- never a multiple of the intervals: the times of old reservations are then none of new ones
    local step = (2 * random(random(3) == 1 and 200 or 6400000) - 1) / 128
    tried.steps = tried.steps + 1
    if random(2) == 1 then
      offset, era, quiet_until = offset + step, era + 1, -1
    else
      offset = math.max(-real, offset - step)
      for _, client in ipairs(clients) do client.is_older_than_step = true end
    end
  end

  observer:change_month(MONTHS[month])
  for _ = 1, 120 do
    local step = random(21)
    if step <= 9 then
      for _ = 1, random(4) == 1 and 4 or 1 do new_client() end
    elseif step <= 16 then
      advance(random(40) / 8)
    elseif step == 17 then
      advance(random(2) * 1800)
    elseif step == 18 and random(3) == 1 then
      change_month()
    elseif step == 19 and random(3) == 1 then
      set_clock()
    elseif step >= 20 and #clients > 0 then -- one that waits gives up
      local client = table.remove(clients, random(#clients))
      if client.is_sent then finish(client) else cancel(client) end
    end
    check_counts()
  end
end

describe("rate limit and quota", function()
  local only = tonumber(os.getenv "NYMBL_SEED" or "")
  local each = long and 5000 or 250
  for first = only or 1, only or (long and 4 or 1) * each, each do
    local last = only or first + each - 1
    it("are exactly those of an observer over random histories, with clocks and months that step: from " .. first, function()
      local tried = { reservations = 0, delayed = 0, refused = 0, sent = 0, steps = 0 }
      local month, seconds_left_in_month = wait.month, wait.seconds_left_in_month
      local ok, problem, seed = true, nil, first
      while ok and seed <= last do
        ok, problem = pcall(rate_history, seed, tried)
        seed = seed + 1
      end
      wait.month, wait.seconds_left_in_month = month, seconds_left_in_month
      if not ok then error(("NYMBL_SEED=%d: %s"):format(seed - 1, tostring(problem)), 0) end
      helper.tried(last - first + 1, "histories of rate and quota",
        ("seeds to %d: %d reservations, %d of them delayed, %d refused; %d requests sent; the clock set %d times"):format(
          last, tried.reservations, tried.delayed, tried.refused, tried.sent, tried.steps))
    end)
  end
end)

-- ---- the token and its lease ----

-- Small times, so that few steps reach everything. The margin of a refresh is a fifth of the lifetime.
local LEASE, LIFETIME, COOLDOWN = 3, 10, 5

-- A world has the stored state, the time, and callers. Every caller is in a `phase`: "idle",
-- "waiting" for another caller's refresh since `since`, "refreshing" with its `generation`, or
-- "dead". `expires` has the end of each token that was published. The clock is set back once at most.
local function copy(fields)
  local copied = {}
  for name, value in pairs(fields) do copied[name] = value end
  return copied
end

-- `expires` and `failures` are shared with copies, so they are replaced and not changed.
local function world_copy(world)
  local copied = copy(world)
  copied.state, copied.callers = copy(world.state), {}
  for i, caller in ipairs(world.callers) do copied.callers[i] = copy(caller) end
  return copied
end

local function world_add(world, name, key, value)
  world[name] = copy(world[name])
  world[name][key] = value
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
    add(caller.is_owed)
  end
  add_time(world.failed_at)
  add(world.is_set_back)
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
  assert(expires_at - world.now <= LIFETIME, "a token from before the clock was set")
end

local actions = {}

function actions.acquire(world, caller)
  if caller.phase ~= "idle" and caller.phase ~= "waiting" then return false end
  local was_valid = world.expires[world.state.access_token or ""] or -1
  local ok, token, todo = apply(world, "acquire", LEASE, caller.rejected, 0, caller.since)
  assert(ok == true and (token == nil) == (todo ~= nil), "result")
  if token then
    check_token(world, caller, token)
    caller.phase, caller.since, caller.token, caller.is_owed = "idle", nil, token, nil
  elseif todo.generation then
    for _, other in ipairs(world.callers) do
      if other.phase == "refreshing" then
        -- a lease that is too long is one from before the clock was set
        assert(other.lease_until <= world.now or other.lease_until > world.now + LEASE, "two callers refresh at once")
        other.lease_until = -math.huge
      end
    end
    assert(not todo.old_ttl or todo.old_ttl <= was_valid - world.now, "validity of the old token")
    -- while the old token is good, a failed endpoint is left alone for some seconds
    local failed_at = world.failed_at
    assert(not (todo.old_ttl and failed_at and failed_at <= world.now and world.now < failed_at + COOLDOWN),
      "a refresh right after one that failed")
    caller.phase, caller.generation, caller.lease_until = "refreshing", todo.generation, world.now + LEASE
    caller.since, caller.is_owed = nil, nil
  elseif todo.failure then
    local at = world.now - todo.age
    assert(todo.age >= 0, "age of a failure")
    assert(world.failures[at], "a failure that did not happen")
    -- (two events at one time may have been in either order)
    assert(caller.is_owed or caller.since == at or (world.failures[at] == "remembered" and todo.age < COOLDOWN),
      "another caller's failure")
    caller.phase, caller.since, caller.rejected, caller.is_owed = "idle", nil, nil, nil
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
    world_add(world, "expires", token, world.now + LIFETIME)
    world.failed_at = nil
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
    world_add(world, "failures", world.now, is_remembered and "remembered" or "shared")
    for _, other in ipairs(world.callers) do -- those that wait for it may fail with it
      if other.phase == "waiting" then other.is_owed = true end
    end
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
  local alone = world_copy(world)
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
    local after = world_copy(world)
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
          try(world, next_level, "-" .. seconds, function(after)
            if after.is_set_back then return false end
            after.now, after.is_set_back = after.now - seconds, true
          end)
        end
      end
      level = next_level
    end
  end)
  if not ok then error(("%s, after:%s"):format(tostring(problem), trail), 0) end
  return count
end

describe("the token's lease", function()
  for callers, depth in ipairs { long and 13 or 9, long and 9 or 6, long and 7 or 5 } do
    it(("keeps its rules in all histories of a few steps, with a clock that is set back: %d callers"):format(callers), function()
      helper.tried(search(callers, depth), "states of the token", ("%d callers, %d steps"):format(callers, depth))
    end)
  end
end)
