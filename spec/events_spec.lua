-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- What a program can see of its calls: request ids, operations, headers, events and waits.

local helper = require "helper"

local PDF = "%PDF-1.4 and more"

describe("the error of a call", function()
  local client, patient

  local function open(options)
    client = helper.client(options)
    patient = client:patient("p")
  end

  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "a", content = PDF .. (" "):rep(50000) })
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- Calls by the operation that their errors have. Each sends one request.
  local CALLS = {
    get = function() return patient:get("a") end,
    delete = function() return patient:document("a"):delete() end,
    upload = function() return patient:upload({ data = PDF }, { file_name = "a.pdf" }) end,
    list = function() return patient:page() end,
    download = function() return patient:document("a"):download(helper.temporary()) end,
  }

  local ORDER = { "get", "list", "download", "upload", "delete" }

  -- Iterate over the calls; the last one deletes the document.
  local function each_call()
    local i = 0
    return function()
      i = i + 1
      return ORDER[i], CALLS[ORDER[i]]
    end
  end

  local function last(operation)
    local entries = helper.journal(operation)
    return entries[#entries]
  end

  it("has the service's id of the request", function()
    open()
    for operation, call in each_call() do
      helper.faults { operation = operation, action = { status = 500 } }
      local _, err = call()
      assert.equal(last(operation).request_id, err.request_id)
      assert.is_nil(tostring(err):find(err.request_id, 1, true))
      assert.is_nil(getmetatable(err).__tostring { kind = "server", request_id = "an id" }:find("an id", 1, true))
    end
  end)

  it("has the id of the last attempt", function()
    open { max_attempts = 2, rate = false }
    local clock = helper.clock()
    helper.faults { operation = "get", action = { status = 503 }, times = 2 }
    local _, err = patient:get("a")
    clock.restore()
    assert.equal(2, err.attempts)
    assert.equal(last("get").request_id, err.request_id)
  end)

  it("has the id of a response that cannot be used", function()
    open()
    helper.faults({ operation = "list", action = { status = 200, body = '{"value":[{"id":1},{"id":[]}]}' } },
      { operation = "get", action = { status = 200, body = "nonsense" } },
      { operation = "download", action = { status = 200, body = "text" } })
    for _, operation in ipairs { "list", "get", "download" } do
      local _, err = CALLS[operation]()
      assert.equal(last(operation).request_id, err.request_id, operation)
    end
    helper.faults { operation = "list", action = { status = 200, body = '{"value":[{"id":1},{"id":[]}]}' } }
    local ok, err = pcall(function() for _ in patient:documents() do end end) -- luacheck: ignore
    assert.is_false(ok)
    assert.equal("bad_id", err.reason)
    assert.equal(last("list").request_id, err.request_id)
  end)

  it("has the id of the stream's request", function()
    open()
    helper.faults { operation = "download", action = { cut = 30000 } }
    local stream, err = patient:document("a"):open()
    if stream then -- otherwise the response ended before it was returned
      err = select(2, stream:read("a"))
      stream:close()
    end
    assert.equal("truncated", err.kind)
    assert.equal(last("download").request_id, err.request_id)
  end)

  it("has the id of a token request that failed", function()
    open()
    helper.faults { operation = "token", action = { status = 500 } }
    local _, err = patient:get("a")
    assert.equal("token", err.operation)
    assert.equal(last("token").request_id, err.request_id)
  end)

  it("has no id if no response arrived, or none of the service's", function()
    open()
    helper.faults({ operation = "get", action = { before = "reset" } })
    local _, err = patient:get("a")
    assert.equal("network", err.kind)
    assert.is_nil(err.request_id)
    helper.faults({ operation = "get", action = { status = 500, remove_headers = { "x-amzn-RequestId" } } })
    _, err = patient:get("a")
    assert.equal("server", err.kind)
    assert.is_nil(err.request_id)
  end)

  it("has the service's own id after a redirect to another origin", function()
    open()
    local other = helper.admin("POST", "listen", { tls = "good", name = "other" }).url
    helper.faults({ operation = "download", action = { redirect = { location = other .. "/blob/none" } } })
    local _, err = CALLS.download()
    assert.equal("not_found", err.kind)
    assert.equal(1, #helper.journal("blob"))
    assert.equal(last("download").request_id, err.request_id)
  end)

  it("has the name of the call, also if nothing was sent", function()
    open()
    for operation, call in each_call() do
      helper.faults { operation = operation, action = { status = 500 } }
      local _, err = call()
      assert.equal(operation, err.operation)
    end
    helper.faults()
    local _, err = patient:document("a"):download(helper.folder)
    assert.same({ "download", 0 }, { err.operation, err.attempts })
    _, err = patient:upload(helper.temporary())
    assert.same({ "upload", 0 }, { err.operation, err.attempts })
    _, err = patient:upload({ data = "text" }, { file_name = "a.txt" })
    assert.same({ "upload", "unsupported_type", 0 }, { err.operation, err.kind, err.attempts })
  end)

  it("has the name 'token' if the token request failed, however the call waited for it", function()
    open()
    helper.faults { operation = "token", action = { status = 400, body_kind = "token" }, times = -1 }
    for _, call in each_call() do
      local _, err = call()
      assert.equal("token", err.operation)
      assert.equal(0, err.attempts)
    end
  end)

  it("has no name if it belongs to no call to the service", function()
    open { store = { update = function() return nil, { kind = "io", reason = "permission" } end, now = function() return os.time() end } }
    local _, err = client:usage()
    assert.equal("io", err.kind)
    assert.is_nil(err.operation)
    _, err = patient:get("a")
    assert.same({ "io", "get" }, { err.kind, err.operation })
  end)
end)

describe("the option headers", function()
  local PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
  local client, patient

  local function open(options)
    client = helper.client(options)
    patient = client:patient("p")
  end

  before_each(function()
    helper.reset()
    for i = 1, 6 do helper.admin("POST", "documents", { patient = "p", id = "a" .. i, content = PDF }) end
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function sent(name, operation)
    local values = {}
    for i, entry in ipairs(helper.journal(operation)) do values[i] = helper.header(entry, name) or "-" end
    return values
  end

  it("adds headers to every request, retries and pages included, but not to a token request", function()
    open { headers = { TraceParent = PARENT, baggage = "a=1" } }
    helper.faults { operation = "get", action = { status = 503, headers = { { "Retry-After", "0" } } } }
    assert(patient:get("a1", { headers = { ["X-Request-ID"] = "one" } }) == nil)
    for _ in patient:documents { page_size = 2, headers = { ["x-request-id"] = "two" } } do end -- luacheck: ignore
    assert(patient:upload({ data = PDF }, { file_name = "a.pdf", headers = { tracestate = "a=b, c=d" } }))
    assert(patient:document("a1"):download(helper.temporary(), { headers = { baggage = "b=2" } }))
    assert(patient:document("a1"):open { headers = { ["x-correlation-id"] = "c" } }):close()
    assert(patient:document("a1"):refresh { headers = { ["x-request-id"] = "three" } })
    assert(patient:document("a1"):delete { headers = { ["x-request-id"] = "four" } })
    assert(patient:count(nil, { headers = { ["x-request-id"] = "five" } }))
    for i, value in ipairs(sent "traceparent") do assert.equal(PARENT, value, i) end
    assert.equal(0, #sent("traceparent", "token") - 1)
    assert.same({ "-" }, sent("traceparent", "token"))
    assert.same({ "one", "three" }, sent("x-request-id", "get"))
    local pages = sent("x-request-id", "list")
    assert.equal("five", table.remove(pages))
    assert.is_true(#pages > 2)
    for _, value in ipairs(pages) do assert.equal("two", value) end
    assert.same({ "a=b, c=d" }, sent("tracestate", "upload"))
    assert.same({ "b=2", "a=1" }, sent("baggage", "download"))
    assert.same({ "-", "c" }, sent("x-correlation-id", "download"))
    assert.same({ "four" }, sent("x-request-id", "delete"))
  end)

  it("may be a function of the operation, called before each request", function()
    local asked = {}
    open { max_attempts = 2, headers = function(operation)
      asked[#asked + 1] = operation
      if operation == "list" then return nil end
      return { ["x-request-id"] = operation .. #asked }
    end }
    helper.faults { operation = "get", action = { status = 503, headers = { { "Retry-After", "0" } } } }
    local clock = helper.clock()
    assert(patient:get("a1"))
    clock.restore()
    assert(patient:page())
    assert.same({ "get", "get", "list" }, asked)
    assert.same({ "get1", "get2" }, sent("x-request-id", "get"))
    assert.same({ "-" }, sent("x-request-id", "list"))
  end)

  it("passes on an error that the function raises, and nothing leaks", function()
    local fails = true
    open { monthly_quota = 10, rate = {}, headers = function() if fails then error("mine", 0) end end }
    local ok, err = pcall(patient.get, patient, "a1")
    assert.same({ false, "mine" }, { ok, err })
    ok, err = pcall(patient.upload, patient, { data = PDF }, { file_name = "a.pdf" })
    assert.same({ false, "mine" }, { ok, err })
    assert.equal(0, client:usage().requests)
    fails = false
    local seen = 0
    ok, err = pcall(function()
      for _ in patient:documents { page_size = 2 } do
        seen, fails = seen + 1, true
      end
    end)
    assert.same({ false, "mine" }, { ok, err })
    assert.equal(2, #helper.journal("list")) -- the first page and a prefetched one
    assert.equal(2, client:usage().requests)
  end)

  it("may wait in the function, while others use the same iterator", function()
    local wait = require "nymbl.wait"
    open { headers = function() wait.wait(nil, wait.now() + 0.01) end }
    local ids = {}
    local nymbl = require "nymbl"
    local count = nymbl.each(patient:documents { page_size = 2 }, nil, function(document)
      ids[document.id] = true
      return true
    end)
    assert.equal(6, count)
    for i = 1, 6 do assert.is_true(ids["a" .. i]) end
  end)

  it("ends the call if the function closes the client", function()
    open { headers = function() client:close() end }
    local _, err = patient:get("a1")
    assert.same({ "canceled", "closed" }, { err.kind, err.reason })
  end)

  it("does not follow a redirect to another origin", function()
    open { headers = { traceparent = PARENT } }
    local other = helper.admin("POST", "listen", { tls = "good", name = "other" }).url
    helper.faults({ operation = "download", action = { redirect = { location = other .. "/blob/none" } } })
    patient:document("a1"):download(helper.temporary())
    assert.same({ "-" }, sent("traceparent", "blob"))
    assert.same({ PARENT }, sent("traceparent", "download"))
  end)

  it("does not take an echo of our x-request-id for the service's id", function()
    open { headers = { ["X-Request-Id"] = "mine" } }
    local gone = { "x-amzn-RequestId" }
    helper.faults({ operation = "get", action = { status = 500, headers = { { "x-request-id", "mine" } },
                                                  remove_headers = gone } },
      { operation = "get", action = { status = 500, headers = { { "x-request-id", "theirs" } }, remove_headers = gone } })
    local _, err = patient:get("a1")
    assert.is_nil(err.request_id)
    _, err = patient:get("a1")
    assert.equal("theirs", err.request_id)
  end)

  it("raises on another name, an unclean value or a wrong result", function()
    local nymbl = require "nymbl"
    open {}
    local function refused(message, given)
      for _, call in ipairs { function() nymbl.client(helper.options { headers = given }) end,
                              function() patient:get("a", { headers = given }) end } do
        local ok, problem = pcall(call)
        assert.is_false(ok)
        assert.truthy(problem:find("option 'headers': " .. message, 1, true), problem)
      end
    end
    refused("header 'Authorization' is not allowed", { Authorization = "x" })
    refused("header '1' is not allowed", { "x" })
    refused("header 'baggage' is given twice", { baggage = "x", Baggage = "y" })
    refused("header 'baggage': string expected, got number", { baggage = 1 })
    for _, value in ipairs { "", " a", "a ", "a\r\nb: c", "a\0b", "a\tb", "\195\169", ("x"):rep(8193) } do
      refused("header 'tracestate': ", { tracestate = value })
    end
    client:close()
    for _, result in ipairs { 1, { x = "y" }, { traceparent = "a\nb" } } do
      open { headers = function() return result end }
      local ok, problem = pcall(patient.get, patient, "a1")
      assert.is_false(ok)
      assert.truthy(problem:find("events_spec%.lua:%d+: bad result of the function 'headers'") or
        problem:find("bad result of the function 'headers'"), problem)
      client:close()
    end
    assert.same({}, helper.journal())
    open {}
  end)
end)

describe("on_event", function()
  local client, patient, events

  local function open(options)
    options = options or {}
    events = {}
    options.on_event = options.on_event or function(event) events[#events + 1] = event end
    options.token = options.token or helper.token()
    client = helper.client(options)
    patient = client:patient("p")
  end

  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "a", content = PDF .. (" "):rep(500000) })
  end)

  after_each(function()
    client:close()
    client, patient, events = nil, nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- An event in short: operation, status, kind, bytes received.
  local function brief(event)
    return ("%s %s %s %d"):format(event.operation, event.status or "-", event.kind or "-", event.bytes_received)
  end

  it("is called for a stream when its end is read", function()
    open()
    local stream = assert(patient:document("a"):open { tag = "t" })
    assert.equal(0, #events)
    stream:read(1)
    assert.equal(0, #events)
    assert.equal(500016, #stream:read("a"))
    assert.same({ "download 200 - 500017" }, { brief(events[1]) })
    assert.equal("t", events[1].tag)
    assert.equal(helper.journal("download")[1].request_id, events[1].request_id)
    stream:close()
    assert.equal(1, #events)
  end)

  it("has the failure of a stream that breaks off half-way", function()
    open()
    helper.faults { operation = "download", action = { cut = 300000 } }
    local stream = assert(patient:document("a"):open())
    local _, err = stream:read("a")
    assert.equal("truncated", err.kind)
    assert.same({ "download 200 truncated 300000" }, { brief(events[1]) })
    stream:close()
    assert.equal(1, #events)
  end)

  it("is called for a stream that is closed half-way, or whose client is", function()
    open()
    local stream = assert(patient:document("a"):open())
    stream:read(10)
    stream:close()
    assert.equal(1, #events)
    assert.same({ 200, "canceled" }, { events[1].status, events[1].kind })
    stream = assert(patient:document("a"):open())
    stream:read(10)
    client:close()
    assert.equal(2, #events)
    assert.equal("canceled", events[2].kind)
    stream:close()
    assert.equal(2, #events)
  end)

  it("counts a stream whose bytes were all read as a success, also if its end was not", function()
    open()
    local stream = assert(patient:document("a"):open())
    assert.equal(500017, #stream:read(500017))
    helper.wait_for(function() -- until the end of the response has arrived
      require("nymbl.wait").poll()
      return true
    end)
    stream:close()
    assert.same({ "download 200 - 500017" }, { brief(events[1]) })
  end)

  it("is called at the client's next call for a stream that was collected", function()
    open()
    for _ = 1, 2 do
      local stream = assert(patient:document("a"):open { tag = 7 })
      stream:read(10)
    end
    helper.object_count()
    assert.equal(0, #events)
    assert(patient:count())
    assert.equal(3, #events)
    for i = 1, 2 do
      assert.same({ "download", 200, "canceled", 7 }, { events[i].operation, events[i].status, events[i].kind,
                                                        events[i].tag })
      assert.is_true(events[i].bytes_received >= 10)
    end
    assert.equal("list", events[3].operation)
    assert(patient:document("a"):open())
    helper.object_count()
    client:close()
    assert.equal(4, #events)
  end)

  it("ends the call in which it raises for a stream that was collected", function()
    open()
    local thrown = { "mine" }
    client:close()
    client = helper.client { on_event = function(event)
      if event.operation == "download" then error(thrown) end
    end }
    assert(client:patient("p"):document("a"):open()):read(10)
    helper.object_count()
    local before = #helper.journal "list"
    local ok, raised = pcall(function() return client:patient("p"):count() end)
    assert.is_false(ok)
    assert.equal(thrown, raised)
    assert.equal(before, #helper.journal "list")
  end)

  it("is called for a prefetched page, needed or not, and for one that was collected", function()
    open()
    for i = 1, 5 do helper.admin("POST", "documents", { patient = "q", id = "b" .. i, content = PDF }) end
    local other = client:patient("q")
    for _ in other:documents { page_size = 2, tag = "all" } do end -- luacheck: ignore
    assert.equal(#helper.journal("list"), #events)
    for _, event in ipairs(events) do
      assert.equal("all", event.tag)
      assert.is_nil(event.kind)
    end
    local before = #helper.journal("list")
    local step = other:documents { page_size = 2 }
    assert(step())
    helper.wait_for(function() -- until the prefetched request has arrived
      require("nymbl.wait").poll()
      return #helper.journal("list") == before + 2
    end)
    step = nil -- luacheck: ignore
    helper.object_count()
    assert(client:patient("p"):count())
    assert.equal(#helper.journal("list"), #events)
  end)

  it("is called for a call whose coroutine is never resumed", function()
    local wait = require "nymbl.wait"
    open()
    helper.faults({ operation = "upload", action = { delay = 0.2 } })
    local ok, problem = pcall(wait.run, function()
      wait.group():spawn(function() patient:upload({ data = PDF }, { file_name = "a.pdf", tag = "lost" }) end)
      wait.group():spawn(function()
        repeat wait.wait(nil, wait.now() + 0.01) until #helper.journal("upload") == 1
        error("stop", 0)
      end)
    end)
    assert.same({ false, "stop" }, { ok, problem })
    helper.object_count()
    assert(patient:count())
    assert.same({ "upload", "canceled", true, "lost" }, { events[1].operation, events[1].kind,
                                                          events[1].outcome_unknown, events[1].tag })
  end)

  it("has what an error has, and the tag of the call", function()
    open { max_attempts = 2 }
    local clock = helper.clock()
    helper.faults({ operation = "get", action = { status = 429, headers = { { "Retry-After", "7" } } } },
      { operation = "upload", action = { lost_reply = "reset" } })
    local tag = {}
    assert(patient:get("a", { tag = tag }))
    local _, err = patient:upload({ data = PDF }, { file_name = "a.pdf", tag = false })
    clock.restore()
    assert.same({ 429, "throttled", 7 }, { events[1].status, events[1].kind, events[1].retry_after })
    assert.equal(tag, events[1].tag)
    assert.is_true(events[2].waited >= 7 and events[2].waited < 8)
    assert.equal(helper.journal("get")[2].request_id, events[2].request_id)
    assert.is_true(err.outcome_unknown and events[3].outcome_unknown)
    assert.is_false(events[3].tag)
    assert.is_nil(events[1].outcome_unknown)
  end)

  it("may use the client again, wait, and close the stream that it is called for", function()
    local stream
    open { on_event = function(event)
      events[#events + 1] = event
      if event.operation == "download" then
        stream:close()
        assert(patient:count())
        require("nymbl.wait").wait(nil, require("nymbl.wait").now() + 0.01)
      end
    end }
    stream = assert(patient:document("a"):open())
    assert.equal(500017, #stream:read("a"))
    assert.same({ "download", "list" }, { events[1].operation, events[2].operation })
  end)

  it("passes on an error that it raises at the end of a stream, and frees the transfer", function()
    open { on_event = function() error("mine", 0) end }
    for _, use in ipairs { function(stream) stream:read("a") end, function(stream) stream:close() end } do
      local stream = assert(patient:document("a"):open())
      local ok, err = pcall(use, stream)
      assert.same({ false, "mine" }, { ok, err })
      stream:close()
    end
  end)
end)

describe("on_wait", function()
  local clock, client, patient, waits, events

  local function open(options)
    waits, events = {}, {}
    options.on_wait = options.on_wait or function(event) waits[#waits + 1] = event end
    options.on_event = function(event) events[#events + 1] = event end
    client = helper.client(options)
    patient = client:patient("p")
  end

  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "a", content = PDF })
    clock = helper.clock()
  end)

  after_each(function()
    clock.restore()
    client:close()
    client, patient, waits, events = nil, nil, nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function near(expected, value)
    assert.is_true(math.abs(value - expected) < 0.5, value)
  end

  it("tells of the rate limit, a pause and a retry, with their seconds and the tag", function()
    open { rate = { read = { 0.1, 1 } }, max_attempts = 3 }
    assert(patient:count())
    assert(patient:count(nil, { tag = "second" }))
    assert.equal(1, #waits)
    assert.same({ "list", "rate_limit", "second" }, { waits[1].operation, waits[1].reason, waits[1].tag })
    near(10, waits[1].seconds)
    helper.faults({ operation = "get", action = { status = 429, headers = { { "Retry-After", "30" } } } })
    assert(patient:get("a"))
    assert.equal("rate_limit", waits[2].reason)
    assert.equal("pause", waits[3].reason)
    near(30, waits[3].seconds)
    client:close()
    open { rate = false, max_attempts = 3 }
    helper.faults({ operation = "get", action = { status = 503 }, times = 2 })
    assert(patient:get("a"))
    assert.equal("retry", waits[1].reason)
    assert.equal("retry", waits[2].reason)
    assert.is_true(waits[2].seconds <= 1)
    client:close()
    local shared = require("nymbl.store").memory()
    open { rate = {}, store = shared }
    local other = helper.client { rate = {}, store = shared }
    helper.faults({ operation = "get", action = { status = 429, headers = { { "Retry-After", "20" } } } })
    other:patient("p"):get("a")
    assert(patient:get("a"))
    assert.same({ "get", "pause" }, { waits[1].operation, waits[1].reason })
    near(20, waits[1].seconds)
    other:close()
  end)

  it("tells of token requests that are repeated", function()
    open { max_attempts = 3 }
    helper.faults({ operation = "token", action = { status = 503 } })
    assert(patient:count(nil, { tag = "t" }))
    assert.same({ "token", "retry", "t" }, { waits[1].operation, waits[1].reason, waits[1].tag })
    assert.same({ "token", "token", "list" }, { events[1].operation, events[2].operation, events[3].operation })
    assert.same({ "t", "t", "t" }, { events[1].tag, events[2].tag, events[3].tag })
  end)

  it("tells of another caller's refresh, and of a free connection", function()
    local nymbl = require "nymbl"
    clock.restore()
    open { max_connections = 1 }
    helper.faults({ operation = "token", action = { delay = 0.2 } }, { operation = "list", action = { delay = 0.2 } })
    assert.equal(2, (nymbl.each({ 1, 2 }, nil, function(i) return patient:count(nil, { tag = i }) end)))
    local found = {}
    for _, event in ipairs(waits) do
      found[event.reason] = (found[event.reason] or 0) + 1
      assert.equal("list", event.operation)
      assert.is_nil(event.seconds)
    end
    assert.same({ token = 1, connection = 1 }, found)
    local waiting
    for _, event in ipairs(events) do if event.waited > 0.1 then waiting = event end end
    assert.equal("list", waiting.operation)
  end)

  it("tells of a locked store", function()
    clock.restore()
    local core = require "nymbl.core"
    local path = helper.temporary()
    open { store = require("nymbl.store").file(path), timeout = 10 }
    assert(patient:count())
    local lock = assert(core.store_open(path))
    local said
    client:close()
    open { store = require("nymbl.store").file(path), timeout = 10, on_wait = function(event)
      said = event
      lock:close()
    end }
    assert(patient:count())
    assert.same({ "list", "store" }, { said.operation, said.reason })
  end)

  it("passes on an error that it raises; nothing leaks, and the limiter learns of the request", function()
    local fails = true
    open { rate = { read = { 0.1, 1 } }, monthly_quota = 10, on_wait = function() if fails then error("mine", 0) end end }
    assert(patient:count())
    local ok, err = pcall(patient.count, patient)
    assert.same({ false, "mine" }, { ok, err })
    assert.equal(1, client:usage().requests)
    fails = false
    assert(patient:count())
    assert.equal(2, client:usage().requests)
    near(10, clock.offset)
    client:close()
    open { max_attempts = 2, on_wait = function() error("mine", 0) end }
    helper.faults({ operation = "get", action = { status = 503 } })
    ok, err = pcall(patient.get, patient, "a")
    assert.same({ false, "mine" }, { ok, err })
  end)

  it("may wait, and use the client again", function()
    local depth = 0
    open { rate = { read = { 0.1, 1 } }, on_wait = function()
      depth = depth + 1
      if depth == 1 then assert(patient:count()) end
      depth = depth - 1
    end }
    assert(patient:count())
    assert(patient:count())
    assert.equal(3, #helper.journal())
    assert.equal(4, #events) -- with the token request's
  end)
end)

describe("the events of random calls under random faults", function()
  local nymbl = require "nymbl"
  local clock

  before_each(function() clock = helper.clock() end)

  after_each(function()
    clock.restore()
    assert.equal(0, helper.object_count())
  end)

  -- Random numbers from 1 to `most`, the same for a seed on every Lua.
  local function generator(seed)
    local state = seed
    return function(most)
      state = (state * 16807) % 2147483647
      return state % most + 1
    end
  end

  local OPERATIONS = { "get", "list", "upload", "delete", "download", "token" }

  -- An action, and the kind of the failure that it causes.
  local FAULTS = {
    { { status = 503 }, "server" },
    { { status = 500, body_kind = "service" }, "server" },
    { { status = 429, headers = { { "Retry-After", "3" } } }, "throttled" },
    { { status = 404 }, "not_found" },
    { { status = 403, body_kind = "gateway" }, "forbidden" },
    { { before = "reset" }, "network" },
    { { lost_reply = "reset" }, "network" },
    { { cut = 3 } }, -- truncated, protocol or network
    { { delay = 0.02 } },
  }

  -- Calls by a random number; each gets its options. A call that raises is a bug.
  local CALLS = {
    function(patient, options) return patient:get("d1", options) end,
    function(patient, options) return patient:count(nil, options) end,
    function(patient, options)
      options.file_name = "new.pdf"
      return patient:upload({ data = PDF }, options)
    end,
    function(patient, options) return patient:document("gone"):delete(options) end,
    function(patient, options) return patient:document("d2"):download(helper.temporary(), options) end,
    function(patient, options) return patient:document("d3"):download(function() return 1 end, options) end,
    function(patient, options) -- read to the end
      local stream = patient:document("d4"):open(options)
      if not stream then return end
      stream:read("a")
      stream:close()
    end,
    function(patient, options) -- close half-way
      local stream = patient:document("d5"):open(options)
      if not stream then return end
      stream:read(1000)
      stream:close()
    end,
    function(patient, options)
      options.page_size = 2
      pcall(function() for _ in patient:documents(options) do end end) -- luacheck: ignore
    end,
    function(patient, options) -- leave the loop early
      options.page_size = 2
      local step, _, _, closer = patient:documents(options)
      pcall(step)
      local close = getmetatable(closer).__close
      close(closer)
    end,
    function(patient, options)
      options.progress = function() return false end
      return patient:document("d1"):download(helper.temporary(), options)
    end,
  }

  -- Compare the events with the sandbox's journal. Returns the number of requests that are not in it.
  local function compare(events, label)
    local entries, by_id, without = helper.admin("GET", "journal").requests, {}, {}
    local broken = {}
    for _, entry in ipairs(entries) do
      by_id[entry.request_id] = entry
      without[entry.operation] = (without[entry.operation] or 0) + 1
    end
    for _, event in ipairs(events) do
      local operation = event.operation
      local line = ("%s: %s %s %s"):format(label, operation, tostring(event.status), tostring(event.kind))
      local entry = event.request_id and by_id[event.request_id]
      if event.request_id then
        assert.is_truthy(entry, line)
        by_id[event.request_id] = nil -- each request has one event
        assert.equal(entry.operation, operation, line)
        assert.equal(entry.status, event.status, line)
      end
      if event.status and event.status >= 400 then
        assert.equal(({ [503] = "server", [500] = "server", [429] = "throttled", [404] = "not_found",
          [403] = "forbidden" })[event.status], event.kind, line)
      end
      if entry and event.kind ~= "canceled" then
        assert.equal(entry.response_bytes, event.bytes_received, line)
      end
      if not event.kind and operation == "upload" then assert.equal(#PDF, event.bytes_sent, line) end
      without[operation] = (without[operation] or 0) - 1
      if not event.status and event.kind == "network" then broken[operation] = (broken[operation] or 0) + 1 end
    end
    -- The sandbox does not read a request that arrives on a connection that it is closing.
    local unread = 0
    for operation, count in pairs(without) do
      assert.is_true(count <= 0 and -count <= (broken[operation] or 0), label .. ": " .. operation)
      unread = unread - count
    end
    return unread
  end

  local function sum_of(list, tag, ...)
    local sum = 0
    for _, event in ipairs(list) do
      if event.tag == tag then
        for _, name in ipairs { ... } do sum = sum + (event[name] or 0) end
      end
    end
    return sum
  end

  it("are one for each request, and agree with the journal; the waits add up", function()
    local requests, unread = 0, 0
    for seed = 1, 60 do
      local random = generator(seed * 7919)
      helper.reset()
      for i = 1, 5 do
        helper.admin("POST", "documents", { patient = "p", id = "d" .. i, size = i * 40000,
                                            content_type = "application/pdf" })
      end
      helper.admin("POST", "documents", { patient = "p", id = "gone", content = PDF })
      local plans = {}
      for i = 1, random(8) do
        plans[i] = { operation = OPERATIONS[random(#OPERATIONS)], action = FAULTS[random(#FAULTS)][1],
                     skip = random(3) - 1, times = random(2) }
      end
      helper.faults((table.unpack or unpack)(plans)) -- luacheck: ignore
      local events, waits = {}, {}
      local client = helper.client {
        rate = { read = { random(4), random(3) }, download = { 1, random(3) } }, max_attempts = random(4), timeout = false,
        on_event = function(event) events[#events + 1] = event end,
        on_wait = function(event) waits[#waits + 1] = event end,
      }
      local patient = client:patient("p")
      for tag = 1, 8 do
        local number = random(#CALLS)
        local began = clock.now()
        CALLS[number](patient, { tag = tag })
        local took = clock.now() - began
        -- a page that was prefetched and not needed took no time of the call
        if number < 9 then
          local label = ("seed %d, call %d of %d, took %.3f"):format(seed, tag, number, took)
          local sums = { sum_of(events, tag, "waited", "seconds"),
                         sum_of(events, tag, "seconds") + sum_of(waits, tag, "seconds") }
          for _, sum in ipairs(sums) do
            assert.is_true(math.abs(sum - took) <= took / 10 + 0.05, ("%s, sum %.3f"):format(label, sum))
          end
        end
      end
      client:close()
      helper.object_count()
      unread = unread + compare(events, "seed " .. seed)
      requests = requests + #events
    end
    assert.is_true(requests > 500, requests)
    assert.is_true(unread < requests / 50, unread)
  end)

  it("add up for concurrent calls too", function()
    clock.restore()
    for seed = 1, 6 do
      local random = generator(seed * 104729)
      helper.reset()
      for i = 1, 5 do
        helper.admin("POST", "documents", { patient = "p", id = "d" .. i, size = i * 40000,
                                            content_type = "application/pdf" })
      end
      helper.admin("POST", "documents", { patient = "p", id = "gone", content = PDF })
      local plans = {}
      for i = 1, 6 do
        plans[i] = { operation = OPERATIONS[random(5)], action = FAULTS[random(#FAULTS)][1] }
      end
      helper.faults((table.unpack or unpack)(plans)) -- luacheck: ignore
      local events = {}
      local client = helper.client { max_connections = 2, on_event = function(event) events[#events + 1] = event end }
      local patient, numbers = client:patient("p"), {}
      for tag = 1, 12 do numbers[tag] = { tag, random(#CALLS) } end
      nymbl.each(numbers, { concurrency = 6 }, function(item)
        CALLS[item[2]](patient, { tag = item[1] })
        return true
      end)
      client:close()
      helper.object_count()
      compare(events, "concurrent, seed " .. seed)
    end
  end)
end)
