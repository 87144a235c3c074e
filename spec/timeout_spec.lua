-- SPDX-License-Identifier: MIT
-- The timeouts, each alone, on each call.
local helper = require "helper"

local PATIENT = "12345"

local client, patient, document

local function use(given)
  if client then client:close() end
  local options = { rate = false, monthly_quota = false, max_attempts = 1, timeout = false }
  for name, value in pairs(given or {}) do options[name] = value end
  options = helper.options(options)
  options.timeout = options.timeout or nil
  client = assert(require("nymbl").client(options))
  patient = client:patient(PATIENT)
  document = patient:document("d")
end

local function document_add()
  helper.admin("POST", "documents", { patient = PATIENT, id = "d", size = 400000, content_type = "application/pdf" })
end

local function setup()
  helper.reset()
  document_add()
  use()
end

local function teardown()
  client:close()
  client, patient, document = nil, nil, nil
  assert.equal(0, helper.object_count())
end

local PDF = "%PDF-1.4 a short one"

-- Name, operation, the call with options; `changes`: the call changes data.
local CALLS = {
  { "patient:upload()", "upload", function(options)
    options.file_name = "a.pdf"
    return patient:upload({ data = PDF }, options)
  end, changes = true },
  { "patient:get()", "get", function(options) return patient:get("d", options) end },
  { "document:refresh()", "get", function(options) return document:refresh(options) end },
  { "patient:page()", "list", function(options) return patient:page(options) end },
  { "patient:documents()", "list", function(options)
    local count = 0
    local ok, err = pcall(function()
      for _ in patient:documents(options) do count = count + 1 end
    end)
    if ok then return count end
    return nil, err
  end },
  { "patient:count()", "list", function(options) return patient:count(nil, options) end },
  { "document:download(path)", "download", function(options)
    local path = helper.temporary()
    local size, err = document:download(path, options)
    if size then os.remove(path) end
    assert.is_nil((io.open(path, "rb")))
    return size, err
  end },
  { "document:download(sink)", "download", function(options) return document:download(function() return 1 end,
    options) end },
  { "document:open()", "download", function(options)
    local stream, err = document:open(options)
    if not stream then return nil, err end
    local all
    all, err = stream:read("a")
    stream:close()
    return all, err
  end },
  { "document:delete()", "delete", function(options) return document:delete(options) end, changes = true },
}

local function timed_out(call, options, reason, attempts)
  local result, err = call[3](options or {})
  local label = call[1] .. ": " .. tostring(err)
  assert.is_nil(result, label)
  assert.equal("timeout", err.kind, label)
  assert.equal(reason, err.reason, label)
  assert.equal(attempts, err.attempts, label)
  assert.equal(attempts > 0 and call.changes or nil, err.outcome_unknown, label)
end

describe("the option connect_timeout #time", function()
  before_each(setup)
  after_each(teardown)

  for _, kind in ipairs { "silent", "full" } do
    it("ends every call that gets no connection, before an attempt: " .. kind, function()
      local url, stop = helper.unresponsive_server(kind)
      for _, call in ipairs(CALLS) do
        use { connect_timeout = 0.15, base_url = url, token = "secret" }
        timed_out(call, nil, "connect", 0)
      end
      for _, call in ipairs { CALLS[1], CALLS[2], CALLS[5], CALLS[9], CALLS[10] } do
        use { connect_timeout = 0.15, credentials = { token_url = url .. "/token", client_id = "a",
          client_secret = "b" } }
        timed_out(call, nil, "connect", 0)
      end
      stop()
    end)
  end

  it("does not apply to an existing connection", function()
    use { connect_timeout = 0.2 }
    assert(patient:count())
    helper.faults { operation = "get", action = { delay = 0.5 } }
    assert(patient:get("d"))
  end)
end)

describe("the option stall_timeout #time", function()
  before_each(function()
    setup()
    use { stall_timeout = 0.25 }
  end)
  after_each(teardown)

  for _, call in ipairs(CALLS) do
    if call[2] ~= "upload" then
      it("ends " .. call[1] .. " if no bytes are transferred", function()
        local actions = { { delay = 3 } }
        if call[2] ~= "delete" then actions[2] = { stall = 5 } end
        for _, action in ipairs(actions) do
          helper.faults { operation = call[2], action = action }
          timed_out(call, nil, "stall", 1)
          if call[2] == "delete" then document_add() end
          assert(patient:get("d")) -- the next call is not affected
        end
      end)
    end

    it("ends " .. call[1] .. " if no token arrives, before an attempt", function()
      helper.faults { operation = "token", action = { stall = call[2] == "get" and 0 or 5 } }
      timed_out(call, nil, "stall", 0)
    end)

    it("does not end " .. call[1] .. " while bytes are transferred", function()
      local action = { head_drip = 2000 }
      helper.faults { operation = call[2], action = action }
      assert(call[3] {})
    end)
  end

  it("ends a stalled upload, which is known to be incomplete", function()
    for _, source in ipairs { helper.big_file(20000000), { data = "%PDF-" .. ("x"):rep(19999995) } } do
      helper.faults { operation = "upload", action = { during = { bytes = 100, how = "stall" } } }
      local result, err = patient:upload(source, { file_name = "a.pdf" })
      assert.is_nil(result)
      assert.equal("timeout", err.kind)
      assert.equal("stall", err.reason)
      assert.equal(1, err.attempts)
      assert.is_nil(err.outcome_unknown) -- its last block was never sent
    end
    assert.equal(1, #helper.stored(PATIENT))
  end)

  it("gives the service more time for its response to an upload", function()
    helper.faults { operation = "upload", action = { delay = 1 } }
    assert(patient:upload({ data = PDF }, { file_name = "a.pdf" }))
    helper.faults { operation = "upload", action = { delay_effect = 1 } }
    assert(patient:upload(helper.path("spec/fixtures/photo.jpg")))
  end)

  it("does not include time spent in the script", function()
    local function sleep() os.execute("sleep 0.35") end
    local stream = assert(document:open())
    assert.equal(10, #stream:read(10))
    sleep()
    assert.equal(200000, #stream:read(200000))
    sleep()
    assert.equal(199990, #stream:read("a"))
    stream:close()
    local calls = 0
    local function twice()
      calls = calls + 1
      if calls % 10 == 2 then sleep() end
      return 1
    end
    assert.equal(400000, (assert(document:download(twice))))
    assert.equal(400000, (assert(document:download(helper.temporary(), { progress = twice }))))
    local left = 5
    assert(patient:upload(function()
      left = left - 1
      sleep()
      if left >= 0 then return "%PDF-1.4" .. ("x"):rep(300000) end
    end, { file_name = "a.pdf" }))
    assert(patient:upload(helper.big_file(5000000), { progress = twice }))
    for _ in patient:documents { page_size = 1 } do sleep() end
  end)
end)

describe("the option timeout #time", function()
  before_each(setup)
  after_each(teardown)

  for _, call in ipairs(CALLS) do
    it("of the client ends " .. call[1], function()
      use { timeout = 0.2 }
      assert(patient:count(nil, { timeout = 20 }))
      helper.faults { operation = call[2], action = { delay = 3 } }
      timed_out(call, nil, "deadline", 1)
    end)

    it("of the call ends " .. call[1] .. ", and does not apply to other calls", function()
      use { timeout = 20 }
      assert(patient:count()) -- to get a token and a connection
      helper.faults { operation = call[2], action = { delay = 3 } }
      timed_out(call, { timeout = 0.15 }, "deadline", 1)
      if call[2] == "delete" then document_add() end
      assert(call[3] {})
    end)

    it("of the call overrides the client's in " .. call[1], function()
      use { timeout = 0.1 }
      helper.faults { operation = call[2], action = { delay = 0.25 } }
      assert(call[3] { timeout = 20 })
    end)

    it("ends " .. call[1] .. " if no token arrives, before an attempt", function()
      helper.faults { operation = "token", action = { delay = 3 } }
      timed_out(call, { timeout = 0.15 }, "deadline", 0)
    end)
  end

  it("ends every call if no connection is available, before an attempt", function()
    local url, stop = helper.unresponsive_server "silent"
    use { base_url = url, token = "secret" }
    for _, call in ipairs(CALLS) do timed_out(call, { timeout = 0.15 }, "deadline", 0) end
    stop()
  end)

  it("applies to each page of an iterator", function()
    for _ = 1, 3 do helper.admin("POST", "documents", { patient = PATIENT, content = PDF }) end
    helper.faults { operation = "list", action = { delay = 0.6 }, times = 4 }
    local count = 0
    for _ in patient:documents { page_size = 1, timeout = 2 } do count = count + 1 end
    assert.equal(4, count)
    helper.faults { operation = "list", action = { delay = 3 }, skip = 2 }
    count = 0
    local ok, err = pcall(function()
      for _ in patient:documents { page_size = 1, timeout = 1 } do count = count + 1 end
    end)
    assert.is_false(ok)
    assert.equal("timeout", err.kind)
    assert.is_true(count >= 1 and count <= 2)
  end)

  it("of open applies until the response begins", function()
    helper.faults { operation = "download", action = { drip = 2000000 } }
    local stream = assert(document:open { timeout = 2 })
    os.execute("sleep 2.2")
    assert.equal(400000, #assert(stream:read("a")))
    stream:close()
  end)

  it("ends an upload within its body, which is known to be incomplete", function()
    helper.faults { operation = "upload", action = { during = { bytes = 100, how = "stall" } } }
    local result, err = patient:upload(helper.big_file(20000000), { timeout = 0.3 })
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    assert.equal("deadline", err.reason)
    assert.is_nil(err.outcome_unknown)
  end)

  it("includes time spent in the script", function()
    local calls = 0
    local size, err = document:download(function()
      calls = calls + 1
      if calls == 1 then os.execute("sleep 0.6") end
      return 1
    end, { timeout = 0.4 })
    assert.is_nil(size)
    assert.equal("timeout", err.kind)
    assert.equal("deadline", err.reason)
  end)

  it("includes the wait for the rate limiter", function()
    use { max_connections = 1 }
    local busy = 0
    helper.faults { operation = "download", action = { drip = 100000 } }
    document:download(function(chunk)
      if chunk then
        busy = busy + 1
        local result, err = patient:get("d", { timeout = 0.3 })
        assert.is_nil(result)
        assert.equal("timeout", err.kind)
        assert.equal(0, err.attempts)
        return nil, "enough"
      end
      return 1
    end)
    assert.equal(1, busy)
    assert(patient:get("d"))
  end)
end)
