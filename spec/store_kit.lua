-- SPDX-License-Identifier: MIT
-- What every store must do: a list of cases, each a `name` and a function `run(open)`. `open()` returns
-- an object for one and the same store, which may have states already: each case has its own keys.
--
--   for _, case in ipairs(require "store_kit") do it(case.name, function() case.run(open) end) end
--
-- The changes are those of the library, because a store need not know others. Times are compared to
-- 0.1 ms (a store may keep 14 digits), and the cases may run in real time or with helper.clock().
local assert = require "luassert"
local helper = require "helper"
local nymbl = require "nymbl"
local rate_state = require "nymbl.rate_state"
local store = require "nymbl.store"
local token_state = require "nymbl.token_state"
local wait = require "nymbl.wait"

local MONTH = "2026-02"
local LIMITS = { bucket = "read", rate = 2, burst = 4, quota = 100 }

local kit = {}

local function case(name, run)
  kit[#kit + 1] = { name = name, run = run }
end

local keys = 0

-- A new key. It looks like those of clients: a hash, but another one in each process.
local function key_new()
  keys = keys + 1
  return require("nymbl.core").sha256(("kit %d %s %s"):format(keys, os.time(), helper.folder)):sub(1, 64)
end

local function reserve(it, key, limits)
  return assert(store.ask(it, key, wait.now() + 10, rate_state.reserve, limits or LIMITS, MONTH))
end

local function usage(it, key)
  return assert(store.ask(it, key, wait.now() + 10, rate_state.usage, MONTH))
end

local function sleep(seconds)
  wait.wait(nil, wait.now() + seconds)
end

local function near(expected, value, tolerance)
  assert.is_true(math.abs(expected - value) < (tolerance or 0.2), ("%s instead of %s"):format(value, expected))
end

case("has a time that advances, and gives it to changes", function(open)
  local it, key = open(), key_new()
  reserve(it, key)
  local before, began = it:now(), wait.now()
  sleep(0.3)
  near(wait.now() - began, it:now() - before, 0.02)
  near(it:now(), reserve(it, key).time_to_act)
end)

case("keeps a state under its key", function(open)
  local it, one, other = open(), key_new(), key_new()
  for _ = 1, 3 do reserve(it, one) end
  reserve(it, other)
  assert.equal(3, usage(it, one).requests)
  assert.equal(1, usage(open(), other).requests)
  assert.equal(0, usage(it, key_new()).requests)
end)

case("returns up to three results, some of them nil or false", function(open)
  local it, key = open(), key_new()
  local ok, bearer, action = store.ask(it, key, nil, token_state.acquire, 3, nil, 0, nil)
  assert.is_true(ok)
  assert.is_nil(bearer)
  assert.equal(1, action.generation)
  assert.is_nil(action.old_ttl)
  local result = reserve(it, key_new(), { bucket = "read", quota = 5 })
  assert.is_false(result.is_probe)
  assert.is_nil(result.tat)
end)

case("passes arguments as they are, nil and false too", function(open)
  local it, key = open(), key_new()
  local words = "a\"b\\c/d'e-._~+=\195\188"
  local _, _, lease = store.ask(it, key, nil, token_state.acquire, 3, false, 0, nil)
  store.ask(it, key, nil, token_state.publish, lease.generation, words, 3600)
  for _, rejected in ipairs { false, "other" } do
    assert.same({ true, words }, { store.ask(it, key, nil, token_state.acquire, 3, rejected, 0, nil) })
  end
  assert.is_nil((select(2, store.ask(it, key, nil, token_state.acquire, 3, words, 0, nil))))
end)

case("keeps the rate of all its users", function(open)
  local it, other, key = open(), open(), key_new()
  for i = 1, 8 do
    near(math.max(0, i - 4) / 2, reserve(i % 2 == 0 and it or other, key).delay)
  end
end)

case("takes a canceled reservation back", function(open)
  local it, key = open(), key_new()
  for _ = 1, 4 do reserve(it, key) end
  local last = reserve(it, key)
  near(0.5, last.delay)
  store.tell(it, key, rate_state.cancel, LIMITS, MONTH, last.tat)
  near(0.5, reserve(it, key).delay)
  near(1, reserve(it, key).delay)
  assert.equal(6, usage(it, key).requests)
end)

case("tells all of a pause", function(open)
  local it, other, key = open(), open(), key_new()
  local reserved = reserve(other, key)
  assert.equal(0, reserved.delay)
  store.tell(it, key, rate_state.throttled, LIMITS, MONTH, 30)
  usage(it, key) -- which comes after what was told
  local again = store.ask(other, key, nil, rate_state.recheck, LIMITS, reserved.time_to_act, reserved.tat)
  near(30, again.delay)
  assert.is_true(again.is_paused)
  near(30, reserve(other, key).delay, 3)
  assert.same({ month = MONTH, requests = 1, throttled = 1 }, usage(other, key))
end)

case("keeps the order of what it is told and asked", function(open)
  local it, key = open(), key_new()
  for _ = 1, 10 do
    reserve(it, key)
    store.tell(it, key, rate_state.quota_exceeded, MONTH)
    store.tell(it, key, rate_state.probe_succeeded)
    assert.is_nil(reserve(it, key).refused)
    store.tell(it, key, rate_state.quota_exceeded, MONTH)
    assert.equal("limit_exceeded", reserve(it, key).reason)
    store.tell(it, key, rate_state.probe_succeeded)
  end
  assert.equal(0, usage(it, key).requests)
end)

case("refuses what exceeds the quota", function(open)
  local it, key = open(), key_new()
  local limits = { bucket = "download", quota = 3 }
  for _ = 1, 3 do assert.is_nil(reserve(it, key, limits).refused) end
  assert.same({ refused = true, reason = "monthly_quota" }, reserve(it, key, limits))
  assert.same({ month = MONTH, requests = 3, throttled = 0 }, usage(it, key))
end)

case("gives the lease of a token to one at a time, and its token to all", function(open)
  local it, other, key = open(), open(), key_new()
  local function acquire(from, since)
    local ok, bearer, action = store.ask(from, key, nil, token_state.acquire, 1, nil, 0, since)
    assert.is_true(ok)
    return bearer, action
  end
  local _, lease = acquire(it)
  sleep(0.6)
  store.tell(it, key, token_state.heartbeat, lease.generation, 1)
  sleep(0.6)
  local _, waits = acquire(other)
  near(0.4, waits.retry_in, 0.35)
  store.ask(it, key, nil, token_state.publish, lease.generation, "first", 3600)
  assert.equal("first", (acquire(other)))
  assert.equal("first", (acquire(it)))
end)

case("lets another one take over a lease that has expired", function(open)
  local it, other, key = open(), open(), key_new()
  local _, _, first = store.ask(it, key, nil, token_state.acquire, 0.2, nil, 0, nil)
  sleep(0.3)
  local _, _, second = store.ask(other, key, nil, token_state.acquire, 0.2, nil, 0, nil)
  assert.not_equal(first.generation, second.generation)
  store.ask(it, key, nil, token_state.publish, first.generation, "late", 3600)
  store.ask(other, key, nil, token_state.publish, second.generation, "good", 3600)
  assert.same({ true, "good" }, { store.ask(it, key, nil, token_state.acquire, 1, nil, 0, nil) })
end)

case("shares the failure of a refresh", function(open)
  local it, other, key = open(), open(), key_new()
  local _, _, lease = store.ask(it, key, nil, token_state.acquire, 3, nil, 0, nil)
  local _, _, waits = store.ask(other, key, nil, token_state.acquire, 3, nil, 0, nil)
  store.tell(it, key, token_state.release, lease.generation, nil, "unauthorized - 401 -", true)
  store.ask(it, key, nil, token_state.cached)
  local _, _, failed = store.ask(other, key, nil, token_state.acquire, 3, nil, 0, waits.now)
  assert.equal("unauthorized - 401 -", failed.failure)
  near(0, failed.age)
end)

case("does not wait if the caller cannot", function(open)
  local it, key = open(), key_new()
  local began = wait.now()
  local result, err = store.ask(it, key, began, rate_state.try_reserve, LIMITS, MONTH)
  store.tell(it, key, rate_state.probe_succeeded)
  assert.is_true(wait.now() - began < 0.1)
  assert.is_true(result ~= nil or err.kind ~= nil)
  assert.equal(result and 1 or 0, usage(it, key).requests)
end)

case("counts each change of many coroutines once", function(open)
  local it, key, items = open(), key_new(), {}
  for i = 1, 40 do items[i] = i end
  local limits = { bucket = "read" }
  local succeeded = nymbl.each(items, { concurrency = 8 }, function() return reserve(it, key, limits) end)
  assert.equal(40, succeeded)
  assert.equal(40, usage(it, key).requests)
end)

case("shows nothing of itself", function(open)
  assert.matches("^[%w.: ]+$", (tostring(open()):gsub("0x%x+", "")))
end)

return kit
