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
    local stream = assert(patient:document("a"):open())
    local _, err = stream:read("a")
    assert.equal("truncated", err.kind)
    assert.equal(last("download").request_id, err.request_id)
    stream:close()
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
