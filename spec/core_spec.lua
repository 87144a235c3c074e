-- SPDX-License-Identifier: MIT
-- nymbl.core, which only the library's own files call: what it refuses, and what event loops need.
local core = require "nymbl.core"
local helper = require "helper"

-- A client of a server that does not answer, so that a transfer ends only if it is told to.
local url, stop_server

local function new_client()
  return assert(core.client({ base_url = url, api_key = "k", allow_http = true }, {}))
end

local function start(client)
  return assert(core.start(client, "t", { "Patients", "1", "Documents", "2" }))
end

-- Pump until the transfer has ended. Returns its failure.
local function failure(transfer)
  local ended = core.now() + 20
  while core.now() < ended do
    core.pump(0.01, transfer)
    local result, err = transfer:result()
    if result ~= false then return err end
  end
  error "the transfer does not end"
end

describe("nymbl.core", function()
  setup(function() url, stop_server = helper.unresponsive_server "silent" end)
  teardown(function() stop_server() end)

  after_each(function() assert.equal(0, helper.object_count()) end)

  it("raises for a request that it cannot read, and starts nothing", function()
    local client = new_client()
    local path = function(fields)
      fields[1], fields[2] = "Patients", false
      return fields
    end
    for _, case in ipairs {
      { "names with keys expected", {} }, { "names with keys expected", { "Patients" } },
      { "names with keys expected", { "Patients", true } }, { "names with keys expected", { 1, "2" } },
      { "names with keys expected", { "Patients", {} } }, { "string contains NUL", { "Patients", "1\0" } },
      { "request field 'method': invalid value", path { method = "PUT" } },
      { "request field 'query': table expected", path { query = "a=b" } },
      { "request field 'query': names with values expected", path { query = { "a" } } },
      { "request field 'query': name expected", path { query = { 1, "b" } } },
      { "request field 'query': value expected", path { query = { "a", false } } },
      { "request field 'headers': value expected", path { headers = { "a", {} } } },
    } do
      local ok, err = pcall(core.start, client, "t", case[2])
      assert.is_false(ok)
      assert.is_truthy(err:find(case[1], 1, true), err)
    end
    local many = {}
    for i = 1, 200 do many[i] = "a" end
    for _, request in ipairs { many, path { query = many } } do
      assert.is_truthy(select(2, pcall(core.start, client, "t", request)):find("expected", 1, true))
    end
  end)

  it("reports a token request without credentials, and has no id for them", function()
    local client = new_client()
    local transfer, err = core.start_token(client)
    assert.is_nil(transfer)
    assert.equal("misuse", err.kind)
    assert.is_nil(core.account(client, "token"))
    core.client_close(client)
    assert.is_nil(core.account(client, "limits"))
  end)

  it("raises for a closed object", function()
    local body, store = core.body_from_bytes "x", core.store_open(helper.temporary())
    body:close()
    store:close()
    for name, call in pairs {
      body = function() return body:size() end,
      store = function() return store:content() end,
    } do
      local ok, err = pcall(call)
      assert.is_false(ok)
      assert.is_truthy(err:find("closed " .. name, 1, true), err)
    end
    body:close()
    store:close()
  end)

  it("writes to a stream from a position that the text has", function()
    local body = core.body_stream {}
    assert.equal(4, body:write("abc", 1))
    assert.equal(4, body:write("abc", 4))
    for _, from in ipairs { 0, 5, -1 } do
      assert.is_false(pcall(body.write, body, "abc", from))
    end
    assert.is_nil(body:version()) -- it has no file
    local file = io.tmpfile()
    file:close()
    local copied, err = body:write_from(file)
    assert.is_nil(copied)
    assert.equal("closed", err.reason)
    body:close()
  end)

  it("gives a transfer a notify socket until it has ended", function()
    local client = new_client()
    local transfer = start(client)
    local path, token = transfer:notify_socket()
    assert.is_truthy(path:match "^/.*/notify$", path)
    assert.is_truthy(token:match("^" .. ("%x"):rep(32) .. "$"), token)
    assert.equal("socket", helper.output("stat -c %F " .. helper.quote(path)))
    transfer:cancel "canceled"
    assert.equal("canceled", failure(transfer).kind)
    assert.is_false((transfer:notify_socket()))
    transfer:close()
  end)

  it("cancels a transfer that its watchdog finds abandoned", function()
    local client = new_client()
    local transfer = start(client)
    transfer:set_watchdog(core.now() - 1)
    assert.equal("canceled", failure(transfer).kind)
    transfer:close()
    transfer:set_watchdog(0) -- closed by another coroutine
  end)

  it("frees its engine only if there is nothing to do", function()
    local client = new_client()
    local transfer = start(client)
    core.engine_close()
    transfer:cancel "canceled"
    assert.equal("canceled", failure(transfer).kind)
    transfer:close()
    core.client_close(client)
    core.pump(0)
    local before = helper.output("ls /proc/" .. core.system.process_id() .. "/fd | wc -l")
    core.engine_close()
    core.engine_close()
    local after = helper.output("ls /proc/" .. core.system.process_id() .. "/fd | wc -l")
    assert.is_true(tonumber(after) < tonumber(before))
    client = new_client() -- with a new engine
    transfer = start(client)
    transfer:cancel "canceled"
    assert.equal("canceled", failure(transfer).kind)
    transfer:close()
  end)
end)
