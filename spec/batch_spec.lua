-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Runs over many items: budget, early ends, report, progress.

local batch = require "nymbl.batch"
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local helper = require "helper"
local meter = require "nymbl.meter"

describe("a run over many items", function()
  local client, patient, env

  before_each(function()
    helper.reset()
    client = helper.client()
    patient, env = client:patient("12345"), core.state(client, "nymbl.client").env
  end)

  after_each(function()
    client:close()
    client, patient, env = nil, nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- Run `process(run, i)` for i = 1 to `count`.
  local function run(count, options, process, on_end)
    options.concurrency = options.concurrency or 1
    local next_number = 0
    return batch.run(env, options, {}, function(self)
      self:each(function()
        if next_number == count then return nil end
        next_number = next_number + 1
        return next_number
      end, function(i) return process(self, i) end)
      if on_end then on_end(self) end
    end), next_number
  end

  local function count_documents(self, i)
    local count, err = patient:count()
    if count then self:succeed() else self:fail({ id = i }, err) end
  end

  -- Fails with the given errors, in turn; true succeeds.
  local function outcomes(list)
    return function(self, i)
      if list[i] == true then self:succeed() else self:fail({ id = i }, errors.new(list[i])) end
    end
  end

  it("reports success", function()
    assert.same({ complete = true, failed = 0, requests = 7, errors = {} }, (run(7, { concurrency = 3 }, count_documents)))
    assert.equal(7, #helper.journal "list")
  end)

  it("reports failures and goes on", function()
    helper.faults { operation = "list", skip = 1, times = 2, action = { status = 400 } }
    local report, begun = run(5, {}, count_documents)
    assert.equal(5, begun)
    assert.is_false(report.complete)
    assert.is_nil(report.stopped)
    assert.equal(2, report.failed)
    assert.same({ 2, 3 }, { report.errors[1].id, report.errors[2].id })
    assert.equal("bad_request", report.errors[2].err.kind)
  end)

  it("does not forget an item for which there was no memory", function()
    local attach, calls = meter.attach, 0
    meter.attach = function(...) -- it allocates
      calls = calls + 1
      if calls == 5 then error("not enough memory", 0) end
      return attach(...)
    end
    local seen = {}
    local ran, raised = pcall(run, 3, {}, function(self, i)
      seen[#seen + 1] = i
      self:succeed()
    end)
    meter.attach = attach
    assert.same({ 1, 3 }, seen)
    assert.is_false(ran)
    assert.equal("not enough memory", raised)
  end)

  it("keeps a thousand errors, and counts all", function()
    local report = run(1500, {}, function(self, i) self:fail({ id = i }, errors.new { kind = "server" }) end)
    assert.equal(1500, report.failed)
    assert.equal(1000, #report.errors)
  end)

  it("counts every request against the budget, retries too, but no token request", function()
    client:close()
    client = helper.client { max_attempts = 3 }
    patient, env = client:patient("12345"), core.state(client, "nymbl.client").env
    helper.faults { operation = "list", times = 2, action = { status = 503, headers = { { "Retry-After", "0" } } } }
    local report = run(10, { budget = 5 }, count_documents)
    assert.same({ complete = false, stopped = "budget", failed = 0, requests = 5, errors = {} }, report)
    assert.equal(5, #helper.journal "list")
  end)

  it("sends no more than its budget, however many items run at once", function()
    for _, budget in ipairs { 1, 4, 17 } do
      helper.admin("DELETE", "journal")
      local report = run(100, { budget = budget, concurrency = 8 }, count_documents)
      assert.equal(budget, report.requests)
      assert.equal("budget", report.stopped)
      assert.equal(budget, #helper.journal "list")
    end
  end)

  it("counts prefetched pages", function()
    for i = 1, 250 do helper.add_document({ patient = "paged", size = 10 }, { id = "d" .. i }) end
    local report = run(1, {}, function(self)
      for _ in client:patient("paged"):documents() do self:succeed() end
    end)
    assert.equal(#helper.journal "list", report.requests)
    helper.admin("DELETE", "journal")
    report = run(1, { budget = 2 }, function(self)
      local ran, err = pcall(function() for _ in client:patient("paged"):documents() do self:succeed() end end)
      assert(not ran)
      self:fail({}, err)
    end)
    assert.equal("budget", report.stopped)
    assert.equal(2, report.requests)
    assert.equal(2, #helper.journal "list")
  end)

  it("gives back what was prepaid and not used", function()
    local used = {}
    local report = run(1, { budget = 2 }, function(self)
      assert.is_true(self:prepay())
      assert.equal(1, meter.left(self))
      assert.is_true(self:prepay())
      used[1] = { patient:count() }
      self:each(function() return not used[2] end, function()
        used[2] = { patient:count() }
        self:stop "budget"
      end, 1)
    end)
    assert.equal("budget", used[1][2].reason)
    assert.is_truthy(used[2][1])
    assert.equal(1, report.requests)
  end)

  it("counts no requests of others", function()
    local report = run(1, { budget = 1 }, function() end, function() end)
    assert.equal(0, report.requests)
    assert.is_truthy(patient:count())
  end)

  it("ends at once on what would fail for all", function()
    for _, kind in ipairs { "unauthorized", "quota", "context" } do
      local report, begun = run(9, {}, outcomes { true, { kind = kind } })
      assert.equal(2, begun)
      assert.equal(kind, report.stopped)
      assert.equal(1, report.failed)
      assert.is_false(report.complete)
    end
    assert.equal("no_space", run(9, {}, outcomes { { kind = "io", reason = "no_space" } }).stopped)
    assert.equal("canceled", run(9, {}, outcomes { { kind = "canceled", reason = "closed" } }).stopped)
  end)

  it("ends after three forbidden in a row, or ten failures of the network", function()
    local forbidden, network, timeout = { kind = "forbidden" }, { kind = "network" }, { kind = "timeout" }
    local function after(list)
      local report, begun = run(#list, {}, outcomes(list))
      return report.stopped, begun
    end
    local function times(count, ...)
      local list = {}
      for _ = 1, count do for _, item in ipairs { ... } do list[#list + 1] = item end end
      return list
    end
    assert.same({ "forbidden", 3 }, { after(times(9, forbidden)) })
    assert.same({ nil, 18 }, { after(times(6, forbidden, forbidden, true)) })
    assert.same({ nil, 18 }, { after(times(6, forbidden, forbidden, network)) })
    assert.same({ "network", 10 }, { after(times(30, network)) })
    assert.same({ "network", 10 }, { after(times(30, timeout, network)) })
    assert.same({ nil, 20 }, { after(times(10, network, { kind = "server" })) })
  end)

  it("calls progress now and then, and once at the end", function()
    local clock = helper.clock()
    local calls = {}
    local report = run(40, { progress = function(report) calls[#calls + 1] = report.requests end }, function(self)
      clock.offset = clock.offset + 1 / 20
      self:succeed()
    end)
    clock.restore()
    assert.is_true(report.complete)
    assert.is_true(#calls >= 7 and #calls <= 9, #calls)
  end)

  it("ends if progress returns false", function()
    local clock = helper.clock()
    local report, begun = run(40, { progress = function() return false end }, function(self)
      clock.offset = clock.offset + 1
      self:succeed()
    end)
    clock.restore()
    assert.equal(1, begun)
    assert.same({ complete = false, stopped = "canceled", failed = 0, requests = 0, errors = {} }, report)
  end)

  it("ends if progress returns false, also when the budget is spent", function()
    local clock = helper.clock()
    local calls = 0
    local report = run(9, { budget = 3, progress = function()
      calls = calls + 1
      return false
    end }, function(self)
      while self:prepay() do end
      clock.offset = clock.offset + 1
      assert.is_false(self:poll())
      assert.is_false(self:poll())
      self:succeed()
    end)
    clock.restore()
    assert.equal("canceled", report.stopped)
    assert.equal(2, calls) -- and at the end
  end)

  it("cancels calls that wait if progress returns false", function()
    client:close()
    client = helper.client { rate = { read = { 0.01, 1 } }, timeout = false }
    patient, env = client:patient("12345"), core.state(client, "nymbl.client").env
    local clock = helper.clock()
    local report = run(3, { progress = function() return false end }, count_documents)
    clock.restore()
    assert.equal("canceled", report.stopped)
    assert.equal(0, report.failed)
    assert.is_true(clock.offset < 5)
  end)

  it("raises again what progress or a step raises, after the others have ended", function()
    local err, ended = {}, 0
    local function raises(options, process)
      local ok, raised = pcall(run, 4, options, process)
      assert.is_false(ok)
      assert.equal(err, raised)
    end
    raises({ concurrency = 4 }, function(_, i)
      if i == 2 then error(err) end
      patient:count()
      ended = ended + 1
    end)
    assert.equal(3, ended)
    raises({ progress = function() error(err) end }, function() end)
    assert.is_truthy(patient:count())
  end)

  it("ends if its client is closed", function()
    local report, begun = run(9, {}, function(self, i)
      if i == 2 then client:close() end
      local ok, err = patient:count()
      if ok then self:succeed() else self:fail({}, err) end
    end)
    assert.equal(2, begun)
    assert.same({ complete = false, stopped = "canceled", failed = 0, requests = 1, errors = {} }, report)
  end)
end)
