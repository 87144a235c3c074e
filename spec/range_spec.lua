-- SPDX-License-Identifier: MIT
-- Ranges of a document: the bytes that a stream has are those of the range, and of one version of the document.
local helper = require "helper"

local SIZE = 300000
local PDF = "%PDF-1.7\n" .. ("0123456789abcdef"):rep(10000)

describe("document:open() with a range", function()
  local client, patient, bytes, events

  before_each(function()
    helper.reset()
    events = {}
    client = helper.client { max_attempts = 2, stall_timeout = 1, on_event = function(event)
      if event.operation == "download" then events[#events + 1] = event end
    end }
    patient = client:patient("12345")
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- Add a document. Returns it with its metadata, and as one of which only the ids are known.
  local function add(fields)
    fields = fields or { size = SIZE }
    fields.patient, fields.content_type = "12345", fields.content_type or "application/pdf"
    local made = helper.admin("POST", "documents", fields)
    local document = assert(patient:get(made.id))
    local stream = assert(patient:document(made.id):open())
    bytes = assert(stream:read("a"))
    stream:close()
    helper.admin("DELETE", "journal")
    return document, patient:document(made.id)
  end

  -- Read a whole stream. Returns its bytes and size; or nil and the error.
  local function read(document, options)
    local stream, err = document:open(options)
    if not stream then return nil, err end
    local size = stream.size
    local content
    content, err = stream:read("a")
    stream:close()
    if not content then return nil, err end
    return content, size
  end

  local function expect(document, offset, length, message)
    local first = offset or 0
    local wanted = bytes:sub(first + 1, length and first + length or -1)
    local content, size = read(document, { offset = offset, length = length })
    assert.is_string(content, ("%s: %s"):format(message, tostring(size)))
    assert.is_true(wanted == content, ("%s: %d bytes instead of %d"):format(message, #content, #wanted))
    assert.is_true(size == nil or size == #wanted, message)
    return size
  end

  local function statuses()
    local list = {}
    for i, entry in ipairs(helper.journal("download")) do
      list[i] = ("%d"):format(entry.status) .. (helper.header(entry, "range") and " range" or "")
    end
    return table.concat(list, ", ")
  end

  local function assert_error(kind, reason, result, err)
    assert.equal("nil", type(result))
    assert.equal(kind .. " " .. tostring(reason), err.kind .. " " .. tostring(err.reason))
  end

  -- What a service may make of a range request: the settings, the fault, and whether the size is known beforehand.
  local services = {
    { "supports ranges", true, nil, true },
    { "sends ranges in chunks", true, { length = "chunked" }, true },
    { "does not know the size", true, { bad_range = "unknown_total" }, true },
    { "does not support ranges", false, nil, true },
    { "supports no ranges, and sends chunks", false, { length = "chunked" }, false },
    { "states the length of the chunks", false, { remapped_length = true }, true },
    { "ends the response by closing the connection", false, { length = "none" }, false },
    { "refuses ranges", true, { status = 400, body_kind = "empty" }, true, 1 },
    { "does not implement ranges", true, { status = 501, body_kind = "empty" }, true, 1 },
    { "sends the wrong start", true, { bad_range = "wrong_start" }, true, 1 },
    { "sends less than a range", true, { bad_range = "short" }, true, 1 },
    { "sends ranges as parts", true, { bad_range = "multipart" }, true, 1 },
  }

  for number, service in ipairs(services) do
    local name, ranges, action, has_size, times = (unpack or table.unpack)(service) -- luacheck: ignore
    it("reads exactly its bytes if the service " .. name, function()
      local document, unknown = add()
      helper.admin("POST", "settings", { ranges = ranges })
      local seed = 4711 + number
      local function random(most)
        seed = seed * 16807 % 2147483647
        return seed % (most + 1)
      end
      for round = 1, 24 do
        local offset = random(3) > 0 and random(random(1) == 0 and SIZE or 2000) or nil
        local length = (not offset or random(3) > 0) and random(random(1) == 0 and SIZE or 40) or nil
        local message = ("%s, round %d: offset %s, length %s"):format(name, round, offset, length)
        if action then helper.faults { operation = "download", times = times or -1, action = action } end
        for _, doc in ipairs { document, unknown } do
          local size = expect(doc, offset, length, message)
          if has_size or doc == document then assert.is_number(size, message) end
        end
      end
    end)
  end

  it("requests the range, or a byte if it is empty", function()
    local document = add()
    for _, case in ipairs {
      { { offset = 5 }, "bytes=5-" }, { { length = 5 }, "bytes=0-4" }, { { offset = 5, length = 10 }, "bytes=5-14" },
      { { offset = 5, length = 0 }, "bytes=5-5" }, { { offset = 0 }, nil }, { {}, nil },
      { { offset = 2^53, length = 2^53 }, "bytes=9007199254740992-18014398509481983" },
    } do
      helper.admin("DELETE", "journal")
      assert.is_string((read(document, case[1])))
      assert.equal(case[2], helper.header(helper.journal("download")[1], "range"))
    end
  end)

  it("is empty behind the end, whatever the service makes of that", function()
    local document, unknown = add()
    for _, ranges in ipairs { true, false } do
      helper.admin("POST", "settings", { ranges = ranges })
      for _, doc in ipairs { document, unknown } do
        for _, offset in ipairs { SIZE, SIZE + 1, 2^53 } do
          for _, length in ipairs { 0, 1, 2^53 } do
            helper.admin("DELETE", "journal")
            local content, size = read(doc, { offset = offset, length = length })
            assert.equal("", content, tostring(size))
            assert.equal(0, size)
            assert.equal(ranges and "416 range" or "200 range", statuses())
          end
        end
      end
    end
    assert.equal("416 nil", events[3].status .. " " .. tostring(events[3].kind))
  end)

  it("starts over if a 416 does not prove that the range is behind the end", function()
    local document, unknown = add()
    helper.faults { operation = "download", times = 1, action = { bad_range = "unknown_total" } }
    assert.equal("", (read(unknown, { offset = SIZE })))
    assert.equal("416 range, 200", statuses())
    for _, doc in ipairs { document, unknown } do
      helper.faults { operation = "download", action = { status = 416, body_kind = "gateway" } }
      expect(doc, 1000, 10, "416 for an existing range")
    end
    helper.faults { operation = "download", action = { status = 416, body_kind = "gateway",
                                                       headers = { { "Content-Range", "bytes */5" } } } }
    expect(document, 1000, 10, "416 with the size of another document")
  end)

  it("is refused after one attempt without a range", function()
    local document = add()
    helper.faults { operation = "download", times = 2, action = { status = 403, body_kind = "empty" } }
    local stream, err = document:open { offset = 5 }
    assert_error("forbidden", nil, stream, err)
    assert.equal(2, err.attempts)
    assert.equal("403 range, 403", statuses())
    helper.admin("DELETE", "journal")
    helper.admin("POST", "settings", { expire_tokens = true })
    expect(document, 5, 5, "401")
    assert.equal("401 range, 206 range", statuses())
  end)

  it("reads no more of the whole document than it needs", function()
    local document = add { size = 8000000 }
    helper.admin("POST", "settings", { ranges = false })
    for _ = 1, 3 do
      expect(document, 1000, 100, "the beginning")
      assert.is_true(events[#events].bytes_received < 1000000)
    end
    local stream = assert(document:open { offset = 1000, length = 10 })
    assert.equal(bytes:sub(1001, 1005), stream:read(5))
    assert.equal(bytes:sub(1006, 1010), stream:read(100))
    assert.is_nil(stream:read(1))
    assert.equal("", stream:read("a"))
    stream:close()
  end)

  it("reports progress by the bytes of the range", function()
    local document = add()
    for _, ranges in ipairs { true, false } do
      helper.admin("POST", "settings", { ranges = ranges })
      local done, total
      assert.is_string((read(document, { offset = 1000, length = 100000, progress = function(...) done, total = ... end })))
      assert.equal(100000, done)
      assert.equal(100000, total)
    end
  end)

  describe("of which a part is missing", function()
    -- The offset in the response at which it breaks off, by whether ranges are supported.
    for _, ranges in ipairs { true, false } do
      local start = ranges and 0 or 50000
      local name = ranges and "range" or "document"
      for how, action in pairs {
        ["a cut"] = { cut = start + 200000 }, ["a cut chunk"] = { chunk_cut = start + 200000 },
        ["a reset"] = { reset = start + 200000 },
      } do
        it("fails after " .. how .. " in the " .. name, function()
          local document = add()
          helper.admin("POST", "settings", { ranges = ranges })
          helper.faults { operation = "download", action = action }
          local stream = assert(document:open { offset = 50000, length = 240000 })
          assert.equal(240000, stream.size)
          local content, err = stream:read("a")
          assert_error(how == "a reset" and "network" or "truncated", how == "a reset" and "reset" or nil, content, err)
          assert.is_nil((stream:read(1)))
          stream:close()
        end)
      end

      it("fails after a stall in the " .. name, function()
        local document = add()
        helper.admin("POST", "settings", { ranges = ranges })
        helper.faults { operation = "download", action = { stall = start + 200000 } }
        local stream = assert(document:open { offset = 50000, length = 240000 })
        assert_error("timeout", "stall", stream:read("a"))
        stream:close()
      end)
    end

    it("is complete if only the rest of the document is missing", function()
      local document = add()
      helper.admin("POST", "settings", { ranges = false })
      for _, action in ipairs { { cut = 160000 }, { stall = 160000 }, { chunk_cut = 160000 }, { reset = 160000 } } do
        helper.faults { operation = "download", action = action }
        expect(document, 50000, 100000, "the rest is missing")
      end
    end)
  end)

  describe("under if_match", function()
    it("reads the version with that entity-tag", function()
      local document, unknown = add()
      local stream = assert(document:open { length = 10 })
      local etag = stream.etag
      stream:close()
      for _, ranges in ipairs { true, false } do
        helper.admin("POST", "settings", { ranges = ranges })
        for _, doc in ipairs { document, unknown } do
          for _, options in ipairs { { offset = 5, length = 10 }, { offset = SIZE - 5 }, { offset = SIZE }, {} } do
            options.if_match = etag
            helper.admin("DELETE", "journal")
            assert.is_true(bytes:sub((options.offset or 0) + 1, options.length and 15 or -1) == read(doc, options))
            assert.equal(etag, helper.header(helper.journal("download")[1], "if-match"))
          end
        end
      end
    end)

    it("fails for any other version, in one request, even if the service ignores the condition", function()
      local document, unknown = add()
      local etag = '"other"'
      for _, ranges in ipairs { true, false } do
        helper.admin("POST", "settings", { ranges = ranges })
        for _, action in ipairs { { delay = 0 }, { ignore_if_match = true }, { ignore_if_match = true, etag = 'W/"other"' },
                                  { ignore_if_match = true, no_validators = true }, { ignore_if_match = true, etag = "other" } } do
          for _, doc in ipairs { document, unknown } do
            for _, options in ipairs { { offset = 5, length = 10, if_match = etag }, { if_match = etag } } do
              helper.admin("DELETE", "journal")
              helper.faults { operation = "download", action = action }
              local stream, err = doc:open(options)
              assert_error("corrupt", "changed", stream, err)
              assert.equal(1, #helper.journal("download"))
              assert.equal(1, err.attempts)
            end
          end
        end
      end
    end)

    it("starts over without a range, but under the same condition", function()
      local document = add()
      local stream = assert(document:open { length = 0 })
      local etag = stream.etag
      stream:close()
      for _, refusal in ipairs { { status = 403, body_kind = "empty" }, { bad_range = "short" } } do
        helper.admin("DELETE", "journal")
        helper.faults { operation = "download", action = refusal }
        assert.equal(bytes:sub(6, 15), (read(document, { offset = 5, length = 10, if_match = etag })))
        assert.equal(etag, helper.header(helper.journal("download")[2], "if-match"))
        -- another version appears between the two requests
        helper.faults({ operation = "download", action = refusal },
          { operation = "download", action = { etag = '"other"', ignore_if_match = true } })
        assert_error("corrupt", "changed", read(document, { offset = 5, length = 10, if_match = etag }))
      end
    end)

    it("does not take a 416 without the entity-tag for an empty range of that version", function()
      local document = add()
      local stream = assert(document:open { length = 0 })
      local etag = stream.etag
      stream:close()
      helper.faults { operation = "download", times = 2, action = { ignore_if_match = true, no_validators = true } }
      assert_error("corrupt", "changed", read(document, { offset = SIZE, if_match = etag }))
    end)
  end)

  describe("whose document is not known", function()
    it("is corrupt unless the Content-Type or the first bytes are of an accepted type", function()
      local _, unknown = add { content = PDF, content_type = helper.json.null }
      for _, options in ipairs { { offset = 5000, length = 100 }, { offset = 5000 }, { length = 3 } } do
        assert_error("corrupt", "type_mismatch", read(unknown, options))
      end
      assert.equal(bytes:sub(1, 5), (read(unknown, { length = 5 }))) -- they are a signature
      helper.admin("POST", "settings", { ranges = false })
      for _, options in ipairs { { offset = 5000, length = 100 }, { offset = 5000 }, { length = 3 } } do
        expect(unknown, options.offset, options.length, "the first bytes are seen")
      end
      helper.faults { operation = "download", action = { status = 200, body = "", content_type = "text/plain" } }
      assert_error("corrupt", "type_mismatch", read(unknown, { offset = 5 }))
    end)

    it("is corrupt if it is encoded, or of another type", function()
      local document, unknown = add()
      for _, doc in ipairs { document, unknown } do
        helper.faults { operation = "download", action = { headers = { { "Content-Encoding", "gzip" } } } }
        assert_error("corrupt", "content_encoding", read(doc, { offset = 5000, length = 100 }))
      end
      helper.faults { operation = "download", action = { headers = { { "Content-Type", "text/html" } } } }
      assert_error("corrupt", "type_mismatch", read(document, { offset = 5000, length = 100 }))
    end)
  end)

  it("is corrupt if the document has another size than its metadata", function()
    local document = add()
    helper.faults { operation = "download", action = { bad_range = "wrong_total" } }
    assert_error("corrupt", "size_mismatch", read(document, { offset = 5, length = 5 }))
    for _, status in ipairs { 206, 200 } do
      helper.admin("POST", "settings", { ranges = status == 206 })
      helper.admin("POST", "documents", { patient = "12345", id = document.id, size = SIZE + 1,
                                          content_type = "application/pdf" })
      assert_error("corrupt", "size_mismatch", read(document, { offset = 5, length = 5 }))
      assert.equal(5, #read(document, { offset = 5, length = 5, check_size = false }))
    end
  end)

  it("has the validators of the response, if they are valid", function()
    local document = add()
    local stream = assert(document:open())
    assert.truthy(stream.etag:find('^"%x+"$'))
    assert.truthy(stream.last_modified:find("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$"))
    stream:close()
    for _, etag in ipairs { 'W/"weak"', "unquoted", '"a"b"', '"a b"', '"' .. ("x"):rep(300) .. '"' } do
      helper.faults { operation = "download", action = { etag = etag } }
      stream = assert(document:open { offset = 5 })
      assert.is_nil(stream.etag, etag)
      stream:close()
    end
    helper.faults { operation = "download", action = { no_validators = true,
                                                       headers = { { "Last-Modified", "yesterday" } } } }
    stream = assert(document:open { offset = 5 })
    assert.is_nil(stream.etag)
    assert.is_nil(stream.last_modified)
    stream:close()
  end)

  it("refuses invalid options", function()
    local _, document = add()
    for _, case in ipairs {
      { { offset = -1 }, "option 'offset': out of range (0 to 9007199254740992)" },
      { { offset = 0.5 }, "option 'offset': number has no integer representation" },
      { { length = "5" }, "option 'length': number expected, got string" },
      { { length = -1 }, "option 'length': out of range (0 to 9007199254740992)" },
      { { if_match = 'W/"a"' }, "option 'if_match': strong entity-tag expected" },
      { { if_match = "a" }, "option 'if_match': strong entity-tag expected" },
      { { if_match = '"a"\r\nX: y' }, "option 'if_match': strong entity-tag expected" },
      { { if_match = '"' .. ("x"):rep(254) .. '"' }, "option 'if_match': strong entity-tag expected" },
      { { if_match = true }, "option 'if_match': string expected, got boolean" },
    } do
      local ran, problem = pcall(document.open, document, case[1])
      assert.is_false(ran)
      assert.truthy(problem:find("bad argument #1 to 'open' (" .. case[2] .. ")", 1, true), problem)
    end
  end)
end)
