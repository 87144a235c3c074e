-- SPDX-License-Identifier: MIT
-- Every store passes the kit: those of the library, and one as a program would write it.
local blocking = require "nymbl.wait.blocking"
local dictionary = require "dictionary"
local helper = require "helper"
local kit = require "store_kit"
local nymbl = require "nymbl"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local unpack = table.unpack or unpack -- luacheck: ignore

-- A store that keeps states, arguments and results as text, so that only plain values survive.
local function toy_store()
  local states = {}
  local function copy(list)
    local copied = helper.json.decode(helper.json.encode(list))
    for i, value in ipairs(copied) do
      if value == helper.json.null then copied[i] = nil end
    end
    return copied
  end
  local function plain(...)
    local list, n = { ... }, select("#", ...)
    for i = 1, n do
      if list[i] == nil then list[i] = helper.json.null end
    end
    return unpack(copy(list), 1, n)
  end
  return {
    now = function() return wait.now() + 1000000 end,
    update = function(self, key, _, change, ...)
      local state = states[key] and helper.json.decode(states[key]) or {}
      local function keep(...)
        states[key] = helper.json.encode(state)
        return plain(...)
      end
      return keep(change(state, self:now(), plain(...)))
    end,
  }
end

-- By name: functions that return an `open` function for a new store, as the kit wants it.
local stores = {
  ["the memory of this process"] = function()
    local made = store.memory()
    return function() return made end
  end,
  ["a file"] = function()
    local path = helper.temporary(".state")
    return function() return nymbl.store.file(path, { token = true }) end
  end,
  ["a shared dictionary"] = function()
    package.loaded.ngx.shared.nymbl = dictionary.new()
    return function() return nymbl.store.shdict "nymbl" end
  end,
  ["a program's own store"] = function()
    local made = toy_store()
    return function() return made end
  end,
}

for name, make in pairs(stores) do
  describe(name, function()
    local clock, ngx

    before_each(function()
      clock = helper.clock()
      ngx = package.loaded.ngx
      dictionary.pretend_nginx {}
    end)

    after_each(function()
      package.loaded.ngx = ngx
      blocking.runtime = clock.real
    end)

    for _, case in ipairs(kit) do
      it(case.name, function() case.run(make()) end)
    end
  end)
end

describe("a program's own store", function()
  local clock, clients

  before_each(function()
    helper.reset()
    clock, clients = helper.clock(), {}
    store.default.states = {} -- tokens of earlier specs
  end)

  after_each(function()
    for _, client in ipairs(clients) do client:close() end
    clients = nil
    blocking.runtime = clock.real
    assert.equal(0, helper.object_count())
  end)

  local function begin(options)
    local client = helper.client(options)
    clients[#clients + 1] = client
    return client:patient("p"), client
  end

  it("keeps rate and quota", function()
    local patient, client = begin { store = toy_store(), rate = {}, monthly_quota = 10 }
    local began, began_at = clock.offset, blocking.runtime.now()
    for _ = 1, 6 do assert(patient:page()) end
    assert.is_true(blocking.runtime.now() - began_at > 0.9 and clock.offset - began < 1.1, clock.offset)
    assert.equal(4, client:usage().remaining)
    helper.faults { operation = "list", action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
    assert.equal("quota", select(2, patient:page()).kind)
    local _, err = patient:page()
    assert.same({ "quota", "limit_exceeded", 0 }, { err.kind, err.reason, err.attempts })
    clock.offset = clock.offset + 3601
    assert(patient:page())
    assert.same({ 7, 1 }, { client:usage().requests, client:usage().throttled })
  end)

  it("keeps no infinite number if a rate or a burst is infinite", function()
    local path = helper.temporary(".state")
    for _, own in ipairs { toy_store(), nymbl.store.file(path) } do
      for _, pair in ipairs { { math.huge, 1 }, { 2, math.huge } } do
        local patient, client = begin { store = own, rate = { read = pair }, monthly_quota = 100, token = helper.token() }
        local before = assert(client:usage()).requests
        for _ = 1, 10 do assert(patient:page()) end
        helper.faults { operation = "list", action = { status = 429, body_kind = "gateway" } }
        patient:page()
        assert.equal(before + 10, client:usage().requests)
      end
    end
  end)

  it("gets a token only if its field says so", function()
    local keeps_tokens = toy_store()
    keeps_tokens.token = true
    for own, count in pairs { [toy_store()] = 0, [keeps_tokens] = 1 } do
      local update, with_token = own.update, 0
      function own.update(self, key, deadline, change, ...)
        for i = 1, select("#", ...) do
          local value = select(i, ...)
          if type(value) == "string" and #value > 20 then with_token = with_token + 1 end
        end
        return update(self, key, deadline, change, ...)
      end
      assert((begin { store = own }):page())
      assert.equal(count, with_token)
    end
    -- within the process they are shared anyway
    helper.admin("DELETE", "journal")
    local own = toy_store()
    for _ = 1, 2 do assert((begin { store = own }):page()) end
    assert.equal(0, #helper.journal "token")
  end)

  it("gets deadlines in its own time: the call's, none, or one that has passed if it must not wait", function()
    local own, seen = toy_store(), {}
    local update = own.update
    function own.update(self, key, deadline, change, ...)
      seen[#seen + 1] = deadline and math.floor(deadline - self:now() + 0.5) or "none"
      return update(self, key, deadline, change, ...)
    end
    local patient, client = begin { store = own, token = helper.token() }
    assert(patient:page { timeout = 50 })
    client:usage()
    helper.faults { operation = "list", action = { status = 429, body_kind = "gateway" } }
    patient:page { timeout = 30 }
    assert.same({ 50, "none", 30, 0 }, seen)
  end)

  it("may have a function that does not wait", function()
    local own, told = toy_store(), {}
    function own.tell(_, key, change, ...)
      assert.equal("function", type(change))
      told[#told + 1] = #key .. " " .. select("#", ...)
    end
    helper.faults { operation = "list", action = { status = 429, body_kind = "gateway" } }
    assert.is_nil(((begin { store = own, token = helper.token() }):page()))
    assert.same({ "64 3" }, told)
  end)

  for label, err in pairs { ["an error table"] = { kind = "timeout", reason = "stall" }, ["one without a kind"] = {},
                            ["a text"] = "why", ["nothing"] = false, ["words of its own"] = { kind = "SECRET", reason = "SECRET!" },
                            ["values"] = { kind = 5, reason = {} } } do
    it("fails a call if it returns nil and " .. label, function()
      local kind, reason = "io", nil
      if label == "an error table" then kind, reason = "timeout", "stall" end
      for _, good in ipairs { helper.token(), false } do
        local own = { now = wait.now, update = function() return nil, err or nil end }
        local patient, client = begin { store = own, token = good or nil }
        local page, problem = patient:page()
        assert.is_nil(page)
        assert.same({ kind, reason, 0, "list" }, { problem.kind, problem.reason, problem.attempts, problem.operation })
        assert.matches("^nymbl: %l+: " .. kind, tostring(problem))
        assert.is_nil(problem.from_store)
        page, problem = client:usage()
        assert.is_nil(page)
        assert.same({ kind }, { problem.kind, problem.operation })
      end
      assert.equal(0, #helper.journal())
    end)
  end

  it("does not replace the error of an attempt if it fails before the next one", function()
    local own, fails = toy_store(), false
    local update = own.update
    function own.update(...)
      if fails then return nil, { reason = "no_space" } end
      return update(...)
    end
    local patient = begin { store = own, max_attempts = 3 }
    helper.faults { operation = "list", action = { status = 500 }, times = -1 }
    local _, err = patient:page()
    assert.same({ "server", 500, 3 }, { err.kind, err.status, err.attempts })
    local sleep = clock.wait
    clock.wait = function(transfer, ...)
      if not transfer then fails = true end -- before the retry
      return sleep(transfer, ...)
    end
    _, err = patient:page()
    assert.same({ "server", 500, 1 }, { err.kind, err.status, err.attempts })
    _, err = patient:page()
    assert.same({ "io", "no_space", 0 }, { err.kind, err.reason, err.attempts })
  end)
end)
