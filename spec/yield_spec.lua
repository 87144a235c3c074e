-- SPDX-License-Identifier: MIT
-- If the coroutine cannot yield (because a C function is between its resume and the call), a call that
-- would have to wait is refused before anything is sent.
local helper = require "helper"
local nginx = require "nginx"

local DOFILE = "nymbl_spec_dofile()\n"

local LOOPS = {
  each = [[
    nymbl.each({ 1 }, nil, function()
      body()
      return true
    end)
  ]],
  cqueues = [[
    local loop = require("cqueues").new()
    loop:wrap(body)
    assert(loop:loop())
  ]],
  luv = [[
    nymbl.use "luv"
    coroutine.wrap(body)()
    require("luv").run()
  ]],
}

-- The result of a function in spec/yield_run.lua under a loop, in a separate process.
local function run(loop, name, ...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = (", %q"):format((select(i, ...))) end
  local path = helper.write_file(helper.temporary(".lua"), ([[
    local helper, nymbl = require "helper", require "nymbl"
    local client = helper.client()
    local function body()
      print((select(2, pcall(require("yield_run")[%q], client%s))))
    end
  ]]):format(name, table.concat(words)) .. LOOPS[loop])
  return helper.output(("NYMBL_SPEC_SANDBOX=%s timeout 60 %s %s 2>&1"):format(helper.quote(helper.sandbox().path),
    helper.interpreter(), path))
end

local function document(size)
  helper.admin("POST", "documents", { patient = "p", id = "d", size = size or 1000, content_type = "application/pdf" })
end

local function requests()
  return #helper.admin("GET", "journal").requests -- including token requests
end

local REFUSED = "context c_call_boundary 0"

describe("in a coroutine that cannot yield", function()
  before_each(function()
    helper.reset()
    document()
  end)

  for loop in pairs(LOOPS) do
    it("every call is refused and sends nothing, in " .. loop, function()
      assert.equal("", run(loop, "refused", REFUSED))
      assert.equal(0, requests())
      assert.equal(1, #helper.stored("p"))
    end)

    it("a call works or is refused if that depends on the Lua version, in " .. loop, function()
      assert.equal("", run(loop, "maybe_refused", REFUSED, helper.write_file(helper.temporary(".lua"), DOFILE)))
    end)

    it("a read that would wait is refused and loses nothing, in " .. loop, function()
      helper.reset()
      document(300000)
      helper.faults { operation = "download", action = { drip = 300000 } }
      assert.equal(("a: %s, 200000: %s, 300000"):gsub("%%s", "context c_call_boundary 0"), run(loop, "stream"))
    end)

    it("an iteration prefetches no page, in " .. loop, function()
      helper.admin("POST", "seed", { patient = "many", count = 8 })
      assert.equal("4", run(loop, "prefetch"))
      assert.equal(1, #helper.journal("list"))
    end)

    it("nymbl.each's calls are refused, in " .. loop, function()
      assert.equal("0, context c_call_boundary 0, context c_call_boundary 0", run(loop, "each"))
      assert.equal(0, requests())
    end)
  end

  it("a plain script's calls block as usual", function()
    local client = helper.client()
    local count
    string.gsub("x", "x", function() count = client:patient("p"):count() end)
    assert.equal(1, count)
    client:close()
  end)

  it("a locked file store is not waited for", function()
    local out = helper.output(([[timeout 60 %s %s 2>&1]]):format(helper.interpreter(),
      helper.write_file(helper.temporary(".lua"), ([[
        local nymbl, core, wait = require "nymbl", require "nymbl.core", require "nymbl.wait"
        local path = %q
        local store = nymbl.store.file(path)
        nymbl.each({ 1 }, nil, function()
          local lock = assert(core.store_open(path))
          local began = wait.now()
          string.gsub("x", "x", function()
            local done, err = store:update("key", wait.now() + 20, function() return true end)
            print(done, err.kind, err.reason, wait.now() - began < 10)
          end)
          lock:close()
          return true
        end)
      ]]):format(helper.temporary(".store")))))
    assert.equal("nil\tcontext\tc_call_boundary\ttrue", out)
  end)
end)

describe("in a coroutine that cannot yield in nginx #nginx", function()
  local server

  after_each(function()
    if server then server:stop() end
    server = nil
  end)

  it("every call is refused and sends nothing", function()
    helper.reset()
    document(300000)
    helper.admin("POST", "seed", { patient = "many", count = 8 })
    local path = helper.write_file(helper.temporary(".lua"), DOFILE)
    server = nginx.start {
      init = "run = require 'yield_run' one = client()",
      http = "lua_shared_dict other 1m;",
      locations = {
        ["/refused"] = ("ngx.print(run.refused(one, %q))"):format(REFUSED),
        ["/each"] = "ngx.print(run.each(one))",
        ["/either"] = ("ngx.print(run.maybe_refused(one, %q, %q))"):format(REFUSED, path),
        ["/stream"] = "ngx.print(run.stream(one))",
        ["/prefetch"] = "ngx.print(run.prefetch(one))",
        ["/thread"] = ([[
          local thread = ngx.thread.spawn(function() return run.refused(one, %q) end)
          ngx.print(select(2, ngx.thread.wait(thread)))
        ]]):format(REFUSED),
        ["/wrap"] = ("ngx.print(coroutine.wrap(function() return run.refused(one, %q) end)())"):format(REFUSED),
      },
    }
    assert.equal("", server:get("/refused"))
    assert.equal("", server:get("/thread"))
    assert.equal("", server:get("/wrap"))
    assert.equal("0, context c_call_boundary 0, context c_call_boundary 0", server:get("/each"))
    assert.equal(0, requests())
    assert.equal(1, #helper.stored("p"))
    assert.equal("", server:get("/either"))
    assert.equal("4", server:get("/prefetch"))
    helper.faults { operation = "download", action = { drip = 300000 } }
    assert.equal(("a: %s, 200000: %s, 300000"):gsub("%%s", "context c_call_boundary 0"), server:get("/stream"))
    assert.is_nil(server:log():match("%[error%]"), server:log())
  end)
end)
