-- SPDX-License-Identifier: MIT
-- When the workers' requests arrived at the service, and what Redis has counted. Reads the sandbox's
-- journal from standard input.
local cjson = require "cjson"
local nymbl = require "nymbl"

local WORKERS = { "script-1", "script-2", "nginx" }

-- The worker that has sent a request: its name is the last word of the user agent.
local function worker_of(request)
  for _, header in ipairs(request.headers) do
    if header[1]:lower() == "user-agent" then return header[2]:match "%S+$" end
  end
end

local began, seconds = nil, {} -- by second: the number of arrivals by worker
local arrived, throttled, tokens = 0, 0, 0
for _, request in ipairs(cjson.decode(io.read "*a").requests) do
  if request.operation == "token" then
    tokens = tokens + 1
  else
    began = began or request.time
    local number, worker = math.floor(request.time - began) + 1, worker_of(request)
    while #seconds < number do seconds[#seconds + 1] = {} end
    seconds[number][worker] = (seconds[number][worker] or 0) + 1
    arrived = arrived + 1
    if request.status == 429 then throttled = throttled + 1 end
  end
end

local function print_row(...)
  print(("%10s"):rep(select("#", ...)):format(...))
end

print_row("second", WORKERS[1], WORKERS[2], WORKERS[3], "together")
for i, counts in ipairs(seconds) do
  local row, sum = {}, 0
  for j, worker in ipairs(WORKERS) do
    row[j] = counts[worker] or 0
    sum = sum + row[j]
  end
  print_row(i, row[1], row[2], row[3], sum)
end

local client = assert(nymbl.client(assert(nymbl.from_env())))
local usage = assert(client:usage())
client:close()
print(("\n%d requests arrived, and the service has refused %d of them with 429. The count in Redis for %s: %d."):format(
  arrived, throttled, usage.month, usage.requests))
print(("The workers share one token: token requests: %d."):format(tokens))
