-- SPDX-License-Identifier: MIT
-- The same calls have the same results in every environment: one set of cases (spec/loops_cases.lua)
-- runs under each loop.
local helper = require "helper"
local cases = require "loops_cases"
local nginx = require "nginx"

local LUA = arg and arg[-1] or "lua"
for i = -1, -20, -1 do LUA = arg[i] or LUA end

-- Processes of this interpreter, each with its own sandbox. They run in parallel, because they
-- mostly wait.
local LOOPS = { "plain", "each", "cqueues", "luv" }
local outputs

local function start(loop)
  local paths = ("package.path, package.cpath = %q, %q"):format(package.path, package.cpath)
  return assert(io.popen(("exec timeout --foreground 100 %s -e %s %s %s 2>&1"):format(helper.quote(LUA), helper.quote(paths),
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

-- Compare the cases' results with the expected ones.
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

describe("the Lua API", function()
  for _, loop in ipairs(LOOPS) do
    it("works the same in " .. loop, function()
      check(output_of(loop))
    end)
  end
end)

-- The output of a script in its own process; `patient` belongs to the sandbox.
local function script(code)
  local path = helper.write_file(helper.temporary(".lua"), ([[
    package.path, package.cpath = %q, %q
    local helper, nymbl = require "helper", require "nymbl"
    local client = helper.client()
    local patient = client:patient "p"
    local function words(result, err)
      return result ~= nil and tostring(result) or ("%%s (%%s) %%d"):format(err.kind, err.reason, err.attempts)
    end
  ]]):format(package.path, package.cpath) .. code)
  return helper.output(("NYMBL_SPEC_SANDBOX=%s timeout --foreground 60 %s %s 2>&1"):format(helper.quote(helper.sandbox().path),
    helper.quote(LUA), path))
end

local function document(size)
  helper.reset()
  helper.admin("POST", "documents", { patient = "p", id = "d", size = size or 300000, content_type = "application/pdf" })
end

-- No descriptor left for a notify socket.
local WITHOUT = [[
  debug.getregistry()["nymbl.transfer"].__index.pair = function() return nil, { reason = "too_many_files" } end
]]

-- An export, and another one in the same folder after that.
local EXPORT = [[
  for i = 1, 6 do helper.admin("POST", "documents", { patient = "p", id = "d" .. i, size = 1000 }) end
  helper.faults { operation = "download", action = { delay = 0.5 }, times = 4 }
  local folder = helper.temporary()
  local function words(report, err)
    if not report then return tostring(err) end
    return ("%d of 6, %s"):format(report.downloaded + report.unchanged, tostring(report.complete))
  end
  local function begin() client:export(folder, { patients = { "p" } }) print "it ended" end
  local function again() helper.faults() print(words(client:export(folder, { patients = { "p" } }))) end
]]

describe("in cqueues", function()
  before_each(function() document() end)

  it("an abandoned export does not keep its folder locked", function()
    helper.reset()
    assert.equal("6 of 6, true", script(EXPORT .. [[
      do
        local cq = require("cqueues").new()
        cq:wrap(begin)
        local till = require("cqueues").monotime() + 0.3
        while require("cqueues").monotime() < till do assert(cq:step(0.05)) end
      end
      local cq = require("cqueues").new()
      cq:wrap(again)
      assert(cq:loop())
    ]]))
  end)

  it("a transfer without a notify socket is polled", function()
    assert.equal("300000", script(WITHOUT .. [[
      local cq = require("cqueues").new()
      cq:wrap(function() print((patient:document("d"):download(function() return 1 end))) end)
      assert(cq:loop())
    ]]))
  end)

  it("hundreds of downloads end if their callers continue at once", function()
    document(100)
    assert.equal("500 0", script [[
      local n = 0
      local cq = require("cqueues").new()
      cq:wrap(function()
        local count, failed = nymbl.each(function()
          n = n + 1
          return n <= 500 and n or nil
        end, nil, function(i)
          local path = helper.folder .. "/out-" .. i
          local size, err = patient:document("d"):download(path)
          os.remove(path)
          return size, err
        end)
        print(("%d %d"):format(count, #failed))
      end)
      assert(cq:loop())
    ]])
  end)

  it("clients are created and closed concurrently", function()
    assert.equal("20", script [[
      local count = 0
      local cq = require("cqueues").new()
      cq:wrap(function()
        for _ = 1, 20 do
          helper.client():close()
          local one = helper.client { token = "t" }
          helper.client():close()
          local _, err = one:patient("p"):count()
          if err.kind == "unauthorized" then count = count + 1 end
          one:close()
        end
      end)
      assert(cq:loop())
      print(count)
    ]])
  end)

  it("a coroutine that the loop did not create is refused, and nothing is sent", function()
    assert.equal("context (coroutine) 0\n0\n1", script [[
      local cq = require("cqueues").new()
      cq:wrap(function()
        coroutine.wrap(function()
          print(words(patient:get "d"))
          print((nymbl.each({ "d" }, nil, function(id) return patient:get(id) end)))
        end)()
        print((nymbl.each({ "d" }, nil, function(id) return patient:get(id) end)))
      end)
      assert(cq:loop())
    ]])
    assert.equal(1, #helper.journal())
  end)

  it("calls may be made before the loop runs, in it and after it, and streams continue", function()
    assert.equal("1\n300000\n1\n300000\n1", script [[
      print((patient:count()))
      local before, within = assert(patient:document("d"):open())
      local cq = require("cqueues").new()
      cq:wrap(function()
        print(#assert(before:read("a")))
        print((patient:count()))
        within = assert(patient:document("d"):open())
        within:read(1)
      end)
      assert(cq:loop())
      print(#assert(within:read("a")) + 1)
      print((patient:count()))
    ]])
  end)

  it("an error in a coroutine leaves the loop", function()
    assert.equal("mine\n1", script [[
      local cq = require("cqueues").new()
      cq:wrap(function()
        patient:document("d"):download(function() error("mine", 0) end)
      end)
      print((select(2, cq:loop())))
      print((patient:count()))
    ]])
  end)
end)

describe("in luv", function()
  before_each(function() document() end)

  it("a transfer without a notify socket is polled", function()
    assert.equal("300000", script(WITHOUT .. [[
      nymbl.use "luv"
      coroutine.wrap(function() print((patient:document("d"):download(function() return 1 end))) end)()
      require("luv").run()
    ]]))
  end)

  it("a call without a timeout is woken, and not polled", function()
    helper.faults { operation = "get", action = { delay = 0.2 } }
    assert.equal("d 0", script [[
      local uv = require "luv"
      nymbl.use "luv"
      local timers, new_timer = 0, uv.new_timer
      function uv.new_timer()
        timers = timers + 1
        return new_timer()
      end
      patient = helper.client({ timeout = false, token = helper.token() }):patient "p"
      coroutine.wrap(function() print(assert(patient:get "d").id .. " " .. timers) end)()
      uv.run()
    ]])
  end)

  it("a call may have an unlimited timeout", function()
    assert.equal("0", script [[
      nymbl.use "luv"
      coroutine.wrap(function() print((patient:count("id eq 'x'", { timeout = math.huge }))) end)()
      require("luv").run()
    ]])
  end)

  it("the main coroutine is refused while the loop runs, and nothing is sent", function()
    assert.equal("context (main_coroutine) 0\n0\n1", script [[
      local uv = require "luv"
      nymbl.use "luv"
      local timer = uv.new_timer()
      timer:start(1, 0, function()
        timer:close()
        print(words(patient:get "d"))
        print((nymbl.each({ "d" }, nil, function(id) return patient:get(id) end)))
        coroutine.wrap(function() print((patient:count())) end)()
      end)
      uv.run()
    ]])
    assert.equal(1, #helper.journal())
  end)

  it("calls may be made before the loop runs, in it and after it, and streams continue", function()
    assert.equal("1\n300000\n1\n300000\n1", script [[
      local uv = require "luv"
      nymbl.use "luv"
      print((patient:count()))
      local before, within = assert(patient:document("d"):open())
      coroutine.wrap(function()
        print(#assert(before:read("a")))
        print((patient:count()))
        within = assert(patient:document("d"):open())
        within:read(1)
      end)()
      uv.run()
      print(#assert(within:read("a")) + 1)
      print((patient:count()))
    ]])
  end)

  it("a stream that is neither read nor closed does not keep the loop running", function()
    assert.equal("ended", script [[
      local uv = require "luv"
      nymbl.use "luv"
      local stream
      coroutine.wrap(function()
        stream = assert(patient:document("d"):open())
        stream:read(1)
      end)()
      uv.run()
      print("ended")
    ]])
  end)

  it("an error value in a coroutine is reported by its text", function()
    local text = script [[
      nymbl.use "luv"
      coroutine.wrap(function() assert(patient:get "none") end)()
      require("luv").run()
    ]]
    assert.matches("nymbl: get: not_found 404", text, 1, true)
    assert.is_nil(text:find("(null)", 1, true), text)
  end)

  it("an error in a coroutine is reported by luv", function()
    assert.is_truthy(script([[
      nymbl.use "luv"
      coroutine.wrap(function()
        patient:document("d"):download(function() error("mine", 0) end)
      end)()
      require("luv").run()
    ]]):match("mine"))
  end)
end)

describe("the Lua API in nginx #nginx", function()
  local server

  after_each(function()
    server:stop()
    assert.is_nil(server:log():match("%[alert%]"))
    assert.is_nil(server:log():match("%[error%]"), server:log())
  end)

  -- One request for each case: with two workers either one may receive it.
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

  it("works the same in a content handler of one worker", function() run(1, "content") end)
  it("works the same in content handlers of two workers", function() run(2, "content") end)
  it("works the same in a timer", function() run(1, "timer") end)
end)
