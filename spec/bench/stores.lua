-- SPDX-License-Identifier: MIT
-- Measures the microseconds that a change takes in each store, and what it takes to run the same script in Redis
-- from redis-benchmark; and the ratio to the latter. The values are medians of rounds in turn, because a busy
-- machine changes from one moment to the next. Needs redis-server, redis-tools, openssl, nginx and
-- libnginx-mod-http-lua (with build-jit); run in the root of the repository:
--
--   lua5.4 spec/bench/stores.lua [BUILD]
local build = arg[1] or "build"
package.path = "lua/?.lua;spec/?.lua;" .. package.path
package.cpath = build .. "/?.so;" .. package.cpath

local helper = require "helper"
local nginx = require "nginx"
local nymbl = require "nymbl"
local rate_state = require "nymbl.rate_state"
local redis = require "redis"
local redis_script = require "nymbl.store.redis_script"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local ROUNDS, CHANGES = 9, 2000
local MONTH = wait.month()
local LIMITS = { bucket = "read", rate = 1e6, burst = 1e6, quota = 1e9 }

-- Returns a function that measures a store.
local function changes_of(it)
  local function change() assert(store.ask(it, "key", nil, rate_state.reserve, LIMITS, MONTH)) end
  for _ = 1, 200 do change() end
  return function()
    local began = wait.now()
    for _ = 1, CHANGES do change() end
    return (wait.now() - began) / CHANGES * 1e6
  end
end

local plain, tls = redis.start(), redis.start { tls = true }

local function bare()
  local module, name, count, arguments = redis_script.words(rate_state.reserve, LIMITS, MONTH)
  local output = helper.output(("redis-benchmark --csv -c 1 -n %d -r 1000000000 -p %d EVALSHA %s 2 '{key}:bare' "
    .. "'{key}:__rand_int__' %s %s 99999999999999 %s %s 2>/dev/null"):format(CHANGES, plain.port,
    plain:cli("SCRIPT", "LOAD", redis_script.text()), module, name, count, helper.quote(arguments)))
  local per_second = output:match('"([%d.]+)"' .. (',"[%d.]+"'):rep(6) .. "%s*$")
  return 1e6 / tonumber(per_second)
end

local server = nginx.start {
  http = "lua_shared_dict nymbl 1m;",
  locations = { ["/"] = ([[
    local store, wait = require "nymbl.store", require "nymbl.wait"
    local reserve, limits = require("nymbl.rate_state").reserve, { bucket = "read", rate = 1e6, burst = 1e6, quota = 1e9 }
    local it, began = require("nymbl").store.shdict "nymbl", wait.now()
    for _ = 1, %d do assert(store.ask(it, "key", nil, reserve, limits, wait.month())) end
    ngx.say((wait.now() - began) / %d * 1e6)
  ]]):format(CHANGES, CHANGES) },
}

local cases = {
  { "bare EVALSHA, TCP", bare },
  { "in this process", changes_of(store.memory()) },
  { "shared dictionary (LuaJIT)", function() return assert(tonumber((server:get "/"))) end },
  { "file", changes_of(nymbl.store.file(helper.temporary())) },
  { "Redis, Unix socket", changes_of(nymbl.store.redis { url = "unix:" .. plain.path }) },
  { "Redis, TCP", changes_of(nymbl.store.redis { url = "redis://127.0.0.1:" .. plain.port }) },
  { "Redis, TLS", changes_of(nymbl.store.redis { url = "rediss://localhost:" .. tls.port, ca_file = tls.ca }) },
}

local measured = {}
for i = 1, #cases do measured[i] = { times = {}, ratios = {} } end
for round = 1, ROUNDS do
  for i, case in ipairs(cases) do
    measured[i].times[round] = case[2]()
    measured[i].ratios[round] = measured[i].times[round] / measured[1].times[round]
  end
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) / 2]
end

print(("%-28s %9s %9s"):format("", "us", "ratio"))
for i, case in ipairs(cases) do
  print(("%-28s %9.1f %9.2f"):format(case[1], median(measured[i].times), median(measured[i].ratios)))
end
server:stop()
plain:stop()
tls:stop()
