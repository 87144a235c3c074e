-- SPDX-License-Identifier: MIT
-- Connections that break, at each point of each call, and connections that are reused.
local core = require "nymbl.core"
local helper = require "helper"

local PATIENT, OTHER = "12345", "777"
local PDF = "%PDF-1.4 a short one"

local client, patient, document, seen

local function client_new(given)
  local options = { stall_timeout = 5, timeout = 30, rate = false, monthly_quota = false, max_attempts = 1 }
  for name, value in pairs(given or {}) do options[name] = value end
  return helper.client(options)
end

local function use(given)
  if client then client:close() end
  client = client_new(given)
  patient = client:patient(PATIENT)
end

-- The document on which the calls are made; deletes remove it.
local function document_restore()
  helper.admin("POST", "documents", { patient = PATIENT, id = "d", size = 200000, content_type = "application/pdf" })
  document = patient:document("d")
end

local function setup()
  helper.reset()
  helper.admin("POST", "documents", { patient = OTHER, id = "other", content = PDF })
  use()
  document_restore()
  seen = 0
end

local function teardown()
  client:close()
  client, patient, document = nil, nil, nil
  assert.equal(0, helper.object_count())
end

local function drain(stream)
  local count = 0
  while true do
    local chunk, err = stream()
    if not chunk then
      stream:close()
      return not err and count or nil, err
    end
    count = count + #chunk
  end
end

-- Name, operation, the call; `changes`: the call changes data on the server.
local CALLS = {
  { "patient:upload(bytes)", "upload", function() return patient:upload({ data = PDF }, { file_name = "a.pdf" }) end,
    changes = true },
  { "patient:upload(path)", "upload", function() return patient:upload(helper.big_file(1048577)) end, changes = true },
  { "patient:upload(source)", "upload", function()
    local left = 30
    return patient:upload(function()
      left = left - 1
      if left == 29 then return PDF end
      if left >= 0 then return ("x"):rep(50000) end
    end, { file_name = "a.pdf" })
  end, changes = true },
  { "patient:get()", "get", function() return patient:get("d") end },
  { "patient:page()", "list", function() return patient:page() end },
  { "patient:count()", "list", function() return patient:count() end },
  { "patient:documents()", "list", function()
    local count = 0
    local ok, err = pcall(function()
      for _ in patient:documents() do count = count + 1 end
    end)
    if ok then return count end
    return nil, err
  end },
  { "document:download(path)", "download", function()
    local path = helper.temporary()
    local size, err = document:download(path)
    if size then os.remove(path) end
    assert.is_nil((io.open(path, "rb")))
    return size, err
  end },
  { "document:download(sink)", "download", function() return document:download(function() return 1 end) end },
  { "document:open()", "download", function()
    local stream, err = document:open()
    if not stream then return nil, err end
    return drain(stream)
  end },
  { "document:delete()", "delete", function() return document:delete() end, changes = true },
}

-- The requests for the patient's documents.
local function arrived(operation)
  local found = {}
  for _, entry in ipairs(helper.journal(operation)) do
    if entry.path:find("(" .. PATIENT .. ")", 1, true) then found[#found + 1] = entry end
  end
  return found
end

-- Run a call that fails because of a fault. `check(err, call)` checks its error.
local function fails(call, action, check)
  local label = call[1] .. " " .. helper.json.encode(action)
  helper.faults { operation = call[2], path_contains = "(" .. PATIENT .. ")", action = action }
  local result, err = call[3]()
  label = label .. ": " .. tostring(err)
  assert.is_nil(result, label)
  assert.equal("table", type(err), label)
  assert.equal(1, err.attempts, label)
  assert.equal(call.changes, err.outcome_unknown, label)
  assert.is_nil(err.status and err.status >= 300 or nil, label)
  check(err, label)
  seen = seen + 1
  assert.equal(seen, #arrived(call[2]), label) -- never a second copy
  -- the next call is not affected
  assert.equal("other", assert(client:patient(OTHER):get("other")).id, label)
  if call[2] == "delete" and not helper.stored(PATIENT)[1] then document_restore() end
end

describe("a connection that breaks", function()
  before_each(setup)
  after_each(teardown)

  local function network(err, label)
    assert.equal("network", err.kind, label)
    assert.equal("reset", err.reason, label)
    assert.is_nil(err.status, label)
  end

  local function network_or_truncated(err, label)
    assert.is_true(err.kind == "network" or err.kind == "truncated" or err.kind == "protocol"
      or err.kind == "corrupt", label)
  end

  for _, call in ipairs(CALLS) do
    it("after the head of the request was read is a failure of " .. call[1], function()
      for _, how in ipairs { "reset", "close" } do fails(call, { before = how }, network) end
    end)

    if call[2] == "upload" then
      it("within the body of the request is a failure of " .. call[1], function()
        for _, bytes in ipairs { 1, 100 } do
          for _, how in ipairs { "reset", "close" } do fails(call, { during = { bytes = bytes, how = how } },
            network) end
        end
        assert.equal(1, #helper.stored(PATIENT))
      end)
    end

    it("after the request was read is a failure of " .. call[1], function()
      for _, how in ipairs { "reset", "close" } do fails(call, { after = how }, network) end
    end)

    it("after the request was carried out is a failure of " .. call[1], function()
      for _, how in ipairs { "reset", "close" } do fails(call, { lost_reply = how }, network) end
    end)

    it("within the head of the response is a failure of " .. call[1], function()
      for _, count in ipairs { 0, 50 } do
        for _, unclean in ipairs { true, false } do fails(call, { head_cut = count, unclean = unclean }, network) end
      end
    end)

    if call[2] ~= "delete" then
      it("within the body of the response is a failure of " .. call[1], function()
        for _, action in ipairs { { cut = 0 }, { cut = 20 }, { close_notify = 20 }, { reset = 20 }, { chunk_cut = 20 },
                                  { chunk_cut = 20, unclean = true } } do
          fails(call, action, network_or_truncated)
        end
      end)
    end
  end

  it("before a request was sent leaves no outcome unknown", function()
    local listener = helper.admin("POST", "listen", { tls = "good", name = "second" })
    local token = helper.token()
    for _, call in ipairs(CALLS) do
      use { base_url = listener.url, token = token }
      document = patient:document("d")
      helper.admin("DELETE", "journal")
      helper.faults { listener = "second", action = { accept = "reset" } }
      local result, err = call[3]()
      local label = call[1] .. ": " .. tostring(err)
      if result == nil then
        assert.equal("network", err.kind, label)
        assert.is_true(err.attempts <= 1, label)
        assert.equal(err.attempts == 1 and call.changes or nil, err.outcome_unknown, label)
      end
      assert.truthy(result == nil, label)
      assert.equal(0, #helper.journal(), label)
      assert.truthy(call[3](), label)
      if call[2] == "delete" then document_restore() end
    end
    helper.admin("DELETE", "listen?name=second")
  end)

  local function no_attempt_is_made(reason)
    for _, call in ipairs(CALLS) do
      local result, err = call[3]()
      assert.is_nil(result, call[1])
      assert.equal("network", err.kind, call[1])
      assert.equal(reason, err.reason, call[1])
      assert.equal(0, err.attempts, call[1])
      assert.is_nil(err.outcome_unknown, call[1])
    end
  end

  it("that could not be opened is not an attempt", function()
    local refusing, stop = helper.unresponsive_server("refusing")
    finally(stop)
    use { base_url = refusing, token = "abc" }
    document = patient:document("d")
    no_attempt_is_made("connect")
    use { credentials = { token_url = refusing .. "/oauth2/token", client_id = "a", client_secret = "b",
      scope = "c" } }
    document = patient:document("d")
    no_attempt_is_made("connect")
  end)

  it("to an unknown host is not an attempt", function()
    use { base_url = "https://" .. ("x"):rep(64) .. ".invalid", token = "abc" } -- no host has such a name
    document = patient:document("d")
    no_attempt_is_made("resolve")
  end)

  it("during a token request is not an attempt", function()
    for _, action in ipairs { { before = "reset" }, { before = "close" }, { after = "reset" }, { after = "close" },
                              { during = { bytes = 5, how = "reset" } }, { lost_reply = "reset" }, { head_cut = 10 },
                                { cut = 10 },
                              { chunk_cut = 10 }, { reset = 10 } } do
      for _, call in ipairs { CALLS[1], CALLS[4], CALLS[5], CALLS[8], CALLS[10], CALLS[11] } do
        use()
        document = patient:document("d")
        helper.faults { operation = "token", action = action }
        helper.admin("DELETE", "journal")
        local result, err = call[3]()
        local label = call[1] .. helper.json.encode(action) .. tostring(err)
        assert.is_nil(result, label)
        assert.is_true(err.kind == "network" or err.kind == "truncated" or err.kind == "protocol", label)
        assert.equal(0, err.attempts, label)
        assert.is_nil(err.outcome_unknown, label)
        assert.equal(0, #helper.journal(), label)
        assert(patient:get("d"))
      end
    end
  end)
end)

describe("an idle connection", function()
  before_each(setup)
  after_each(teardown)

  -- The first requests on their connections: the number of uploads, and of other calls.
  local function first_ones()
    local known, uploads, others = {}, 0, 0
    for _, entry in ipairs(helper.admin("GET", "journal").requests) do
      if not known[entry.connection] then
        if entry.operation == "upload" then uploads = uploads + 1 else others = others + 1 end
      end
      known[entry.connection] = true
    end
    return uploads, others
  end

  it("is reused by every call except uploads", function()
    helper.admin("DELETE", "journal")
    use()
    document = patient:document("d")
    for _ = 1, 3 do
      for _, call in ipairs(CALLS) do assert(call[3]()) end
      document_restore()
    end
    local uploads, others = first_ones()
    assert.equal(1, others) -- for the token
    assert.equal(#helper.journal("upload"), uploads)
    assert.equal(9, uploads)
    assert.is_true(#helper.admin("GET", "journal").requests > 30)
  end)

  it("is reused after a response with an error status", function()
    helper.admin("DELETE", "journal")
    use()
    document = patient:document("d")
    for _, call in ipairs(CALLS) do
      for _, status in ipairs { 400, 403, 404, 500, 503 } do
        if call[1] ~= "patient:upload(source)" then -- which stops sending, and so loses its connection
          helper.faults { operation = call[2], action = { status = status, body_kind = "service" } }
          local result, err = call[3]()
          assert.is_nil(result)
          assert.equal(status, err.status)
        end
      end
    end
    local _, count = first_ones()
    assert.is_true(count <= 3, count .. " connections")
  end)

  for _, call in ipairs(CALLS) do
    it("that is reset at the next request causes no second copy of " .. call[1], function()
      for _ = 1, 3 do
        if call[2] == "delete" then document_restore() end
        helper.admin("POST", "faults", { { operation = "get", path_contains = "other",
          action = { reset_idle = true } } })
        assert(client:patient(OTHER):get("other"))
        helper.admin("DELETE", "journal")
        local result, err = call[3]()
        local label = call[1] .. ": " .. tostring(err)
        if call[2] == "upload" then -- it opens a new one
          assert.truthy(result, label)
          use()
          document = patient:document("d")
        else
          assert.is_nil(result, label)
          assert.equal("network", err.kind, label)
          assert.equal("reset", err.reason, label)
          assert.equal(1, err.attempts, label)
          assert.equal(call.changes, err.outcome_unknown, label)
        end
        assert.equal(1, #arrived(call[2]), label)
        assert(client:patient(OTHER):get("other"))
      end
    end)

    it("that was closed while idle does not make " .. call[1] .. " fail", function()
      helper.admin("POST", "faults", { { operation = "get", path_contains = "other", action = { close_idle = 0.05 } } })
      assert(client:patient(OTHER):get("other"))
      os.execute("sleep 0.2")
      helper.admin("DELETE", "journal")
      local result, err = call[3]()
      assert.truthy(result, call[1] .. ": " .. tostring(err))
      assert.equal(1, #arrived(call[2]))
    end)
  end

  it("that breaks as the next upload or delete is sent causes no second copy, whenever it breaks", function()
    use { max_attempts = 5 }
    for i = 1, 40 do
      helper.admin("POST", "faults", { { operation = "get", path_contains = "other",
        action = { close_idle = 0.002 * (i % 10) } } })
      assert(client:patient(OTHER):get("other"))
      os.execute(("sleep %.3f"):format(0.001 * (i % 20)))
      local name = ("race %d.pdf"):format(i)
      helper.admin("DELETE", "journal")
      local made = assert(patient:upload({ data = PDF }, { file_name = name }))
      local there = 0
      for _, row in ipairs(helper.stored(PATIENT)) do
        if row.metadata.file_name == name then there = there + 1 end
      end
      assert.equal(1, #arrived("upload"))
      assert.equal(1, there)
      assert.is_true(made:delete())
    end
  end)

  it("that is closed a few milliseconds after each response leaves no upload's outcome unknown", function()
    use { max_attempts = 1 }
    helper.admin("POST", "faults", { { operation = "upload", times = 200, action = { close_idle = 0.003 } } })
    for i = 1, 200 do
      local made, err = patient:upload({ data = PDF }, { file_name = ("upload %d.pdf"):format(i) })
      assert.truthy(made, i .. ": " .. tostring(err))
      local till = core.now() + 0.002 + 0.00001 * (i * 7919 % 200)
      while core.now() < till do end -- the next call starts as the connection is being closed
    end
    assert.equal(200, #helper.journal("upload"))
  end)
end)

describe("client:close()", function()
  before_each(setup)
  after_each(teardown)

  it("ends a running stream", function()
    helper.admin("POST", "documents", { patient = PATIENT, id = "large", size = 20000000,
      content_type = "application/pdf" })
    for _, read in ipairs {
      function(stream) return stream:read(10) end, function(stream) return stream:read("a") end,
      function(stream) return stream:read() end, function(stream) return stream() end,
      function(stream) return stream:lines()() end,
    } do
      use()
      local stream = assert(patient:document("large"):open())
      assert.equal(1000, #stream:read(1000))
      client:close()
      local ok, value, err = pcall(read, stream)
      if ok then
        assert.is_nil(value)
        assert.equal("canceled", err.kind)
      else
        assert.truthy(tostring(value):find("closed", 1, true), tostring(value))
      end
      assert.equal("string", type(tostring(stream)))
      stream:close()
      stream:close()
    end
  end)

  it("ends a call from within its callbacks, and leaks nothing", function()
    helper.admin("POST", "documents", { patient = PATIENT, id = "large", size = 5000000,
      content_type = "application/pdf" })
    local path = helper.temporary()
    local function closing() client:close() end
    local function cases()
      local large = patient:document("large")
      return {
        function() return large:download(path, { progress = closing }) end,
        function() return large:download(function() closing() return 1 end) end,
        function()
          local handle = assert(io.open("/dev/null", "wb"))
          local result, err = large:download(handle, { progress = closing })
          handle:close()
          return result, err
        end,
        function() return patient:upload(helper.big_file(5000000), { progress = closing }) end,
        function() return patient:upload({ data = "%PDF-" .. ("x"):rep(4999995) }, { file_name = "a.pdf",
          progress = closing }) end,
        function()
          local calls = 0
          return patient:upload(function()
            calls = calls + 1
            if calls == 30 then closing() end
            if calls <= 60 then return "%PDF-" .. ("x"):rep(99995) end
          end, { file_name = "a.pdf" })
        end,
        function()
          for _ in patient:documents { page_size = 1 } do closing() end
          return nil, { kind = "canceled" }
        end,
        function()
          local stream = assert(large:open { progress = closing })
          local value, err = stream:read("a")
          stream:close()
          return value, err
        end,
      }
    end
    for i = 1, #cases() do
      use()
      local ok, result, err = pcall(cases()[i])
      if ok then
        assert.is_nil(result, "case " .. i)
        assert.equal("canceled", err.kind, "case " .. i)
      else -- the message about misuse of a closed client
        assert.truthy(tostring(result):find("closed", 1, true), "case " .. i .. ": " .. tostring(result))
      end
      assert.is_nil((io.open(path, "rb")))
    end
    assert.equal("", helper.output("ls -A " .. helper.folder .. " | grep nymbl || true"))
  end)

  it("does not affect the other clients of the process", function()
    local second = client_new()
    local stream = assert(second:patient(PATIENT):document("d"):open())
    assert.equal(1000, #stream:read(1000))
    assert(patient:get("d"))
    local mine = assert(document:open())
    assert.equal(10, #mine:read(10))
    client:close()
    mine:close()
    assert.equal(199000, #stream:read("a"))
    stream:close()
    assert(second:patient(PATIENT):get("d"))
    second:close()
    use()
    assert(patient:get("d"))
  end)

  it("may be called while another client is within a call", function()
    local second = client_new()
    local calls = 0
    assert.equal(200000, (assert(second:patient(PATIENT):document("d"):download(function()
      calls = calls + 1
      if calls == 1 then client:close() end
      return 1
    end))))
    second:close()
  end)

  it("closes the connections that no other client uses", function()
    local function connections()
      os.execute("sleep 0.05")
      return helper.admin("GET", "state").connections -- including the connection for admin requests
    end
    client:close()
    local none = connections()
    use()
    assert(patient:get("d"))
    assert.equal(none + 1, connections())
    client:close()
    assert.equal(none, connections())
    -- with another client that stays open
    local second = client_new()
    assert(second:patient(PATIENT):get("d"))
    local listener = helper.admin("POST", "listen", { tls = "good", name = "second" })
    use { base_url = listener.url, token = helper.token() }
    assert(patient:get("d"))
    assert.equal(none + 2, connections())
    client:close()
    local left = connections()
    second:close()
    helper.admin("DELETE", "listen?name=second")
    assert.equal(none, connections())
    assert.equal(none + 1, left)
  end)

  it("makes later calls raise, and may be called twice", function()
    client:close()
    client:close()
    for _, call in ipairs(CALLS) do
      local ok, err = pcall(call[3])
      if ok then
        local _
        _, err = call[3]()
      end
      assert.truthy(tostring(err):find("attempt to use a closed client", 1, true), call[1])
    end
  end)
end)

describe("calls that fail", function()
  before_each(setup)
  after_each(teardown)

  it("leak no descriptor and no object", function()
    local function forget()
      client:close()
      client, patient, document = nil, nil, nil
      assert.equal(0, helper.object_count())
      return helper.descriptors()
    end
    local before = forget()
    for _, action in ipairs { { before = "reset" }, { lost_reply = "close" }, { head_cut = 10 }, { cut = 10 },
      { header_flood = 70000 },
                              { status = 500, body_kind = "html" }, { redirect = { status = 302,
                                location = "http://x/" } } } do
      use()
      document = patient:document("d")
      for _, call in ipairs(CALLS) do
        helper.faults { operation = call[2], action = action, times = 3 }
        for _ = 1, 3 do call[3]() end
      end
      helper.faults()
      helper.admin("POST", "documents", { patient = PATIENT, id = "d", size = 200000,
        content_type = "application/pdf" })
      assert.equal(before, forget(), helper.json.encode(action))
    end
    use()
  end)

  it("leak no descriptor while the client stays open", function()
    assert(patient:get("d"))
    collectgarbage()
    collectgarbage()
    local before = helper.descriptors()
    for _, call in ipairs(CALLS) do
      helper.faults { operation = call[2], action = { before = "reset" }, times = 8 }
      for _ = 1, 8 do call[3]() end
    end
    helper.faults()
    assert(client:patient(OTHER):get("other"))
    assert.equal(before, helper.descriptors())
  end)
end)
