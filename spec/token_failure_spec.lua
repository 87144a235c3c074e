-- SPDX-License-Identifier: MIT
-- Token requests that fail: how they affect the callers that need a token.
local core = require "nymbl.core"
local dictionary = require "dictionary"
local helper = require "helper"
local nymbl = require "nymbl"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

describe("callers that need a token share a failure:", function()
  local clock, clients

  before_each(function()
    helper.reset()
    clock = helper.clock()
    clients = {}
  end)

  after_each(function()
    for _, client in ipairs(clients) do client:close() end
    clients = nil
    clock.restore()
    package.loaded.ngx = nil
    assert.equal(0, helper.object_count())
  end)

  local function begin(options)
    options.timeout = options.timeout or false
    local client = helper.client(options)
    clients[#clients + 1] = client
    return client, client:patient("p")
  end

  local function token_requests()
    local count = #helper.journal("token")
    helper.admin("DELETE", "journal")
    return count
  end

  -- The same call for several patients at once. Returns the result of each, by its number: `page`
  -- or `err`, and `ended`, by the test's clock.
  local function together(patients, options)
    local results, items = {}, {}
    for i = 1, #patients do items[i] = i end
    nymbl.each(items, { concurrency = #items }, function(i)
      local began = clock.now()
      local page, err = patients[i]:page(options and options[i] or nil)
      results[i] = { page = page, err = err, ended = clock.now() - began }
      return true
    end)
    return results
  end

  local function times(count, value)
    local list = {}
    for i = 1, count do list[i] = value end
    return list
  end

  -- The store options of two clients. Those with files and dictionaries represent two processes.
  local stores = {
    memory = function()
      local shared = store.memory()
      return shared, shared
    end,
    file = function()
      local path = helper.temporary()
      return store.file(path, { token = true }), store.file(path, { token = true })
    end,
    shdict = function()
      dictionary.pretend_nginx { nymbl = dictionary.new() }
      return store.shdict("nymbl"), store.shdict("nymbl")
    end,
  }

  -- A failure, its kind and status, and the number of requests with max_attempts = 5.
  local failures = {
    { "503", { status = 503, body_kind = "empty" }, "server", 503, 5 },
    { "a reset", { before = "reset" }, "network", nil, 5 },
    { "429", { status = 429, body_kind = "empty" }, "throttled", 429, 5 },
    { "404", { status = 404, body_kind = "empty" }, "not_found", 404, 1 },
    { "403", { status = 403, body_kind = "empty" }, "forbidden", 403, 1 },
    { "400", { status = 400, body_kind = "token" }, "unauthorized", 400, 1 },
    { "HTML", { status = 200, content_type = "text/html", body = "<html>sign in</html>" }, "protocol", 200, 1 },
    { "a redirect", { redirect = { status = 302, location = "/" } }, "redirect", 302, 1 },
  }

  for _, kind in ipairs { "memory", "file", "shdict" } do
    for _, case in ipairs(failures) do
      it(case[1] .. ", with the state in a store of kind " .. kind, function()
        local first, second = stores[kind]()
        local _, one = begin { store = first, max_attempts = 5 }
        local _, two = begin { store = second, max_attempts = 5 }
        helper.faults { operation = "token", times = -1, action = case[2] }
        local results = together { one, two, one, two, one, two, one, two }
        assert.equal(8, #results)
        for i, result in ipairs(results) do
          local err = result.err
          assert.is_nil(result.page)
          assert.equal(case[3], err.kind, i)
          assert.equal(case[4], err.status)
          assert.equal(results[1].err.reason, err.reason)
          assert.equal(0, err.attempts)
          assert.is_true(math.abs(result.ended - results[1].ended) < 1.2, result.ended)
          assert.is_true(#tostring(err) > 0)
        end
        assert.equal(case[5], token_requests())
        assert.equal(0, #helper.journal("list"))
      end)
    end

    it("a hanging endpoint costs each of them one timeout: " .. kind, function()
      local first, second = stores[kind]()
      local _, one = begin { store = first, max_attempts = 5 }
      local _, two = begin { store = second, max_attempts = 5 }
      helper.faults { operation = "token", times = -1, action = { delay = 60 } }
      for _, result in ipairs(together { one, two, one, two, one, two, one, two }) do
        assert.equal("timeout", result.err.kind)
        assert.equal("token_wait", result.err.reason)
        assert.is_true(result.ended >= 14 and result.ended < 20, result.ended)
      end
      assert.equal(1, token_requests())
    end)
  end

  it("a later caller tries again, unless the credentials were rejected", function()
    local _, patient = begin { max_attempts = 1 }
    for _, case in ipairs(failures) do
      if case[3] ~= "unauthorized" then
        helper.faults { operation = "token", action = case[2] }
        assert.equal(case[3], select(2, patient:page()).kind)
        assert.equal(1, token_requests())
      end
    end
    local before = clock.offset
    assert(patient:page())
    assert.equal(before, clock.offset)
  end)

  it("rejected credentials are remembered for some seconds by all clients that use them", function()
    for _, status in ipairs { 400, 401 } do
      local shared = store.memory()
      local _, one = begin { store = shared }
      local _, two = begin { store = shared }
      local given = helper.options().credentials
      given.scope = nil
      local _, other = begin { store = shared, credentials = given }
      helper.faults { operation = "token", action = { status = status, body_kind = "token" } }
      for _ = 1, 3 do
        for _, patient in ipairs { one, two } do
          local page, err = patient:page()
          assert.is_nil(page)
          assert.equal("unauthorized", err.kind)
          assert.equal(status, err.status)
          assert.equal(0, err.attempts)
          clock.offset = clock.offset + 0.8
        end
      end
      assert.equal(1, token_requests())
      assert(other:page()) -- other credentials
      assert.equal(1, token_requests())
      clock.offset = clock.offset + 0.5
      assert(two:page())
      assert.equal(1, token_requests())
      assert(one:page())
    end
  end)

  it("rejected credentials are remembered no longer, whatever the clock says", function()
    local shared, step = store.memory(), 0
    function shared.now() return wait.now() + step end
    local _, patient = begin { store = shared }
    for _, by in ipairs { 86400, -86400, -3600 } do
      helper.faults { operation = "token", action = { status = 400, body_kind = "token" } }
      assert.is_nil((patient:page()))
      step = step + by
      assert(patient:page())
      token_requests()
      helper.admin("POST", "settings", { expire_tokens = true })
      clock.offset = clock.offset + 301
    end
  end)

  it("an old token serves all until it expires", function()
    for _, case in ipairs(failures) do
      helper.admin("DELETE", "faults")
      local _, patient = begin { max_attempts = 5 }
      assert(patient:page())
      token_requests()
      clock.offset = clock.offset + 245
      helper.faults { operation = "token", times = -1, action = case[2] }
      for _, result in ipairs(together(times(8, patient))) do assert(result.page, result.err) end
      assert.equal(1, token_requests())
    end
  end)

  it("a caller's own timeout ends its wait on time", function()
    for _, action in ipairs { { delay = 60 },
                              { status = 503, body_kind = "empty", headers = { { "Retry-After", "10" } } } } do
      helper.admin("DELETE", "faults")
      local _, patient = begin { max_attempts = 5 }
      helper.faults { operation = "token", times = -1, action = action }
      local options = {}
      for i = 1, 8 do options[i] = { timeout = i <= 4 and 17 or i } end
      for i, result in ipairs(together(times(8, patient), options)) do
        assert.is_nil(result.page)
        if i > 4 then
          assert.equal("timeout", result.err.kind)
          assert.is_true(result.ended >= i - 0.1 and result.ended < i + 1, i .. ": " .. result.ended)
        end
      end
    end
  end)

  it("except the timeout of a caller whose own time was too short", function()
    local _, patient = begin { max_attempts = 5 }
    helper.faults { operation = "token", action = { delay = 5 } }
    local results = together(times(4, patient), { { timeout = 0.3 } })
    assert.equal("timeout", results[1].err.kind)
    for i = 2, 4 do assert(results[i].page, results[i].err) end
    assert.equal(2, token_requests())
    -- nor do the others start waiting anew
    helper.faults { operation = "token", times = -1, action = { delay = 60 } }
    local _, other = begin { max_attempts = 5 }
    results = together(times(4, other), { { timeout = 9 } })
    for i = 2, 4 do
      assert.equal("token_wait", results[i].err.reason)
      assert.is_true(results[i].ended < 20, results[i].ended)
    end
    assert.equal(2, token_requests())
  end)

  it("except the failure of a caller whose client was closed", function()
    local shared = store.memory()
    local client, one = begin { store = shared }
    local _, two = begin { store = shared }
    helper.faults { operation = "token", action = { delay = 5 } }
    local results = {}
    nymbl.each({ one, two, client }, { concurrency = 3 }, function(item)
      if item == client then
        wait.wait(nil, wait.now() + 0.5)
        return client:close()
      end
      if item == two then wait.wait(nil, wait.now() + 0.1) end
      results[item == one and 1 or 2] = { item:page() }
      return true
    end)
    assert.equal("canceled", results[1][2].kind)
    assert.is_truthy(results[2][1])
  end)

  it("nothing of the server's text is stored", function()
    local path = helper.temporary()
    local _, one = begin { store = store.file(path, { token = true }) }
    helper.faults { operation = "token", action = { status = 400, headers = { { "Retry-After", "7" }, { "x-a", "SENTINEL" } },
      body = '{"error":"SENTINEL","error_description":"SENTINEL","message":"SENTINEL"}' } }
    local _, err = one:page()
    assert.equal("SENTINEL", err.detail)
    local text, sandbox = helper.read_file(path), helper.sandbox()
    assert.is_truthy(text:find("unauthorized", 1, true))
    for _, secret in ipairs { "SENTINEL", sandbox.client_id, sandbox.client_secret, sandbox.scope, sandbox.token_url } do
      assert.is_nil(text:find(secret, 1, true))
    end
    clock.offset = clock.offset + 2
    local _, two = begin { store = store.file(path, { token = true }) }
    _, err = two:page()
    assert.same({ "unauthorized", 400, 5 }, { err.kind, err.status, math.floor(err.retry_after + 0.5) })
    assert.is_nil(err.code or err.detail)
    assert.equal(1, token_requests())
  end)

  it("a malformed stored state", function()
    local shared = store.memory()
    local client, patient = begin { store = shared }
    local key = core.account(client, "token")
    for _, text in ipairs { "x", "a b c d", "", "unauthorized - x y", "server - - -" } do
      shared.states[key] = { failure = text, failed_at = clock.now(), failed_until = clock.now() + 5 }
      local page, err = patient:page()
      assert.is_nil(page)
      assert.equal("table", type(err))
      assert.is_true(#tostring(err) > 0)
    end
    shared.states[key] = { failure = "server - - -", failed_at = clock.now() + 1, failed_until = clock.now() + 1000 }
    assert(patient:page())
  end)

  describe("a token function", function()
    local asked

    local function failing(act)
      asked = 0
      local _, patient = begin { max_attempts = 5, token = function()
        asked = asked + 1
        wait.wait(nil, wait.now() + 2)
        return act()
      end }
      return patient
    end

    it("that returns nothing or an invalid value is called once for all waiting callers", function()
      for _, act in ipairs { function() return nil, "why" end, function() return "no token", 5 end } do
        local results = together(times(8, failing(act)))
        for _, result in ipairs(results) do
          assert.equal("unauthorized", result.err.kind)
          assert.equal("token_function", result.err.reason)
          assert.is_true(result.ended < 2.5, result.ended)
        end
        assert.equal(1, asked)
      end
    end)

    it("that raises does so for one caller, and fails for all waiting callers", function()
      local patient, raised, kinds = failing(function() error({ "mine" }) end), 0, {}
      local items = { 1, 2, 3, 4, 5, 6, 7, 8 }
      local count, failed = nymbl.each(items, nil, function()
        local page, err = patient:page()
        kinds[#kinds + 1] = err.kind .. " " .. err.reason
        return page
      end)
      assert.equal(0, count)
      for _, entry in ipairs(failed) do
        if type(entry.err) == "table" and entry.err[1] == "mine" then raised = raised + 1 end
      end
      assert.equal(1, raised)
      assert.same(times(7, "unauthorized token_function"), kinds)
      assert.equal(1, asked)
    end)

    it("is called again for the next caller, and shares nothing with another client", function()
      local good, bad = helper.token(), true
      local patient = failing(function()
        if bad then return nil, "why" end
        return good, 100
      end)
      local _, other = begin { token = function() return good, 100 end }
      local results = together { patient, other, patient, other }
      assert.is_nil(results[1].page or results[3].page)
      assert(results[2].page and results[4].page)
      bad = false
      assert(patient:page())
      assert.equal(2, asked)
    end)
  end)
end)
