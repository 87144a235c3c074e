-- SPDX-License-Identifier: MIT
local helper = require "helper"

local LARGEST = 26214400

describe("patient:upload()", function()
  local client, patient

  before_each(function()
    helper.reset()
    client = helper.client()
    patient = client:patient(12345)
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- The sandbox's copy of a document, which must be the only one.
  local function stored_once(document)
    local stored = helper.stored("12345")
    assert.equal(1, #stored)
    assert.equal(document.id, stored[1].id)
    return stored[1]
  end

  it("returns the document that the service created", function()
    local document = assert(patient:upload(helper.path("spec/fixtures/referral.pdf"),
      { document_type = "Referral", description = "from Dr. Smith" }))
    assert.equal("referral.pdf", document.file_name)
    assert.equal("application/pdf", document.content_type)
    assert.equal("Referral", document.document_type)
    assert.equal("from Dr. Smith", document.description)
    assert.equal("12345", document.patient_id)
    assert.equal("string", type(document.id))
    local bytes = helper.read_file(helper.path("spec/fixtures/referral.pdf"))
    assert.equal(#bytes, document.file_size_bytes)
    if math.type then assert.equal("integer", math.type(document.file_size_bytes)) end
  end)

  for name, content_type in pairs(helper.fixtures) do
    it("recognizes " .. name .. " by its extension", function()
      local path = helper.path("spec/fixtures/" .. name)
      local document = assert(patient:upload(path))
      assert.equal(content_type, document.content_type)
      assert.equal(helper.sha256(path), stored_once(document).sha256)
    end)

    it("recognizes " .. name .. " by its signature", function()
      local bytes = helper.read_file(helper.path("spec/fixtures/" .. name))
      local document = assert(patient:upload({ data = bytes }, { file_name = "unnamed" }))
      assert.equal(content_type, document.content_type)
      local given = false
      document = assert(patient:upload(function()
        if given then return nil end
        given = true
        return bytes
      end, { file_name = "unnamed too" }))
      assert.equal(content_type, document.content_type)
    end)
  end

  -- Every kind of source with the same bytes: { source, options }.
  local function sources(path, size)
    local bytes = helper.read_file(path)
    local function pieces(length)
      local at = 1
      return function()
        if at > #bytes then return nil end
        local piece = bytes:sub(at, at + length - 1)
        at = at + length
        return piece
      end
    end
    local list = {
      ["a path"] = { path, { file_name = "a.pdf" } },
      ["a handle"] = { assert(io.open(path, "rb")), { file_name = "a.pdf" } },
      ["bytes"] = { { data = bytes }, { file_name = "a.pdf" } },
      ["a source of known size"] = { pieces(10000), { file_name = "a.pdf", size = size } },
      ["a source of unknown size"] = { pieces(100000), { file_name = "a.pdf" } },
    }
    if size > 0 and size < 1000000 then
      list["a source of single bytes"] = { pieces(1), { file_name = "a.pdf", size = size } }
    end
    local pipe = io.popen("cat " .. helper.quote(path), "r")
    list["a pipe"] = { pipe, { file_name = "a.pdf" } }
    return list
  end

  for _, size in ipairs { 9, 16384, 1048575, 1048576, 1048577, LARGEST } do
    it(("sends %d bytes unchanged, from every kind of source"):format(size), function()
      local path = helper.big_file(size)
      local sum = helper.sha256(path)
      for name, source in pairs(sources(path, size)) do
        source[2].content_type = "application/pdf"
        local document = assert(patient:upload(source[1], source[2]))
        local stored = stored_once(document)
        assert.equal(sum, stored.sha256, name)
        assert.equal(size, document.file_size_bytes, name)
        if io.type(source[1]) == "file" then source[1]:close() end
        assert.is_true(document:delete())
      end
    end)
  end

  it("sends a handle from its position", function()
    local path = helper.write_file(helper.temporary(), "a mail's head\n\n%PDF-1.4 and so on")
    local handle = assert(io.open(path, "rb"))
    handle:seek("set", 15)
    local document = assert(patient:upload(handle, { file_name = "a.pdf" }))
    assert.equal(18, document.file_size_bytes)
    handle:close()
  end)

  it("accepts an empty file if the bytes are not checked", function()
    local options = { file_name = "empty.pdf", check_type = false }
    local document = assert(patient:upload({ data = "" }, options))
    assert.equal(0, document.file_size_bytes)
    document = assert(patient:upload(function() return nil end,
      { file_name = "empty.pdf", size = 0, check_type = false }))
    assert.equal(0, document.file_size_bytes)
  end)

  it("preserves every file name", function()
    for _, name in ipairs { "two words.pdf", 'a "quoted" one.pdf', "per%cent %22.pdf", "(paren)theses.pdf",
                            "a/b/c.pdf", "back\\slash.pdf", "Zuzüglich — 患者.pdf", "it's.pdf", "semi;colon=x.pdf",
                            "trailing\\" } do
      local document = assert(patient:upload({ data = "%PDF-1.4" },
        { file_name = name, content_type = "application/pdf" }))
      assert.equal(name, document.file_name)
      assert.equal(name, assert(patient:get(document.id)).file_name)
    end
  end)

  it("preserves every text field", function()
    for _, text in ipairs { "two\r\nlines", "--boundary", "Zuzüglich — 患者", 'quo"tes', "" } do
      local document = assert(patient:upload({ data = "%PDF-1.4" },
        { file_name = "a.pdf", description = text }))
      assert.equal(text, assert(patient:get(document.id)).description or "")
    end
  end)

  it("refuses a type that is not accepted before it sends anything", function()
    local document, err = patient:upload({ data = "hello" }, { file_name = "a.txt" })
    assert.is_nil(document)
    assert.equal("unsupported_type", err.kind)
    assert.equal(0, err.attempts)
    document, err = patient:upload({ data = "%PDF" }, { file_name = "a.pdf", content_type = "text/plain" })
    assert.is_nil(document)
    assert.equal("unsupported_type", err.kind)
    assert.equal(0, #helper.admin("GET", "journal").requests)
    document, err = patient:upload(coroutine.wrap(function() coroutine.yield("hello") end),
      { file_name = "no type" })
    assert.is_nil(document)
    assert.equal("unsupported_type", err.kind)
    assert.equal(0, err.attempts)
    assert.equal(0, #helper.journal())
  end)

  it("refuses a source over the limit before it sends anything", function()
    local path = helper.big_file(LARGEST + 1)
    local handle = assert(io.open(path, "rb"))
    for _, source in ipairs { path, handle, { data = ("x"):rep(LARGEST + 1) } } do
      local document, err = patient:upload(source, { file_name = "a.pdf" })
      assert.is_nil(document)
      assert.equal("too_large", err.kind)
      assert.equal(0, err.attempts)
    end
    handle:close()
    assert.equal(0, #helper.admin("GET", "journal").requests)
  end)

  it("aborts a source that turns out to be over the limit", function()
    local left = 27 * 1048576
    local document, err = patient:upload(function()
      if left == 0 then return nil end
      left = left - 1048576
      return "%PDF-" .. ("x"):rep(1048576 - 5)
    end, { file_name = "a.pdf" })
    assert.is_nil(document)
    assert.equal("too_large", err.kind)
    assert.is_nil(err.outcome_unknown)
    assert.equal(0, #helper.stored("12345"))
  end)

  it("aborts a source that returns another size than announced", function()
    for _, size in ipairs { 99999, 100001 } do
      local given = 0
      local document, err = patient:upload(function()
        if given == 100000 then return nil end
        given = given + 10000
        return "%PDF-" .. ("x"):rep(10000 - 5)
      end, { file_name = "a.pdf", size = size })
      assert.is_nil(document)
      assert.equal("io", err.kind)
      assert.equal("size_mismatch", err.reason)
      assert.is_nil(err.outcome_unknown)
    end
    assert.equal(0, #helper.stored("12345"))
  end)

  it("reports progress", function()
    for _, source in ipairs { helper.big_file(1048577), { data = helper.read_file(helper.big_file(1048577)) },
                              assert(io.open(helper.big_file(1048577), "rb")) } do
      local last, calls = -1, 0
      assert(patient:upload(source, { file_name = "a.pdf", progress = function(done, total)
        assert.is_true(done >= last)
        assert.equal(1048577, total)
        last, calls = done, calls + 1
      end }))
      assert.equal(1048577, last)
      assert.is_true(calls > 1)
      if io.type(source) then source:close() end
    end
  end)

  it("ends if progress says so, and stores nothing", function()
    local document, err = patient:upload(helper.big_file(LARGEST), { progress = function(done)
      return done < 1000000
    end })
    assert.is_nil(document)
    assert.equal("canceled", err.kind)
    assert.is_nil(err.outcome_unknown)
    assert.equal(0, #helper.stored("12345"))
  end)

  it("passes on errors that a source or progress raises", function()
    local thrown = { "mine" }
    local ok, err = pcall(patient.upload, patient, function() error(thrown) end, { file_name = "a.pdf" })
    assert.is_false(ok)
    assert.equal(thrown, err)
    ok, err = pcall(patient.upload, patient, helper.big_file(1048577), { progress = function() error(thrown) end })
    assert.is_false(ok)
    assert.equal(thrown, err)
    assert.equal(0, #helper.stored("12345"))
  end)

  it("fails if the source fails", function()
    local calls = 0
    local document, err = patient:upload(function()
      calls = calls + 1
      if calls > 200 then return nil, "broken" end
      return "%PDF-" .. ("x"):rep(10000 - 5)
    end, { file_name = "a.pdf" })
    assert.is_nil(document)
    assert.equal("io", err.kind)
    assert.equal("source", err.reason)
    assert.equal(0, #helper.stored("12345"))
  end)

  it("sends the file once more if the token expired, and in no other case", function()
    client:close()
    client = helper.client { max_attempts = 5 }
    patient = client:patient(12345)
    for name, source in pairs(sources(helper.big_file(1048577), 1048577)) do
      local warm = assert(patient:upload({ data = "%PDF-1.4" }, { file_name = "warm.pdf" }))
      assert(warm:delete())
      helper.admin("POST", "settings", { expire_tokens = true })
      helper.admin("DELETE", "journal")
      local document, err = patient:upload(source[1], source[2])
      local uploads = helper.journal("upload")
      if document then
        assert.equal(2, #uploads, name)
        assert.equal(401, uploads[1].status, name)
        assert.equal(helper.sha256(helper.big_file(1048577)), stored_once(document).sha256, name)
        assert(document:delete())
      else
        -- a source that was read and cannot be read again: reported unchanged
        assert.equal("unauthorized", err.kind, name)
        assert.equal(1, #uploads, name)
        assert.is_true(name == "a pipe" or name:find("^a source") ~= nil, name)
      end
      if io.type(source[1]) == "file" then source[1]:close() end
    end
  end)

  it("reports an unknown outcome if the response is lost", function()
    for _, how in ipairs { "reset", "close" } do
      helper.admin("DELETE", "journal")
      helper.faults { operation = "upload", action = { lost_reply = how } }
      local document, err = patient:upload(helper.path("spec/fixtures/photo.jpg"))
      assert.is_nil(document)
      assert.equal("network", err.kind)
      assert.is_true(err.outcome_unknown)
      assert.equal(1, err.attempts)
      assert.equal(how == "reset" and 1 or 2, #helper.stored("12345"))
      assert.equal(1, #helper.journal("upload"))
    end
  end)

  it("accepts iterators that must not be called again after their end", function()
    local path = helper.big_file(100000)
    local document = assert(patient:upload(coroutine.wrap(function()
      for _ = 1, 3 do coroutine.yield("%PDF-1.4 part") end
    end), { file_name = "a.pdf" }))
    assert.equal(39, document.file_size_bytes)
    if _VERSION ~= "Lua 5.1" then -- LuaJIT's default build has no io.lines() with a count
      document = assert(patient:upload(io.lines(path, 4096), { file_name = "b.pdf" }))
      assert.equal(100000, document.file_size_bytes)
    end
  end)

  it("obeys its timeout while the stream that it reads stalls", function()
    local made = helper.admin("POST", "documents", { patient = "other", size = 300000, content_type = "application/pdf" })
    helper.faults { operation = "download", action = { stall = 150000 } }
    local stream = assert(client:patient("other"):document(made.id):open())
    local document, err = patient:upload(stream, { file_name = "a.pdf", timeout = 1 })
    assert.is_nil(document)
    assert.equal("timeout", err.kind)
    stream:close()
    assert.equal(0, #helper.stored("12345"))
  end)

  it("reports an unknown outcome if the response cannot be read", function()
    helper.faults { operation = "upload", action = { status = 201, body = "{" } }
    local document, err = patient:upload(helper.path("spec/fixtures/photo.jpg"))
    assert.is_nil(document)
    assert.equal("protocol", err.kind)
    assert.is_true(err.outcome_unknown)
  end)
end)
