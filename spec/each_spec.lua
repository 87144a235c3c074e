-- SPDX-License-Identifier: MIT
local helper = require "helper"

describe("nymbl.each()", function()
  local nymbl = require "nymbl"
  local client, patient

  before_each(function()
    helper.reset()
    client = helper.client()
    patient = client:patient("many")
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  it("runs a function for every item of an array", function()
    local seen = {}
    local count, failed = nymbl.each({ 1, 2, 3 }, nil, function(item)
      seen[#seen + 1] = item
      return true
    end)
    assert.equal(3, count)
    assert.same({}, failed)
    assert.same({ 1, 2, 3 }, seen)
  end)

  it("needs no options", function()
    local seen = {}
    local callable = setmetatable({}, { __call = function(_, item)
      seen[#seen + 1] = item
      return item ~= 2, "no"
    end })
    for _, fn in ipairs { callable, function(item) return callable(item) end } do
      local count, failed = nymbl.each({ 1, 2, 3 }, fn)
      assert.equal(2, count)
      assert.same({ { item = 2, err = "no" } }, failed)
    end
    assert.same({ 1, 2, 3, 1, 2, 3 }, seen)
    for _, wrong in ipairs { 1, "x", true, { concurrency = 2 } } do assert.has_error(function() nymbl.each({}, wrong) end) end
    assert.has_error(function() nymbl.each {} end)
    assert.has_error(function() nymbl.each({}, callable, 1) end)
  end)

  it("accepts an iterator, and requests no item in advance", function()
    local drawn, running, most = 0, 0, 0
    local count = nymbl.each(function()
      if drawn == 20 then return nil end
      drawn = drawn + 1
      return drawn
    end, { concurrency = 3 }, function(item)
      running = running + 1
      most = math.max(most, running)
      assert(drawn <= item + 2)
      patient:count()
      running = running - 1
      return item
    end)
    assert.equal(20, count)
    assert.equal(3, most)
  end)

  it("skips no item that is false", function()
    local seen = {}
    local count = nymbl.each({ false, 1, false, false, 2 }, { concurrency = 1 }, function(item)
      seen[#seen + 1] = item
      return true
    end)
    assert.equal(5, count)
    assert.same({ false, 1, false, false, 2 }, seen)
  end)

  it("reports what failed: an error that was raised, or returned as second value", function()
    local count, failed = nymbl.each({ "raises", "returns", "forgets", "works" }, { concurrency = 1 }, function(item)
      if item == "raises" then error({ "mine" }) end
      if item == "returns" then return nil, "why" end
      if item == "works" then return true end
    end)
    assert.equal(1, count)
    assert.same({ { item = "raises", err = { "mine" } }, { item = "returns", err = "why" }, { item = "forgets" } },
      failed)
  end)

  it("lets the others continue while one waits", function()
    helper.admin("POST", "seed", { patient = "many", count = 24 })
    helper.faults { operation = "download", times = 1, action = { delay = 1 } }
    local order = {}
    local count = nymbl.each(patient:documents(), { concurrency = 4 }, function(document)
      local ok, err = document:download(function() return 1 end)
      order[#order + 1] = document.id
      return ok, err
    end)
    assert.equal(24, count)
    assert.equal("doc-seed-00001", order[24]) -- the delayed one
  end)

  it("lets the iterator wait too", function()
    helper.admin("POST", "seed", { patient = "many", count = 60 })
    local count = nymbl.each(patient:documents { page_size = 10 }, { concurrency = 5 }, function(document)
      return document:refresh()
    end)
    assert.equal(60, count)
  end)

  it("can be nested", function()
    helper.admin("POST", "seed", { patient = "many", count = 5 })
    local total = 0
    local count = nymbl.each({ 1, 2, 3 }, nil, function()
      local inner = nymbl.each(patient:documents(), { concurrency = 2 }, function(document)
        return document:refresh()
      end)
      total = total + inner
      return inner == 5
    end)
    assert.equal(3, count)
    assert.equal(15, total)
  end)

  it("raises the iterator's error, after the running items have finished", function()
    helper.admin("POST", "seed", { patient = "many", count = 30 })
    helper.faults { operation = "list", skip = 1, action = { status = 404, body_kind = "service" } }
    local finished = 0
    local ok, err = pcall(nymbl.each, patient:documents { page_size = 20 }, { concurrency = 4 }, function(document)
      assert(document:refresh())
      finished = finished + 1
      return true
    end)
    assert.is_false(ok)
    assert.equal("not_found", err.kind)
    assert.equal(20, finished)
  end)

  it("waits for several times concurrently", function()
    local wait = require "nymbl.wait"
    local begun, ended = 0, 0
    local count = nymbl.each({ 1, 2, 3, 4, 5, 6, 7, 8 }, nil, function()
      begun = begun + 1
      wait.wait(nil, wait.now() + 0.1)
      ended = ended + 1
      return begun == 8
    end)
    assert.equal(8, count) -- all started before the first one continued
    assert.equal(8, ended)
  end)

  it("does nothing for an empty list", function()
    assert.equal(0, (nymbl.each({}, nil, print)))
  end)

  it("discards waiting items if it is interrupted", function()
    local blocking, wait = require "nymbl.wait.blocking", require "nymbl.wait"
    local driver = blocking.runtime
    local went_on = false
    blocking.runtime = setmetatable({ wait = function() error("interrupted!") end }, { __index = driver })
    local ok = pcall(nymbl.each, { 1, 2 }, nil, function()
      wait.wait(nil, wait.now() + 0.1)
      went_on = true
    end)
    blocking.runtime = driver
    assert.is_false(ok)
    assert.equal(1, (nymbl.each({ 1 }, nil, function()
      wait.wait(nil, wait.now() + 0.2)
      return true
    end)))
    assert.is_false(went_on)
  end)

  it("raises on wrong arguments", function()
    assert.has_error(function() nymbl.each(nil, nil, print) end)
    assert.has_error(function() nymbl.each({}, { concurrency = 0 }, print) end)
    assert.has_error(function() nymbl.each({}, { speed = 1 }, print) end)
    assert.has_error(function() nymbl.each({}, nil) end)
  end)
end)
