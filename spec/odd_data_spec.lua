-- SPDX-License-Identifier: MIT
-- Responses that are slightly off: what is beyond doubt is read, all else is an error.
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
  assert.equal(0, helper.live_objects())
end

local function answer(...)
  local plans = {}
  for i, pair in ipairs { ... } do
    plans[i] = { operation = pair[1], action = { status = 200, body = pair[2] } }
  end
  helper.faults(unpack(plans))
end

local LOST = "\239\191\189" -- U+FFFD
local MARK = "\239\187\191" -- a byte order mark

-- Contents of a JSON string that lua-cjson refuses, and what they mean.
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
  -- and other sequences beside one stay what they are
  { [[\ud800 1.5,\"x\":2.5]], LOST .. ' 1.5,"x":2.5' },
  { "\\ud800 \t\n raw", LOST .. " \t\n raw" },
}

-- Texts whose meaning is in doubt, whatever stands beside it.
local DOUBTFUL = {
  [["\x41"]], [["\a"]], [["\ud80"]], [["\ud80g"]], [["\u"]], [["\ud800]], [["\ud800\]], [['a']], "NaN", "-Infinity", "+1",
  ".5", "-", "01", "01.5", "00.5", "0x10", "1.5.5", "1.5e", "1.5e+", "1.5x", "tru", "None", "undefined", "[1,]", "[,]", "[1 2]",
  [[{"a":1,}]], [[{a:1}]], [[{"a" 1}]], "[1]]", "[1] x", "\0", '"\0"', "[1]\0", "\12[1]", ")]}',\n[1]", MARK,
  "/* */ [1]", ("["):rep(33) .. ("]"):rep(33),
}

describe("JSON", function()
  it("that lua-cjson refuses is read if its meaning is beyond doubt", function()
    for _, pair in ipairs(TEXTS) do
      local value, problem = json.response(('{"text":"%s","n":[0.5,1,"1.5"]}'):format(pair[1]))
      assert.is_nil(problem, pair[1])
      assert.equal(pair[2], value.text, pair[1])
      assert.same({ 1 / 2, 1, "1.5" }, value.n)
      assert.equal(1, (assert(json.response(('{"%s":1}'):format(pair[1]))))[pair[2]], pair[1])
    end
  end)

  it("may begin with a byte order mark, and not with two", function()
    assert.same({ 1, 2 }, json.response(MARK .. "[1,2]"))
    assert.same({ LOST }, json.response(MARK .. ' \n["\\ud800"]'))
    assert.same({ MARK }, json.response('["' .. MARK .. '"]'))
    for _, text in ipairs { MARK .. MARK .. "[]", " " .. MARK .. "[]", "[]" .. MARK, "[" .. MARK .. "]", "\254\255[]" } do
      assert.is_nil((json.response(text)), text)
    end
  end)

  it("is refused if its meaning is in doubt", function()
    for _, text in ipairs(DOUBTFUL) do
      local value, problem = json.response(text)
      assert.is_nil(value, text)
      assert.equal("json", problem, text)
      for _, around in ipairs { '["\\ud800",%s]', '{"a":"\\ud800","b":%s}', '[%s,"\\ud800"]' } do
        local before, behind = around:match "^(.*)%%s(.*)$"
        assert.is_nil((json.response(before .. text .. behind)), before .. text .. behind)
      end
    end
  end)

  -- lua-cjson may take points for those of another locale (spec/locale_spec.lua): then all
  -- numbers are written without.
  it("has the same numbers without their points", function()
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

describe("a response that is slightly off", function()
  before_each(setup_client)
  after_each(teardown_client)

  it("loses no listing", function()
    for _, pair in ipairs(TEXTS) do
      local row = ('{"id":"b","file_name":"%s"}'):format(pair[1])
      local body = MARK .. '{"@odata.count":3,"value":[{"id":"a"},' .. row .. ',{"id":"c"}]}'
      answer({ "list", body }, { "list", body }, { "list", body })
      assert.equal(3, patient:count())
      local page = assert(patient:page())
      assert.equal(pair[2], page[2].file_name)
      local names = {}
      for document in patient:documents() do names[#names + 1] = document.id .. (document.file_name or "") end
      assert.same({ "a", "b" .. pair[2], "c" }, names)
    end
  end)

  it("leaves no upload's outcome unknown", function()
    for i, pair in ipairs(TEXTS) do
      answer { "upload", ('%s{"id":"x%d","patient_id":"p","description":"%s"}'):format(i % 2 == 0 and MARK or "", i, pair[1]) }
      local document, err = patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
      assert.is_nil(err)
      assert.equal("x" .. i, document.id)
      assert.equal(pair[2], document.description)
    end
  end)

  it("is read by every call, tokens and errors too", function()
    client:close()
    setup_client()
    answer({ "token", MARK .. ('{"access_token":"%s","expires_in":300,"scope":"\\ud800"}'):format(helper.token()) },
      { "get", MARK .. '{"id":"x","description":"\\udc00"}' })
    assert.equal(LOST, assert(patient:get "x").description)
    helper.faults { operation = "get", action = { status = 400, body = MARK .. '{"error":{"code":"C","message":"a\\ud800"}}' } }
    local _, err = patient:get "x"
    assert.equal("C", err.code)
    assert.equal("a" .. LOST, err.detail)
  end)

  it("has no id of which characters are lost", function()
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
