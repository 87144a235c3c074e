-- SPDX-License-Identifier: MIT
-- client:close() takes the token with it, unless another open client here has the same credentials.
local helper = require "helper"
local nymbl = require "nymbl"
local store = require "nymbl.store"

-- Whether a token is kept under any key of a store of this process.
local function keeps(token_store)
  for _, state in pairs(token_store) do
    if type(state) == "table" and state.access_token ~= nil then return true end
  end
  return false
end

local function tokens_asked()
  return #helper.journal "token"
end

local function use(client)
  assert(client:patient("p"):count())
  return client
end

describe("the token of a client that is closed", function()
  local shared

  before_each(function()
    helper.reset()
    shared = store.memory()
  end)

  it("is forgotten", function()
    local client = use(helper.client { store = shared })
    assert.is_true(keeps(shared))
    client:close()
    client:close()
    assert.is_false(keeps(shared))
    use(helper.client { store = shared }):close()
    assert.equal(2, tokens_asked())
  end)

  it("is forgotten in the process's own store, too", function()
    local options = helper.options()
    options.store = nil
    use(assert(nymbl.client(options))):close()
    assert.is_false(keeps(store.default))
  end)

  it("stays while another client has the same credentials and store", function()
    local first, second = helper.client { store = shared }, helper.client { store = shared }
    use(first):close()
    assert.is_true(keeps(shared))
    use(second)
    assert.equal(1, tokens_asked())
    second:close()
    assert.is_false(keeps(shared))
  end)

  it("does not stay for one with another secret, scope, store or token", function()
    local options = helper.options()
    local other = {}
    for name, value in pairs(options.credentials) do other[name] = value end
    other.scope = other.scope .. "/more"
    local others = {
      helper.client { store = shared, credentials = other }, helper.client { store = store.memory() },
      helper.client { store = shared, token = "given" },
      helper.client { store = shared, token = function() return "asked", 60 end },
    }
    use(helper.client { store = shared }):close()
    assert.is_false(keeps(shared))
    for _, client in ipairs(others) do client:close() end
  end)

  it("does not stay for one that is garbage", function()
    use(helper.client { store = shared })
    helper.live_objects() -- collects
    assert.is_true(keeps(shared)) -- nobody has closed it: the next client goes on with it
    local client = use(helper.client { store = shared })
    assert.equal(1, tokens_asked())
    client:close()
    assert.is_false(keeps(shared))
  end)

  it("stays with the limits of the account: these are no secret", function()
    local client = use(helper.client { store = shared, monthly_quota = 1000 })
    client:close()
    client = helper.client { store = shared, monthly_quota = 1000 }
    assert.equal(1, client:usage().requests)
    client:close()
  end)

  it("is not put back by a renewal that was under way", function()
    helper.faults { operation = "token", action = { delay = 300 } }
    local client = helper.client { store = shared }
    local err
    nymbl.each({ 1, 2 }, nil, function(i)
      if i == 1 then
        err = select(2, client:patient("p"):count())
      else
        local wait = require "nymbl.wait"
        wait.wait(nil, wait.now() + 0.1)
        client:close()
      end
      return true
    end)
    assert.equal("canceled", err.kind)
    assert.is_false(keeps(shared))
  end)

  it("stays in a file that processes share", function()
    local path = helper.temporary ".store"
    use(helper.client { store = nymbl.store.file(path, { token = true }) }):close()
    use(helper.client { store = nymbl.store.file(path, { token = true }) }):close()
    assert.equal(1, tokens_asked())
    -- without the option it is in the process
    use(helper.client { store = nymbl.store.file(path) }):close()
    assert.is_false(keeps(store.default))
  end)

  it("leaves no object behind", function()
    local before = helper.live_objects()
    for _ = 1, 20 do use(helper.client { store = shared }):close() end
    assert.equal(before, helper.live_objects())
  end)
end)
