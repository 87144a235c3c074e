-- SPDX-License-Identifier: MIT
-- Responses that are slightly malformed, and unexpected values in them: unambiguous responses are read,
-- all others are errors of the call, and nothing raises a string.
local helper = require "helper"
local json = require "nymbl.json"

local unpack = table.unpack or unpack -- luacheck: ignore

local client, patient

local function setup_client()
  helper.reset()
  client = helper.client()
  patient = client:patient "p"
end

local function teardown_client()
  client:close()
  client, patient = nil, nil
  assert.equal(0, helper.object_count())
end

local function answer(...)
  local plans = {}
  for i, pair in ipairs { ... } do
    plans[i] = { operation = pair[1], action = { status = 200, body = pair[2] } }
  end
  helper.faults(unpack(plans))
end

local LOST = "\239\191\189" -- U+FFFD
local BOM = "\239\187\191" -- a byte order mark

-- Contents of a JSON string that lua-cjson refuses, and their meaning.
local TEXTS = {
  { [[\ud800]], LOST },
  { [[\udc00]], LOST },
  { [[\uDBFF]], LOST },
  { [[\uDFFF]], LOST },
  { [[a\ud83d]], "a" .. LOST },
  { [[\ud83db]], LOST .. "b" },
  { [[\ud83d\n]], LOST .. "\n" },
  { [[\ud83d\\]], LOST .. "\\" },
  { [[\ud83d\"]], LOST .. '"' },
  { [[\ud83d\u0041]], LOST .. "A" },
  { [[\ud83d\ud83d\ude00]], LOST .. "\240\159\152\128" },
  { [[\ud83d\ude00\ude00]], "\240\159\152\128" .. LOST },
  { [[\ude00\ud83d]], LOST .. LOST },
  { [[\ud83d\ud83d]], LOST .. LOST },
  { [[\\ud800 \ud800]], [[\ud800 ]] .. LOST },
  { [[\\\ud800]], "\\" .. LOST },
  { [[it\'s]], "it's" },
  { [[\' \ud800 \u00e9\t]], "' " .. LOST .. " \195\169\t" },
  -- other escape sequences beside one are read unchanged
  { [[\ud800 1.5,\"x\":2.5]], LOST .. ' 1.5,"x":2.5' },
  { "\\ud800 \t\n raw", LOST .. " \t\n raw" },
}

-- Ambiguous texts, whatever surrounds them.
local DOUBTFUL = {
  [["\x41"]], [["\a"]], [["\ud80"]], [["\ud80g"]], [["\u"]], [["\ud800]], [["\ud800\]], [['a']], "NaN", "-Infinity", "+1",
  ".5", "-", "01", "01.5", "00.5", "0x10", "1.5.5", "1.5e", "1.5e+", "1.5x", "tru", "None", "undefined", "[1,]", "[,]", "[1 2]",
  [[{"a":1,}]], [[{a:1}]], [[{"a" 1}]], "[1]]", "[1] x", "\0", '"\0"', "[1]\0", "\12[1]", ")]}',\n[1]", BOM,
  "/* */ [1]", ("["):rep(33) .. ("]"):rep(33),
}

describe("JSON", function()
  it("that lua-cjson refuses is read if its meaning is unambiguous", function()
    for _, pair in ipairs(TEXTS) do
      local value, problem = json.decode_response(('{"text":"%s","n":[0.5,1,"1.5"]}'):format(pair[1]))
      assert.is_nil(problem, pair[1])
      assert.equal(pair[2], value.text, pair[1])
      assert.same({ 1 / 2, 1, "1.5" }, value.n)
      assert.equal(1, (assert(json.decode_response(('{"%s":1}'):format(pair[1]))))[pair[2]], pair[1])
    end
  end)

  it("may begin with a byte order mark, but not with two", function()
    assert.same({ 1, 2 }, json.decode_response(BOM .. "[1,2]"))
    assert.same({ LOST }, json.decode_response(BOM .. ' \n["\\ud800"]'))
    assert.same({ BOM }, json.decode_response('["' .. BOM .. '"]'))
    for _, text in ipairs { BOM .. BOM .. "[]", " " .. BOM .. "[]", "[]" .. BOM, "[" .. BOM .. "]", "\254\255[]" } do
      assert.is_nil((json.decode_response(text)), text)
    end
  end)

  it("is refused if its meaning is ambiguous", function()
    for _, text in ipairs(DOUBTFUL) do
      local value, problem = json.decode_response(text)
      assert.is_nil(value, text)
      assert.equal("bad_json", problem, text)
      for _, around in ipairs { '["\\ud800",%s]', '{"a":"\\ud800","b":%s}', '[%s,"\\ud800"]' } do
        local before, behind = around:match "^(.*)%%s(.*)$"
        assert.is_nil((json.decode_response(before .. text .. behind)), before .. text .. behind)
      end
    end
  end)

  -- lua-cjson may expect the decimal point of another locale (spec/locale_spec.lua): then all numbers
  -- are rewritten without a decimal point.
  it("has the same numbers without decimal points", function()
    local core = require "nymbl.core"
    local decode = require("cjson").new().decode
    local function check(text)
      local mended = core.json_mend("[" .. text .. "]")
      local value, expected = decode(mended)[1], decode("[" .. text .. "]")[1]
      assert.is_true(value == expected and 1 / value == 1 / expected, text .. " " .. mended)
      assert.is_nil(mended:find(".", 1, true), mended)
    end
    for _, text in ipairs { "0.0", "-0.0", "0.5", "-0.5", "0.05", "0.050", "1.0", "10.0", "10.01", "1.5e3", "1.5E3", "1.5e+3",
                            "1.5e-3", "-1.5e-300", "1.7976931348623157e308", "1.8e308", "-1.8e308", "4.9e-324", "2.0e-324",
                            "0.1", "0.30000000000000004", "123456789.123456789", "9007199254740993.5", "1.5e99999",
                            "1.5e-99999", "1.5e99999999999999999999", "1.5e-99999999999999999999", "0.0e99999999999999",
                            "0." .. ("0"):rep(400) .. "1", ("1"):rep(400) .. ".5", "0." .. ("3"):rep(5000), "0.5e0", "1.0e00" } do
      check(text)
    end
    local state = 1
    for _ = 1, 2000 do
      state = state * 48271 % 2147483647
      check(("%.17g"):format((state / 65536 - 16384) * 2 ^ (state % 200 - 100)):gsub("^(-?%d+)(e?)", function(digits, e)
        return digits .. (e == "e" and ".0e" or "")
      end, 1):gsub("^(-?%d+)$", "%1.0"))
    end
    for _, text in ipairs { "1", "-1", "1e5", "01.5", "1.5.5", "1.5x", ".5", "-.5", "1.5e", "true", "-" } do
      assert.equal("[" .. text .. "]", core.json_mend("[" .. text .. "]"))
    end
    assert.equal('{"1.5":"2.5\\"3.5","\\\\":45e-1}', core.json_mend '{"1.5":"2.5\\"3.5","\\\\":4.5}')
  end)
end)

describe("a slightly malformed response", function()
  before_each(setup_client)
  after_each(teardown_client)

  it("to a list request is read", function()
    for _, pair in ipairs(TEXTS) do
      local row = ('{"id":"b","file_name":"%s"}'):format(pair[1])
      local body = BOM .. '{"@odata.count":3,"value":[{"id":"a"},' .. row .. ',{"id":"c"}]}'
      answer({ "list", body }, { "list", body }, { "list", body })
      assert.equal(3, patient:count())
      local page = assert(patient:page())
      assert.equal(pair[2], page[2].file_name)
      local names = {}
      for document in patient:documents() do names[#names + 1] = document.id .. (document.file_name or "") end
      assert.same({ "a", "b" .. pair[2], "c" }, names)
    end
  end)

  it("to an upload leaves no outcome unknown", function()
    for i, pair in ipairs(TEXTS) do
      answer { "upload", ('%s{"id":"x%d","patient_id":"p","description":"%s"}'):format(i % 2 == 0 and BOM or "", i, pair[1]) }
      local document, err = patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
      assert.is_nil(err)
      assert.equal("x" .. i, document.id)
      assert.equal(pair[2], document.description)
    end
  end)

  it("is read by every call, tokens and errors too", function()
    client:close()
    setup_client()
    answer({ "token", BOM .. ('{"access_token":"%s","expires_in":300,"scope":"\\ud800"}'):format(helper.token()) },
      { "get", BOM .. '{"id":"x","description":"\\udc00"}' })
    assert.equal(LOST, assert(patient:get "x").description)
    helper.faults { operation = "get", action = { status = 400, body = BOM .. '{"error":{"code":"C","message":"a\\ud800"}}' } }
    local _, err = patient:get "x"
    assert.equal("C", err.code)
    assert.equal("a" .. LOST, err.detail)
  end)

  it("has no id with lost characters", function()
    for _, id in ipairs { [[\ud800]], [[a\udc00]], LOST, "a" .. LOST .. "b" } do
      for _, body in ipairs { '{"id":"%s"}', '{"id":"x","patient_id":"%s"}', '{"id":"x","uploaded_by_id":"%s"}' } do
        local text = body:gsub("%%s", function() return id end)
        answer({ "get", text }, { "list", '{"value":[' .. text .. "]}" }, { "upload", text })
        local _, err = patient:get "x"
        assert.equal("protocol", err.kind, text)
        _, err = patient:page()
        assert.equal("protocol", err.kind, text)
        _, err = patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
        assert.equal("protocol", err.kind, text)
        assert.is_true(err.outcome_unknown)
      end
    end
  end)
end)

---- unexpected values ----

local LONG = ("x"):rep(100000)

-- JSON values for any field.
local VALUES = {
  "null", "true", "false", "0", "-0", "-1", "1", "1.5", "-1.5", "1e15", "9007199254740991", "9007199254740992",
  "9223372036854775807", "9223372036854775808", "1e19", "-1e19", "1e300", "1e400", "-1e400", "1e-320", '""', '" "', '"."', '".."', '"/"',
  '"a/../b"', '"%2e%2e"', '"a\\u0000b"', '"\\u0000"', '"\\ud800"', '"\\r\\nX-Evil: 1"', '"\\u007f"', '"\195\169"', '"\255\254"', '"?#&=%"',
  '")/$value"', '"\'"', '"NaN"', '"1.5"', '"-1"', '"1e999"', '"application/pdf; x=\\"y\\""', '"IMAGE/TIFF"', '"text/html"', "[]", "{}",
  "[null]", "[[[]]]", '{"a":{"b":[1.5]}}', '"' .. LONG .. '"', '"' .. ("\195\169"):rep(20000) .. '"', '"' .. ("x"):rep(65530) .. '"',
  '"' .. ("x"):rep(65450) .. '"', "[" .. ("1,"):rep(5000) .. "1]",
}

local FIELDS = {
  "id", "patient_id", "uploaded_by_id", "file_name", "content_type", "file_size_bytes", "document_type", "description", "uploaded_at",
  "etag", "download", "", "nobody_knows",
}

-- Call, and fail if a string is raised; `raises`: an error table may be raised.
local function call(label, raises, fn, ...)
  local ok, result, err = pcall(fn, ...)
  if not ok and raises and type(result) == "table" then ok, result, err = true, nil, result end
  if not ok then error(label .. " raised " .. tostring(result):sub(1, 300), 0) end
  if result == nil then
    assert.equal("table", type(err), label)
    assert.equal("string", type(err.kind), label)
    assert.is_nil(tostring(err):find("xxxx", 1, true), label)
    assert.is_true(#tostring(err) < 300, label)
  end
  return result, err
end

local function sink() return 1 end

-- Every method of a document.
local function use_document(document, label)
  call(label .. " metadata", false, document.metadata, document)
  tostring(document)
  call(label .. " download", false, document.download, document, sink)
  local path = helper.temporary ".pdf"
  call(label .. " download to a path", false, document.download, document, path, { resume = true })
  os.remove(path)
  local stream = call(label .. " open", false, document.open, document)
  if stream then
    call(label .. " read", false, function() return stream:read "a" end)
    stream:close()
  end
  call(label .. " refresh", false, document.refresh, document)
  call(label .. " delete", false, document.delete, document)
end

local function short(text) return #text > 60 and text:sub(1, 60) .. "..." .. #text or text end

describe("unexpected data", function()
  before_each(setup_client)
  after_each(teardown_client)

  for _, field in ipairs(FIELDS) do
    it("in the field '" .. field .. "' raises nothing but errors", function()
      for _, value in ipairs(VALUES) do
        local row = ('{"id":"d","file_name":"a.pdf","%s":%s}'):format(field, value)
        local label = field .. " " .. short(value)
        local list = { operation = "list", action = { status = 200, body = '{"@odata.count":1,"value":[' .. row .. "]}" } }
        helper.faults(list, list,
          { operation = "get", action = { status = 200, body = row } },
          { operation = "upload", action = { status = 200, body = row } },
          { operation = "download", times = 3, action = { status = 200, body = "%PDF-1.4", content_type = "application/pdf" } })
        local page = call(label .. " page", false, patient.page, patient)
        local iterated = call(label .. " iterate", true, function()
          local last = false
          for document in patient:documents() do last = document end
          return last
        end)
        local got = call(label .. " get", false, patient.get, patient, "d")
        local sent = call(label .. " upload", false, patient.upload, patient, { data = "%PDF-1.4" }, { file_name = "a.pdf" })
        assert.equal(page ~= nil, iterated ~= nil, label)
        local one = page and page[1] or got or sent
        if one then use_document(one, label) end
      end
    end)
  end

  it("as an id too long for a URL is an error of every call", function()
    for _, length in ipairs { 100000, 65536, 65500, 65536 - #helper.sandbox().base_url - #"/Patients(p)/Documents()" } do
      local id = ("x"):rep(length)
      answer { "list", ('{"@odata.count":1,"value":[{"id":"%s"}]}'):format(id) }
      helper.admin("DELETE", "journal")
      local document = assert(patient:page())[1]
      assert.equal(id, document.id)
      for _, step in ipairs { { document.download, sink }, { document.download, helper.temporary ".pdf" }, { document.open },
                              length > 65499 and { document.refresh } or { document.open },
                              length > 65499 and { document.delete } or { document.open } } do
        local result, err = step[1](document, step[2])
        assert.is_nil(result)
        assert.equal("bad_request", err.kind)
        assert.equal("url_too_long", err.reason)
        assert.equal(0, err.attempts)
        assert.is_nil(err.outcome_unknown)
        assert.equal(("nymbl: %s: bad_request (url_too_long): an id, a filter or a link is too long for a URL: check it")
          :format(err.operation), tostring(err))
      end
      assert.equal(1, #helper.journal())
    end
  end)

  it("as an argument is reported in the same way", function()
    local long = client:patient(LONG)
    for name, fn in pairs {
      page = function() return long:page() end,
      count = function() return long:count() end,
      get = function() return long:get "d" end,
      upload = function() return long:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" }) end,
      document = function() return long:document("d"):download(sink) end,
      id = function() return patient:get(LONG) end,
      filter = function() return patient:page { filter = require("nymbl").filter("file_name eq ?", LONG) } end,
      counted = function() return patient:count("file_name eq '" .. LONG .. "'") end,
      selected = function() return patient:page { select = LONG } end,
    } do
      local _, err = call(name, false, fn)
      assert.equal("bad_request url_too_long", err.kind .. " " .. err.reason, name)
    end
    local _, err = call("iterate", true, function()
      for _ in patient:documents { filter = "a eq '" .. LONG .. "'" } do error "a row" end
    end)
    assert.equal("url_too_long", err.reason)
    assert.equal(0, #helper.journal())
  end)

  it("as a next link raises nothing but errors", function()
    local base = helper.sandbox().base_url .. "/Patients(p)/Documents"
    for _, value in ipairs(VALUES) do
      for _, link in ipairs { value, value:match '^"' and value:gsub('^"', function() return '"' .. base .. "?$skip=1&x=" end) or value } do
        local body = ('{"@odata.count":2,"value":[{"id":"d"}],"@odata.nextLink":%s}'):format(link)
        local list = { operation = "list", action = { status = 200, body = body } }
        helper.faults(list, list, { operation = "list", times = -1, action = { status = 200, body = '{"@odata.count":2,"value":[]}' } })
        call("page " .. short(link), false, patient.page, patient)
        call("iterate " .. short(link), true, function()
          for _ in patient:documents() do end -- luacheck: ignore
          return true
        end)
      end
    end
  end)

  it("as a next link too long for a URL ends the iteration with an error", function()
    for _, length in ipairs { 65537, 65536, 65530, 200000 } do
      for _, link in ipairs { "?" .. ("x"):rep(length - 1), helper.sandbox().base_url .. "/" .. ("x"):rep(length),
                              "?" .. ("\195\169"):rep(math.floor(length / 4)) } do
        answer { "list", ('{"@odata.count":2,"value":[{"id":"d"}],"@odata.nextLink":"%s"}'):format(link) }
        helper.admin("DELETE", "journal")
        local ids = {}
        local _, err = call("iterate", true, function()
          for document in patient:documents() do ids[#ids + 1] = document.id end
          return true
        end)
        assert.equal("d", table.concat(ids, " "))
        assert.equal("protocol url_too_long", err.kind .. " " .. tostring(err.reason))
        assert.equal(1, #helper.journal())
      end
    end
  end)

  it("in counts, links and rows raises nothing but errors", function()
    for _, value in ipairs(VALUES) do
      local shape = value:sub(1, 1) == "[" and value or "[" .. value .. "]"
      for _, body in ipairs { ('{"@odata.count":%s,"value":[{"id":"d"}]}'):format(value), ('{"@odata.count":1,"value":%s}'):format(value),
                              ('{"@odata.count":1,"value":%s}'):format(shape), value } do
        helper.faults({ operation = "list", times = 12, action = { status = 200, body = body } })
        local label = short(body)
        call(label, false, patient.page, patient)
        call(label, false, patient.count, patient)
        call(label, true, function()
          for _ in patient:documents() do end -- luacheck: ignore
          return true
        end)
      end
    end
  end)

  it("in errors, tokens and headers raises nothing but errors", function()
    for _, value in ipairs(VALUES) do
      for _, body in ipairs { ('{"error":%s}'):format(value),
                              ('{"error":{"code":%s,"message":%s,"details":[%s]}}'):format(value, value, value),
                              ('{"message":%s,"details":%s}'):format(value, value), value } do
        helper.faults { operation = "get", action = { status = 400, body = body } }
        call("error " .. short(body), false, patient.get, patient, "d")
      end
      for _, body in ipairs { ('{"access_token":%s}'):format(value), ('{"access_token":"t","expires_in":%s}'):format(value),
                              ('{"access_token":"t","token_type":%s}'):format(value) } do
        helper.faults({ operation = "token", action = { status = 200, body = body } },
          { operation = "get", action = { status = 200, body = '{"id":"d"}' } })
        local other = helper.client()
        local one = other:patient "p"
        call("token " .. short(body), false, one.get, one, "d")
        other:close()
      end
    end
    for _, text in ipairs { "", " ", "-1", "0", "1.5", "99999999999999999999", "x", "\195\169", "\1", ("x"):rep(5000) } do
      for _, name in ipairs { "Retry-After", "ETag", "Last-Modified", "Content-Type", "Content-Range", "Date", "Location",
                              "x-amzn-ErrorType", "Content-Encoding" } do
        helper.faults({ operation = "get", action = { status = 503, headers = { { name, text } }, body = "{}" } },
          { operation = "download", times = 2, action = { status = 200, headers = { { name, text } }, body = "%PDF-1.4" } })
        call(name .. short(text), false, patient.get, patient, "d")
        local document = patient:document "d"
        call(name .. short(text), false, document.download, document, sink)
        call(name .. short(text), false, document.download, document, helper.temporary ".pdf", { resume = true })
      end
    end
  end)
end)
