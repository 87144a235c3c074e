-- SPDX-License-Identifier: MIT
-- client:close() deletes its token, unless another open client of this process has the same credentials.
local helper = require "helper"
local nymbl = require "nymbl"
local store = require "nymbl.store"

-- Whether a store of this process contains a token under any key.
local function has_token(token_store)
  for _, state in pairs(token_store.states) do
    if state.access_token ~= nil then return true end
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

describe("the token of a closed client", function()
  local shared

  before_each(function()
    helper.reset()
    shared = store.memory()
  end)

  it("is deleted", function()
    local client = use(helper.client { store = shared })
    assert.is_true(has_token(shared))
    client:close()
    client:close()
    assert.is_false(has_token(shared))
    use(helper.client { store = shared }):close()
    assert.equal(2, tokens_asked())
  end)

  it("is deleted from the process's own store, too", function()
    local options = helper.options()
    options.store = nil
    use(assert(nymbl.client(options))):close()
    assert.is_false(has_token(store.default))
  end)

  it("is kept while another client has the same credentials and store", function()
    local first, second = helper.client { store = shared }, helper.client { store = shared }
    use(first):close()
    assert.is_true(has_token(shared))
    use(second)
    assert.equal(1, tokens_asked())
    second:close()
    assert.is_false(has_token(shared))
  end)

  it("is not kept for a client with another secret, scope, store or token", function()
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
    assert.is_false(has_token(shared))
    for _, client in ipairs(others) do client:close() end
  end)

  it("is not kept for a client that is garbage", function()
    use(helper.client { store = shared })
    helper.object_count() -- collects garbage
    assert.is_true(has_token(shared)) -- the collected client was not closed, so the next client uses its token
    local client = use(helper.client { store = shared })
    assert.equal(1, tokens_asked())
    client:close()
    assert.is_false(has_token(shared))
  end)

  it("is deleted, but the account's rate limits are kept, which are not secret", function()
    local client = use(helper.client { store = shared, monthly_quota = 1000 })
    client:close()
    client = helper.client { store = shared, monthly_quota = 1000 }
    assert.equal(1, client:usage().requests)
    client:close()
  end)

  it("is not stored again by a refresh in progress", function()
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
    assert.is_false(has_token(shared))
  end)

  it("is kept in a file that processes share", function()
    local path = helper.temporary ".store"
    use(helper.client { store = nymbl.store.file(path, { token = true }) }):close()
    use(helper.client { store = nymbl.store.file(path, { token = true }) }):close()
    assert.equal(1, tokens_asked())
    -- by default the token is stored in the process
    use(helper.client { store = nymbl.store.file(path) }):close()
    assert.is_false(has_token(store.default))
  end)

  it("leaves no object behind", function()
    local before = helper.object_count()
    for _ = 1, 20 do use(helper.client { store = shared }):close() end
    assert.equal(before, helper.object_count())
  end)
end)
