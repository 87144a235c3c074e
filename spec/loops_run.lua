-- SPDX-License-Identifier: MIT
-- Runs the cases of spec/loops_cases.lua under an event loop, in a separate process, and prints their
-- results as JSON:  LUA spec/loops_run.lua LOOP [CASE]
-- In nginx it is a module: `require("loops_run").run(loop, number)`.
local cases = require "loops_cases"
local helper = require "helper"
local nymbl = require "nymbl"

-- A loop has
--   run(body)         runs it in a context that allows calls
--   others(tick)      starts something that calls `tick` every few milliseconds until
--                   it returns false
local loops = {}

loops.plain = { run = function(body) body() end }

loops.each = {
  run = function(body)
    local count, failed = nymbl.each({ 1 }, nil, function()
      body()
      return true
    end)
    if count ~= 1 then error(failed[1].err, 0) end
  end,
  others = function(tick, body)
    local wait = require "nymbl.wait"
    nymbl.each({ body, function()
      repeat wait.wait(nil, wait.now() + 0.01) until not tick()
    end }, nil, function(fn)
      fn()
      return true
    end)
  end,
}

local cq
loops.cqueues = {
  run = function(body)
    cq = require("cqueues").new()
    cq:wrap(body)
    assert(cq:loop())
    assert(cq:count() == 0)
  end,
  others = function(tick, body)
    cq:wrap(function()
      repeat require("cqueues").sleep(0.01) until not tick()
    end)
    body()
  end,
}

loops.luv = {
  run = function(body)
    local uv = require "luv"
    nymbl.use "luv"
    local ended = false
    coroutine.wrap(function()
      body()
      ended = true
    end)()
    uv.run()
    local handles = 0
    uv.walk(function(handle) if not handle:is_closing() then handles = handles + 1 end end)
    assert(ended and handles == 0, "the loop ended with " .. handles .. " handles")
  end,
  others = function(tick, body)
    local timer = require("luv").new_timer()
    timer:start(10, 10, function() if not tick() then timer:close() end end)
    body()
  end,
}

loops.content = {
  run = function(body) body() end,
  others = function(tick, body)
    local ngx = package.loaded.ngx
    local thread = ngx.thread.spawn(function()
      repeat ngx.sleep(0.01) until not tick()
    end)
    body()
    ngx.thread.wait(thread)
  end,
}

loops.timer = {
  run = function(body)
    local ngx = package.loaded.ngx
    local done, ok, err
    assert(ngx.timer.at(0, function()
      ok, err = pcall(body)
      done = true
    end))
    repeat ngx.sleep(0.01) until done
    if not ok then error(err, 0) end
  end,
  others = loops.content.others,
}

local function others_of(loop)
  return function(fn)
    if not loop.others then return "others continued", fn() end
    local ticks, running = 0, true
    local result
    loop.others(function()
      ticks = ticks + 1
      return running
    end, function()
      result = fn()
      running = false
    end)
    return ticks >= 5 and "others continued" or "others had " .. ticks .. " ticks", result
  end
end

local function case_run(case, loop)
  helper.reset()
  local clients = {}
  local t = { others = others_of(loop) }
  function t.patient(given)
    local client = helper.client(given)
    clients[#clients + 1] = client
    return client:patient("p"), client
  end
  local _, result = xpcall(function() return case.run(t) end, function(err) return debug.traceback(tostring(err)) end)
  for _, client in ipairs(clients) do client:close() end
  return result
end

-- The number of objects left in the core, after the engine's thread has handled the last closes.
local function left()
  for _ = 1, 100 do
    if helper.object_count() == 0 then return 0 end
    os.execute("sleep 0.05")
  end
  return helper.object_count()
end

local this = {}

--- Run the cases, or one of them. Returns their results and the number of objects left in the core.
function this.run(name, number)
  local loop = loops[name]
  local results = {}
  for i, case in ipairs(cases) do
    if not number or number == i then
      loop.run(function() results[case.name] = case_run(case, loop) end)
    end
  end
  results.left = left()
  return helper.json.encode(results)
end

if arg and arg[0] and arg[0]:match("loops_run%.lua$") then
  print(this.run(arg[1], tonumber(arg[2])))
end

return this
