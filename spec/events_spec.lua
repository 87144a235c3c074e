-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- What a program can see of its calls: the service's request ids, the names of the calls.

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
    open { store = { update = function() return nil, { kind = "io", reason = "permission" } end, now = os.time } }
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
