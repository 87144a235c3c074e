-- SPDX-License-Identifier: MIT
-- The rate limits and quota of an account, with a test clock: no request, no wait.
local helper = require "helper"
local rate_state = require "nymbl.rate_state"
local token_state = require "nymbl.token_state"

local MONTH, DAY = "2026-02", 86400

-- Random numbers that are the same on every Lua.
local function generator(seed)
  local state = seed
  return function(most)
    state = (state * 16807) % 2147483647
    return state % most + 1
  end
end

local function limits_new(rate, burst, quota)
  return { bucket = "read", rate = rate, burst = burst, quota = quota }
end

-- Any time span has at most burst + rate x time requests.
local function keeps_to(times, rate, burst, label)
  table.sort(times)
  for i = 1, #times do
    for j = i, #times do
      if j - i + 1 > burst + rate * (times[j] - times[i]) + 1e-6 then
        error(("%s: %d requests in %g s"):format(label, j - i + 1, times[j] - times[i]), 0)
      end
    end
  end
end

-- Callers that arrive at any time, wait for their reservation like call.lua, and then send, cancel
-- it, or receive a 429. Returns the times of the sent requests.
local function run(seed, rate, burst)
  local random, limits = generator(seed), limits_new(rate, burst)
  local account, sent, waiting, now = {}, {}, {}, 0
  local left, backlog = 150, 0
  local function step(caller)
    local new = rate_state.recheck(account, now, limits, caller.time_to_act, caller.tat)
    caller.time_to_act, caller.tat = new.time_to_act, new.tat
    if new.delay > 0 then
      waiting[#waiting + 1] = caller
      return
    end
    local fate = random(20)
    if fate <= 4 then
      rate_state.cancel(account, now, limits, MONTH, caller.tat)
    else
      sent[#sent + 1] = now
      if fate == 5 then rate_state.throttled(account, now, limits, MONTH, random(300) / 10) end
    end
  end
  while left > 0 or #waiting > 0 do
    if left > 0 and random(2) == 1 then -- some callers arrive, at the same time
      for _ = 1, random(6) do
        left = left - 1
        waiting[#waiting + 1] = rate_state.reserve(account, now, limits, MONTH)
      end
    end
    backlog = math.max(backlog, #waiting)
    -- all reservations that are due by then, the earliest first
    local till = left > 0 and now + random(random(8) == 1 and 100 or 10) / 10 or math.huge
    while true do
      table.sort(waiting, function(a, b) return a.time_to_act < b.time_to_act end)
      if not waiting[1] or waiting[1].time_to_act > till then break end
      now = math.max(now, waiting[1].time_to_act)
      step(table.remove(waiting, 1))
    end
    if left > 0 then now = till end
  end
  assert(backlog > burst and #sent > 50)
  return sent
end

describe("what a process has counted alone", function()
  it("is added to the months in which it has counted", function()
    local state = {}
    for _ = 1, 3 do rate_state.reserve(state, 0, limits_new(2, 4), "2026-01") end
    rate_state.reserve(state, 0, limits_new(2, 4), MONTH)
    rate_state.add(state, 1, MONTH, MONTH, 5, 1)
    rate_state.add(state, 1, MONTH, "2026-01", 7, 2, 50)
    rate_state.add(state, 1, MONTH, "2025-12", 100, 100, 40) -- too old
    assert.same({ month = MONTH, requests = 6, throttled = 1 }, rate_state.usage(state, 1, MONTH))
    assert.same({ month = "2026-01", requests = 10, throttled = 2 }, rate_state.usage(state, 1, "2026-01"))
    assert.equal(50, state.paused_until)
    rate_state.add(state, 1, "2026-01", "2026-01", -20, -20)
    assert.same({ month = "2026-01", requests = 0, throttled = 0 }, rate_state.usage(state, 1, "2026-01"))
  end)
end)

describe("the rate limit", function()
  it("holds whether callers send, cancel their reservations or are answered 429", function()
    for seed = 1, 100 do
      for _, pair in ipairs { { 2, 4 }, { 1, 2 }, { 0.5, 1 } } do
        keeps_to(run(seed, pair[1], pair[2]), pair[1], pair[2], "seed " .. seed)
      end
    end
  end)

  it("holds with a burst that takes hours to fill", function()
    local account, times = {}, {}
    for i = 1, 130 do times[i] = rate_state.reserve(account, 0, limits_new(0.01, 100), MONTH).time_to_act end
    keeps_to(times, 0.01, 100, "slow")
    assert.equal(3000, times[130]) -- one every 100 s once the burst is used up
  end)

  it("releases a reservation that was canceled, of a burst too", function()
    local account = {}
    for _ = 1, 20 do
      local reservation = rate_state.reserve(account, 0, limits_new(2, 4), MONTH)
      assert.equal(0, reservation.time_to_act)
      rate_state.cancel(account, 0, limits_new(2, 4), MONTH, reservation.tat)
    end
    assert.equal(0, account.requests)
  end)

  it("releases no reservation if a later one was made", function()
    local account = {}
    local limits = limits_new(1, 1)
    local first = rate_state.reserve(account, 0, limits, MONTH)
    rate_state.reserve(account, 0, limits, MONTH)
    rate_state.cancel(account, 0, limits, MONTH, first.tat)
    assert.equal(2, rate_state.reserve(account, 0, limits, MONTH).time_to_act)
    assert.equal(2, account.requests)
  end)

  it("starts with a full bucket after a pause: not all callers that waited send at once", function()
    local account, times = {}, {}
    local limits = limits_new(2, 4)
    rate_state.reserve(account, 0, limits, MONTH)
    rate_state.throttled(account, 0, limits, MONTH, 30)
    for i = 1, 40 do times[i] = rate_state.reserve(account, i / 100, limits, MONTH).time_to_act end
    assert.equal(30, times[1])
    keeps_to(times, 2, 4, "after a pause")
  end)

  it("starts with an empty bucket after a short pause: the service's is empty", function()
    local account, limits = {}, limits_new(2, 4)
    rate_state.throttled(account, 0, limits, MONTH, 0.1)
    assert.equal(0.5, rate_state.reserve(account, 0.1, limits, MONTH).time_to_act)
    assert.equal(1, rate_state.reserve(account, 0.1, limits, MONTH).time_to_act)
  end)

  it("starts with an empty bucket after a short pause if a waiting caller gives up", function()
    local account, limits = {}, limits_new(2, 4)
    for _ = 1, 4 do rate_state.reserve(account, 0, limits, MONTH) end
    local waiting = rate_state.reserve(account, 0, limits, MONTH)
    assert.equal(0.5, waiting.time_to_act)
    rate_state.throttled(account, 0.375, limits, MONTH, 0.125)
    rate_state.cancel(account, 0.375, limits, MONTH, waiting.tat)
    assert.equal(0.875, rate_state.reserve(account, 0.5, limits, MONTH).time_to_act)
  end)
end)

describe("a step of the clock", function()
  local limits = limits_new(2, 4)

  -- An account in full use at `now`: a queue of ten seconds, and a pause.
  local function busy(now, pause)
    local account = {}
    for _ = 1, 24 do rate_state.reserve(account, now, limits, MONTH) end
    if pause then rate_state.throttled(account, now, limits, MONTH, pause) end
    return account
  end

  for _, step in ipairs { DAY, -DAY, 1800, -1800, -1 } do
    it(("by %d seconds makes no wait longer"):format(step), function()
      local now = 1e9
      local account = busy(now)
      assert.equal(now + 10.5, rate_state.reserve(account, now, limits, MONTH).time_to_act)
      local at = rate_state.reserve(account, now + step, limits, MONTH).time_to_act
      assert.equal(step > 0 and 0 or 11, at - now - step)
      account = busy(now, 60)
      at = rate_state.reserve(account, now + step, limits, MONTH).time_to_act
      assert.equal(step > 0 and 0 or 60, at - now - step)
    end)
  end

  it("makes no caller wait again whose reservation is due", function()
    local account = busy(1e9, 60)
    for _, step in ipairs { DAY, -DAY } do
      local new = rate_state.recheck(account, 1e9 + step, limits, 1e9 + 60, 1e9 + 60.5)
      assert.same({ time_to_act = 1e9 + 60, delay = 0, tat = 1e9 + 60.5 }, new)
    end
  end)

  it("delays a probe by an hour at most", function()
    for _, step in ipairs { DAY, -DAY } do
      local account = { }
      rate_state.reserve(account, 1e9, limits_new(), MONTH)
      rate_state.quota_exceeded(account, 1e9, MONTH)
      local result = rate_state.reserve(account, 1e9 + step, limits_new(), MONTH)
      assert.is_true(not result.refused or result.retry_after <= 3600)
    end
  end)

  it("back is noticed by what comes first: a response, or a caller that has waited", function()
    local now = 1e9
    local function after_step(change)
      local account = busy(now, 60)
      change(account, now - DAY)
      return account
    end
    local function delay(account, seconds)
      return rate_state.reserve(account, now - DAY + seconds, limits, MONTH).delay
    end
    local function throttled(account, at) rate_state.throttled(account, at, limits, MONTH, 90) end
    assert.equal(90, delay(after_step(throttled), 0))
    local function recheck(account, at) rate_state.recheck(account, at, limits, now, now + 0.5) end
    assert.equal(50, delay(after_step(recheck), 10)) -- the pause goes on
    assert.equal(0, delay(after_step(recheck), 61)) -- no longer than it would have
    local function exceeded(account, at) rate_state.quota_exceeded(account, at, MONTH) end
    assert.equal(3599, rate_state.reserve(after_step(exceeded), now - DAY + 1, limits, MONTH).retry_after)
    local function failed(account, at)
      account.probe_at = now + 3600
      rate_state.probe_failed(account, at)
    end
    assert.is_true(rate_state.reserve(after_step(failed), now - DAY, limits, MONTH).is_probe)
  end)

  it("limits a wait to the longest plausible one", function()
    local account = { read_tat = 1e12, paused_until = 1e12, probe_at = 1e12, month = MONTH, requests = 0, throttled = 0 }
    assert.equal(3600, rate_state.reserve(account, 0, limits, MONTH).retry_after)
    account.probe_at = nil
    assert.is_true(rate_state.reserve(account, 0, limits, MONTH).time_to_act <= 120 + 2 + 3600)
  end)
end)

describe("an exceeded quota", function()
  it("is probed again at once if the last probe had no response", function()
    local account, limits = {}, limits_new()
    rate_state.reserve(account, 0, limits, MONTH)
    rate_state.quota_exceeded(account, 0, MONTH)
    assert.is_true(rate_state.reserve(account, 3599, limits, MONTH).refused)
    local reservation = rate_state.reserve(account, 3600, limits, MONTH)
    assert.equal(3600, reservation.time_to_act)
    assert.is_true(reservation.is_probe)
    assert.is_true(rate_state.reserve(account, 3600, limits, MONTH).refused) -- one probe is enough
    rate_state.probe_failed(account, 3601)
    reservation = rate_state.reserve(account, 3601, limits, MONTH)
    assert.equal(3601, reservation.time_to_act)
    assert.is_true(reservation.is_probe)
    rate_state.probe_succeeded(account)
    assert.equal(3601, rate_state.reserve(account, 3601, limits, MONTH).time_to_act)
  end)
end)

describe("the token, after a clock was set back,", function()
  local LEASE, LIFETIME = 3, 300

  it("is not used if its refresh fails: its end is unknown", function()
    local state = {}
    local _, _, todo = token_state.acquire(state, 1e9, LEASE, nil, 0)
    token_state.publish(state, 1e9, todo.generation, "old", LIFETIME)
    local _, token, again = token_state.acquire(state, 1e9 - DAY, LEASE, nil, 0)
    assert.is_nil(token)
    assert.is_nil(again.old_ttl)
    assert.same({ true }, { token_state.release(state, 1e9 - DAY, again.generation, nil, "network - - -") })
  end)

  it("has no failure from before for those who wait", function()
    local state = {}
    local _, _, first = token_state.acquire(state, 1e9, LEASE, nil, 0)
    token_state.release(state, 1e9, first.generation, nil, "network - - -")
    token_state.acquire(state, 1e9 - 1, LEASE, nil, 0) -- by another caller, which refreshes
    local _, _, todo = token_state.acquire(state, 1e9 - 1, LEASE, nil, 0)
    assert.equal(3, todo.retry_in)
    _, _, todo = token_state.acquire(state, 1e9, LEASE, nil, 0, todo.now)
    assert.is_nil(todo.failure)
    assert.equal(2, todo.retry_in)
  end)
end)

describe("changes of", function()
  -- Values that a store can send to another process.
  local function assert_plain(value)
    if type(value) ~= "table" then
      assert.is_truthy(({ string = true, number = true, boolean = true })[type(value)], type(value))
      return
    end
    for key, item in pairs(value) do
      assert.equal("string", type(key))
      assert.is_truthy(({ string = true, number = true, boolean = true })[type(item)], key)
    end
    assert.is_nil(getmetatable(value))
  end

  -- Load a module with only a few functions in its environment.
  local function load_alone(name)
    local env = { ipairs = ipairs, math = math, type = type }
    local text = helper.read_file(helper.path(("lua/nymbl/%s.lua"):format(name)))
    if not setfenv then return assert(load(text, name, "t", env))() end -- luacheck: ignore
    return setfenv(assert(loadstring(text, name)), env)() -- luacheck: ignore
  end

  local limits = limits_new(2, 4, 100)
  local cases = {
    rate_state = {
      { "reserve", limits, MONTH }, { "reserve", limits_new(nil, nil, 1), MONTH }, { "try_reserve", limits, MONTH },
      { "recheck", limits, 0, 0.5 }, { "cancel", limits, MONTH, 0.5 }, { "throttled", limits, MONTH, 30 },
      { "recheck", limits, 0, 0.5 }, { "try_reserve", limits, MONTH }, { "quota_exceeded", MONTH },
      { "reserve", limits, MONTH }, { "try_reserve", limits, MONTH }, { "probe_failed" }, { "reserve", limits, MONTH },
      { "probe_succeeded" }, { "touch" }, { "usage", MONTH }, { "add", MONTH, MONTH, 2, 1 },
      { "retention" },
    },
    token_state = {
      { "cached" }, { "acquire", 3, false, 0 }, { "acquire", 3, false, 0 }, { "heartbeat", 1, 3 },
      { "release", 1, false, "server - 500 -", true }, { "acquire", 3, false, 0 }, { "acquire", 3, false, 0, 0 },
      { "acquire", 3, false, 0 }, { "publish", 1, "token", 300 }, { "publish", 9, "token", 300 }, { "cached" },
      { "acquire", 3, false, 0 }, { "acquire", 3, "token", 0 }, { "release", 2, "other" },
      { "retention" },
    },
  }

  for name, calls in pairs(cases) do
    it(name .. " need no other module, return plain values, and first one that is not nil", function()
      local module, state, now, called = load_alone(name), {}, 0, { from_other_version = true }
      for _, arguments in ipairs(calls) do
        now = now + 0.25
        called[arguments[1]] = true
        local results = { module[arguments[1]](state, now, (unpack or table.unpack)(arguments, 2)) } -- luacheck: ignore
        assert.is_truthy(results[1], arguments[1])
        for _, result in pairs(results) do assert_plain(result) end
        assert_plain(state)
      end
      for function_name in pairs(module) do assert.is_true(called[function_name], function_name) end
    end)
  end
end)
