-- SPDX-License-Identifier: MIT
-- Measures the microseconds that a change takes in each store, and what it takes to run the same script in Redis
-- from redis-benchmark. Needs redis-server, redis-tools and openssl; run in the root of the repository:
--
--   lua5.4 spec/bench/stores.lua [BUILD]
local build = arg[1] or "build"
package.path = "lua/?.lua;spec/?.lua;" .. package.path
package.cpath = build .. "/?.so;" .. package.cpath

local helper = require "helper"
local nymbl = require "nymbl"
local rate_state = require "nymbl.rate_state"
local redis = require "redis"
local redis_script = require "nymbl.store.redis_script"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local CHANGES = 5000
local MONTH = wait.month()
local LIMITS = { bucket = "read", rate = 1e6, burst = 1e6, quota = 1e9 }

local function measure(name, it)
  local function change() assert(store.ask(it, "key", nil, rate_state.reserve, LIMITS, MONTH)) end
  for _ = 1, 200 do change() end
  local began = wait.now()
  for _ = 1, CHANGES do change() end
  print(("%-28s %7.1f"):format(name, (wait.now() - began) / CHANGES * 1e6))
end

local plain, tls = redis.start(), redis.start { tls = true }
measure("in this process", store.memory())
measure("file", nymbl.store.file(helper.temporary()))
measure("Redis, TCP", nymbl.store.redis { url = "redis://127.0.0.1:" .. plain.port })
measure("Redis, Unix socket", nymbl.store.redis { url = "unix:" .. plain.path })
measure("Redis, TLS", nymbl.store.redis { url = "rediss://localhost:" .. tls.port, ca_file = tls.ca })

local module, name, count, arguments = redis_script.words(rate_state.reserve, LIMITS, MONTH)
local output = helper.output(("redis-benchmark --csv -c 1 -n %d -r 1000000000 -p %d EVALSHA %s 2 '{key}:bare' "
  .. "'{key}:__rand_int__' %s %s 99999999999999 %s %s 2>/dev/null"):format(CHANGES, plain.port,
  plain:cli("SCRIPT", "LOAD", redis_script.text()), module, name, count, helper.quote(arguments)))
local per_second = output:match('"([%d.]+)"' .. (',"[%d.]+"'):rep(6) .. "%s*$")
print(("%-28s %7.1f"):format("bare EVALSHA, TCP", 1e6 / tonumber(per_second)))
plain:stop()
tls:stop()
