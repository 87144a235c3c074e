-- SPDX-License-Identifier: MIT
-- The parts of examples/gateway that need no nginx: its reader of forms, and what it knows of HTTP.
local helper = require "helper"

local form = dofile(helper.path "examples/gateway/form.lua")
local http = dofile(helper.path "examples/gateway/http.lua")

local NAMES = { document_type = true, description = true }

-- Pseudorandom whole numbers from 1 to `most`, the same in each run.
local function generator(seed)
  return function(most)
    seed = (seed * 16807) % 2147483647
    return seed % most + 1
  end
end

-- A function that returns the pieces of a body; `next_size()` is the size of the next one.
local function reader(body, next_size)
  local at = 1
  return function()
    if at > #body then return nil end
    local piece = body:sub(at, math.min(at + next_size() - 1, #body))
    at = at + #piece
    return piece
  end
end

-- Read a form that arrives in pieces. Returns its fields, name, size and bytes as one text, or the
-- problem. Also returns the size of the largest piece of the file.
local function parse(body, boundary, next_size, length)
  local fields, file = form.open(reader(body, next_size), length or #body, boundary, NAMES)
  if not fields then return file, 0 end
  local pieces, largest = {}, 0
  while true do
    local piece, problem = file.read()
    if problem then return problem, largest end
    if not piece then break end
    assert(#piece > 0)
    largest = math.max(largest, #piece)
    pieces[#pieces + 1] = piece
  end
  local bytes = table.concat(pieces)
  assert.equal(file.size, #bytes)
  return ("%s|%s|%s|%s"):format(tostring(fields.document_type), tostring(fields.description), file.name, bytes), largest
end

local function whole() return 2^31 - 1 end
local function single() return 1 end

local function part(boundary, name, value)
  return ('--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'):format(boundary, name, value)
end

local function compose(boundary, fields, name, bytes)
  local parts = {}
  for _, field in ipairs(fields) do parts[#parts + 1] = part(boundary, field[1], field[2]) end
  parts[#parts + 1] = ('--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: a/b\r\n\r\n')
    :format(boundary, name)
  parts[#parts + 1] = ("%s\r\n--%s--\r\n"):format(bytes, boundary)
  return table.concat(parts)
end

-- Bytes that look like a delimiter, or like the beginning of one.
local DECOYS = { "\r", "\n", "\r\n", "\r\n-", "\r\n--", "\r\n--bo", "\r\n--Bound", "--bound", "--bound--", "\r\r\n--boun",
                 "bound", "\n--bound", "\0", "x", "\r\n\r\n", "-" }

-- Bytes that a browser could send in a form with this boundary: they do not contain the delimiter.
local function random_bytes(random)
  local bytes
  repeat
    local pieces = {}
    for i = 1, random(20) do pieces[i] = DECOYS[random(#DECOYS)] end
    bytes = table.concat(pieces)
  until not bytes:find("\r\n--bound", 1, true)
  return bytes
end

describe("the gateway's reader of forms #gateway", function()
  local small = compose("bound", { { "document_type", "Referral" }, { "description", "a\r\nb" } }, "a.pdf", "\r\n--boun\r\n--")
  local expected = "Referral|a\r\nb|a.pdf|\r\n--boun\r\n--"

  it("reads the same parts, wherever the bytes are split", function()
    assert.equal(expected, (parse(small, "bound", whole)))
    assert.equal(expected, (parse(small, "bound", single)))
    for first = 1, #small - 1 do
      for second = 1, 12 do
        local sizes = { first, second }
        assert.equal(expected, (parse(small, "bound", function() return table.remove(sizes, 1) or 1000 end)))
      end
    end
  end)

  it("reads random forms, split at random (seed 7)", function()
    local random = generator(7)
    for _ = 1, 2000 do
      local type, text, bytes = ("t"):rep(random(5) - 1), ("d\r\n"):rep(random(4) - 1), random_bytes(random)
      local body = compose("bound", { { "description", text }, { "document_type", type } }, "n", bytes)
      local most = random(40)
      assert.equal(("%s|%s|n|%s"):format(type, text, bytes), (parse(body, "bound", function() return random(most) end)))
    end
  end)

  it("says the same of a damaged form, wherever it is split, and never raises (seed 11)", function()
    local random = generator(11)
    local refused, kept = 0, 0
    for _ = 1, 4000 do
      local at = random(#small)
      local kind = random(3)
      local damaged = kind == 1 and small:sub(1, at - 1) .. string.char(random(256) - 1) .. small:sub(at + 1)
        or kind == 2 and small:sub(1, at - 1) .. small:sub(at + 1)
        or small:sub(1, at) .. DECOYS[random(#DECOYS)] .. small:sub(at + 1)
      local most = random(30)
      local result = parse(damaged, "bound", whole)
      assert.equal(result, (parse(damaged, "bound", function() return random(most) end)))
      if result == "malformed" then refused = refused + 1 else kept = kept + 1 end
    end
    assert(refused > 1000 and kept > 500, refused .. " " .. kept)
  end)

  it("refuses every form that is cut off", function()
    for size = 0, #small - 1 do
      assert.equal("malformed", (parse(small:sub(1, size), "bound", whole, #small)))
      assert.equal("malformed", (parse(small:sub(1, size), "bound", whole)))
    end
  end)

  it("reports that reading failed, wherever that happens", function()
    for size = 0, #small - 1 do
      local at = 0
      local function read()
        if at == size then return nil, "timeout" end
        at = at + 1
        return small:sub(at, at)
      end
      local fields, file = form.open(read, #small, "bound", NAMES)
      local problem = file
      if fields then
        repeat
          local piece
          piece, problem = file.read()
        until not piece
      end
      assert.equal("timeout", problem)
    end
  end)

  it("refuses what is too long, wherever it is split", function()
    local function form_with(fields, name) return compose("b", fields, name, "x") end
    for _, next_size in ipairs { whole, single } do
      local longest = ("t"):rep(4096)
      assert.equal(longest .. "|nil|n|x", (parse(form_with({ { "document_type", longest } }, "n"), "b", next_size)))
      for extra = 1, 8 do
        assert.equal("malformed", (parse(form_with({ { "document_type", ("t"):rep(4096 + extra) } }, "n"), "b", next_size)))
      end
      assert.equal("malformed", (parse(form_with({}, ("n"):rep(4096)), "b", next_size)))
      assert.equal("malformed", (parse("--b\r\n" .. ("a: b\r\n"):rep(10000), "b", next_size)))
    end
  end)

  it("holds no more of a file than one piece", function()
    local bytes = ("\r\n--boun"):rep(100000)
    local body = compose("bound", {}, "n", bytes)
    local result, largest = parse(body, "bound", function() return 4096 end)
    assert(result == "nil|nil|n|" .. bytes)
    assert(largest <= 4096 + #"\r\n--bound", largest)
  end)

  it("decodes only what browsers encode in names", function()
    assert.equal('nil|nil|a"b%41\r\n.pdf|x', (parse(compose("b", {}, "a%22b%41%0D%0A.pdf", "x"), "b", whole)))
  end)

  it("refuses parts that are not those of a browser", function()
    local function with_head(head)
      return "--b\r\n" .. head .. "\r\n\r\nx\r\n--b--\r\n"
    end
    assert.equal("nil|nil|n|x", (parse(with_head 'content-disposition:form-data;name="file";filename="n"', "b", whole)))
    for _, head in ipairs {
      'Content-Disposition: form-data; name="file"; filename=""', 'Content-Disposition: form-data; name="file"',
      'Content-Disposition: form-data; name="files"; filename="n"', 'Content-Disposition: form-data; filename="n"; name="file"',
      'Content-Disposition: attachment; name="file"; filename="n"', 'Content-Disposition: form-data; name=file; filename=n',
      'Content-Disposition: form-data; name="file"; filename="n"; filename*=UTF-8\'\'m', "Content-Type: a/b", "", "x",
      'Content-Disposition: form-data; name="file"; filename="n"\r\nContent-Disposition: form-data; name="file"; filename="m"',
      'Content-Disposition: form-data; name="file"; filename="n"\r\nContent-Transfer-Encoding: base64',
      'Content-Disposition: form-data; name="file"; filename="n"\r\n folded', 'Content-Disposition: form-data; name="file"; filename="n\0"',
      'Content-Disposition : form-data; name="file"; filename="n"',
    } do
      assert.equal("malformed", (parse(with_head(head), "b", whole)), head)
    end
    assert.equal("malformed", (parse(compose("b", { { "document_type", "a" }, { "document_type", "b" } }, "n", "x"), "b", whole)))
  end)

  it("finds the boundary of a form", function()
    for media, boundary in pairs {
      ["multipart/form-data; boundary=abc"] = "abc", ["Multipart/Form-Data;BOUNDARY=abc"] = "abc",
      ['multipart/form-data; boundary="a b"'] = "a b", ["multipart/form-data; charset=utf-8; boundary=x"] = "x",
      ["multipart/form-data; boundary=x; charset=utf-8"] = "x",
      ["multipart/form-data; boundary=----WebKitFormBoundaryA1"] = "----WebKitFormBoundaryA1",
      ["multipart/form-data; boundary=" .. ("x"):rep(70)] = ("x"):rep(70),
    } do
      assert.equal(boundary, form.boundary(media), media)
    end
    for _, media in ipairs { "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""',
                             'multipart/form-data; boundary="a', 'multipart/form-data; boundary="a "', "multipart/form-data; boundary=a\\b",
                             "multipart/mixed; boundary=a", "multipart/form-datax; boundary=a", "multipart/form-data; boundary=a b",
                             "multipart/form-data; boundary=" .. ("x"):rep(71), "text/plain" } do
      assert.is_nil(form.boundary(media), media)
    end
  end)
end)

describe("the gateway's HTTP #gateway", function()
  it("finds the range of a request", function()
    local function range(value, size)
      local first, length = http.range(value, size)
      return first and first .. "+" .. length or tostring(first)
    end
    for value, expected in pairs {
      ["bytes=0-0"] = "0+1", ["bytes=0-9"] = "0+10", ["bytes=9-9"] = "9+1", ["bytes=5-"] = "5+5", ["bytes=5-100"] = "5+5",
      ["bytes=-1"] = "9+1",
      ["bytes=-10"] = "0+10", ["bytes=-11"] = "0+10", ["BYTES=1-1"] = "1+1", ["bytes= 1-1 "] = "1+1",
      ["bytes=10-"] = "false", ["bytes=10-11"] = "false", ["bytes=-0"] = "false", ["bytes=99999999999999999999999-"] = "false",
      ["bytes=5-4"] = "nil", ["bytes=-"] = "nil", ["bytes="] = "nil", ["bytes=0-1,2-3"] = "nil", ["bytes 0-1"] = "nil", [""] = "nil",
      ["bytes=0x1-2"] = "nil", ["bytes=1 - 2"] = "nil", ["bytes=--1"] = "nil", ["bytes=1.0-2"] = "nil", ["chars=0-1"] = "nil",
    } do
      assert.equal(expected, range(value, 10), value)
    end
    assert.equal("nil", range(nil, 10))
    assert.equal("false", range("bytes=0-", 0))
    assert.equal("false", range("bytes=-1", 0))
  end)

  it("encodes file names", function()
    assert.equal('inline; filename="a b.pdf"', http.disposition("inline", "a b.pdf"))
    assert.equal([[attachment; filename="a_b_c_d.pdf"; filename*=UTF-8''a%22b%25c%5Cd.pdf]],
      http.disposition("attachment", 'a"b%c\\d.pdf'))
    assert.equal([[inline; filename="_.pdf"; filename*=UTF-8''%E7%B4%B9%E4%BB%8B%E7%8A%B6.pdf]], http.disposition("inline", "紹介状.pdf"))
    assert.equal([[inline; filename="a;b'(c)_.pdf"; filename*=UTF-8''a%3Bb%27%28c%29%C3%BC.pdf]],
      http.disposition("inline", "a;b'(c)ü.pdf"))
  end)

  it("compares entity-tags", function()
    assert.is_true(http.has_etag('"a", W/"b"', '"b"'))
    assert.is_true(http.has_etag("*", nil))
    assert.is_false(http.has_etag('"a"', '"b"'))
    assert.is_true(http.has_etag('"a", "b"', '"b"', true))
    assert.is_true(http.has_etag("*", '"b"', true))
    assert.is_false(http.has_etag('"a", W/"b"', '"b"', true))
    assert.is_false(http.has_etag('"a"', nil))
  end)

  it("knows what can be a request id", function()
    for _, id in ipairs { "a", "0af7651916cd43dd8448eb211c80319c", "1.2_3-4", ("x"):rep(64) } do assert.equal(id, http.request_id(id)) end
    for _, id in ipairs { "", "a b", "a\r\nb", "a/b", ("x"):rep(65), "ü" } do assert.is_nil(http.request_id(id)) end
    assert.is_nil(http.request_id(nil))
  end)
end)
