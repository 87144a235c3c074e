-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Streams: a document's content, read like `io` reads a file with the same bytes.

local helper = require "helper"

local PATIENT = "streams"

local function pack(...)
  return { n = select("#", ...), ... }
end

-- A document with these bytes, added without the client.
local function stored(bytes, fields)
  local path = helper.write_file(helper.temporary(), bytes)
  local made = helper.add_document({
    patient = PATIENT, content_type = "application/pdf",
    content_base64 = helper.output("base64 -w 0 " .. helper.quote(path)),
  }, fields)
  return made.id, path
end

-- Lines of many lengths, `size` bytes in total.
local function text_of(size)
  local pieces, total, i = { "%PDF-1.4\n" }, 9, 0
  while total < size do
    i = i + 1
    local piece = ("%d %s\n"):format(i, ("x"):rep(i * 7919 % 200))
    pieces[#pieces + 1] = piece
    total = total + #piece
  end
  return table.concat(pieces):sub(1, size)
end

-- Descriptors that may remain: idle connections for the next request.
local KEPT = 3

local client, patient

local function setup_client()
  helper.reset()
  client = helper.client { rate = false, monthly_quota = false, max_attempts = 1 }
  patient = client:patient(PATIENT)
end

local function teardown_client()
  client:close()
  client, patient = nil, nil
  assert.equal(0, helper.object_count())
end

-- A stream of a document with metadata, and one of a document with an id only.
local function open(id, options)
  return assert(assert(patient:get(id)):open(options))
end

local function open_unseen(id, options)
  return assert(patient:document(id):open(options))
end

describe("stream:read(), beside io,", function()
  local BORDERS = { 16384, 131072 }
  local contents = {
    { "no bytes", "" },
    { "one newline", "\n" },
    { "newlines only", "\n\n\n" },
    { "one byte", "x" },
    { "a line", "a\n" },
    { "a line without its end", "first\nsecond" },
    { "CR LF", "first\r\nsecond\r\n\r\nfourth" },
    { "lone CRs", "first\rsecond\r" },
    { "NULs", "\0a\0\nb\0\n\0" },
    { "every byte", (function()
        local all = {}
        for byte = 0, 255 do all[#all + 1] = string.char(byte) end
        return (table.concat(all)):rep(3)
      end)() },
    { "many empty lines", ("\n"):rep(40000) },
    { "one long line", ("y"):rep(300000) },
    { "a long line and its end", ("y"):rep(300000) .. "\n" },
    { "lines of many lengths", text_of(400000) },
  }
  for _, border in ipairs(BORDERS) do
    for offset = -1, 1 do
      contents[#contents + 1] = { ("a newline at byte %d"):format(border + offset),
        ("z"):rep(border + offset - 1) .. "\nrest\nend" }
      contents[#contents + 1] = { ("CR LF at byte %d"):format(border + offset),
        ("z"):rep(border + offset - 1) .. "\r\nrest\r\n" }
      contents[#contents + 1] = { ("%d bytes"):format(border + offset), ("w"):rep(border + offset) }
      contents[#contents + 1] = { ("%d bytes with the last a newline"):format(border + offset),
        ("w"):rep(border + offset - 1) .. "\n" }
    end
  end

  local FORMATS = {
    { "*l" }, { "*L" }, { "*a" }, { "*a", "*a" }, { "*l", "*l" }, { "*l", "*L", "*l" }, { "*l", "*a" },
    { "*L", 5, "*l" }, { 0, "*l" }, { 0, 0, 3, "*L" }, { 1, "*a" }, { "*a", "*l" }, { "*a", 0, 1 },
    { 7 }, { 4096, 1 }, { 16383 }, { 16384 }, { 16385 }, { 131071 }, { 131072 }, { 131073 }, { 1000000 },
  }

  lazy_setup(setup_client)
  lazy_teardown(teardown_client)

  -- The formats with and without their star.
  local function bare(formats)
    local result = {}
    for i, format in ipairs(formats) do
      result[i] = type(format) == "string" and format:sub(2) or format
    end
    return result
  end

  local unpack = table.unpack or unpack

  -- Read a file and a stream in parallel to their ends, and twice beyond.
  local function compare(path, stream, formats, given)
    local file = assert(io.open(path, "rb"))
    local beyond = 0
    while beyond < 3 do
      if file:read(0) == nil then beyond = beyond + 1 end
      local expected = pack(file:read(unpack(formats)))
      local got = pack(stream:read(unpack(given)))
      local same = expected.n == got.n
      for i = 1, expected.n do same = same and expected[i] == got[i] end
      if not same then -- assert.same would print all of it
        local words = {}
        for i = 1, math.max(expected.n, got.n) do
          words[i] = ("%d: %s %s"):format(i, expected[i] and #expected[i] or "nil", got[i] and #got[i] or "nil")
        end
        error(("at byte %d, of %d and %d results: %s"):format(file:seek(), expected.n, got.n,
          table.concat(words, ", ")))
      end
    end
    file:close()
  end

  -- LuaJIT's io ends lines at a NUL, by strlen().
  local function comparable(formats, bytes)
    if not jit or not bytes:find("%z") then return true end
    for _, format in ipairs(formats) do
      if format == "*l" or format == "*L" then return false end
    end
    return true
  end

  for _, content in ipairs(contents) do
    it("reads " .. content[1], function()
      local id, path = stored(content[2])
      for i, formats in ipairs(FORMATS) do
        if comparable(formats, content[2]) then
          local stream = i % 2 == 0 and open(id) or open_unseen(id)
          compare(path, stream, formats, i % 3 == 0 and formats or bare(formats))
          stream:close()
        end
      end
    end)
  end

  it("reads one byte at a time", function()
    local id, path = stored(text_of(20000))
    local stream = open(id)
    compare(path, stream, { 1 }, { 1 })
    stream:close()
  end)

  it("reads a line without a format", function()
    local id, path = stored("first\r\nsecond\nthird")
    local stream = open(id)
    compare(path, stream, {}, {})
    stream:close()
  end)

  it("reads the same if the service sends chunks, slowly, or without a length", function()
    local id, path = stored(text_of(3000))
    for _, action in ipairs { { length = "chunked" }, { length = "chunked", drip = 30000 }, { drip = 30000 },
                              { length = "none" }, { remapped_length = true } } do
      helper.faults { operation = "download", action = action, times = -1 }
      for _, formats in ipairs { { "*l" }, { "*a" }, { 100 }, { "*L", 3 } } do
        local stream = open_unseen(id)
        compare(path, stream, formats, formats)
        stream:close()
        stream = open(id)
        compare(path, stream, formats, formats)
        stream:close()
      end
    end
    helper.faults()
  end)

  it("accepts integers of any type and reads up to that many bytes", function()
    local id = stored("hello world")
    local stream = open(id)
    assert.equal("h", stream:read(1.0))
    assert.equal("ello", stream:read(4))
    assert.equal(" world", stream:read(2^53))
    assert.is_nil(stream:read(2^53))
    assert.is_nil(stream:read(0))
    stream:close()
    for _, count in ipairs { 2^31 - 1, 2^31, 2^32, 2^32 + 3, 2^40, 2^53 } do
      stream = open(id)
      stream:read(5)
      assert.equal(" world", stream:read(count))
      stream:close()
    end
  end)

  it("keeps NULs in lines, which io does not always do", function()
    local stream = open((stored("\0a\0\nb\0\n\0")))
    assert.equal("\0a\0", stream:read("l"))
    assert.equal("b\0\n", stream:read("L"))
    assert.equal("\0", stream:read("l"))
    assert.is_nil(stream:read("l"))
    stream:close()
  end)

  it("accepts formats by their first letter, like io", function()
    local stream = open((stored("first\nsecond\nthird\nfourth")))
    assert.equal("first", stream:read("line"))
    assert.equal("second\n", stream:read("*Line"))
    assert.equal("third\nfourth", stream:read("*all"))
    stream:close()
  end)

  it("raises on other formats and reads nothing", function()
    local stream = open((stored("first\nsecond")))
    for _, format in ipairs { "x", "", "*", "**l", " l", "n", "*n", "5", -1, 1.5, 2^54, 1e300, math.huge, -math.huge,
                              0 / 0, true, {}, print } do
      local ok, message = pcall(stream.read, stream, format)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'read' (", 1, true))
      ok, message = pcall(stream.read, stream, "l", 1, format)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #3 to 'read' (", 1, true))
      ok, message = pcall(stream.lines, stream, format)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'lines' (", 1, true))
    end
    assert.is_false((pcall(stream.read, stream, nil)))
    if math.maxinteger then assert.is_false((pcall(stream.read, stream, math.maxinteger))) end
    assert.equal("first", stream:read())
    stream:close()
  end)
end)

describe("stream:lines()", function()
  before_each(setup_client)
  after_each(teardown_client)

  local function all(iterator, state, control)
    local found = {}
    for a, b in iterator, state, control do found[#found + 1] = b and { a, b } or a end
    return found
  end

  it("returns the lines without their ends, like io's", function()
    for _, bytes in ipairs { "", "\n", "a\nb\n", "a\nb", "a\r\n\r\nb\r", text_of(200000) } do
      local id, path = stored(bytes)
      local stream = open(id)
      local file = assert(io.open(path, "rb"))
      assert.same(all(file:lines()), all(stream:lines()))
      file:close()
      stream:close()
    end
  end)

  it("accepts read's formats", function()
    local id = stored("a\nbc\nde")
    local function got(...)
      local stream = open(id)
      local found = all(stream:lines(...))
      stream:close()
      return found
    end
    assert.same({ "a\n", "bc\n", "de" }, got("L"))
    assert.same({ "a\n", "bc\n", "de" }, got("*L"))
    assert.same({ "a", "bc", "de" }, got("l"))
    assert.same({ "a\nb", "c\nd", "e" }, got(3))
    assert.same({ { "a", "b" }, { "c", "d" }, "e" }, got("l", 1))
  end)

  it("leaves the stream open after the loop, and continues at the same position", function()
    local stream = open((stored("a\nb\nc\nd")))
    for line in stream:lines() do
      if line == "b" then break end
    end
    assert.equal("c", stream:read())
    assert.same({ "d" }, all(stream:lines()))
    assert.same({}, all(stream:lines()))
    stream:close()
  end)

  it("raises in the loop once the stream is closed", function()
    local stream = open((stored("a\nb\nc\nd")))
    local step = stream:lines()
    assert.equal("a", step())
    stream:close()
    local ok, message = pcall(step)
    assert.is_false(ok)
    assert.truthy(message:find("attempt to use a closed stream", 1, true))
  end)

  it("returns lines as they arrive", function()
    local id = stored("first\nsecond\n")
    client:close()
    client = helper.client { stall_timeout = 1, rate = false, max_attempts = 1 }
    patient = client:patient(PATIENT)
    helper.faults { operation = "download", action = { stall = 8 } }
    -- the first bytes of a document are buffered for the content check, so it must be longer
    local stream = patient:document(id):open()
    local line, err = stream:read()
    assert.is_nil(line)
    assert.equal("timeout", err.kind)
    stream:close()
    id = stored(("first line of many\n"):rep(100))
    helper.faults { operation = "download", action = { stall = 60 } }
    stream = open(id)
    assert.equal("first line of many", stream:read())
    assert.equal("first line of many", stream:read())
    assert.equal("first line of many", stream:read())
    line, err = stream:read()
    assert.is_nil(line)
    assert.equal("timeout", err.kind)
    assert.equal("stall", err.reason)
    stream:close()
  end)
end)

describe("stream()", function()
  before_each(setup_client)
  after_each(teardown_client)

  it("returns chunk after chunk, then nil for ever", function()
    for _, bytes in ipairs { "", "x", text_of(16384), text_of(131073), text_of(500000) } do
      local stream = open((stored(bytes)))
      local chunks = {}
      for chunk in stream do
        assert.equal("string", type(chunk))
        assert.is_true(#chunk > 0)
        chunks[#chunks + 1] = chunk
      end
      assert.is_true(bytes == table.concat(chunks))
      for _ = 1, 3 do
        local chunk, err = stream()
        assert.is_nil(chunk)
        assert.is_nil(err)
      end
      stream:close()
    end
  end)

  it("continues after read()", function()
    local bytes = text_of(200000)
    local stream = open((stored(bytes)))
    local pieces = { stream:read("L"), stream:read(10), stream(), stream:read("L"), stream(), (stream:read("a")) }
    assert.is_true(bytes == table.concat(pieces))
    assert.is_nil((stream()))
    stream:close()
  end)

  it("can be pumped into a sink", function()
    local bytes = text_of(300000)
    local stream = open((stored(bytes)))
    local got = {}
    local function sink(chunk)
      got[#got + 1] = chunk
      return 1
    end
    -- ltn12.pump.all
    repeat
      local chunk, source_err = stream()
      local ok, sink_err = sink(chunk, source_err)
      assert.is_nil(sink_err)
    until not chunk or not ok
    assert.is_true(bytes == table.concat(got))
    stream:close()
  end)
end)

describe("a stream", function()
  before_each(setup_client)
  after_each(teardown_client)

  it("has its size and content type", function()
    local id = stored("%PDF-1.4\n", { content_type = "application/pdf" })
    for _, opener in ipairs { open, open_unseen } do
      local stream = opener(id)
      assert.equal(9, stream.size)
      if math.type then assert.equal("integer", math.type(stream.size)) end
      assert.equal("application/pdf", stream.content_type)
      stream:close()
    end
    local stream = open((stored("")))
    assert.equal(0, stream.size)
    stream:close()
  end)

  it("has the document's size if the response has none, or else no size", function()
    local id = stored("%PDF-1.4\n")
    helper.faults { operation = "download", action = { length = "chunked" }, times = 2 }
    local stream = open(id)
    assert.equal(9, stream.size)
    if math.type then assert.equal("integer", math.type(stream.size)) end
    stream:close()
    stream = open_unseen(id)
    assert.is_nil(stream.size)
    stream:close()
    helper.faults { operation = "download", action = { remove_headers = { "Content-Type" } } }
    stream = open_unseen(id)
    assert.is_nil(stream.content_type)
    stream:close()
  end)

  it("has no other fields, and accepts none", function()
    local stream = open((stored("x")))
    assert.is_nil(stream.nothing)
    for i = -1, 10 do assert.is_nil(stream[i]) end
    assert.is_nil(stream[stream])
    assert.is_false((pcall(function() stream.size = 5 end)))
    assert.is_false((pcall(function() for _ in pairs(stream) do end end)))
    stream:close()
  end)

  it("shows its class and state only", function()
    local stream = open((stored("x")))
    assert.equal("nymbl.stream", tostring(stream))
    stream:close()
    assert.equal("nymbl.stream (closed)", tostring(stream))
  end)

  it("can be closed early, twice, and at the end", function()
    local id = stored(text_of(500000))
    local before = helper.descriptors()
    for _ = 1, 20 do
      local stream = open(id)
      stream:read(10)
      assert.is_true(stream:close())
      assert.is_true(stream:close())
    end
    local stream = open(id)
    stream:read("a")
    assert.is_true(stream:close())
    assert.is_true(helper.descriptors() <= before + KEPT)
    assert.equal(1, helper.object_count())
    assert.equal(1, patient:count())
  end)

  it("raises once it is closed", function()
    local stream = open((stored("x\ny\n")))
    stream:close()
    for name, call in pairs {
      read = function() return stream:read() end,
      all = function() return stream:read("a") end,
      none = function() return stream:read(0) end,
      lines = function() return stream:lines() end,
      call = function() return stream() end,
    } do
      local ok, message = pcall(call)
      assert.is_false(ok, name)
      assert.truthy(message:find("stream_spec%.lua:%d+: attempt to use a closed stream$"), message)
    end
  end)

  it("raises once its client is closed, and can still be closed", function()
    local stream = open((stored(text_of(300000))))
    stream:read(10)
    client:close()
    for _, call in ipairs { function() return stream:read() end, function() return stream() end,
                            function() return stream:lines() end } do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.truthy(message:find("attempt to use a closed client", 1, true))
    end
    assert.is_true(stream:close())
  end)

  it("keeps its client alive", function()
    local id = stored(text_of(300000))
    local stream = assert(helper.client({ rate = false }):patient(PATIENT):document(id):open())
    collectgarbage()
    collectgarbage()
    assert.equal(300000, #stream:read("a"))
    stream:close()
  end)

  it("is closed when it is collected", function()
    local id = stored(text_of(500000))
    patient:count()
    local objects, descriptors = helper.object_count(), helper.descriptors()
    for _ = 1, 20 do open(id):read(10) end
    assert.equal(objects, helper.object_count())
    assert.is_true(helper.descriptors() <= descriptors + KEPT)
  end)

  if _VERSION >= "Lua 5.4" then
    it("is closed at the end of its scope", function()
      local id = stored(text_of(500000))
      local scope = assert(load [[
        local open, id, body, keep = ...
        local stream <close> = open(id)
        keep(stream)
        body(stream)
        return stream:read(1)
      ]])
      local kept
      local function keep(stream) kept = stream end
      assert.equal("%", scope(open, id, function() end, keep))
      assert.equal("nymbl.stream (closed)", tostring(kept))

      local ok, message = pcall(scope, open, id, function() error("mine", 0) end, keep)
      assert.is_false(ok)
      assert.equal("mine", message)
      assert.equal("nymbl.stream (closed)", tostring(kept))

      assert.equal("%", scope(open, id, function() end, keep))
      ok, message = pcall(scope, open, id, function(stream) stream:close() end, keep)
      assert.is_false(ok)
      assert.truthy(message:find("attempt to use a closed stream", 1, true))

      local thread = coroutine.create(scope)
      assert.is_true(coroutine.resume(thread, open, id, function() coroutine.yield() end, keep))
      assert.equal("nymbl.stream", tostring(kept))
      assert.is_true(coroutine.close(thread))
      assert.equal("nymbl.stream (closed)", tostring(kept))
      kept = nil -- luacheck: ignore 311
    end)
  end

  it("reports progress", function()
    local bytes = text_of(300000)
    local id = stored(bytes)
    local last, calls = 0, 0
    local stream = open(id, { progress = function(done, total)
      assert.is_true(done > last or done == last)
      assert.equal(#bytes, total)
      last, calls = done, calls + 1
    end })
    assert.is_true(bytes == stream:read("a"))
    assert.equal(#bytes, last)
    assert.is_true(calls > 1)
    stream:close()
  end)

  it("ends if progress says so, with kind canceled", function()
    local stream = open((stored(text_of(300000))), { progress = function() return false end })
    for _ = 1, 3 do
      local bytes, err = stream:read("a")
      assert.is_nil(bytes)
      assert.equal("canceled", err.kind)
    end
    stream:close()
  end)

  it("ends with kind canceled if progress closes the stream", function()
    local id = stored(text_of(300000))
    for _, format in ipairs { 100000, "l", "a", false } do
      local stream
      stream = open(id, { progress = function() stream:close() end })
      local bytes, err
      if format then bytes, err = stream:read(format) else bytes, err = stream() end
      assert.is_nil(bytes)
      assert.equal("canceled", err.kind)
      assert.equal("closed", err.reason)
    end
  end)

  it("passes on errors that progress raises, unchanged", function()
    local mine = {}
    local stream = open((stored(text_of(300000))), { progress = function() error(mine, 0) end })
    local ok, raised = pcall(stream.read, stream)
    assert.is_false(ok)
    assert.equal(mine, raised)
    stream:close()
  end)

  it("starts within the timeout, or fails to open", function()
    local id = stored("x")
    local document = patient:document(id)
    helper.faults { operation = "download", action = { delay = 3 } }
    local began = os.time()
    local stream, err = document:open { timeout = 0.3 }
    assert.is_nil(stream)
    assert.equal("timeout", err.kind)
    assert.is_true(os.time() - began < 3)
  end)

  it("may be read for longer than the timeout once it has started", function()
    local bytes = text_of(600000)
    local stream = open((stored(bytes)), { timeout = 2 })
    stream:read(1)
    os.execute("sleep 2.2")
    assert.is_true(bytes:sub(2) == stream:read("a"))
    stream:close()
  end)

  it("does not open a missing document", function()
    local stream, err = patient:document("nowhere"):open()
    assert.is_nil(stream)
    assert.equal("not_found", err.kind)
    assert.equal(404, err.status)
    assert.equal(1, err.attempts)
    assert.truthy(err.detail)
  end)
end)

describe("a broken transfer", function()
  local bytes = text_of(300000)
  local id

  before_each(function()
    setup_client()
    id = stored(bytes)
  end)
  after_each(teardown_client)

  -- Ways to read to the end: each returns the received bytes and the error.
  local READERS = {
    ["read('a')"] = function(stream)
      local all, err = stream:read("a")
      return all or "", err
    end,
    ["read(n)"] = function(stream)
      local pieces = {}
      while true do
        local piece, err = stream:read(5000)
        if not piece then return table.concat(pieces), err end
        pieces[#pieces + 1] = piece
      end
    end,
    ["read('L', 'L')"] = function(stream)
      local pieces = {}
      while true do
        local first, second, err = stream:read("L", "L")
        if not first then return table.concat(pieces), second end
        pieces[#pieces + 1] = first
        if not second then return table.concat(pieces), err end
        pieces[#pieces + 1] = second
      end
    end,
    ["lines('L')"] = function(stream)
      local pieces = {}
      local ok, err = pcall(function()
        for line in stream:lines("L") do pieces[#pieces + 1] = line end
      end)
      return table.concat(pieces), not ok and err or nil
    end,
    ["lines('L', 1)"] = function(stream)
      local pieces = {}
      local ok, err = pcall(function()
        for line, byte in stream:lines("L", 1) do
          pieces[#pieces + 1] = line
          pieces[#pieces + 1] = byte
        end
      end)
      return table.concat(pieces), not ok and err or nil
    end,
    ["stream()"] = function(stream)
      local pieces = {}
      while true do
        local chunk, err = stream()
        if not chunk then return table.concat(pieces), err end
        pieces[#pieces + 1] = chunk
      end
    end,
  }

  -- Read with each reader and both kinds of document under a fault.
  local function broken(action, check, seen_only)
    for name, read in pairs(READERS) do
      for _, seen in ipairs { true, false } do
        if seen or not seen_only then
          local document = seen and assert(patient:get(id)) or patient:document(id)
          helper.faults { operation = "download", action = action }
          local stream, err = document:open()
          local got = ""
          if stream then
            got, err = read(stream)
            assert.truthy(err, name .. " looks whole")
            -- and the error stays
            for _, again in ipairs { function() return stream:read() end, function() return stream:read("a") end,
                                     function() return stream:read(0) end, function() return stream:read(1) end,
                                     function() return stream() end } do
              local value, second = again()
              assert.is_nil(value)
              assert.equal(err, second)
            end
            local ok, raised = pcall(stream:lines())
            assert.is_false(ok)
            assert.equal(err, raised)
            stream:close()
          end
          assert.equal("table", type(err), name)
          assert.is_true(got == bytes:sub(1, #got), name .. " gives other bytes")
          assert.equal(1, err.attempts)
          assert.is_nil(err.outcome_unknown)
          check(err, got, seen)
        end
      end
    end
  end

  for _, count in ipairs { 0, 1, 100, 16384, 131072, 299999 } do
    it(("that is cut off after %d bytes is not a valid end"):format(count), function()
      local function truncated(err, got)
        assert.equal("truncated", err.kind)
        assert.is_true(#got <= count)
      end
      broken({ cut = count }, truncated)
      broken({ close_notify = count }, truncated)
      broken({ chunk_cut = count }, truncated)
      broken({ chunk_cut = count, unclean = true }, truncated)
    end)

    it(("that is reset after %d bytes is not a valid end"):format(count), function()
      broken({ reset = count }, function(err, got)
        assert.equal("network", err.kind)
        assert.equal("reset", err.reason)
        assert.is_true(#got <= count)
      end)
    end)
  end

  it("that is shorter than announced is not a valid end", function()
    for _, delta in ipairs { 1, 100, 1000000 } do
      broken({ length_delta = delta }, function(err, _, seen)
        assert.equal(seen and "corrupt" or "truncated", err.kind) -- depending on whether the document's size is known
      end)
    end
  end)

  it("without a length or close_notify is not a valid end", function()
    broken({ length = "none", unclean = true }, function(err) assert.equal("truncated", err.kind) end)
    broken({ length = "none", cut = 1000 }, function(err) assert.equal("truncated", err.kind) end)
  end)

  it("that stalls fails with timeout", function()
    client:close()
    client = helper.client { stall_timeout = 1, rate = false, max_attempts = 1 }
    patient = client:patient(PATIENT)
    broken({ stall = 20000 }, function(err, got)
      assert.equal("timeout", err.kind)
      assert.equal("stall", err.reason)
      assert.is_true(#got <= 20000)
    end)
  end)

  it("whose size differs from the document's is corrupt", function()
    local function corrupt(err) assert.equal("corrupt", err.kind) end
    broken({ truncate = 1000 }, corrupt, true)
    broken({ truncate = 299999 }, corrupt, true)
    broken({ truncate = 0 }, corrupt, true)
    broken({ append = "x" }, corrupt, true)
    broken({ truncate = 1000, length = "chunked" }, corrupt, true)
    broken({ truncate = 1000, length = "none" }, corrupt, true)
    broken({ append = "x", length = "chunked" }, corrupt, true)
    broken({ length_delta = -5 }, corrupt, true)
  end)

  it("that never ends is corrupt if the size is known", function()
    local document = assert(patient:get(id))
    helper.faults { operation = "download", action = { endless = true } }
    local stream, err = document:open()
    if stream then
      err = select(2, stream:read("a"))
      stream:close()
    end
    assert.equal("corrupt", err.kind)
  end)

  it("with a content encoding is corrupt", function()
    for _, opener in ipairs { function() return assert(patient:get(id)) end,
                              function() return patient:document(id) end } do
      local document = opener()
      helper.faults { operation = "download", action = { gzip = true } }
      local stream, err = document:open()
      if stream then
        err = select(2, stream:read("a"))
        stream:close()
      end
      assert.equal("corrupt", err.kind)
      helper.faults { operation = "download", action = { base64 = true, length = "chunked" } }
      stream, err = document:open()
      if stream then
        err = select(2, stream:read("a"))
        stream:close()
      end
      assert.equal("corrupt", err.kind)
    end
  end)

  it("that is not checked against the document's size returns the service's bytes", function()
    local document = assert(patient:get(id))
    helper.faults { operation = "download", action = { truncate = 1000 } }
    local stream = assert(document:open { check_size = false })
    assert.is_true(bytes:sub(1, 1000) == stream:read("a"))
    assert.equal(1000, stream.size)
    stream:close()
  end)

  it("reports the number of sent requests", function()
    client:close()
    client = helper.client { max_attempts = 2 }
    patient = client:patient(PATIENT)
    patient:count() -- to get a token
    helper.admin("POST", "settings", { expire_tokens = true })
    helper.faults { operation = "download", action = { cut = 299999 }, skip = 1 }
    local stream = assert(patient:document(id):open())
    local _, err = stream:read("a")
    stream:close()
    assert.equal("truncated", err.kind)
    assert.equal(2, #helper.journal("download"))
    assert.equal(2, err.attempts)
  end)
end)

describe("many streams", function()
  before_each(setup_client)
  after_each(teardown_client)

  -- Read all streams alternately, in pieces of many sizes, until all are at their ends.
  local function interleave(streams, contents)
    local got, open_count, round = {}, #streams, 0
    for i = 1, #streams do got[i] = {} end
    while open_count > 0 do
      round = round + 1
      for i, stream in pairs(streams) do
        local piece
        if (round + i) % 3 == 0 then
          piece = stream:read("L")
        elseif (round + i) % 3 == 1 then
          piece = stream:read(round * 131 % 30000 + 1)
        else
          piece = stream()
        end
        if piece then
          table.insert(got[i], piece)
        else
          assert.is_true(contents[i] == table.concat(got[i]))
          stream:close()
          streams[i] = nil
          open_count = open_count - 1
        end
      end
    end
  end

  local function prepare(count, opener)
    local streams, contents = {}, {}
    for i = 1, count do
      contents[i] = text_of((i - 1) * 20011 % 400000)
      streams[i] = opener((stored(contents[i])))
    end
    return streams, contents
  end

  it("can be read alternately", function()
    interleave(prepare(20, open))
  end)

  it("can be read alternately, over one connection at a time", function()
    client:close()
    client = helper.client { max_connections = 1, rate = false }
    patient = client:patient(PATIENT)
    interleave(prepare(20, open_unseen))
  end)

  it("can be read in coroutines", function()
    local streams, contents = prepare(5, open)
    local threads = {}
    for i, stream in ipairs(streams) do
      threads[i] = coroutine.wrap(function()
        local pieces = {}
        for line in stream:lines("L") do
          pieces[#pieces + 1] = line
          coroutine.yield(false)
        end
        stream:close()
        return contents[i] == table.concat(pieces)
      end)
    end
    while next(threads) do
      for i, thread in pairs(threads) do
        local result = thread()
        if result ~= false then
          threads[i] = nil
          assert.is_true(result)
        end
      end
    end
  end)

  it("do not delay other calls while they are not read", function()
    client:close()
    client = helper.client { max_connections = 1, rate = false, timeout = 20 }
    patient = client:patient(PATIENT)
    local bytes = text_of(500000)
    local id = stored(bytes)
    local stream = open(id)
    assert.equal("%PDF-1.4", stream:read())
    assert.equal(1, patient:count())
    local second = open(id)
    assert.is_true(bytes == second:read("a"))
    assert.is_true(bytes:sub(10) == stream:read("a"))
    stream:close()
    second:close()
  end)

  local function abandon(count)
    local id = stored(text_of(400000))
    local document = assert(patient:get(id))
    assert.equal(1, helper.object_count())
    local before = helper.descriptors()
    for i = 1, count do
      local stream = assert(document:open())
      if i % 3 == 1 then stream:read() elseif i % 3 == 2 then stream:read(140000) end
      stream = nil -- luacheck: ignore 311
      if i % 50 == 0 then collectgarbage() end
    end
    assert.equal(1, helper.object_count())
    assert.is_true(helper.descriptors() <= before + KEPT)
    assert.equal(1, patient:count())
  end

  it("leave nothing behind if they are abandoned", function()
    abandon(300)
  end)

  it("leave nothing behind if very many are abandoned #slow", function()
    abandon(os.getenv "NYMBL_SPEC_LARGE" and 10000 or 1200) -- more than the usual 1024 descriptors
  end)

  it("leave nothing behind if they are abandoned after a failure", function()
    local id = stored(text_of(400000))
    local before = helper.descriptors()
    for _, action in ipairs { { cut = 1000 }, { reset = 1000 }, { close_notify = 0 }, { length_delta = 10 } } do
      helper.faults { operation = "download", action = action, times = 10 }
      for _ = 1, 10 do
        local stream = patient:document(id):open()
        if stream then stream:read("a") end
      end
    end
    assert.equal(1, helper.object_count())
    assert.is_true(helper.descriptors() <= before + KEPT)
  end)

  it("are released with their client", function()
    local id = stored(text_of(400000))
    for _ = 1, 20 do open(id):read() end
    client:close()
    assert.equal(0, helper.object_count() - 1)
  end)
end)

describe("a stream as the source of an upload", function()
  local bytes = text_of(300000)

  before_each(setup_client)
  after_each(teardown_client)

  local function copy(stream, options)
    options = options or {}
    options.file_name = options.file_name or "copy.pdf"
    options.content_type = "application/pdf"
    return client:patient("copies"):upload(stream, options)
  end

  -- The received bytes.
  local function arrived(document)
    local stream = assert(document:open())
    local all = stream:read("a")
    stream:close()
    return all
  end

  it("is sent completely", function()
    for _, size in ipairs { 0, 9, 131072, 300000, 2000000 } do
      local content = text_of(size):sub(1, size)
      local stream = open((stored(content)))
      local made = assert(copy(stream, { check_type = size > 0 }))
      stream:close()
      assert.equal(size, made.file_size_bytes)
      assert.is_true(content == arrived(made))
    end
  end)

  it("is sent completely if its size is unknown", function()
    for _, size in ipairs { 300000, 2000000 } do
      local content = text_of(size)
      local id = stored(content)
      helper.faults { operation = "download", action = { length = "chunked" } }
      local stream = open_unseen(id)
      assert.is_nil(stream.size)
      local made = assert(copy(stream))
      stream:close()
      assert.is_true(content == arrived(made))
    end
  end)

  it("is sent from its current position", function()
    for _, count in ipairs { 1, 16384, 200000 } do
      local id = stored(("p"):rep(count) .. "\n" .. bytes)
      for _, opener in ipairs { open, open_unseen } do
        for _, formats in ipairs { { count + 1 }, { "L" }, { count, "l" } } do
          local stream = opener(id)
          stream:read((table.unpack or unpack)(formats))
          local made = assert(copy(stream))
          stream:close()
          assert.is_true(bytes == arrived(made))
        end
      end
    end
  end)

  it("may come from another client", function()
    local other = helper.client { rate = false }
    local stream = assert(other:patient(PATIENT):document((stored(bytes))):open())
    assert.is_true(bytes == arrived(assert(copy(stream))))
    stream:close()
    other:close()
  end)

  it("stores nothing if it fails, and the upload returns its error", function()
    local id = stored(bytes)
    for _, action in ipairs { { cut = 200000 }, { close_notify = 200000 }, { chunk_cut = 200000 } } do
      helper.faults { operation = "download", action = action }
      local stream = open_unseen(id)
      local made, err = copy(stream)
      assert.is_nil(made)
      assert.equal("truncated", err.kind)
      assert.is_nil(err.outcome_unknown)
      stream:close()
    end
    assert.same({}, helper.stored("copies"))
  end)

  it("raises if it is closed", function()
    local stream = open((stored(bytes)))
    stream:close()
    local ok, message = pcall(copy, stream)
    assert.is_false(ok)
    assert.truthy(message:find("bad argument #1 to 'upload' (closed stream)", 1, true))
  end)
end)
