-- SPDX-License-Identifier: MIT
-- All clients that share a store refresh a token one at a time.
local blocking = require "nymbl.wait.blocking"
local core = require "nymbl.core"
local helper = require "helper"
local store = require "nymbl.store"

describe("the refresh of a token", function()
  local clock, real, shared, one, two

  before_each(function()
    helper.reset()
    clock = helper.clock()
    real = clock.real
    shared = store.memory()
    one, two = helper.client { store = shared }, helper.client { store = shared }
  end)

  after_each(function()
    one:close()
    two:close()
    one, two = nil, nil
    blocking.runtime = real
    assert.equal(0, helper.object_count())
  end)

  local function tokens_asked_for()
    return #helper.journal("token")
  end

  -- The stored state of the token.
  local function state()
    return shared.states[core.account(one, "token")]
  end

  -- Waiting for the network advances the clock too, up to a second at a time. Before each step,
  -- `act(i, wait)` is called, until it returns false.
  local function beats(act)
    local wait, i = clock.wait, 0
    clock.wait = function(transfer, deadline, once)
      if not transfer then return wait(transfer, deadline, once) end
      if real.wait(transfer, core.now() + 0.02) then return true end
      i = i + 1
      local from = clock.now()
      if act(i, wait) == false then
        clock.wait = wait
        return wait(transfer, deadline, once)
      end
      clock.offset = clock.offset + math.max(0, deadline - from)
      return false
    end
  end

  it("happens once, however late the service responds", function()
    helper.faults { operation = "token", action = { delay = 3 } }
    local asked
    beats(function(i)
      assert.is_true(state().lease_until > clock.now() and state().lease_until <= clock.now() + 3)
      if i == 5 then
        asked = true
        local _, err = two:patient("p"):page { timeout = 0.4 }
        assert.equal("token_wait", err.reason)
        return false
      end
    end)
    assert(one:patient("p"):page())
    assert.is_true(asked)
    assert(two:patient("p"):page())
    assert.equal(1, tokens_asked_for())
  end)

  it("is abandoned after 15 seconds, and then another caller refreshes", function()
    helper.faults { operation = "token", action = { delay = 60 } }
    local began, over = clock.now(), false
    beats(function() return not over end)
    local page, err = one:patient("p"):page()
    assert.is_nil(page)
    assert.equal("timeout", err.kind)
    assert.equal("token_wait", err.reason)
    assert.equal(0, err.attempts)
    local passed = clock.now() - began
    assert.is_true(passed >= 15 and passed < 30, passed)
    over, began = true, clock.offset
    assert(two:patient("p"):page())
    assert.equal(began, clock.offset)
    assert.equal(2, tokens_asked_for())
  end)

  it("is left to another caller at once if it failed", function()
    helper.faults { operation = "token", action = { status = 404, body_kind = "empty" } }
    assert.is_nil((one:patient("p"):page()))
    local began = clock.offset
    assert(two:patient("p"):page())
    assert.equal(began, clock.offset)
  end)

  it("does not replace the result of a later refresh if it is late", function()
    helper.faults { operation = "token", action = { delay = 0.3 } }
    local value
    beats(function(_, wait)
      clock.offset = clock.offset + 5 -- the process was stopped
      clock.wait = wait
      assert(two:patient("p"):page())
      value = state().access_token
      return false
    end)
    assert(one:patient("p"):page())
    assert.equal(2, tokens_asked_for())
    assert.equal(value, state().access_token)
    assert.is_nil(state().lease_until)
  end)
end)
