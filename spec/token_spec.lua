-- SPDX-License-Identifier: MIT
-- Tokens: when they are refreshed, by which caller, and the effects of a failed refresh.
local helper = require "helper"
local nymbl = require "nymbl"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local DAY = 86400

describe("a token", function()
  local clock, client, patient, events

  before_each(function()
    helper.reset()
    clock = helper.clock()
    events = {}
  end)

  after_each(function()
    if client then client:close() end
    client, patient = nil, nil
    clock.restore()
    assert.equal(0, helper.object_count())
  end)

  local function begin(options)
    options = options or {}
    options.on_event = options.on_event or function(event) events[#events + 1] = event end
    client = helper.client(options)
    patient = client:patient("p")
  end

  local function life(seconds)
    helper.admin("POST", "settings", { token_life = seconds })
  end

  -- Token requests since the last call of this function, by the sandbox's count.
  local function refreshes()
    local count = #helper.journal("token")
    helper.admin("DELETE", "journal")
    return count
  end

  local function pass(seconds)
    clock.offset = clock.offset + seconds
  end

  local function count_to(n)
    local items = {}
    for i = 1, n do items[i] = i end
    return items
  end

  -- 1000 calls in 100 seconds.
  local function hundred_seconds()
    for _ = 1, 1000 do
      assert(patient:get("a"))
      pass(0.1)
    end
  end

  it("of five seconds is refreshed once in its lifetime, and never used beyond it", function()
    helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
    life(5) -- the sandbox's clock does not follow the simulated one, so the token's age is checked here
    local born, oldest, tokens, refused = nil, 0, 0, 0
    begin { on_event = function(event)
      if event.operation == "token" then
        born, tokens = clock.now() - event.seconds, tokens + 1
      else
        oldest = math.max(oldest, clock.now() - born)
        if event.status ~= 200 then refused = refused + 1 end
      end
    end }
    hundred_seconds()
    assert.is_true(tokens >= 25 and tokens <= 27, tokens) -- every 4 of its 5 seconds
    assert.is_true(oldest > 3.9 and oldest < 4.2, oldest)
    assert.equal(0, refused)
    assert.equal(tokens, refreshes())
  end)

  it("function is called once in the lifetime of its token", function()
    helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
    local asked, good = 0, helper.token()
    begin { token = function()
      asked = asked + 1
      return good, 5
    end }
    hundred_seconds()
    assert.is_true(asked >= 25 and asked <= 27, asked)
  end)

  it("function that returns no lifetime is called for every request", function()
    local asked, good = 0, helper.token()
    begin { token = function()
      asked = asked + 1
      return good
    end }
    for _ = 1, 5 do assert(patient:count()) end
    assert.equal(5, asked)
  end)

  it("is requested once, however many callers wait for it", function()
    begin { timeout = false }
    helper.faults { operation = "token", action = { delay = 0.1 } }
    assert.equal(50, (nymbl.each(count_to(50), { concurrency = 50 }, function() return patient:count() end)))
    assert.equal(1, refreshes())
  end)

  it("is refreshed by one caller, while the others use the old one", function()
    life(100)
    clock.restore() -- in real time, except for the store's
    local shared, step = store.memory(), 0
    function shared.now() return wait.now() + step end
    begin { store = shared }
    assert(patient:count())
    assert.equal(1, refreshes())
    assert(patient:count())
    step = 85
    helper.faults { operation = "token", action = { delay = 0.2 } }
    local old = helper.header(helper.journal("list")[1], "authorization")
    assert.equal(9, (nymbl.each(count_to(9), { concurrency = 9 }, function() return patient:count() end)))
    local with_old = 0
    for _, entry in ipairs(helper.journal "list") do
      if helper.header(entry, "authorization") == old then with_old = with_old + 1 end
    end
    assert.same({ 10, 9 }, { #helper.journal "list", with_old }) -- with the first request, which got the old one
    assert.equal(1, refreshes())
  end)

  it("that expired early is refreshed once and the call repeated once, for all", function()
    begin { max_attempts = 5, timeout = false }
    assert(patient:count())
    helper.admin("POST", "settings", { expire_tokens = true })
    helper.admin("DELETE", "journal")
    assert.equal(8, (nymbl.each(count_to(8), nil, function() return patient:count() end)))
    assert.is_true(#helper.journal("list") <= 16)
    assert.equal(1, refreshes())
    helper.faults { operation = "list", times = -1, action = { status = 401, body_kind = "gateway" } }
    local count, err = patient:count()
    assert.is_nil(count)
    assert.equal("unauthorized", err.kind)
    assert.equal(2, err.attempts)
    assert.equal(2, #helper.journal("list"))
    assert.equal(1, refreshes())
  end)

  it("that cannot be refreshed is used until it expires, with few failed requests", function()
    life(100)
    begin { timeout = false }
    assert(patient:count())
    refreshes()
    helper.faults { operation = "token", times = -1, action = { status = 500, body_kind = "empty" } }
    pass(81)
    for _ = 1, 18 do
      assert(patient:count())
      pass(1)
    end
    local asked = refreshes()
    assert.is_true(asked >= 3 and asked <= 4, asked) -- every 5 seconds
    pass(2)
    local count, err = patient:count()
    assert.is_nil(count)
    assert.equal("server", err.kind)
    assert.equal(0, err.attempts)
  end)

  it("that cannot be refreshed in time is used, within the call's own timeout", function()
    life(100)
    begin { timeout = 1 }
    assert(patient:count())
    pass(85)
    helper.faults { operation = "token", action = { delay = 3 } }
    local began = wait.now()
    assert(patient:count())
    assert.is_true(wait.now() - began < 1)
  end)

  it("request is retried like other calls if there is no token yet", function()
    begin { max_attempts = 3 }
    for _, action in ipairs { { status = 503, body_kind = "empty" }, { before = "reset" }, { after = "close" },
                              { status = 429, body_kind = "gateway", headers = { { "Retry-After", "20" } } } } do
      helper.faults { operation = "token", times = 2, action = action }
      client:close()
      begin { max_attempts = 3 }
      refreshes()
      assert(patient:count())
      assert.equal(3, refreshes())
    end
    helper.faults { operation = "token", times = -1, action = { status = 503, body_kind = "empty" } }
    client:close()
    begin { max_attempts = 3 }
    local count, err = patient:count()
    assert.is_nil(count)
    assert.equal("server", err.kind)
    assert.equal(0, err.attempts)
    assert.equal(3, refreshes())
    helper.faults { operation = "token", times = -1, action = { status = 400, body_kind = "token" } }
    count, err = patient:count()
    assert.is_nil(count)
    assert.equal("unauthorized", err.kind)
    assert.equal(1, refreshes())
  end)

  describe("that may expire during an upload", function()
    before_each(function()
      life(300)
      -- the server does not read the body: only the requests before it matter here
      helper.faults { operation = "upload", times = -1, action = { early_status = 403, drain = true } }
      begin()
      assert(patient:count())
      refreshes()
    end)

    local function chunks(size)
      local left = size
      return function()
        if left <= 0 then return nil end
        left = left - 50000
        return left == size - 50000 and "%PDF-" .. ("x"):rep(49995) or ("x"):rep(50000)
      end
    end

    -- Source, remaining seconds with which the token is refreshed, and with which it is not: the bytes at
    -- 1 Mbit/s, and at least 120 for a source that can be read once.
    local rows = {
      { "a small path",               function() return helper.big_file(1000) end,         59, 61 },
      { "12.5 MB of a path",          function() return helper.big_file(12500000) end,     99, 101 },
      { "25 MB of a path",            function() return helper.big_file(25000000) end,     149, 151 },
      { "a small LTN12 source",       function() return chunks(50000), 50000 end,          119, 121 },
      { "an LTN12 source of no size", function() return chunks(50000) end,                 119, 121 },
      { "a document",                 function()
        local made = helper.add_document { patient = "p", size = 1000, content_type = "application/pdf", file_name = "a" }
        return patient:document(made.id)
      end,                                                                                 119, 121 },
      { "a handle of 12.5 MB",        function() return io.open(helper.big_file(12500000)) end, 99, 101 },
    }
    for _, row in ipairs(rows) do
      local name, open, less, more = row[1], row[2], row[3], row[4]
      it("is refreshed before it: " .. name, function()
        for _, left in ipairs { more, less } do
          local what, size = open()
          pass(300 - left)
          local result, err = patient:upload(what, { file_name = "a.pdf", size = size })
          assert.is_nil(result)
          assert.equal(403, err.status)
          assert.equal(left == less and 1 or 0, refreshes(), left .. " s left")
          if io.type(what) then what:close() end
          clock.offset = clock.offset - (300 - left)
        end
      end)
    end
  end)

  it("with a short lifetime is not refreshed for every upload", function()
    life(10)
    begin()
    for i = 1, 20 do
      local chunk = "%PDF-1.4"
      assert(patient:upload(function()
        local given = chunk
        chunk = nil
        return given
      end, { file_name = i .. ".pdf" }))
      pass(0.2)
    end
    assert.equal(1, refreshes())
  end)

  it("that is static, or from a function, never enters a shared store", function()
    local good = helper.token()
    local shared = store.memory()
    for _, value in ipairs { good, function() return good, 100 end } do
      begin { store = shared, token = value }
      assert(patient:count())
      client:close()
    end
    local function look(value)
      if type(value) == "table" then
        for key, item in pairs(value) do
          look(key)
          look(item)
        end
      elseif type(value) == "string" then
        assert.is_nil(value:find(good, 1, true))
      end
    end
    look(shared)
  end)

  it("is not waited for once the client is closed", function()
    begin { timeout = false }
    helper.faults { operation = "token", action = { delay = 5 } }
    local errs = {}
    clock.restore() -- in real time
    local began = wait.now()
    nymbl.each({ 1, 2, 3 }, nil, function(i)
      if i == 3 then
        wait.wait(nil, wait.now() + 0.1)
        return client:close()
      end
      local count, err = patient:count()
      errs[i] = err
      return count
    end)
    for i = 1, 2 do
      assert.equal("canceled", errs[i].kind)
      assert.equal("closed", errs[i].reason)
      assert.equal(0, errs[i].attempts)
    end
    assert.is_true(wait.now() - began < 2)
  end)

  it("is not requested again later once the client is closed", function()
    begin { timeout = false, max_attempts = 3 }
    helper.faults { operation = "token", action = { status = 503, headers = { { "Retry-After", "100" } } } }
    local err
    nymbl.each({ 1, 2 }, nil, function(i)
      if i == 1 then
        err = select(2, patient:count())
        return true
      end
      while #helper.journal("token") == 0 do wait.wait(nil, wait.now() + 0.1) end
      return client:close()
    end)
    assert.equal("closed", err.reason)
    assert.is_true(clock.offset < 10)
    assert.equal(1, #helper.journal("token"))
  end)

  describe("with a clock that is set", function()
    local shared, step

    before_each(function()
      shared, step = store.memory(), 0
      function shared.now() return wait.now() + step end
      begin { store = shared, timeout = false }
      assert(patient:count())
      refreshes()
    end)

    it("is refreshed", function()
      for _, by in ipairs { DAY, -DAY, -3600 } do
        step = step + by
        assert(patient:count())
        assert.equal(1, refreshes())
      end
    end)

    -- A caller took the lease to refresh it, and was killed.
    local function orphan(lease_until)
      for _, state in pairs(shared.states) do
        if type(state) == "table" and state.access_token then
          state.access_token, state.lease_until = nil, lease_until
        end
      end
    end

    it("is refreshed by the next caller after 3 seconds at most", function()
      orphan(shared.now() + 3)
      local before = clock.offset
      assert(patient:count())
      assert.is_true(clock.offset - before > 2 and clock.offset - before < 4)
      orphan(shared.now() + 3)
      step = step - DAY
      before = clock.offset
      assert(patient:count())
      assert.equal(before, clock.offset)
      assert.equal(2, refreshes())
    end)
  end)

  describe("request", function()
    it("is reported to on_event, with nothing that identifies", function()
      begin { max_attempts = 3 }
      helper.faults { operation = "token", action = { status = 503, body_kind = "empty" } }
      assert(patient:count())
      assert.equal(3, #events)
      local words = { operation = true, status = true, kind = true, attempt = true, waited = true, seconds = true,
                      bytes_sent = true, bytes_received = true, request_id = true }
      for _, event in ipairs(events) do
        for key in pairs(event) do assert.is_true(words[key], key) end
        assert.is_true(event.seconds > 0 and event.waited >= 0)
        assert.is_true(event.bytes_received >= 0)
      end
      assert.same({ "token", 503, "server", 1 }, { events[1].operation, events[1].status, events[1].kind,
                                                   events[1].attempt })
      assert.same({ "token", 200, 2 }, { events[2].operation, events[2].status, events[2].attempt })
      assert.is_nil(events[2].kind)
      assert.is_true(events[2].waited > 0)
      assert.is_true(events[2].bytes_sent == 0 and events[2].bytes_received > 100) -- of documents, and of responses
      assert.same({ "list", 200, 1 }, { events[3].operation, events[3].status, events[3].attempt })
    end)

    it("passes on errors that on_event raises, and blocks no other caller", function()
      local raised = 0
      begin { on_event = function(event)
        if event.operation == "token" and raised == 0 then
          raised = raised + 1
          error("mine", 0)
        end
      end }
      local ok, problem = pcall(patient.count, patient)
      assert.is_false(ok)
      assert.equal("mine", problem)
      local before = clock.offset
      assert(patient:count())
      assert.equal(before, clock.offset)
    end)
  end)
end)
