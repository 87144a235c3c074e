-- SPDX-License-Identifier: MIT
-- A JSON response has at most 2 MB and 20,000 values. They are counted before it is decoded.
local core = require "nymbl.core"
local helper = require "helper"

local MOST = 20000

describe("the values of a JSON text", function()
  local function count(text) return core.json_values(text, 1000) end

  it("are its scalars, arrays and objects, but not the names of members", function()
    for text, values in pairs {
      ["1"] = 1, ["[]"] = 1, ["{}"] = 1, ["[[],[]]"] = 3, ["[1,2,3]"] = 4, ['{"a":1}'] = 2, ['{"a" : [1, "b"]}'] = 4,
      ['"x"'] = 1, ['["x","y"]'] = 3, ['{"a":{"b":{"c":null}}}'] = 4, [' [ true , false , -1.5e3 ] '] = 4, [""] = 0,
      ["[[[[[]]]]]"] = 5, ['[{"a":1,"b":2},{"a":1}]'] = 6, ['{"a"\n\t\r :1}'] = 2,
    } do
      assert.equal(values, count(text), text)
    end
  end)

  it("are counted correctly if strings contain brackets and commas", function()
    for text, values in pairs {
      ['["[[[[,,,,"]'] = 2, [ [=[["\"[[[",1]]=] ] = 3, [ [=[["\\",[],[]]]=] ] = 4, [ [=[["\\\"[",[]]]=] ] = 3,
      [ [=[{"\":":[],"b\\":[]}]=] ] = 3, [ [=[["\u0022",[]]]=] ] = 3, ['["a'] = 2, ['["a\\'] = 2, ['["a\\"'] = 2,
    } do
      assert.equal(values, count(text), text)
    end
  end)

  it("are never fewer than the values that a decoder creates", function()
    local state = 7
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return math.floor(state / 65536) % n + 1
    end
    local pieces = { "[", "]", "{", "}", ",", ":", '"', "\\", " ", "1", "-", "null", "true", '"a"', '"b":', "[]", "{}", "e", "." }
    local function size(value)
      if type(value) ~= "table" then return 1 end
      local sum = 1
      for _, item in pairs(value) do sum = sum + size(item) end
      return sum
    end
    local json, decoded = require("nymbl.json"), 0
    for _ = 1, 20000 do
      local text = {}
      for i = 1, random(9) do text[i] = pieces[random(#pieces)] end
      text = "[" .. table.concat(text) .. "]"
      local value = json.decode(text)
      if value then
        decoded = decoded + 1
        -- a repeated name hides a value
        assert.is_true(count(text) >= size(value), text)
      end
    end
    assert.is_true(decoded > 100, decoded .. " texts")
  end)

  it("are counted only up to the given limit", function()
    assert.equal(6, core.json_values(("[],"):rep(1000), 5))
    assert.equal(5, core.json_values("[1,2,3,4]", 5))
  end)
end)

describe("a response", function()
  local client, patient

  before_each(function()
    helper.reset()
    client = helper.client { token = helper.token() }
    patient = client:patient "p"
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
  end)

  local function answer(operation, body)
    helper.faults { operation = operation, times = -1, action = { status = 200, body = body } }
  end

  local function refused(result, err, attempts)
    assert.is_nil(result)
    assert.equal("protocol", err.kind)
    assert.equal("response_too_long", err.reason)
    assert.equal(attempts or 1, err.attempts)
    return err
  end

  it("of 2 MB of arrays needs little memory", function()
    answer("get", "[" .. ("[],"):rep(600000) .. "[]]")
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    local result, err = patient:get "d"
    local after = collectgarbage("count")
    collectgarbage("restart")
    refused(result, err)
    assert.is_true(after - before < 6000, ("%.0f KB"):format(after - before))
  end)

  it("may have at most 20,000 values", function()
    -- including the object, "id", "x" and its array
    local function body(count) return '{"id":"d","x":[' .. ("0,"):rep(count - 4) .. "0]}" end
    answer("get", body(MOST))
    assert(patient:get "d")
    answer("get", body(MOST + 1))
    refused(patient:get "d")
    answer("get", '{"id":"d","x":[' .. ('{"a":[]},'):rep(MOST / 2) .. "0]}")
    refused(patient:get "d")
  end)

  it("may have at most 2 MB", function()
    local function body(size)
      local head, tail = '{"id":"d","x":"', '"}'
      return head .. ("x"):rep(size - #head - #tail) .. tail
    end
    answer("get", body(2097152))
    assert(patient:get "d")
    answer("get", body(2097153))
    refused(patient:get "d")
  end)

  it("to an upload leaves the outcome unknown", function()
    answer("upload", "[" .. ("[],"):rep(30000) .. "[]]")
    local err = refused(patient:upload({ data = "%PDF-1.4 x" }, { file_name = "a.pdf" }))
    assert.is_true(err.outcome_unknown)
  end)

  it("with an error status is an error by its status, without a detail", function()
    helper.faults { operation = "get", action = { status = 404, body = '{"message":"m","x":[' .. ("0,"):rep(25000) .. "0]}" } }
    local _, err = patient:get "d"
    assert.equal("not_found", err.kind)
    assert.is_nil(err.detail)
  end)

  it("to a token request is counted too", function()
    local other = helper.client()
    helper.faults { operation = "token", times = -1,
                    action = { status = 200, body = '{"access_token":"t","x":[' .. ("0,"):rep(25000) .. "0]}" } }
    local result, err = other:patient("p"):count()
    refused(result, err, 0)
    other:close()
  end)

  it("of 100 documents with long descriptions is read", function()
    local rows = {}
    for i = 1, 100 do
      rows[i] = { id = "d" .. i, patient_id = "p", file_name = "a.pdf", description = ("\195\188\n"):rep(5000) }
    end
    answer("list", helper.json.encode { ["@odata.count"] = 100, value = rows })
    assert.equal(100, #assert(patient:page()))
  end)

  it("that is too long makes an iteration request fewer rows", function()
    helper.admin("POST", "seed", { patient = "p", count = 150 })
    helper.faults { operation = "list", times = 3, action = { status = 200, body = "[" .. ("0,"):rep(25000) .. "0]" } }
    local count, seen = 0, {}
    for doc in patient:documents() do
      count = count + 1
      assert.is_nil(seen[doc.id])
      seen[doc.id] = true
    end
    assert.equal(150, count)
    answer("list", "[" .. ("0,"):rep(25000) .. "0]")
    helper.admin("DELETE", "journal")
    local ok, err = pcall(patient:documents())
    assert.is_false(ok)
    refused(nil, err)
    assert.equal(8, #helper.journal "list") -- 100, 50, 25, 13, 7, 4, 2, 1 rows
  end)
end)
