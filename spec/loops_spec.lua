-- SPDX-License-Identifier: MIT
-- The same calls with the same results, wherever they are made: one body of cases
-- (spec/loops_cases.lua) under each loop.
local helper = require "helper"
local cases = require "loops_cases"
local nginx = require "nginx"

local LUA = arg and arg[-1] or "lua"
for i = -1, -20, -1 do LUA = arg[i] or LUA end

-- Processes of this interpreter, each with a sandbox of its own: all at once, for they
-- mostly wait.
local LOOPS = { "plain", "each", "cqueues", "luv" }
local outputs

local function start(loop)
  local paths = ("package.path, package.cpath = %q, %q"):format(package.path, package.cpath)
  return assert(io.popen(("exec timeout 100 %s -e %s %s %s 2>&1"):format(helper.quote(LUA), helper.quote(paths),
    helper.quote(helper.path "spec/loops_run.lua"), loop)))
end

local function output_of(loop)
  if not outputs then
    outputs = {}
    for _, name in ipairs(LOOPS) do outputs[name] = start(name) end
  end
  local text = outputs[loop]:read("*a")
  outputs[loop]:close()
  return text
end

-- Compare what the cases gave with what they are to give.
local function check(text)
  local ok, results = pcall(helper.json.decode, text:match("[^\n]*\n?$"))
  assert.is_true(ok and type(results) == "table", text)
  local wrong = {}
  for _, case in ipairs(cases) do
    if results[case.name] ~= case.expected then
      wrong[#wrong + 1] = ("%s\n  expected: %s\n  gave:     %s"):format(case.name, case.expected,
        tostring(results[case.name]))
    end
  end
  assert.equal("", table.concat(wrong, "\n"))
  assert.equal(0, results.left)
end

describe("the contract", function()
  for _, loop in ipairs(LOOPS) do
    it("holds in " .. loop, function()
      check(output_of(loop))
    end)
  end
end)

describe("the contract in nginx #nginx", function()
  local server

  after_each(function()
    server:stop()
    assert.is_nil(server:log():match("%[alert%]"))
    assert.is_nil(server:log():match("%[error%]"), server:log())
  end)

  -- One request for each case: with two workers either may get it.
  local function run(workers, loop)
    server = nginx.start {
      workers = workers,
      locations = { ["/run"] = ([[
        ngx.print(require("loops_run").run(%q, tonumber(ngx.var.arg_case)))
      ]]):format(loop) },
    }
    local all = { left = 0 }
    for i in ipairs(cases) do
      local text = server:get("/run?case=" .. i)
      local ok, results = pcall(helper.json.decode, text)
      assert.is_true(ok and type(results) == "table", text)
      for name, result in pairs(results) do all[name] = name == "left" and all.left + result or result end
    end
    check(helper.json.encode(all))
  end

  it("holds in a content handler of one worker", function() run(1, "content") end)
  it("holds in content handlers of two workers", function() run(2, "content") end)
  it("holds in a timer", function() run(1, "timer") end)
end)
