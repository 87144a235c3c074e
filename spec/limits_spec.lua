-- SPDX-License-Identifier: MIT
-- The state of an account's rate limits and quota, with a test clock: no request, no wait.
local limits = require "nymbl.limits"

local MONTH, DAY = "2026-02", 86400

-- Random numbers that are the same on every Lua.
local function generator(seed)
  local state = seed
  return function(most)
    state = (state * 16807) % 2147483647
    return state % most + 1
  end
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
-- the reservation, or receive a 429. Returns the times of the sent requests.
local function run(seed, rate, burst)
  local random = generator(seed)
  local account, sent, waiting, now = {}, {}, {}, 0
  local left, backlog = 150, 0
  local function step(caller)
    local at, mark = limits.postpone(account, now, caller.at, "read", rate, burst)
    if at then
      caller.at, caller.mark = at, mark
      waiting[#waiting + 1] = caller
      return
    end
    local fate = random(20)
    if fate <= 4 then
      limits.refund(account, now, MONTH, "read", rate, caller.mark)
    else
      sent[#sent + 1] = now
      if fate == 5 then limits.throttled(account, now, MONTH, random(300) / 10, "read", rate, burst) end
    end
  end
  while left > 0 or #waiting > 0 do
    if left > 0 and random(2) == 1 then -- some callers arrive, at the same time
      for _ = 1, random(6) do
        left = left - 1
        local at, mark = limits.reserve(account, now, MONTH, "read", rate, burst)
        waiting[#waiting + 1] = { at = at, mark = mark }
      end
    end
    backlog = math.max(backlog, #waiting)
    -- all reservations that are due by then, the earliest first
    local till = left > 0 and now + random(random(8) == 1 and 100 or 10) / 10 or math.huge
    while true do
      table.sort(waiting, function(a, b) return a.at < b.at end)
      if not waiting[1] or waiting[1].at > till then break end
      now = math.max(now, waiting[1].at)
      step(table.remove(waiting, 1))
    end
    if left > 0 then now = till end
  end
  assert(backlog > burst and #sent > 50)
  return sent
end

describe("the rate limiter", function()
  it("keeps the rate, even if callers cancel reservations or receive 429", function()
    for seed = 1, 100 do
      for _, pair in ipairs { { 2, 4 }, { 1, 2 }, { 0.5, 1 } } do
        keeps_to(run(seed, pair[1], pair[2]), pair[1], pair[2], "seed " .. seed)
      end
    end
  end)

  it("keeps the rate with a burst that takes hours to refill", function()
    local account, times = {}, {}
    for i = 1, 130 do times[i] = limits.reserve(account, 0, MONTH, "read", 0.01, 100) end
    keeps_to(times, 0.01, 100, "slow")
    assert.equal(3000, times[130]) -- one every 100 s once the burst is used up
  end)

  it("releases a reservation that was not used, of the burst too", function()
    local account = {}
    for _ = 1, 20 do
      local at, mark = limits.reserve(account, 0, MONTH, "read", 2, 4)
      assert.equal(0, at)
      limits.refund(account, 0, MONTH, "read", 2, mark)
    end
    assert.equal(0, account.requests)
  end)

  it("releases no reservation once a later one was made", function()
    local account = {}
    local _, first = limits.reserve(account, 0, MONTH, "read", 1, 1)
    limits.reserve(account, 0, MONTH, "read", 1, 1)
    limits.refund(account, 0, MONTH, "read", 1, first)
    assert.equal(2, (limits.reserve(account, 0, MONTH, "read", 1, 1)))
    assert.equal(2, account.requests)
  end)

  it("restarts after a pause as after idle time: the waiting callers do not all send at once", function()
    local account, times = {}, {}
    limits.reserve(account, 0, MONTH, "read", 2, 4)
    limits.throttled(account, 0, MONTH, 30, "read", 2, 4)
    for i = 1, 40 do times[i] = limits.reserve(account, i / 100, MONTH, "read", 2, 4) end
    assert.equal(30, times[1])
    keeps_to(times, 2, 4, "after a pause")
  end)

  it("starts with an empty bucket after a short pause: the service has just refused a request", function()
    local account = {}
    limits.throttled(account, 0, MONTH, 0.1, "read", 2, 4)
    assert.equal(0.5, (limits.reserve(account, 0.1, MONTH, "read", 2, 4)))
    assert.equal(1, (limits.reserve(account, 0.1, MONTH, "read", 2, 4)))
  end)
end)

describe("a step of the clock", function()
  -- An account in full use at `now`: a queue of ten seconds, and a pause.
  local function busy(now, pause)
    local account = {}
    for _ = 1, 24 do limits.reserve(account, now, MONTH, "read", 2, 4) end
    if pause then limits.throttled(account, now, MONTH, pause, "read", 2, 4) end
    return account
  end

  for _, step in ipairs { DAY, -DAY, 1800, -1800, -1 } do
    it(("by %d seconds extends no wait"):format(step), function()
      local now = 1e9
      local account = busy(now)
      assert.equal(now + 10.5, (limits.reserve(account, now, MONTH, "read", 2, 4)))
      local at = limits.reserve(account, now + step, MONTH, "read", 2, 4)
      assert.equal(step > 0 and 0 or 11, at - now - step)
      account = busy(now, 60)
      at = limits.reserve(account, now + step, MONTH, "read", 2, 4)
      assert.equal(step > 0 and 0 or 60, at - now - step)
    end)
  end

  it("does not make a caller with a reservation wait again", function()
    local account = busy(1e9, 60)
    for _, step in ipairs { DAY, -DAY } do
      local at = limits.postpone(account, 1e9 + step, 1e9 + 60, "read", 2, 4)
      assert.is_nil(at)
    end
  end)

  it("causes a probe of an exhausted quota after an hour at most", function()
    for _, step in ipairs { DAY, -DAY } do
      local account = { }
      limits.reserve(account, 1e9, MONTH)
      limits.spent(account, 1e9, MONTH)
      local at, left = limits.reserve(account, 1e9 + step, MONTH)
      assert.is_true(at ~= nil or left <= 3600)
    end
  end)

  it("beyond plausible values is ignored", function()
    local account = { read = 1e12, resume = 1e12, probe = 1e12, month = MONTH, requests = 0, throttled = 0 }
    local _, left = limits.reserve(account, 0, MONTH, "read", 2, 4)
    assert.equal(3600, left)
    account.probe = nil
    assert.is_true(limits.reserve(account, 0, MONTH, "read", 2, 4) <= 120 + 2 + 3600)
  end)
end)

describe("an exhausted quota", function()
  it("is probed by the next caller if the last probe had no response", function()
    local account = {}
    limits.reserve(account, 0, MONTH)
    limits.spent(account, 0, MONTH)
    assert.is_nil((limits.reserve(account, 3599, MONTH)))
    local at, _, asks = limits.reserve(account, 3600, MONTH)
    assert.equal(3600, at)
    assert.is_true(asks)
    assert.is_nil((limits.reserve(account, 3600, MONTH))) -- one probe is enough
    limits.unanswered(account, 3601)
    at, _, asks = limits.reserve(account, 3601, MONTH)
    assert.equal(3601, at)
    assert.is_true(asks)
    limits.answered(account)
    assert.equal(3601, (limits.reserve(account, 3601, MONTH)))
  end)
end)
