-- SPDX-License-Identifier: MIT
-- Servers that send wrong data, fail or break off: their bytes are never accepted as a document.
local helper = require "helper"

local unpack = table.unpack or unpack -- luacheck: ignore

local PATIENT, OTHER = "12345", "777"
local SIZE = 40000

local client, patient, folder, default

-- One attempt per call, with short timeouts.
local function client_new(given)
  local options = { stall_timeout = 2, timeout = 30, rate = false, monthly_quota = false, max_attempts = 1 }
  for name, value in pairs(given or {}) do options[name] = value end
  return helper.client(options)
end

local function setup()
  helper.reset()
  default = nil
  helper.admin("POST", "documents", { patient = OTHER, id = "other", content = "%PDF-1.4" })
  client = client_new()
  patient = client:patient(PATIENT)
  folder = helper.directory()
end

local function teardown()
  client:close()
  client, patient = nil, nil
  assert.equal(0, helper.object_count())
end

-- Replace the client by one with other options.
local function use(given)
  client:close()
  client = client_new(given)
  patient = client:patient(PATIENT)
end

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

-- An error's message must be safe to log.
local function is_clean(err)
  local line = tostring(err)
  assert.is_nil(line:find("\n", 1, true))
  for _, secret in ipairs { PATIENT, "doc%-", "https?:", "localhost", "<html", "Dr%. Smith" } do
    assert.is_nil(line:find(secret), line)
  end
end

-- `kind` is one kind or a list of allowed kinds.
local function check_error(err, kind, reason, note)
  assert.equal("table", type(err), note)
  if type(kind) == "table" then
    assert.is_true(contains(kind, err.kind), ("%s: %s"):format(note or "", tostring(err)))
  else
    assert.equal(kind, err.kind, ("%s: %s"):format(note or "", tostring(err)))
  end
  if reason then assert.equal(reason, err.reason, note) end
  is_clean(err)
end

---- documents ----

-- Each way to fetch a document: returns the call's results, and the bytes that the script has
-- received.
local WAYS = {
  ["a path"] = function(document, options)
    local path = folder .. "/a"
    helper.write_file(path, "mine")
    local size, err = document:download(path, options)
    local bytes = helper.read_file(path)
    assert.equal("a", helper.names(folder)) -- no temporary file
    if not size then
      assert.equal("mine", bytes)
      bytes = ""
    end
    os.remove(path)
    return size, not size and err or nil, bytes
  end,
  ["a handle"] = function(document, options)
    local path = helper.temporary()
    local handle = assert(io.open(path, "wb"))
    local size, err = document:download(handle, options)
    handle:close()
    return size, not size and err or nil, helper.read_file(path)
  end,
  ["a sink"] = function(document, options)
    local pieces, ends, reported = {}, 0, nil
    local size, err = document:download(function(chunk, why)
      if chunk then
        assert.equal(0, ends)
        pieces[#pieces + 1] = chunk
      else
        ends, reported = ends + 1, why
      end
      return 1
    end, options)
    if size then err = nil end
    assert.equal(1, ends)
    assert.equal(err, reported)
    return size, err, table.concat(pieces)
  end,
  ["a stream"] = function(document, options)
    local stream, err = document:open(options)
    if not stream then return nil, err, "" end
    local pieces, chunk = {} -- luacheck: ignore
    repeat
      chunk, err = stream()
      pieces[#pieces + 1] = chunk
    until not chunk
    stream:close()
    local bytes = table.concat(pieces)
    return not err and #bytes or nil, err, bytes
  end,
}

-- A document of the patient: its metadata and its bytes.
local function stored(fields)
  if not fields and default then return assert(patient:get(default[1])), default[2] end
  local has_content = fields and (fields.content or fields.content_base64)
  local made = helper.add_document({
    patient = PATIENT, content_type = "application/pdf", size = not has_content and SIZE or nil,
  }, fields)
  local document, pieces = assert(patient:get(made.id)), {}
  assert(document:download(function(chunk)
    pieces[#pieces + 1] = chunk
    return 1
  end))
  pieces = table.concat(pieces)
  if not fields then default = { document.id, pieces } end
  return document, pieces
end

-- Fetch a document in each way under a fault. `case`: `action`, `kind` (nil: success), `reason`,
-- `head` (the fault is detected from the head: no byte arrives), `status`, `options`, `known`
-- (false: only the document's ids are known), `ways`, `after`.
local function bring(case)
  local document, bytes = stored(case.fields)
  local id, ways = document.id, case.ways or { "a path", "a handle", "a sink", "a stream" }
  if case.known == false then document = patient:document(id) end
  helper.admin("DELETE", "journal")
  helper.faults { operation = "download", action = case.action, times = #ways }
  for _, way in ipairs(ways) do
    local size, err, seen = WAYS[way](document, case.options)
    if case.kind then
      assert.is_nil(size, way)
      check_error(err, case.kind, case.reason, way)
      assert.equal(1, err.attempts, way)
      assert.is_nil(err.outcome_unknown)
      if case.status then assert.equal(case.status, err.status, way) end
      if case.head then assert.equal("", seen, way) end
      if not case.action.endless then
        assert.is_true(seen == bytes:sub(1, #seen), way .. " gets a wrong byte")
      end
    else
      assert.is_nil(err, way .. ": " .. tostring(err))
      assert.is_true(seen == (case.bytes or bytes), way .. " gets other bytes")
    end
    -- the client and its connections still work
    assert.equal(id, assert(patient:get(id)).id)
  end
  assert.equal(#ways, #helper.journal("download"))
end

describe("document:download() and document:open() from an untrustworthy server", function()
  before_each(setup)
  after_each(teardown)

  it("refuse a body that is shorter or longer than the document", function()
    for _, change in ipairs { { truncate = SIZE - 1 }, { truncate = 10 }, { truncate = 0 }, { append = "x" } } do
      bring { action = change, kind = "corrupt", reason = "size_mismatch", head = true }
      change.length = "chunked"
      bring { action = change, kind = "corrupt", reason = "size_mismatch" }
      change.length = "none"
      bring { action = change, kind = "corrupt", reason = "size_mismatch" }
    end
  end)

  it("accept the response's length if check_size is false", function()
    local _, bytes = stored()
    for _, length in ipairs { "chunked", "none", "" } do
      length = length ~= "" and length or nil
      bring { action = { truncate = 100, length = length }, options = { check_size = false }, bytes = bytes:sub(1,
        100) }
      bring { action = { append = "x", length = length }, options = { check_size = false }, bytes = bytes .. "x" }
    end
  end)

  it("refuse an endless body", function()
    bring { action = { endless = true }, kind = "corrupt", reason = "size_mismatch" }
  end)

  it("accept a body without a length only if TLS signals its end", function()
    bring { action = { length = "none" } }
    bring { action = { length = "none" }, known = false }
    for _, known in ipairs { true, false } do
      bring { action = { length = "none", unclean = true }, known = known, kind = "truncated" }
      bring { action = { length = "none", cut = SIZE - 1 }, known = known, kind = "truncated" }
    end
    bring { action = { length = "none", close_notify = SIZE - 1 }, kind = "corrupt", reason = "size_mismatch" }
  end)

  it("refuse chunks without an end", function()
    for _, unclean in ipairs { true, false } do
      for _, known in ipairs { true, false } do
        for _, count in ipairs { 0, 1, SIZE } do
          bring { action = { chunk_cut = count, unclean = unclean }, known = known, kind = "truncated" }
        end
      end
    end
  end)

  it("refuse a length that differs from the document's, before any byte", function()
    bring { action = { length_delta = 1 }, kind = "corrupt", reason = "size_mismatch", head = true }
    bring { action = { length_delta = -1 }, kind = "corrupt", reason = "size_mismatch", head = true }
    bring { action = { length_delta = 1, hold = true }, kind = "corrupt", reason = "size_mismatch", head = true }
    bring { action = { length_delta = -1, hold = true }, kind = "corrupt", reason = "size_mismatch", head = true }
    bring { action = { length_delta = 2000000000 }, kind = "corrupt", reason = "size_mismatch", head = true }
  end)

  it("check the body against its own length if check_size is false", function()
    local loose = { check_size = false }
    bring { action = { length_delta = 1 }, options = loose, kind = "truncated" }
    bring { action = { length_delta = 1 }, known = false, kind = "truncated" }
    local _, bytes = stored()
    bytes = bytes:sub(1, -2)
    bring { action = { length_delta = -1 }, options = loose, bytes = bytes }
    bring { action = { length_delta = -1, hold = true }, options = loose, bytes = bytes }
    use { stall_timeout = 1 }
    bring { action = { length_delta = 1, hold = true }, options = loose, kind = "timeout", reason = "stall" }
  end)

  it("check chunks against the length in the gateway's renamed header", function()
    bring { action = { remapped_length = true } }
    bring { action = { remapped_length = true, headers = { { "x-amzn-Remapped-Content-Length", "7" } } },
            kind = "corrupt", reason = "size_mismatch", head = true }
    bring { action = { remapped_length = true, headers = { { "x-amzn-Remapped-Content-Length", tostring(SIZE + 1) } } },
            known = false, kind = "truncated" }
  end)

  it("refuse JSON instead of the bytes", function()
    bring { action = { json_instead = true }, kind = "corrupt", reason = "type_mismatch", head = true }
    bring { action = { json_instead = true }, options = { check_size = false }, kind = "corrupt", reason = "type_mismatch",
      head = true }
    bring { action = { json_instead = true }, known = false, kind = "corrupt", reason = "type_mismatch", head = true }
    for _, text in ipairs { '{"error":{"code":"NotFound","message":"no"}}', ' \r\n\t{ "message" : null}',
      '{"Message":"x"}' } do
      -- no length, size or type identifies it
      bring { action = { status = 200, body = text, content_type = "application/pdf" },
        fields = { content = text:gsub(".", "x") },
              kind = "corrupt", reason = "type_mismatch", head = true }
      bring { action = { status = 200, body = text, content_type = "application/problem+json" }, known = false,
              kind = "corrupt", reason = "type_mismatch", head = true }
    end
  end)

  it("accept JSON if the document is JSON", function()
    local text = '{"error":"none: this is a lab report","message":"and a message"}'
    local fields = { content = text, content_type = "application/json", file_name = "report.json" }
    bring { action = { delay = 0 }, fields = fields }
    fields.content = ('{"a":[1,2,3]}\n'):rep(100)
    bring { action = { delay = 0 }, fields = fields }
  end)

  it("refuse base64 of each accepted type", function()
    for name, content_type in pairs(helper.fixtures) do
      local fields = { content_base64 = helper.output("base64 -w0 " .. helper.path("spec/fixtures/" .. name)),
                       content_type = content_type, file_name = name }
      bring { action = { base64 = true }, fields = fields, kind = "corrupt", head = true }
      for _, length in ipairs { "chunked", "none" } do
        bring { action = { base64 = true, length = length }, fields = fields, options = { check_size = false },
                kind = "corrupt", reason = "base64", head = true }
        -- only the response says the expected type
        bring { action = { base64 = true, length = length }, fields = fields, known = false,
                kind = "corrupt", reason = "base64", head = true }
      end
      bring { action = { status = 200, body = '"' .. fields.content_base64 .. '"', content_type = content_type },
              fields = fields, options = { check_size = false }, kind = "corrupt", reason = "base64", head = true }
    end
  end)

  it("refuse a content encoding that was not requested", function()
    bring { action = { gzip = true }, kind = "corrupt", reason = "content_encoding", head = true }
    bring { action = { gzip = true, length = "chunked" }, known = false, kind = "corrupt", reason = "content_encoding",
      head = true }
    local framed = "400;chunk-signature=0\r\n%PDF-1.7\r\n0;chunk-signature=0\r\n\r\n"
    for _, coding in ipairs { "br", "gzip, identity", "aws-chunked", "x-gzip" } do
      -- the same number of bytes, but with another beginning than the document's
      for _, text in ipairs { framed, "\31\139\8\0" .. framed, "a letter" } do
        bring { action = { status = 200, body = text, headers = { { "Content-Encoding", coding } } },
          fields = { content = text:gsub(".", "x") }, kind = "corrupt", reason = "content_encoding", head = true }
        bring { action = { status = 200, body = text, headers = { { "Content-Encoding", coding } } }, known = false,
          kind = "corrupt", reason = "content_encoding", head = true }
      end
    end
    bring { action = { headers = { { "Content-Encoding", "identity" } } } }
  end)

  it("accept a document whatever its headers say, if length and first bytes match", function()
    for _, header in ipairs { { "Content-Encoding", "aws-chunked" }, { "Content-Encoding", "utf-8" },
      { "Content-Encoding", "none" }, { "Content-Encoding", "gzip" }, { "Content-Encoding", "binary" },
      { "Content-Type", "application/json" }, { "Content-Type", "text/html" }, { "Content-Type", "" },
      { "Content-Type", "application/problem+json; charset=utf-8" } } do
      bring { action = { headers = { header } } }
      bring { action = { headers = { header } }, options = { check_size = false } }
      bring { action = { headers = { header } }, known = false }
      bring { action = { headers = { header }, length = "chunked" } }
      bring { action = { headers = { header }, truncate = 100, length = "chunked" }, kind = "corrupt",
        reason = "size_mismatch" }
    end
  end)

  it("refuse an unknown document without an accepted type", function()
    local page = "<!DOCTYPE html><html><title>Sign in</title></html>"
    for _, body in ipairs { page, '{"fault":{"faultstring":"no"}}', '{"statusCode":500}', "[]", "null",
      "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "<Error/>", "Service unavailable\n",
      "data:application/pdf;base64,JVBERi0xLjQK", "JVBERi0xLjQKJcOkw7zDtsOfCg==", "GIF89a", "\31\139\8\0\0", "",
      (" "):rep(900) .. page, ("x"):rep(1020) .. "%PDF-1.7" } do
      for _, content_type in ipairs { "text/html", "application/json", "application/octet-stream", "text/plain" } do
        for _, length in ipairs { "chunked", "" } do
          local action = { status = 200, body = body, content_type = content_type,
            length = length ~= "" and length or nil }
          bring { action = action, known = false, kind = "corrupt", head = true }
        end
      end
      bring { action = { status = 200, body = body, content_type = "text/plain" }, known = false,
        options = { content_type = "application/pdf" }, kind = "corrupt", head = true,
        ways = { "a path", "a handle", "a sink" } }
    end
  end)

  it("accept an unknown document of an accepted type", function()
    for _, body in ipairs { "%PDF-1.7", "\137PNG\r\n\26\n", "\255\216\255\224", "II*\0", "MM\0*", "II+\0\8\0\0\0",
      "PK\3\4", ("x"):rep(1019) .. "%PDF-1.7" } do
      for _, content_type in ipairs { "text/html", "application/octet-stream" } do
        bring { action = { status = 200, body = body, content_type = content_type }, known = false, bytes = body }
      end
    end
    bring { action = { status = 200, body = "damaged", content_type = "image/png" }, known = false, bytes = "damaged" }
  end)

  it("accept a document of another type that the chart already has", function()
    for content_type, text in pairs { ["text/plain"] = "a letter", ["image/gif"] = "GIF89a",
      ["application/dicom"] = ("\0"):rep(128) .. "DICM", ["text/xml"] = "<?xml version='1.0'?><a/>",
      ["application/octet-stream"] = "anything", ["text/rtf"] = "{\\rtf1}" } do
      local fields = { content = text, content_type = content_type, file_name = "a.bin" }
      bring { action = { delay = 0 }, fields = fields }
      bring { action = { delay = 0 }, fields = fields, options = { check_size = false } }
      bring { action = { delay = 0 }, fields = fields, known = false, kind = "corrupt", reason = "type_mismatch", head = true }
      bring { action = { delay = 0 }, fields = fields, known = false, options = { content_type = content_type },
        ways = { "a path", "a handle", "a sink" } }
    end
  end)

  it("refuse an HTML page with a good status", function()
    bring { action = { status = 200, body_kind = "html" }, kind = "corrupt", head = true }
    bring { action = { status = 200, body_kind = "html", length = "chunked" }, options = { check_size = false },
            kind = "corrupt", reason = "type_mismatch", head = true }
    local page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>"
    for _, text in ipairs { page, page:lower(), "\239\187\191" .. page, " \r\n<HTML><body>" .. page,
      "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>" } do
      bring { action = { status = 200, body = text, content_type = "application/pdf" },
        fields = { content = text:gsub(".", "x") },
              kind = "corrupt", reason = "type_mismatch", head = true }
    end
  end)

  it("accept an HTML page if the document is one", function()
    local fields = { content = "<!DOCTYPE html><html></html>", content_type = "text/html", file_name = "a.html" }
    bring { action = { delay = 0 }, fields = fields }
  end)

  local BODIES = { { body_kind = "html" }, { body_kind = "empty" }, { body_kind = "gateway" },
    { body_kind = "service" },
                   { body = "{" }, { body = ("["):rep(1000) }, { endless = true }, { body_kind = "html", cut = 10 },
                   { body_kind = "html", gzip = true }, { body = "[1,2]" }, { body = '"text"' },
                   { body = '{"error":[{"message":{}}],"message":7}' }, { body = "\0{}" } }

  for status, kind in pairs { [400] = "bad_request", [403] = "forbidden", [404] = "not_found", [410] = "http",
                              [413] = "too_large", [415] = "unsupported_type", [429] = "throttled", [500] = "server",
                              [502] = "server", [503] = "server", [504] = "server", [599] = "server",
                                [418] = "http" } do
    it(("report a %d by its status, whatever its body"):format(status), function()
      for _, action in ipairs(status % 100 == 4 and BODIES or { { body_kind = "html" }, { body_kind = "empty" } }) do
        action.status = status
        bring { action = action, kind = kind, status = status, head = true, ways = { "a path", "a stream" } }
      end
    end)
  end

  it("refuse statuses that are invalid here", function()
    for _, status in ipairs { 201, 202, 203, 204, 206, 207 } do
      bring { action = { status = status, body = ("x"):rep(100), content_type = "application/pdf" },
              fields = { size = 100 }, kind = "http", status = status, head = true }
    end
  end)

  it("refuse an empty body", function()
    bring { action = { status = 200, body_kind = "empty" }, kind = "corrupt", reason = "size_mismatch", head = true }
    bring { action = { status = 200, body_kind = "empty", length = "chunked" }, kind = "corrupt", reason = "size_mismatch",
      head = true }
  end)
end)

---- labels of JSON ----

describe("a content header that does not match", function()
  before_each(setup)
  after_each(teardown)

  it("does not affect JSON that can be decoded", function()
    for _, coding in ipairs { "aws-chunked", "utf-8", "none", "gzip", "x" } do
      local action = { headers = { { "Content-Encoding", coding } } }
      helper.faults { operation = "upload", action = action }
      local document = assert(patient:upload({ data = "%PDF-1.4 one" }, { file_name = "a.pdf" }))
      helper.faults { operation = "list", action = action }
      assert(patient:page())
      helper.faults { operation = "get", action = action }
      assert(patient:get(document.id))
      helper.faults { operation = "delete", action = action }
      assert(document:delete())
    end
  end)

  it("explains JSON that cannot be decoded", function()
    local action = { headers = { { "Content-Encoding", "gzip" } }, gzip = true }
    helper.faults { operation = "upload", action = action }
    local document, err = patient:upload({ data = "%PDF-1.4 one" }, { file_name = "a.pdf" })
    assert.is_nil(document)
    check_error(err, "protocol", "content_encoding")
    assert.is_true(err.outcome_unknown)
  end)
end)

---- every call ----

-- The calls by operation: `run(document)` returns the call's results.
local CALLS = {
  { "patient:upload()", "upload", function()
    return patient:upload({ data = "%PDF-1.4 one" }, { file_name = "a.pdf" })
  end, changes = true },
  { "patient:get()", "get", function(document) return patient:get(document.id) end },
  { "document:refresh()", "get", function(document) return document:refresh() end },
  { "patient:page()", "list", function() return patient:page() end },
  { "patient:documents()", "list", function()
    local found = {}
    local ok, err = pcall(function()
      for each in patient:documents() do found[#found + 1] = each end
    end)
    if not ok then return nil, err end
    return found
  end },
  { "patient:count()", "list", function() return patient:count() end },
  { "document:download()", "download", function(document)
    return document:download(function() return 1 end)
  end },
  { "document:open()", "download", function(document)
    local stream, err = document:open()
    if not stream then return nil, err end
    local _
    _, err = stream:read("a")
    stream:close()
    return not err or nil, err
  end },
  { "document:delete()", "delete", function(document) return document:delete() end, changes = true },
}

-- Run every call under a fault. `check(err, call, result, label)` checks its results.
local function every_call(action, check, only)
  local chosen, wanted, plans = {}, {}, {}
  for _, call in ipairs(CALLS) do
    if not only or contains(only, call[2]) or contains(only, call[1]) then
      chosen[#chosen + 1] = call
      wanted[call[2]] = (wanted[call[2]] or 0) + 1
    end
  end
  for operation, times in pairs(wanted) do
    plans[#plans + 1] = { operation = operation, path_contains = "(" .. PATIENT .. ")", action = action, times = times }
  end
  local document, other = stored(), client:patient(OTHER)
  helper.admin("DELETE", "journal")
  helper.admin("POST", "faults", plans)
  for _, call in ipairs(chosen) do
    local result, err = call[3](document)
    local label = call[1] .. ": " .. helper.json.encode(action):sub(1, 200) .. ": " .. tostring(err)
    if result == nil then
      assert.equal("table", type(err), label)
      assert.equal(1, err.attempts, label)
      is_clean(err)
    end
    check(err, call, result, label)
    -- the next call receives nothing of that response
    local again, problem = other:get("other")
    if not again and action.raw and problem.reason == "reset" then
      again, problem = other:get("other") -- the server closed the connection after the request was sent
    end
    assert.truthy(again, "after " .. label .. ": " .. tostring(problem))
    if call[2] == "delete" then default = nil end -- the document may be deleted
  end
  for operation, times in pairs(wanted) do
    local found = 0
    for _, entry in ipairs(helper.journal(operation)) do
      if entry.path:find("(" .. PATIENT .. ")", 1, true) then found = found + 1 end
    end
    assert.equal(times, found, operation)
  end
end

-- All calls fail under a fault with one of these kinds.
local function every_call_fails(action, kind, reason, only)
  every_call(action, function(err, call, result, label)
    assert.is_nil(result, label)
    check_error(err, kind, reason, label)
    assert.equal(call.changes, err.outcome_unknown, label)
  end, only)
end

describe("every call", function()
  before_each(setup)
  after_each(teardown)

  it("fails if the response is not HTTP", function()
    for _, raw in ipairs { "\r\n", "garbage\r\n\r\n", "<html>\r\n", "{}", "HTTP", "SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\0",
                           "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n",
                           "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "ICY 200 OK\r\n\r\n" } do
      every_call_fails({ raw = raw }, { "protocol", "network", "http" })
    end
  end)

  it("fails if the head breaks off", function()
    for _, count in ipairs { 0, 1, 10, 30, 60 } do
      for _, unclean in ipairs { true, false } do
        every_call_fails({ head_cut = count, unclean = unclean }, { "network" }, "reset")
      end
    end
  end)

  it("fails if the head does not end", function()
    every_call_fails({ header_flood = 70000 }, "protocol", "head_too_long")
    every_call_fails({ header_flood = 1000000 }, "protocol", "head_too_long")
    every_call_fails({ informational = 2000 }, "protocol", "head_too_long")
    every_call_fails({ raw = "HTTP/1.1 200 OK\r\nX-Long: " .. ("x"):rep(15000) .. "\r\n\r\n" }, { "protocol",
      "truncated", "corrupt" }, nil,
      { "get", "list", "upload", "download" })
  end)

  it("ignores a few informational responses", function()
    every_call({ informational = 20 }, function(_, _, result, label)
      assert.truthy(result, label)
    end)
  end)

  it("does not switch protocols", function()
    every_call_fails({ raw = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n{}" },
      { "protocol", "network", "http" })
  end)

  it("fails if the length is malformed", function()
    for _, header in ipairs { "Content-Length: -1", "Content-Length: x", "Content-Length: 99999999999999999999999",
                              "Content-Length: 0x10", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip" } do
      every_call({ raw = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" .. header
        .. "\r\n\r\n\1\2\3\4\5\6\7" },
        function(_, _, result, label) assert.is_nil(result, label) end, { "upload", "get", "list", "download" })
    end
  end)

  it("fails if the chunks are malformed", function()
    for _, body in ipairs { "zz\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}", "-2\r\n{}\r\n0\r\n\r\n",
      "2\r\n{}zz0\r\n\r\n", "2",
                            "2\r\n{", "\r\n\r\n" } do
      every_call({ raw = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. body },
        function(_, _, result, label) assert.is_nil(result, label) end, { "upload", "get", "list", "download" })
    end
  end)

  it("reports a failure by its status, whatever its body", function()
    for _, action in ipairs { { body_kind = "html" }, { body_kind = "empty" }, { body = '{"message":' },
      { endless = true },
                              { body = '{"error":{"code":[],"message":{},"details":{"message":[]}}}' },
                              { body_kind = "gateway", gzip = true }, { body_kind = "service", cut = 5 } } do
      action.status = 503
      every_call(action, function(err, call, result, label)
        assert.is_nil(result, label)
        assert.equal("server", err.kind, label)
        assert.equal(503, err.status, label)
        assert.is_nil(err.code, label)
        assert.equal(call.changes, err.outcome_unknown, label)
      end)
    end
    every_call({ status = 400, body_kind = "html" }, function(err, _, result, label)
      assert.is_nil(result, label)
      assert.equal("bad_request", err.kind, label)
      assert.is_nil(err.detail, label)
      assert.is_nil(err.outcome_unknown, label)
    end)
  end)

  it("reports the server's text as detail, in each of its formats, and never in its message", function()
    for body, words in pairs {
      ['{"message":"Jane Doe"}'] = { nil, "Jane Doe" },
      ['{"Message":"Jane Doe"}'] = { nil, "Jane Doe" },
      ['{"error":{"code":"Bad","message":"Jane Doe"}}'] = { "Bad", "Jane Doe" },
      ['{"error":{"code":"Bad","message":"Jane Doe","details":"twice"}}'] = { "Bad", "Jane Doe: twice" },
      ['{"error":{"code":"Bad","message":"Jane Doe","details":[{"message":"a"},"b",7,null,[]]}}'] = { "Bad",
        "Jane Doe: a; b" },
      ['{"error":"invalid_thing"}'] = { "invalid_thing", nil },
      ['{"error":null,"message":null}'] = { nil, nil },
      ['{"error":{"code":7,"message":true,"details":false}}'] = { nil, nil },
    } do
      every_call({ status = 400, body = body }, function(err, _, _, label)
        assert.equal(words[1], err.code, label)
        assert.equal(words[2], err.detail, label)
        assert.is_nil(tostring(err):find("Jane", 1, true))
        assert.is_nil(("" .. err):find("Bad", 1, true))
      end, { "get", "upload" })
    end
  end)

  it("follows no redirects except for downloads", function()
    local foreign = helper.admin("POST", "listen", { tls = "good", name = "foreign" })
    for _, status in ipairs { 301, 302, 303, 307, 308 } do
      local every_call_redirected = function(location)
        every_call({ redirect = { status = status, location = location } }, function(err, _, result, label)
          assert.is_nil(result, label)
          check_error(err, "redirect", nil, label)
          assert.equal(status, err.status, label)
          assert.is_nil(err.outcome_unknown, label)
        end, { "upload", "get", "list", "delete" })
      end
      every_call_redirected(foreign.url .. "/blob/x")
      every_call_redirected(helper.sandbox().base_url .. "/Patients(1)/Documents")
    end
    for _, entry in ipairs(helper.journal()) do assert.is_true(entry.listener ~= "foreign") end
    helper.admin("DELETE", "listen?name=foreign")
  end)

  it("ends in time if the response arrives in drips", function()
    local quick = { "patient:upload()", "patient:get()", "patient:page()", "document:download()" }
    use { timeout = 0.8 }
    for _, action in ipairs { { drip = 2 }, { head_drip = 2 }, { informational = 100, informational_every = 0.2 },
                              { hold = true, length_delta = 5 } } do
      every_call(action, function(err, call, result, label)
        assert.is_nil(result, label)
        if call[2] == "download" and action.hold then return end -- detected from the head
        check_error(err, "timeout", "deadline", label)
        assert.equal(call.changes, err.outcome_unknown, label)
      end, quick)
    end
  end)
end)

describe("a response that continues beyond its end", function()
  before_each(setup)
  after_each(teardown)

  -- A complete response that the next request must not receive.
  local function smuggled(body, content_type)
    return ("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"):format(content_type, #body, body)
  end

  -- Downloads end in `extra`, which the response's length does not count; the next call is a different one.
  local function followed(extra, hold)
    local document, bytes = stored()
    for _, call in ipairs(CALLS) do
      helper.faults { operation = "download", action = { append = extra, length_delta = -#extra, hold = hold } }
      local got = {}
      assert(document:download(function(chunk) got[#got + 1] = chunk return 1 end))
      assert.is_true(table.concat(got) == bytes, call[1])
      if hold then os.execute("sleep 0.02") end
      helper.faults()
      helper.admin("DELETE", "journal")
      local result, err = call[3](document)
      assert.truthy(result, call[1] .. " after a response that continued: " .. tostring(err))
      assert.equal(1, #helper.journal(call[2]), call[1])
      if call[2] == "get" then
        assert.equal("document.pdf", result.file_name)
      elseif call[1] == "patient:upload()" then
        assert.equal("a.pdf", result.file_name)
        assert.is_true(result:delete())
      elseif call[1] == "patient:count()" then
        assert.equal(1, result)
      elseif call[2] == "list" then
        assert.equal(1, #result)
        assert.equal(document.id, result[1].id)
      elseif call[1] == "document:download()" then
        assert.equal(SIZE, result)
      end
    end
    default = nil -- it was deleted
  end

  for _, hold in ipairs { true, false } do
    local how = hold and "kept open" or "closed"
    it("answers no other call, on a connection " .. how, function()
      local document = stored()
      followed(smuggled(('{"id":"%s","patient_id":"%s","file_name":"evil.pdf","value":[]}'):format(document.id,
        PATIENT),
        "application/json"), hold)
    end)

    it("is no document's content, on a connection " .. how, function()
      followed(smuggled(("%PDF-1.4 another patient's"):rep(100), "application/pdf"), hold)
      followed("\r\n", hold)
      followed("HTTP/1.1 100 Continue\r\n\r\n", hold)
    end)
  end
end)

---- redirects ----

describe("a redirect of a download", function()
  local foreign, plain, untrusted, base

  before_each(function()
    setup()
    foreign = helper.admin("POST", "listen", { tls = "good", name = "foreign" })
    plain = helper.admin("POST", "listen", { tls = "none", name = "plain" })
    untrusted = helper.admin("POST", "listen", { tls = "self_signed", name = "untrusted" })
    base = helper.sandbox().base_url
  end)
  after_each(function()
    for _, name in ipairs { "foreign", "plain", "untrusted" } do helper.admin("DELETE", "listen?name=" .. name) end
    teardown()
  end)

  local function to(location, status)
    return { redirect = { status = status or 302, location = location } }
  end

  -- The number of requests since the journal was cleared. Only those to the service itself, before it
  -- redirected, may have a credential.
  local function journal_checked()
    local journal, away = helper.journal(), false
    for _, entry in ipairs(journal) do
      away = away or entry.listener ~= "main"
      local bearer, key = helper.header(entry, "authorization"), helper.header(entry, "x-api-key")
      if away then
        assert.is_nil(bearer)
        assert.is_nil(key)
      end
      assert.is_nil(helper.header(entry, "referer"))
      assert.is_nil(helper.header(entry, "cookie"))
    end
    return #journal, journal
  end

  it("is followed for each redirect status", function()
    local document, bytes = stored()
    for _, status in ipairs { 301, 302, 303, 307, 308 } do
      for _, way in ipairs { "a path", "a handle", "a sink", "a stream" } do
        helper.admin("DELETE", "journal")
        helper.faults { operation = "download", action = to(foreign.url .. "/blob/" .. document.id, status) }
        local _, err, seen = WAYS[way](document)
        assert.is_nil(err)
        assert.is_true(seen == bytes)
        assert.equal(2, (journal_checked()))
      end
    end
  end)

  it("keeps the credentials within the service", function()
    local document, bytes = stored()
    for _, location in ipairs { "/blob/" .. document.id, base .. "/blob/" .. document.id, "../../blob/" .. document.id,
                                base:gsub("^https", "HTTPS"):gsub("localhost", "LOCALHOST") .. "/blob/"
                                  .. document.id } do
      helper.admin("DELETE", "journal")
      helper.faults { operation = "download", action = to(location) }
      local _, err, seen = WAYS["a sink"](document)
      assert.is_nil(err, location)
      assert.is_true(seen == bytes)
      local count, journal = journal_checked()
      assert.equal(2, count)
      assert.truthy(helper.header(journal[2], "authorization"), location)
      assert.truthy(helper.header(journal[2], "x-api-key"), location)
    end
  end)

  it("sends no credential again after another origin", function()
    local document = stored()
    helper.admin("DELETE", "journal")
    helper.admin("POST", "faults", {
      { operation = "download", action = to(foreign.url .. "/blob/" .. document.id), times = -1, skip = 0,
        path_contains = "Documents" },
      { operation = "blob", listener = "foreign", times = -1,
        action = to(("%s/Patients(%s)/Documents(%s)/$value"):format(base, PATIENT, document.id)) },
    })
    local _, err = WAYS["a path"](document)
    assert.equal("redirect", err.kind)
    assert.equal("too_many_redirects", err.reason)
    local count, journal = journal_checked()
    assert.equal(6, count)
    assert.truthy(helper.header(journal[1], "authorization"))
  end)

  it("may form a loop, which is ended", function()
    local document = stored()
    helper.admin("POST", "faults", {
      { operation = "download", action = to(("/Patients(%s)/Documents(%s)/$value"):format(PATIENT, document.id)),
        times = -1 },
    })
    for _, way in ipairs { "a path", "a handle", "a sink", "a stream" } do
      helper.admin("DELETE", "journal")
      local _, err, seen = WAYS[way](document)
      check_error(err, "redirect", "too_many_redirects", way)
      assert.equal(302, err.status)
      assert.equal("", seen)
      assert.is_true((journal_checked()) <= 10)
    end
  end)

  it("is never followed from TLS to plain HTTP, to other protocols or with a user name", function()
    local document = stored()
    for _, location in ipairs { plain.url .. "/blob/" .. document.id, "http://example.org/", "ftp://localhost/x",
      "file:///etc/passwd",
                                "data:application/pdf,x", "javascript:x", "gopher://localhost/", "", "https://", "//",
                                base:gsub("//", "//user:word@") .. "/blob/" .. document.id,
                                base:gsub("//", "//user@") .. "/blob/" .. document.id, "https://[::1",
                                  "https://local host/",
                                "https://localhost:99999999/" } do
      helper.admin("DELETE", "journal")
      helper.faults { operation = "download", action = to(location) }
      local _, err, seen = WAYS["a path"](document)
      check_error(err, "redirect", nil, location)
      assert.equal(302, err.status)
      assert.equal("", seen)
      assert.equal(1, (journal_checked()), location)
    end
    helper.faults { operation = "download", action = { redirect = { status = 302, location = "x" },
      remove_headers = { "Location" } } }
    local _, err = WAYS["a path"](document)
    check_error(err, "redirect")
  end)

  it("is refused for other 3xx statuses", function()
    for _, status in ipairs { 300, 304, 305, 306, 399 } do
      local document = stored()
      helper.admin("DELETE", "journal")
      helper.faults { operation = "download", action = to(foreign.url .. "/blob/" .. document.id, status) }
      local _, err = WAYS["a path"](document)
      check_error(err, "http")
      assert.equal(status, err.status)
      assert.equal(1, (journal_checked()))
    end
  end)

  it("may have a body, which is ignored", function()
    local document, bytes = stored()
    for _, action in ipairs { { endless = true }, { body_kind = "html" }, { append = ("x"):rep(9000) },
      { gzip = true } } do
      action.redirect = to(foreign.url .. "/blob/" .. document.id).redirect
      helper.faults { operation = "download", action = action }
      local _, err, seen = WAYS["a path"](document)
      assert.is_nil(err, tostring(err))
      assert.is_true(seen == bytes)
    end
  end)

  it("leads to bytes that are checked against the document", function()
    local document = stored()
    for _, case in ipairs {
      { { truncate = 100 }, "corrupt" }, { { append = "x" }, "corrupt" }, { { cut = 100 }, "truncated" },
        { { reset = 100 }, "network" },
      { { gzip = true }, "corrupt" }, { { base64 = true }, "corrupt" }, { { json_instead = true }, "corrupt" },
      { { status = 200, body_kind = "html" }, "corrupt" }, { { status = 403, body_kind = "html" }, "forbidden" },
      { { status = 404, body_kind = "html" }, "not_found" }, { { status = 503, body_kind = "empty" }, "server" },
      { { header_flood = 70000 }, "protocol" }, { { length = "none", unclean = true }, "truncated" },
    } do
      for _, way in ipairs { "a path", "a sink" } do
        helper.admin("POST", "faults", {
          { operation = "download", action = to(foreign.url .. "/blob/" .. document.id) },
          { operation = "blob", action = case[1] },
        })
        local _, err = WAYS[way](document)
        check_error(err, case[2], nil, helper.json.encode(case[1]))
      end
    end
  end)

  it("is followed to trusted servers only", function()
    local document = stored()
    for location, kind in pairs { [untrusted.url .. "/blob/" .. document.id] = "tls",
      ["https://localhost:1/x"] = "network" } do
      helper.faults { operation = "download", action = to(location) }
      local _, err = WAYS["a path"](document)
      check_error(err, kind, nil, location)
      assert.equal(1, err.attempts)
    end
    for _, entry in ipairs(helper.journal()) do assert.is_true(entry.listener ~= "untrusted") end
  end)
end)

---- uploads ----

describe("patient:upload() to an untrustworthy server", function()
  before_each(setup)
  after_each(teardown)

  local LARGE = 20000000

  local function sources()
    local bytes, at = helper.read_file(helper.big_file(LARGE)), 1
    return {
      { "a path", helper.big_file(LARGE) },
      { "bytes", { data = bytes } },
      { "a source", function()
        local piece = bytes:sub(at, at + 99999)
        at = at + #piece
        return piece ~= "" and piece or nil
      end },
    }
  end

  it("ends at an early refusal while the body is being sent", function()
    for _, status in ipairs { 413, 400, 403, 415 } do
      for _, source in ipairs(sources()) do
        helper.admin("DELETE", "journal")
        helper.faults { operation = "upload", action = { early_status = status, drain = true } }
        local document, err = patient:upload(source[2], { file_name = "a.pdf", content_type = "application/pdf" })
        assert.is_nil(document)
        assert.equal(status, err.status, source[1])
        assert.is_nil(err.outcome_unknown)
        assert.equal(1, err.attempts)
        assert.equal(1, #helper.journal("upload"))
      end
    end
    assert.equal(0, #helper.stored(PATIENT))
  end)

  it("ends at an early refusal or a reset, whichever comes first, if the server closes at once", function()
    for _, source in ipairs(sources()) do
      helper.faults { operation = "upload", action = { early_status = 413, drain = false } }
      local document, err = patient:upload(source[2], { file_name = "a.pdf", content_type = "application/pdf" })
      assert.is_nil(document)
      check_error(err, { "too_large", "network" }, nil, source[1])
      assert.equal(err.kind == "network" or nil, err.outcome_unknown)
      assert.equal(1, err.attempts)
      -- the next call is not affected
      assert.equal(0, (assert(patient:count())))
    end
  end)

  it("does not accept a success before everything was sent", function()
    for _, drain in ipairs { true, false } do
      for _, source in ipairs(sources()) do
        helper.faults { operation = "upload", action = { early_status = 201, drain = drain,
          body = ('{"id":"x","patient_id":"%s"}'):format(PATIENT) } }
        local document, err = patient:upload(source[2], { file_name = "a.pdf", content_type = "application/pdf" })
        assert.is_nil(document, source[1])
        check_error(err, { "protocol", "network" }, nil, source[1])
        assert.is_true(err.outcome_unknown)
      end
    end
  end)

  it("accepts every success that has a document of the patient", function()
    for _, status in ipairs { 200, 201, 202, 203 } do
      helper.faults { operation = "upload", action = { status = status, body = '{"id":"x"}' } }
      assert.equal("x", assert(patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })).id)
    end
    for _, status in ipairs { 204, 205, 206 } do
      helper.faults { operation = "upload", action = { status = status, body_kind = "empty" } }
      local document, err = patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
      assert.is_nil(document)
      check_error(err, "protocol")
      assert.is_true(err.outcome_unknown)
    end
  end)

  it("derives the outcome from the status", function()
    for status, unknown in pairs { [400] = false, [401] = false, [403] = false, [404] = false, [409] = false,
      [413] = false,
                                   [415] = false, [417] = false, [429] = false, [500] = true, [502] = true,
                                     [503] = true,
                                   [504] = true, [302] = false, [307] = false } do
      helper.faults { operation = "upload", action = { status = status, body_kind = "gateway" }, times = 2 }
      local document, err = patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
      assert.is_nil(document)
      assert.equal(unknown or nil, err.outcome_unknown, tostring(status))
    end
  end)
end)

---- JSON ----

local ONE_DOCUMENT = '{"id":"x","patient_id":"12345","file_name":"a.pdf"}'

-- Responses to one call after the other: the texts are bodies of status 200.
local function respond(operation, bodies)
  local plans = {}
  for i, body in ipairs(bodies) do
    plans[i] = { operation = operation, action = type(body) == "table" and body or { status = 200, body = body } }
  end
  helper.admin("POST", "faults", plans)
end

-- Bodies that are not a JSON object, or must not be decoded.
local NO_OBJECTS = {
  "", " ", "null", "true", "7", '"text"', "{", "}", "[", "]", "{]", "nil", "undefined", "{'id':'x'}", '{"id":"x",}',
  '{"id":"x"', '{"id":"x"}}', '{"id":"x"} {"id":"y"}', '{"id":"x"}x', '{"id":NaN}', '{"id":Infinity}', '{"id":0x10}',
  '{"id":"\\x"}', '{"id":"\\ud800"}', "\239\187\191", ONE_DOCUMENT .. "\0", ONE_DOCUMENT .. "\0" .. ONE_DOCUMENT,
  "\0" .. ONE_DOCUMENT, '{"id":"x\0y"}', '{"id"\0:"x"}', "\255\254{\0}\0", "<html><body>Sign in</body></html>",
  ("["):rep(33) .. ("]"):rep(33), ('{"a":'):rep(33) .. "1" .. ("}"):rep(33), ("["):rep(10000),
  '{"id":"x","patient_id":"12345","more":' .. ("["):rep(32) .. ("]"):rep(32) .. "}",
}

describe("a response that is not a JSON object", function()
  before_each(setup)
  after_each(teardown)

  for name, call in pairs {
    ["patient:get()"] = { "get", function() return patient:get("x") end },
    ["patient:page()"] = { "list", function() return patient:page() end },
    ["patient:count()"] = { "list", function() return patient:count() end },
    ["patient:upload()"] = { "upload", function()
      return patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
    end, true },
  } do
    it("is a failure of " .. name, function()
      helper.admin("POST", "documents", { patient = PATIENT, id = "x", content = "%PDF-1.4" })
      local bodies = { unpack(NO_OBJECTS) }
      for _, body in ipairs { "[]", "{}", '[{"id":"x"}]', "[" .. ONE_DOCUMENT .. "]", '{"value":null}', '{"value":7}',
                              '{"value":"x"}', '{"value":{"id":"x"}}', '{"value":' .. ONE_DOCUMENT .. "}" } do
        bodies[#bodies + 1] = body
      end
      bodies[#bodies + 1] = { gzip = true }
      bodies[#bodies + 1] = { endless = true }
      bodies[#bodies + 1] = { status = 200, body_kind = "html" }
      bodies[#bodies + 1] = { truncate = 30 }
      bodies[#bodies + 1] = { append = "{}" }
      bodies[#bodies + 1] = { base64 = true }
      respond(call[1], bodies)
      for _, body in ipairs(bodies) do
        local result, err = call[2]()
        local label = type(body) == "table" and helper.json.encode(body) or ("%q"):format(body):sub(1, 200)
        assert.is_nil(result, label)
        check_error(err, "protocol", nil, label)
        assert.is_true(err.status == 200 or err.status == 201, label)
        assert.equal(1, err.attempts, label)
        assert.equal(call[3], err.outcome_unknown, label)
      end
    end)
  end

  it("may be truncated by the end of its connection, and is then not accepted as complete", function()
    for _, action in ipairs { { cut = 30 }, { close_notify = 30 }, { chunk_cut = 30 }, { length = "none", cut = 30 },
                              { length = "none", truncate = 30 }, { reset = 30 } } do
      every_call_fails(action, { "truncated", "network", "protocol" }, nil, { "get", "list", "upload" })
    end
  end)

  it("is an error of the token endpoint, too", function()
    local bodies = { unpack(NO_OBJECTS) }
    for _, body in ipairs { "{}", "[]", '{"access_token":null}', '{"access_token":7}', '{"access_token":""}',
      '{"access_token":{}}',
                            '{"access_token":"a b"}', '{"access_token":"a\\r\\nb"}', '{"access_token":"a\\u0000b"}',
                            '{"access_token":"\195\188"}', '{"access_token":"x","token_type":"mac"}',
                            '{"access_token":"' .. ("x"):rep(20000) .. '"}' } do
      if #body < 15000 then bodies[#bodies + 1] = body end
    end
    bodies[#bodies + 1] = { endless = true }
    bodies[#bodies + 1] = { gzip = true }
    bodies[#bodies + 1] = { status = 200, body_kind = "html" }
    respond("token", bodies)
    for _, body in ipairs(bodies) do
      local result, err = patient:get("x")
      local label = type(body) == "table" and helper.json.encode(body) or ("%q"):format(body):sub(1, 200)
      assert.is_nil(result, label)
      check_error(err, "protocol", nil, label)
      assert.equal(0, err.attempts, label)
    end
    assert.equal(0, #helper.journal())
  end)

  it("accepts a token of any lifetime", function()
    local token = helper.token()
    local bodies = {}
    for _, life in ipairs { "null", "0", "-1", "1e400", "1e300", '"300"', '"soon"', "{}", "[]", "true", "0.5" } do
      bodies[#bodies + 1] = ('{"access_token":"%s","expires_in":%s,"token_type":null}'):format(token, life)
    end
    respond("token", bodies)
    helper.admin("DELETE", "journal")
    for _ = 1, #bodies do
      use()
      assert(patient:count())
    end
    assert.equal(#bodies, #helper.journal("token"))
  end)
end)

describe("malformed metadata", function()
  before_each(setup)
  after_each(teardown)

  -- The same fields in a response to each call that returns documents.
  local function documents_of(fields)
    local bodies = { fields, fields }
    helper.admin("POST", "faults", {
      { operation = "get", action = { status = 200, body = bodies[1] } },
      { operation = "upload", action = { status = 201, body = bodies[1] } },
      { operation = "list", action = { status = 200, body = ('{"value":[%s]}'):format(fields) }, times = 2 },
    })
    local results = {}
    local function add(document, err) results[#results + 1] = { document or false, err } end
    local id = helper.json.decode(fields).id
    id = type(id) == "number" and ("%.0f"):format(id) or id
    add(patient:get(type(id) == "string" and id ~= "" and not id:find("%z") and id or "x"))
    add(patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" }))
    local page, err = patient:page()
    add(page and page[1], err)
    local ok, first = pcall(function() return (patient:documents()()) end)
    add(ok and first, not ok and first or nil)
    return results
  end

  local function refused(fields)
    for i, result in ipairs(documents_of(fields)) do
      assert.is_false(result[1], fields)
      check_error(result[2], "protocol", nil, fields)
      assert.equal(1, result[2].attempts, fields)
      assert.equal(i == 2 or nil, result[2].outcome_unknown, fields)
    end
  end

  local function taken(fields, check)
    for _, result in ipairs(documents_of(fields)) do
      assert.is_nil(result[2], fields .. ": " .. tostring(result[2]))
      check(result[1], fields)
      assert.equal("nymbl.document", (tostring(result[1]):match("^[%w.]+")))
      assert.equal("table", type(result[1]:metadata()))
    end
  end

  it("has numeric ids as strings, if they are exact", function()
    for text, id in pairs { ["7"] = "7", ["0"] = "0", ["-7"] = "-7", ["1e3"] = "1000", ["12.0"] = "12",
                            ["4294967296"] = "4294967296", ["9007199254740991"] = "9007199254740991",
                            ["-9007199254740991"] = "-9007199254740991" } do
      taken(('{"id":%s,"patient_id":12345,"uploaded_by_id":%s,"file_size_bytes":8}'):format(text, text),
        function(document)
        assert.equal(id, document.id)
        assert.equal("12345", document.patient_id)
        assert.equal(id, document.uploaded_by_id)
      end)
    end
  end)

  it("has no id that may have been rounded or is malformed", function()
    for _, text in ipairs { "9007199254740992", "9007199254740993", "-9007199254740992", "-9007199254740993",
                            "9223372036854775807", "9223372036854775808", "-9223372036854775808",
                              "18446744073709551616",
                            "12345678901234567890", "1e400", "-1e400", "1e17", "0.5", "7.25", "-0.1", "1e-3", "true",
                              "false",
                            "{}", "[]", '["x"]', '""', '"a\\u0000b"' } do
      refused(('{"id":%s,"patient_id":"12345"}'):format(text))
      refused(('{"id":"x","patient_id":%s}'):format(text))
      refused(('{"id":"x","patient_id":"12345","uploaded_by_id":%s}'):format(text))
    end
    refused('{"id":null,"patient_id":"12345"}')
    refused('{"patient_id":"12345"}')
  end)

  it("has the patient's id if the server sends none", function()
    for _, fields in ipairs { '{"id":"x"}', '{"id":"x","patient_id":null,"uploaded_by_id":null}' } do
      taken(fields, function(document)
        assert.equal("x", document.id)
        assert.equal("12345", document.patient_id)
        assert.is_nil(document.uploaded_by_id)
        assert.is_nil(document.file_name)
        assert.is_nil(document.file_size_bytes)
      end)
    end
  end)

  it("does not belong to another patient", function()
    for _, other in ipairs { '"12346"', "12346", '"12345 "', '"777"' } do
      refused(('{"id":"x","patient_id":%s}'):format(other))
    end
  end)

  it("does not belong to another document", function()
    local document = patient:document("x")
    local bodies = { '{"id":"y"}', '{"id":"x "}', '{"id":7}', '{"id":"x","patient_id":"777"}' }
    respond("get", bodies)
    for i = 1, #bodies do
      local found, err
      if i % 2 == 0 then found, err = patient:get("x") else found, err = document:refresh() end
      assert.is_nil(found)
      check_error(err, "protocol")
      assert.equal("x", document.id)
      assert.equal("12345", document.patient_id)
      assert.is_nil(document.file_name)
    end
  end)

  it("does not belong to a document whose id differs in case or zeros only", function()
    for asked, given in pairs { x = "X", ["doc-AbC"] = "doc-abc", ["7"] = "007" } do
      respond("get", { ('{"id":"%s"}'):format(given) })
      local found, err = patient:get(asked)
      assert.is_nil(found, given)
      check_error(err, "protocol")
    end
    respond("get", { '{"id":"x","patient_id":"012345"}' })
    local found, err = patient:get("x")
    assert.is_nil(found)
    check_error(err, "protocol")
  end)

  it("keeps its values if a refresh fails", function()
    local document = stored()
    local before = document:metadata()
    for _, body in ipairs { "{", '{"id":"y","file_name":"z"}', '{"file_name":"z"}' } do
      respond("get", { body })
      assert.is_nil((document:refresh()))
      assert.same(before, document:metadata())
    end
  end)

  it("may have null in every field", function()
    taken('{"@odata.context":null,"id":"x","patient_id":null,"file_name":null,"content_type":null,"file_size_bytes":null,'
      .. '"document_type":null,"description":null,"uploaded_by_id":null,"uploaded_at":null,"more":null}',
        function(document)
      for _, name in ipairs { "file_name", "content_type", "file_size_bytes", "document_type", "description",
        "uploaded_by_id",
                              "uploaded_at", "more" } do
        assert.is_nil(document[name])
      end
    end)
  end)

  it("may have unknown fields, and names of methods", function()
    local nymbl = require "nymbl"
    taken('{"id":"x","more":{"deep":[1,{"er":null}]},"download":"no","":"empty","1":"one","__index":7,"delete":null}',
      function(document)
      assert.equal("function", type(document.download))
      assert.equal("function", type(document.delete))
      assert.equal(1, document.more.deep[1])
      local all = document:metadata()
      assert.equal("no", all.download)
      assert.equal("empty", all[""])
      assert.equal("one", all["1"])
      assert.equal(nymbl.null, all.more.deep[2].er)
    end)
  end)

  it("may have any type in any field, and can still be downloaded", function()
    for _, name in ipairs { "file_name", "content_type", "file_size_bytes", "document_type", "description",
      "uploaded_at" } do
      for _, value in ipairs { "7", "-1", "0.5", "1e300", "true", "[]", "{}", '[{"a":[]}]', '"text"', '""',
        '"a\\u0000b"', "null" } do
        local fields = ('{"id":"x","%s":%s}'):format(name, value)
        helper.admin("POST", "faults", {
          { operation = "get", action = { status = 200, body = fields } },
          { operation = "download", action = { status = 200, body = "%PDF-1.4", content_type = "application/pdf" } },
        })
        local document = assert(patient:get("x"))
        local pieces = {}
        local size, err = document:download(function(chunk) pieces[#pieces + 1] = chunk return 1 end)
        if name == "file_size_bytes" and value == "7" then
          check_error(err, "corrupt", "size_mismatch")
        else
          assert.equal(8, size, fields .. tostring(err))
          assert.equal("%PDF-1.4", table.concat(pieces))
        end
      end
    end
  end)

  it("checks nothing against a malformed size", function()
    for _, text in ipairs { "null", "-1", '"8"', "8.5", "1e300", "true", "[]" } do
      taken(('{"id":"x","file_size_bytes":%s}'):format(text), function(document)
        if text == "null" then assert.is_nil(document.file_size_bytes) end
      end)
    end
    taken('{"id":"x","file_size_bytes":8.0}', function(document)
      assert.equal("8", tostring(document.file_size_bytes))
    end)
  end)
end)

describe("a malformed listing", function()
  before_each(setup)
  after_each(teardown)

  local function iterate()
    local ids = {}
    local ok, err = pcall(function()
      for document in patient:documents { page_size = 2 } do ids[#ids + 1] = document.id end
    end)
    return table.concat(ids, " "), not ok and err or nil
  end

  it("fails if rows are malformed", function()
    for _, rows in ipairs { "null", "7", '"x"', "[]", "[[]]", "{}", "true", ONE_DOCUMENT .. ",null", ONE_DOCUMENT
      .. ",7",
                            ONE_DOCUMENT .. ",[" .. ONE_DOCUMENT .. "]" } do
      local body = ('{"value":[%s]}'):format(rows)
      use() -- a page that the last iteration prefetched must not use up a fault
      respond("list", { body, body })
      local page, err = patient:page()
      assert.is_nil(page, rows)
      check_error(err, "protocol", nil, rows)
      local ids
      ids, err = iterate()
      assert.is_true(ids == "" or ids == "x", rows)
      check_error(err, "protocol", nil, rows)
    end
  end)

  it("ends if pages repeat, are empty, or never end", function()
    local same = '{"@odata.count":1000000,"value":[' .. ONE_DOCUMENT .. ',{"id":"y"}]}'
    for _, body in ipairs {
      same,
      (same:gsub('"@odata.count":1000000,', "")),
      (same:gsub("1000000", "1e15")),
      '{"value":[],"@odata.nextLink":"?$skip=2"}',
      '{"value":[' .. ONE_DOCUMENT .. '],"@odata.nextLink":"?$skip=2"}',
    } do
      helper.faults { operation = "list", action = { status = 200, body = body }, times = -1 }
      helper.admin("DELETE", "journal")
      local ids, err = iterate()
      assert.is_true(ids == "x y" or ids == "" or ids == "x", ids)
      check_error(err, "protocol", nil, body)
      assert.is_true(#helper.journal("list") < 10, body)
    end
  end)

  it("ends if the count falls and falls", function()
    local plans = {}
    for i = 1, 20 do
      plans[i] = { operation = "list", action = { status = 200, body = ('{"@odata.count":%d,"value":[%s,{"id":"y"}]}')
        :format(1000 - i * 50, ONE_DOCUMENT) } }
    end
    plans[21] = { operation = "list", action = { status = 200, body = '{"@odata.count":2,"value":[]}' }, times = -1 }
    helper.admin("POST", "faults", plans)
    local ids = iterate()
    assert.equal("x y", ids)
    assert.is_true(#helper.journal("list") <= 40)
  end)

  it("returns no document twice if pages overlap", function()
    respond("list", { '{"@odata.count":4,"value":[{"id":"a"},{"id":"b"}]}',
      '{"@odata.count":4,"value":[{"id":"b"},{"id":"c"}]}' })
    assert.equal("a b c", (iterate()))
  end)

  it("may have a malformed count", function()
    for _, count in ipairs { "null", "-1", "0.5", '"2"', "1e300", "[]", "{}", "true" } do
      local body = ('{"@odata.count":%s,"value":[%s]}'):format(count, ONE_DOCUMENT)
      respond("list", { body, body, body, body })
      local page = assert(patient:page())
      assert.equal(1, #page)
      assert.is_nil(page.count)
      assert.equal(1, (assert(patient:count())))
    end
  end)

  it("does not lead to another server", function()
    local foreign = helper.admin("POST", "listen", { tls = "good", name = "foreign" })
    local plain = helper.admin("POST", "listen", { tls = "none", name = "plain" })
    local base = helper.sandbox().base_url
    for _, link in ipairs {
      foreign.url .. "/Patients(12345)/Documents", plain.url .. "/Patients(12345)/Documents", base:gsub("^https",
        "http") .. "/x",
      "//example.org/Documents", base:gsub("localhost", "127.0.0.1") .. "/x", base:gsub("//", "//user:word@") .. "/x",
      base:gsub("//", "//user@") .. "/x", "file:///etc/passwd", "javascript:alert(1)", "ftp://localhost/x",
        "https://", "http:///",
      "https://[::1", "a\0b", "?$skip=1\0", base .. "\r\nX-Evil: 1", "https://" .. ("x"):rep(9000),
    } do
      local text = helper.json.encode(link)
      respond("list", { ('{"value":[%s],"@odata.nextLink":%s}'):format(ONE_DOCUMENT, text) })
      helper.admin("DELETE", "journal")
      local ids, err = iterate()
      assert.equal(link:find("%z") and "" or "x", ids, link)
      check_error(err, { "redirect", "protocol" }, nil, link)
      assert.equal(1, #helper.journal(), link)
    end
    helper.admin("DELETE", "listen?name=foreign")
    helper.admin("DELETE", "listen?name=plain")
  end)

  it("fails if a next link is malformed", function()
    for _, link in ipairs { "null", '""', "7", "true", "{}", "[]" } do
      respond("list", { ('{"@odata.count":1,"value":[%s],"@odata.nextLink":%s}'):format(ONE_DOCUMENT, link) })
      local ids, err = iterate()
      assert.equal("x", ids)
      assert.is_nil(err)
    end
  end)
end)
