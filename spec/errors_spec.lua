-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- The error table: what a failed call reports to a script, and what its message omits.

local helper = require "helper"
local nymbl = require "nymbl"
local errors = require "nymbl.errors"

local KINDS = {
  "bad_request", "unauthorized", "forbidden", "not_found", "too_large", "unsupported_type", "throttled", "quota",
  "server", "http", "timeout", "network", "tls", "truncated", "corrupt", "protocol", "redirect", "io", "context",
  "settings", "canceled",
}

local FIELDS = {
  kind = "string", status = "number", reason = "string", code = "string", detail = "string", attempts = "number",
  retry_after = "number", outcome_unknown = "boolean", operation = "string", request_id = "string",
}

local PATIENT = "errors"
local client, patient

-- Checks that apply to every error.
local function check(err)
  assert.equal("table", type(err))
  for name, value in pairs(err) do
    assert.equal(FIELDS[name], type(value), tostring(name))
  end
  assert.truthy(err.kind)
  assert.truthy(err.attempts)
  if math.type then assert.equal("integer", math.type(err.attempts)) end
  local line = tostring(err)
  assert.equal("string", type(line))
  assert.is_nil(line:find("[%c]"))
  assert.truthy(line:find(err.kind, 1, true))
  if err.status then assert.truthy(line:find(("%d"):format(err.status), 1, true)) end
  if err.detail then assert.is_nil(line:find(err.detail, 1, true)) end
  assert.equal("failed: " .. line, "failed: " .. err)
  return err
end

-- The error of a failed call.
local function failed(...)
  assert.equal(2, select("#", ...))
  local value, err = ...
  assert.is_nil(value)
  return check(err)
end

local function setup_client(options)
  local given = { rate = false, monthly_quota = false, max_attempts = 1 }
  for name, value in pairs(options or {}) do given[name] = value end
  client = helper.client(given)
  patient = client:patient(PATIENT)
end

-- A client with its own listener: the service's statements about limits are stored by base URL.
local listeners = 0
local function setup_apart()
  client:close()
  listeners = listeners + 1
  setup_client { base_url = helper.admin("POST", "listen", { tls = "good", name = "apart" .. listeners }).url }
end

local function teardown_client()
  client:close()
  client, patient = nil, nil
  assert.equal(0, helper.object_count())
end

local function fault(operation, action, times)
  helper.faults { operation = operation, action = action, times = times or -1 }
end

local function each(list, fn)
  for i, item in ipairs(list) do fn(item, i) end
end

describe("tostring() of an error", function()
  it("is one line of fixed words for every kind, with advice", function()
    local seen = {}
    for _, kind in ipairs(KINDS) do
      local line = tostring(errors.new { kind = kind })
      assert.truthy(line:find("^nymbl: " .. kind .. ": %l[%w ,_.'-]+:? ?[%w ,_.'-]+$"), line)
      assert.truthy(line:find(": [^:]+: [^:]+$") or line:find("[,;:] "), line)
      assert.is_nil(seen[line])
      seen[line] = true
      assert.equal(line, tostring(errors.new { kind = kind, code = "SENTINEL", detail = "SENTINEL", attempts = 3 }))
      assert.equal((line:gsub(": ", ", retry after 5 s: ", 2):gsub(", retry after 5 s", "", 1)),
        tostring(errors.new { kind = kind, retry_after = 4.2 }))
      assert.truthy(tostring(errors.new { kind = kind, status = 418 }):find(kind .. " 418: ", 1, true))
      assert.truthy(tostring(errors.new { kind = kind, reason = "why" }):find(kind .. " (why): ", 1, true))
      assert.truthy(tostring(errors.new { kind = kind, status = 418, reason = "why" }):find(kind .. " 418 (why): ",
        1, true))
      assert.equal("nymbl: " .. kind .. ": it may have been carried out: look before you repeat it",
        tostring(errors.new { kind = kind, outcome_unknown = true, retry_after = 5 }))
      assert.equal("nymbl: upload: " .. line:sub(8), tostring(errors.new({ kind = kind }, "upload")))
    end
  end)

  it("says that the outcome is unknown", function()
    assert.truthy(tostring(errors.new { kind = "timeout", outcome_unknown = true }):find("may have been carried out",
      1, true))
    assert.is_nil(tostring(errors.new { kind = "timeout" }):find("may have been carried out", 1, true))
  end)

  it("concatenates with strings, numbers and other errors on both sides", function()
    local err = errors.new { kind = "server", status = 500 }
    local line = tostring(err)
    assert.equal("upload: " .. line, "upload: " .. err)
    assert.equal(line .. "\n", err .. "\n")
    assert.equal("a" .. line .. "b", "a" .. err .. "b")
    assert.equal(line .. line, err .. err)
    assert.equal("5" .. line, 5 .. err)
    assert.equal(line .. "5", err .. 5)
  end)

  it("is printed by an interpreter if the error is not caught", function()
    local lua = jit and "luajit" or "lua" .. _VERSION:match("%d.%d")
    for _, statement in ipairs { "error(err)", "assert(nil, err)" } do
      local script = helper.write_file(helper.temporary(".lua"), ([[
        package.path, package.cpath = %q, %q
        local err = require("nymbl.errors").new { kind = "server", status = 500, detail = "SENTINEL" }
        %s
      ]]):format(package.path, package.cpath, statement))
      local shown = helper.output(("%s %s 2>&1 || true"):format(lua, helper.quote(script)))
      assert.truthy(shown:find(tostring(errors.new { kind = "server", status = 500 }), 1, true))
      assert.is_nil(shown:find("SENTINEL", 1, true))
    end
  end)
end)

describe("nymbl.error()", function()
  it("makes an error like those of calls", function()
    local fields = { kind = "throttled", status = 429, operation = "list", attempts = 3, retry_after = 1.5 }
    local err = nymbl.error(fields)
    assert.are_not.equal(fields, err)
    assert.is_nil(getmetatable(fields))
    assert.is_true(errors.is(err))
    assert.matches("^nymbl: list: throttled 429, retry after 2 s: %l.+: try again later$", tostring(err))
    assert.equal("x" .. tostring(err), "x" .. err)
    for name, value in pairs(fields) do assert.equal(value, err[name]) end
    assert.equal(0, nymbl.error { kind = "io" }.attempts)
    assert.truthy(tostring(nymbl.error { kind = "server", outcome_unknown = true }):find("look before you repeat it", 1, true))
  end)

  it("takes every kind", function()
    for _, kind in ipairs(KINDS) do check(nymbl.error { kind = kind }) end
  end)

  it("shows detail, code and request id in no line, unless detail is the name of a variable", function()
    for _, kind in ipairs(KINDS) do
      local line = tostring(nymbl.error { kind = kind, detail = "SENTINEL", code = "SENTINEL", request_id = "SENTINEL" })
      assert.is_nil(line:find("SENTINEL", 1, true))
      assert.equal(kind == "settings", tostring(nymbl.error { kind = kind, detail = "NYMBL_X" }):find("NYMBL_X", 1, true) ~= nil)
    end
    for _, detail in ipairs { "NYMBL_X y", "x NYMBL_X", "NYMBL_X\n", "NYMBL_x", "NYMBL_1" } do
      assert.is_nil(tostring(nymbl.error { kind = "settings", detail = detail }):find("NYMBL_", 1, true))
    end
  end)

  it("raises on what no error has", function()
    for _, wrong in ipairs {
      1, "io", true, {}, { kind = "unknown" }, { kind = 1 }, { kind = "io", other = 1 }, { kind = "io", status = "404" },
      { kind = "io", status = 404.5 }, { kind = "io", reason = "SENTINEL words" }, { kind = "io", reason = true },
      { kind = "io", operation = "Up load" }, { kind = "io", detail = {} }, { kind = "io", attempts = -1 },
      { kind = "io", retry_after = -1 }, { kind = "io", retry_after = 0 / 0 }, { kind = "io", outcome_unknown = 1 }, { "io" },
    } do
      local ok, message = pcall(nymbl.error, wrong)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'error' (", 1, true), message)
      assert.is_nil(message:find("SENTINEL", 1, true))
    end
    assert.is_false((pcall(nymbl.error)))
  end)
end)

describe("a response with an error status", function()
  before_each(function()
    helper.reset()
    setup_client()
  end)
  after_each(teardown_client)

  local STATUSES = {
    [400] = "bad_request", [401] = "unauthorized", [403] = "forbidden", [404] = "not_found", [413] = "too_large",
    [415] = "unsupported_type", [429] = "throttled",
  }
  each({ 500, 501, 502, 503, 504, 505, 507, 511, 520, 599 }, function(status) STATUSES[status] = "server" end)
  each({ 300, 402, 405, 406, 407, 408, 409, 410, 411, 412, 414, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428,
         431, 451, 499 }, function(status) STATUSES[status] = "http" end)

  local function get() return patient:get("doc-1") end

  for status, kind in pairs(STATUSES) do
    it(("%d is of kind %s, whatever its body"):format(status, kind), function()
      if status == 429 then setup_apart() end
      for _, body_kind in ipairs { "service", "gateway", "token", "empty", "html" } do
        fault("get", { status = status, body_kind = body_kind, message = "SENTINEL words" })
        helper.admin("DELETE", "journal")
        local err = failed(get())
        assert.equal(kind, err.kind)
        assert.equal(status, err.status)
        assert.equal(#helper.journal("get"), err.attempts)
        assert.is_nil(err.outcome_unknown)
        if body_kind == "service" then
          assert.equal("InternalError", err.code)
          assert.equal("SENTINEL words", err.detail)
        elseif body_kind == "gateway" then
          assert.is_nil(err.code)
          assert.equal("SENTINEL words", err.detail)
        elseif body_kind == "token" then
          assert.equal("SENTINEL words", err.code)
          assert.is_nil(err.detail)
        else
          assert.is_nil(err.code)
          assert.is_nil(err.detail)
        end
      end
    end)
  end

  it("3xx is a refused redirect, if it has a location", function()
    for _, status in ipairs { 301, 302, 303, 307, 308 } do
      fault("get", { redirect = { status = status, location = "https://SENTINEL.example.org/" } })
      local err = failed(get())
      assert.equal("redirect", err.kind)
      assert.equal(status, err.status)
    end
    fault("get", { status = 304, body_kind = "empty" })
    assert.equal("http", failed(get()).kind)
  end)

  it("2xx that does not fit the call is of kind http", function()
    for _, status in ipairs { 201, 202, 203, 204, 206 } do
      fault("get", { status = status, body_kind = "empty" })
      local err = failed(get())
      assert.equal("http", err.kind)
      assert.equal(status, err.status)
    end
  end)

  it("is the same from every call", function()
    helper.admin("POST", "documents", { patient = PATIENT, id = "doc-1", content = "%PDF-1.4\n" })
    local document = patient:document("doc-1")
    local calls = {
      list = {
        function() return patient:page() end,
        function() return patient:count() end,
        function()
          local ok, err = pcall(function() for _ in patient:documents() do end end)
          assert.is_false(ok)
          return nil, err
        end,
      },
      get = { get, function() return document:refresh() end },
      download = {
        function() return document:download(helper.temporary()) end,
        function() return document:download(function() return 1 end) end,
        function() return document:open() end,
      },
      delete = { function() return document:delete() end },
      upload = { function() return patient:upload({ data = "%PDF-1.4\n" }, { file_name = "a.pdf" }) end },
    }
    for operation, list in pairs(calls) do
      for status, kind in pairs { [400] = "bad_request", [403] = "forbidden", [404] = "not_found", [413] = "too_large",
                                  [418] = "http", [503] = "server" } do
        fault(operation, { status = status, content_type = "application/json",
          body = '{"error":{"code":"SENTINELcode","message":"SENTINEL one","details":"SENTINEL two"}}' })
        for _, call in ipairs(list) do
          helper.admin("DELETE", "journal")
          local err = failed(call())
          assert.equal(kind, err.kind)
          assert.equal(status, err.status)
          assert.equal("SENTINELcode", err.code)
          assert.truthy(err.detail:find("SENTINEL one", 1, true))
          assert.truthy(err.detail:find("SENTINEL two", 1, true))
          assert.equal(#helper.journal(operation), err.attempts)
          assert.is_nil(tostring(err):find("SENTINEL", 1, true))
          local changes = operation == "upload" or operation == "delete"
          assert.equal(changes and status >= 500 or nil, err.outcome_unknown)
        end
      end
    end
  end)

  it("has code and detail in every known shape", function()
    local long = ("x"):rep(20000)
    each({
      { '{"error":{"code":"C","message":"M","details":"D"}}', "C", "M", "D" },
      { '{"error":{"code":"C","message":"M"}}', "C", "M" },
      { '{"error":{"code":"C","message":"M","details":null}}', "C", "M" },
      { '{"error":{"code":"C","message":"M","details":""}}', "C", "M" },
      { '{"error":{"code":"C","message":"M","details":[]}}', "C", "M" },
      { '{"error":{"code":"C","message":"M","details":["D1","D2"]}}', "C", "M", "D1", "D2" },
      { '{"error":{"code":"C","message":"M","details":[{"code":"x","message":"D1","target":"t"},{"message":"D2"}]}}',
        "C", "M", "D1", "D2" },
      { '{"error":{"code":"C","message":"M","details":[null,5,{"message":null},"D"]}}', "C", "M" },
      { '{"error":{"code":"C","message":"M","details":5}}', "C", "M" },
      { '{"error":{"code":"C","message":"M","details":{"x":"y"}}}', "C", "M" },
      { '{"error":{"code":"C","details":"D"}}', "C", "D" },
      { '{"error":{"code":"C"}}', "C" },
      { '{"error":{"message":"M"}}', nil, "M" },
      { '{"error":{"code":5,"message":7}}', nil },
      { '{"error":{"code":null,"message":null,"details":null}}', nil },
      { '{"error":{}}', nil },
      { '{"error":null}', nil },
      { '{"error":5}', nil },
      { '{"error":["x"]}', nil },
      { '{"error":"C"}', "C" },
      { '{"message":"M"}', nil, "M" },
      { '{"Message":"M"}', nil, "M" },
      { '{"message":null}', nil },
      { '{"message":{"a":1}}', nil },
      { '{"error":{"code":"C","message":"' .. long .. '"}}', "C", long },
      { '{"error":{"code":"C\\u0000\\n","message":"M\\u0000\\r\\n"}}', "C\0\n", "M\0\r\n" },
      { "{}", nil }, { "[]", nil }, { '["x"]', nil }, { '"x"', nil }, { "5", nil }, { "null", nil }, { "true", nil },
      { " ", nil }, { '{"error":{"code":"C"', nil }, { ("["):rep(100000), nil }, { ('{"a":'):rep(100000), nil },
      { "\255\254\0", nil }, { '{"message":"' .. ("y"):rep(2000000) .. '"}', nil },
      { "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", nil },
    }, function(case)
      for _, content_type in ipairs { "application/json", "text/plain" } do
        fault("get", { status = 400, body = case[1], content_type = content_type })
        local err = failed(get())
        assert.equal("bad_request", err.kind)
        assert.equal(case[2], err.code, case[1]:sub(1, 100))
        if not case[3] then assert.is_nil(err.detail, case[1]:sub(1, 100)) end
        for i = 3, #case do assert.truthy((err.detail or ""):find(case[i], 1, true), case[1]:sub(1, 100)) end
      end
    end)
  end)

  it("has retry_after in seconds, from either form of Retry-After", function()
    local function retry_after(status, value)
      fault("get", { status = status, body_kind = "gateway", message = "SENTINEL", headers = { { "Retry-After",
        value } } })
      return failed(get()).retry_after
    end
    for _, status in ipairs { 429, 503 } do
      if status == 429 then setup_apart() end
      assert.equal(7, retry_after(status, "7"))
      assert.equal(0, retry_after(status, "0"))
      assert.equal(86400, retry_after(status, "86400"))
      for _, format in ipairs { "!%a, %d %b %Y %H:%M:%S GMT", "!%A, %d-%b-%y %H:%M:%S GMT", "!%a %b %d %H:%M:%S %Y" } do
        local seconds = retry_after(status, os.date(format, os.time() + 100))
        assert.is_true(seconds > 80 and seconds <= 100, format)
      end
      assert.equal(0, retry_after(status, os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() - 1000)))
      for _, value in ipairs { "-5", "soon", "", "1.5", "7 seconds", "0x10" } do
        assert.is_nil(retry_after(status, value), value)
      end
    end
    fault("get", { status = 503, body_kind = "empty" })
    assert.is_nil(failed(get()).retry_after)
  end)

  it("429 is the quota if its body or header says so", function()
    local function kind(action)
      setup_apart()
      action.status = action.status or 429
      fault("get", action)
      return failed(get()).kind
    end
    assert.equal("quota", kind { body_kind = "gateway", message = "Limit Exceeded" })
    assert.equal("quota", kind { body_kind = "service", message = "Limit Exceeded" })
    assert.equal("quota", kind { body_kind = "empty", headers = { { "x-amzn-ErrorType", "LimitExceededException" } } })
    assert.equal("quota", kind { body_kind = "gateway", message = "Too Many Requests",
      headers = { { "X-Amzn-Errortype", "LimitExceededException:http://x" } } })
    assert.equal("throttled", kind { body_kind = "gateway", message = "Too Many Requests" })
    assert.equal("throttled", kind { body_kind = "empty", headers = { { "x-amzn-ErrorType",
      "TooManyRequestsException" } } })
    assert.equal("throttled", kind { body_kind = "html" })
    assert.equal("forbidden", kind { status = 403, body_kind = "gateway", message = "Limit Exceeded" })
    assert.equal("server", kind { status = 500, body_kind = "gateway", message = "Limit Exceeded" })
  end)
end)

describe("a response with invalid content", function()
  before_each(function()
    helper.reset()
    setup_client()
    helper.admin("POST", "documents", { patient = PATIENT, id = "doc-1", content = "%PDF-1.4\n" })
  end)
  after_each(teardown_client)

  it("is of kind protocol, with its status", function()
    for _, body in ipairs { "", " ", "{", "[]", "5", "null", "<html></html>", '{"value":5}', '{"value":{"a":1}}', "{}",
                            '{"value":[5]}', '{"value":[{}]}', '{"value":[{"id":null}]}', '{"value":[{"id":{}}]}' } do
      fault("list", { status = 200, body = body, content_type = "application/json" })
      local err = failed(patient:page())
      assert.equal("protocol", err.kind, body)
      assert.equal(200, err.status)
      assert.equal(1, err.attempts)
    end
    for _, body in ipairs { "", "{", "[]", "5", "{}", '{"id":null}', '{"id":"another"}', '{"id":9007199254740993}',
                            '{"id":1.5}', '{"id":"doc-1","patient_id":"another"}' } do
      fault("get", { status = 200, body = body, content_type = "application/json" })
      assert.equal("protocol", failed(patient:get("doc-1")).kind, body)
    end
  end)

  it("leaves the outcome of an upload unknown", function()
    fault("upload", { status = 201, body = "{", content_type = "application/json", effect = true })
    local err = failed(patient:upload({ data = "%PDF-1.4\n" }, { file_name = "a.pdf" }))
    assert.equal("protocol", err.kind)
    assert.is_true(err.outcome_unknown)
  end)
end)

describe("a call without a response", function()
  before_each(function()
    helper.reset()
    setup_client()
    helper.admin("POST", "documents", { patient = PATIENT, id = "doc-1", content = "%PDF-1.4\n" })
  end)
  after_each(teardown_client)

  local function get() return patient:get("doc-1") end

  local function elsewhere(base_url)
    client:close()
    setup_client { base_url = base_url, token = "x", connect_timeout = 3 }
  end

  it("reports where the network failed", function()
    fault("get", { before = "reset" })
    local err = failed(get())
    assert.equal("network", err.kind)
    assert.equal("reset", err.reason)
    assert.is_nil(err.status)
    assert.equal(#helper.journal("get"), err.attempts)
    elsewhere("https://127.0.0.1:9")
    err = failed(get())
    assert.equal("network", err.kind)
    assert.equal("connect", err.reason)
    assert.equal(0, err.attempts)
    elsewhere("https://nowhere.invalid")
    err = failed(get())
    assert.equal("network", err.kind)
    assert.equal("resolve", err.reason)
    assert.equal(0, err.attempts)
  end)

  it("reports the problem of a certificate", function()
    for tls, reason in pairs { expired = "certificate_expired", not_yet_valid = "certificate_not_yet_valid",
                               wrong_host = "host_name" } do
      elsewhere(helper.admin("POST", "listen", { tls = tls, name = tls }).url)
      local err = failed(get())
      assert.equal("tls", err.kind)
      assert.equal(reason, err.reason)
      assert.equal(0, err.attempts)
    end
    for _, tls in ipairs { "self_signed", "other_ca", "tls11" } do
      elsewhere(helper.admin("POST", "listen", { tls = tls, name = tls }).url)
      local err = failed(get())
      assert.equal("tls", err.kind)
      assert.truthy(err.reason)
      assert.equal(0, err.attempts)
    end
  end)

  it("leaves the outcome of an upload or delete unknown if the request was sent", function()
    for _, how in ipairs { "reset", "close" } do
      fault("upload", { lost_reply = how })
      local err = failed(patient:upload({ data = "%PDF-1.4\n" }, { file_name = "a.pdf" }))
      assert.is_true(err.outcome_unknown)
      assert.equal(1, err.attempts)
      fault("delete", { lost_reply = how }, 1)
      err = failed(patient:document("doc-1"):delete())
      assert.is_true(err.outcome_unknown)
      helper.admin("POST", "documents", { patient = PATIENT, id = "doc-1", content = "%PDF-1.4\n" })
    end
    elsewhere("https://127.0.0.1:9")
    assert.is_nil(failed(patient:upload({ data = "%PDF-1.4\n" }, { file_name = "a.pdf" })).outcome_unknown)
    assert.is_nil(failed(patient:document("doc-1"):delete()).outcome_unknown)
  end)

  it("is of kind timeout after its timeout", function()
    fault("get", { delay = 3 })
    local err = failed(patient:get("doc-1", { timeout = 1 }))
    assert.equal("timeout", err.kind)
    assert.is_nil(err.status)
    assert.equal(1, err.attempts)
  end)
end)

describe("a call that is refused locally", function()
  before_each(function()
    helper.reset()
    setup_client()
    helper.admin("POST", "documents", { patient = PATIENT, id = "doc-1", content = "%PDF-1.4\n" })
    helper.admin("DELETE", "journal")
  end)
  after_each(teardown_client)

  it("has no attempts and sends nothing", function()
    local function refused(kind, reason, ...)
      local err = failed(...)
      assert.equal(kind, err.kind)
      if reason then assert.equal(reason, err.reason) end
      assert.is_nil(err.status)
      assert.equal(0, err.attempts)
      assert.is_nil(err.outcome_unknown)
    end
    local document = patient:document("doc-1")
    refused("io", "not_found", patient:upload("/nowhere/SENTINEL.pdf"))
    refused("io", nil, patient:upload(helper.folder .. "/", { file_name = "x.pdf" }))
    refused("unsupported_type", nil, patient:upload({ data = "x" }, { file_name = "x.exe" }))
    refused("unsupported_type", nil, patient:upload({ data = "x" }, { file_name = "x.pdf",
      content_type = "text/plain" }))
    refused("io", "not_found", document:download("/nowhere/SENTINEL.pdf"))
    refused("io", nil, document:download("/dev/null"))
    refused("io", "exists", document:download(helper.write_file(helper.temporary(), "x"), { overwrite = false }))
    client:close()
    setup_client { max_upload_bytes = 10 }
    refused("too_large", nil, patient:upload({ data = "%PDF-1.4\n12" }, { file_name = "x.pdf" }))
    assert.same({}, helper.journal())
  end)

  it("or fails locally reports why", function()
    local full = io.open("/dev/full", "wb")
    if full then
      local err = failed(patient:document("doc-1"):download(full))
      assert.equal("io", err.kind)
      assert.equal("no_space", err.reason)
      assert.equal(1, err.attempts)
      full:close()
    end
    local err = failed(patient:document("doc-1"):download(function(chunk) return chunk == nil end))
    assert.equal("io", err.kind)
    assert.equal("sink", err.reason)
  end)

  it("by its progress function is canceled, even with the last bytes", function()
    local function stop() return false end
    for _, size in ipairs { 9, 300000 } do
      local made = helper.admin("POST", "documents", { patient = PATIENT, size = size })
      local document = patient:document(made.id)
      local reported
      local err = failed(document:download(function(chunk, why)
        reported = why
        return chunk and 1
      end, { progress = stop }))
      assert.equal("canceled", err.kind)
      assert.equal("progress", err.reason)
      assert.equal(1, err.attempts)
      assert.equal(err, reported)
      local handle = assert(io.open(helper.temporary(), "wb"))
      err = failed(document:download(handle, { progress = stop }))
      assert.equal("canceled", err.kind)
      handle:close()
      local stream = assert(document:open { progress = stop })
      assert.equal("canceled", failed(stream:read()).kind)
      stream:close()
    end
  end)

  it("by its progress function leaves the path unchanged, or else is not canceled", function()
    for _, size in ipairs { 9, 300000, 5000000 } do
      local made = helper.admin("POST", "documents", { patient = PATIENT, size = size })
      local path = helper.write_file(helper.temporary(), "before")
      local bytes, err = patient:document(made.id):download(path, { progress = function() return false end })
      if bytes then
        assert.equal(made.sha256, helper.sha256(path))
      else
        assert.equal("canceled", check(err).kind)
        assert.equal("before", helper.read_file(path))
      end
      if size == 5000000 then assert.is_nil(bytes) end
    end
  end)
end)

describe("a token endpoint that fails", function()
  local calls = {
    function() return patient:get("doc-1") end,
    function() return patient:page() end,
    function() return patient:count() end,
    function() return patient:document("doc-1"):open() end,
    function() return patient:document("doc-1"):download(helper.temporary()) end,
    function() return patient:document("doc-1"):delete() end,
    function() return patient:upload({ data = "%PDF-1.4\n" }, { file_name = "a.pdf" }) end,
    function()
      local ok, err = pcall(function() for _ in patient:documents() do end end)
      assert.is_false(ok)
      return nil, err
    end,
  }

  before_each(function()
    helper.reset()
    setup_client()
  end)

  after_each(function()
    assert.same({}, helper.journal())
    teardown_client()
  end)

  -- Another client, with its own store: rejected credentials are remembered.
  local function another_client()
    teardown_client()
    setup_client()
  end

  local function token_error(action)
    another_client()
    fault("token", action)
    return failed(patient:get("doc-1"))
  end

  it("makes every call unauthorized for 400 and 401, without an attempt", function()
    for _, status in ipairs { 400, 401 } do
      for _, call in ipairs(calls) do
        another_client()
        fault("token", { status = status, body_kind = "token", message = "invalid_client" })
        local err = failed(call())
        assert.equal("unauthorized", err.kind)
        assert.equal(status, err.status)
        assert.equal("invalid_client", err.code)
        assert.equal(0, err.attempts)
        assert.is_nil(err.outcome_unknown)
      end
    end
  end)

  it("makes a call unauthorized whatever the body", function()
    for _, body_kind in ipairs { "gateway", "empty", "html", "service" } do
      local err = token_error { status = 400, body_kind = body_kind, message = "SENTINEL" }
      assert.equal("unauthorized", err.kind)
      assert.equal(400, err.status)
    end
    local err = token_error { status = 400, content_type = "application/json",
      body = '{"error":"invalid_scope","error_description":"SENTINEL"}' }
    assert.equal("invalid_scope", err.code)
    assert.equal("SENTINEL", err.detail)
  end)

  it("gives other failures their kinds, without an attempt", function()
    for status, kind in pairs { [403] = "forbidden", [404] = "not_found", [405] = "http", [500] = "server",
                                [503] = "server" } do
      local err = token_error { status = status, body_kind = "gateway", message = "SENTINEL" }
      assert.equal(kind, err.kind)
      assert.equal(status, err.status)
      assert.equal(0, err.attempts)
    end
    local err = token_error { redirect = { status = 302, location = "https://sentinel.example.org/" } }
    assert.equal("redirect", err.kind)
    assert.equal(0, err.attempts)
    err = token_error { before = "reset" }
    assert.equal("network", err.kind)
    assert.equal(0, err.attempts)
  end)

  it("makes a malformed response a protocol error", function()
    for _, body in ipairs { "", "{", "[]", "{}", '{"access_token":5}', '{"access_token":""}', '{"access_token":"a b"}',
                            '{"access_token":"a\\r\\nx-evil: 1","expires_in":300}', '{"access_token":null}',
                            '{"access_token":"SENTINEL","token_type":"mac"}', "<html></html>" } do
      local err = token_error { status = 200, body = body, content_type = "application/json" }
      assert.equal("protocol", err.kind, body)
      assert.equal(0, err.attempts)
    end
  end)

  it("makes a timeout within the call's own", function()
    fault("token", { delay = 3 })
    local err = failed(patient:get("doc-1", { timeout = 0.2 }))
    assert.equal("timeout", err.kind)
    assert.equal(0, err.attempts)
  end)

  it("makes wrong credentials unauthorized", function()
    for _, name in ipairs { "client_id", "client_secret", "scope" } do
      client:close()
      local options = helper.options { rate = false }
      options.credentials[name] = "wrong"
      client = assert(nymbl.client(options))
      patient = client:patient(PATIENT)
      local err = failed(patient:get("doc-1"))
      assert.equal("unauthorized", err.kind)
      assert.equal(400, err.status)
      assert.equal(0, err.attempts)
    end
  end)
end)

describe("a token", function()
  before_each(function()
    helper.reset()
    client = nil
  end)
  after_each(teardown_client)

  it("that is wrong is unauthorized after one request", function()
    setup_client { token = "wrong" }
    local err = failed(patient:get("doc-1"))
    assert.equal("unauthorized", err.kind)
    assert.equal(401, err.status)
    assert.equal(1, err.attempts)
    assert.equal("Unauthorized", err.detail)
  end)

  it("function that returns nothing is unauthorized, without an attempt", function()
    local given
    setup_client { token = function() return (table.unpack or unpack)(given, 1, 2) end }
    for _, values in ipairs { {}, { nil, "SENTINEL" }, { false }, { nil, { "SENTINEL" } }, { nil, 5 }, { "" },
      { "a b" },
                              { "a\r\nx-evil: 1" }, { 5 }, { {} }, { true }, { "\0" } } do
      given = values
      local err = failed(patient:get("doc-1"))
      assert.equal("unauthorized", err.kind)
      assert.is_nil(err.status)
      assert.equal(0, err.attempts)
      assert.is_nil(tostring(err):find("SENTINEL", 1, true))
    end
    local ok, raised = pcall(function() for _ in patient:documents() do end end)
    assert.is_false(ok)
    assert.equal("unauthorized", check(raised).kind)
    assert.same({}, helper.journal())
  end)

  it("function that raises passes its error through the call unchanged", function()
    local mine = {}
    setup_client { token = function() error(mine) end }
    for _, call in ipairs {
      function() return patient:get("doc-1") end,
      function() return patient:page() end,
      function() for _ in patient:documents() do end end,
      function() return patient:document("doc-1"):open() end,
      function() return patient:upload({ data = "%PDF-1.4\n" }, { file_name = "a.pdf" }) end,
    } do
      local ok, raised = pcall(call)
      assert.is_false(ok)
      assert.equal(mine, raised)
    end
    assert.same({}, helper.journal())
  end)

  it("function may return any lifetime", function()
    local life
    local good = helper.token()
    setup_client { token = function() return good, life end }
    for _, value in ipairs { 300, 0, -5, "300", "x", 1e300, math.huge, 0 / 0, {}, true } do
      life = value
      assert.equal(0, patient:count())
    end
    life = nil
    assert.equal(0, patient:count())
  end)
end)

describe("errors", function()
  it("raised by an iterator are the error table itself", function()
    helper.reset()
    setup_client()
    fault("list", { status = 500, body_kind = "service", message = "SENTINEL" })
    local ok, raised = pcall(function() for _ in patient:documents() do end end)
    assert.is_false(ok)
    assert.equal("server", check(raised).kind)
    assert.equal("SENTINEL", raised.detail)
    teardown_client()
  end)

  it("are the same table if a source, sink or function raised it", function()
    helper.reset()
    setup_client()
    helper.admin("POST", "documents", { patient = PATIENT, id = "doc-1", content = "%PDF-1.4\n" })
    local mine = {}
    for _, call in ipairs {
      function() return patient:document("doc-1"):download(function() error(mine) end) end,
      function() return patient:document("doc-1"):download(helper.temporary(),
        { progress = function() error(mine) end }) end,
      function() return patient:upload(function() error(mine) end, { file_name = "a.pdf" }) end,
      function()
        return patient:upload({ data = "%PDF-1.4\n" }, { file_name = "a.pdf", progress = function() error(mine) end })
      end,
    } do
      local ok, raised = pcall(call)
      assert.is_false(ok)
      assert.equal(mine, raised)
    end
    teardown_client()
  end)
end)
