-- SPDX-License-Identifier: MIT
-- Each cause has one message: the failed call, the reason, and what to do about it.

local helper = require "helper"
local nymbl = require "nymbl"

local PATIENT = "12345"
local BYTES, NAME = { data = "%PDF-1.4 one" }, { file_name = "a.pdf" }

-- A client with some options, and one call of it.
local function with(options, call)
  local client = helper.client(options)
  local ran, result, err = pcall(call, client:patient(PATIENT), client)
  client:close()
  assert(ran, result)
  return result, err
end

local function get(patient) return patient:get("7") end
local function upload(patient) return patient:upload(BYTES, NAME) end
local function download(patient) return patient:document("7"):download(function() return 1 end) end
local function remove(patient) return patient:document("7"):delete() end

local function list(patient) return patient:page() end
local CALLS = { get = get, upload = upload, download = download, delete = remove, list = list }

local function credentials(changes)
  local sandbox = helper.sandbox()
  local given = { token_url = sandbox.token_url, client_id = sandbox.client_id, client_secret = sandbox.client_secret,
                  scope = sandbox.scope }
  for name, value in pairs(changes) do given[name] = value end
  return { credentials = given }
end

-- Set the sandbox's response.
local function fault(operation, action)
  return function(name) helper.faults { operation = operation or name, action = action, times = -1 } end
end

-- A proxy that answers every request with a status. Returns its URL, a function that counts the
-- requests, and one that stops it.
local function proxy_start(status)
  local script = helper.write_file(helper.temporary(".lua"), [[
    local cqueues, socket = require "cqueues", require "cqueues.socket"
    local status, path = ...
    local listener = socket.listen { host = "127.0.0.1", port = "0" }
    listener:listen()
    local _, _, port = listener:localname()
    local count, loop = 0, cqueues.new()
    local function tell()
      local file = io.open(path .. ".new", "w")
      file:write(port, " ", count, "\n")
      file:close()
      os.rename(path .. ".new", path)
    end
    loop:wrap(function()
      while true do
        local peer = listener:accept()
        loop:wrap(function()
          repeat local line = peer:read("*L") until not line or line == "\r\n" or line == "\n"
          count = count + 1
          tell()
          peer:write("HTTP/1.1 " .. status .. " No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
          peer:flush()
          peer:shutdown("w")
        end)
      end
    end)
    tell()
    loop:wrap(function()
      cqueues.poll { pollfd = 0, events = "r" }
      os.exit(0)
    end)
    loop:loop()
  ]])
  local path = helper.temporary(".port")
  local pipe = assert(io.popen(("exec luajit %s %d %s"):format(script, status, path), "w"))
  os.execute(("for i in $(seq 500); do [ -e %s ] && break; sleep 0.01; done"):format(path))
  local function read(pattern) return tonumber(helper.read_file(path):match(pattern)) end
  return "http://127.0.0.1:" .. ("%d"):format(read "^%d+"), function() return read "(%d+)\n" end,
    function() pipe:close() end
end

local PLAIN = { token = "t", base_url = function() return "https://127.0.0.1:" .. helper.sandbox().sandbox_admin_port end }
local AWAY = { token = "t", base_url = "https://127.0.0.1:1" }

-- Causes: preparation, the client's options, kind, status, reason, and the advice. `operation`: if it
-- differs from the call's. `only`: the one call that the cause applies to.
local CAUSES = {
  { "a wrong key", { api_key = "wrong" }, "forbidden 403 (api_key): the gateway refuses the key: check api_key" },
  { "a wrong prefix", { base_url = function() return helper.sandbox().base_url .. "/v9" end },
    "forbidden 403 (unknown_route): the gateway knows no such path: check the prefix in base_url" },
  { "a scope that is too small", {}, "forbidden 403: the token does not permit this: check its scope",
    before = fault(nil, { status = 403, body = '{"error":{"code":"AccessDenied","message":"no"}}' }) },
  { "a token that is refused", { token = "wrong" },
    "unauthorized 401: the service refused the token: check the token's source" },
  { "a wrong token URL", function()
    return credentials { token_url = helper.sandbox().base_url .. "/nothing" }
  end, "forbidden 403: the token endpoint is not open to this client: check token_url", operation = "token" },
  { "a wrong client_secret", function() return credentials { client_secret = "wrong" } end,
    "unauthorized %d+: the token endpoint refuses the credentials: check client_id and client_secret",
    operation = "token" },
  { "a wrong client_id", function() return credentials { client_id = "wrong" } end,
    "unauthorized %d+: the token endpoint refuses the credentials: check client_id and client_secret",
    operation = "token" },
  { "a scope that is refused", {}, "unauthorized 400: the token endpoint refuses the scope: check credentials.scope",
    before = fault("token", { status = 400, body = '{"error":"invalid_scope"}' }), operation = "token" },
  { "a page instead of the token", {}, "protocol 200 (token_response): the response is no token: check token_url",
    before = fault("token", { status = 200, body = "<html>" }), operation = "token" },
  { "another object instead of the token", {}, "protocol 200 (token_response): the response is no token: check token_url",
    before = fault("token", { status = 200, body = '{"value":[]}' }), operation = "token" },
  { "no token endpoint", {}, "not_found 404: there is no token endpoint: check token_url",
    before = fault("token", { status = 404, body = "" }), operation = "token" },
  { "a token endpoint that redirects", {},
    "redirect 302 (not_followed): that is no token endpoint: check token_url",
    before = fault("token", { status = 302, headers = { { "Location", "https://localhost/" } } }), operation = "token" },
  { "a token endpoint that fails", {}, "server 503: the token endpoint failed: try again later",
    before = fault("token", { status = 503, body = "" }), operation = "token" },
  { "a token endpoint that is away", function() return credentials { token_url = "https://127.0.0.1:1/token" } end,
    "network (connect): no connection could be made: check the network, then try again", operation = "token" },
  { "a token function that fails", { token = function() return nil, "SENTINEL" end },
    "unauthorized (token_function): the token function gave no token: check what it returns", operation = "token" },
  { "a service that is away", AWAY,
    "network (connect): no connection could be made: check the network, then try again" },
  { "a proxy that is away", { token = "t", proxy = "http://127.0.0.1:1" },
    "network (proxy): the proxy cannot be reached or refuses: check the option proxy" },
  { "a port without TLS", PLAIN,
    "tls (handshake): no TLS connection could be made: check the port in the URL" },
  { "too many requests", {}, "throttled 429, retry after 300 s: too many requests were sent: try again later",
    before = fault(nil, { status = 429, headers = { { "Retry-After", "300" } } }) },
  { "a quota that is spent there", {},
    "quota 429: the monthly quota is used up: ask the service for more",
    before = fault(nil, { status = 429, body = '{"message":"Limit Exceeded"}' }) },
  { "a wrong argument", {}, "bad_request 400: the service refused the request: see detail for its message",
    before = fault(nil, { status = 400, body = '{"error":{"code":"x","message":"SENTINEL"}}' }) },
  { "an id that is none", {}, "not_found 404: the patient or document does not exist: check the ids",
    before = fault(nil, { status = 404, body = "{}" }) },
  { "a size that is not stated", {}, "http 411: the service must know the size beforehand: pass the option size",
    before = fault("upload", { status = 411, body = "" }), only = "upload" },
  { "a response that was lost", {}, "network (reset): it may have been carried out: look before you repeat it",
    before = fault("upload", { effect = true, reset = 0 }), only = "upload",
    pattern = "%l+ ?%d* ?%(?%l*%)?: it may have been carried out: look before you repeat it", unknown = true },
  { "a failure of the service in an upload", {},
    "server 503: it may have been carried out: look before you repeat it",
    before = fault("upload", { status = 503, body = "", headers = { { "Retry-After", "7" } } }), only = "upload",
    unknown = true },
  { "a failure of the service in a listing", {}, "server 503, retry after 7 s: the service failed: try again later",
    before = fault("list", { status = 503, body = "", headers = { { "Retry-After", "7" } } }), only = "list" },
  { "a page instead of the document", {}, "corrupt 200 (type_mismatch): the content is not the document: report it to the service",
    before = fault("download", { status = 200, body_kind = "html" }), only = "download" },
  { "two lengths", {}, "protocol (bad_response): the response is invalid: check base_url",
    before = fault("list", { raw = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}" }), only = "list" },
}

local function check(cause, name, result, err)
  local operation = cause.operation or name
  assert.is_nil(result, name)
  assert.equal("table", type(err))
  assert.equal(operation, err.operation, tostring(err))
  local line = ("nymbl: %s: %s"):format(operation, cause[3])
  local found = tostring(err)
  if cause.pattern then
    assert.matches("^nymbl: " .. operation .. ": " .. cause.pattern .. "$", found)
  elseif line:find("%d+", 1, true) then
    line = line:gsub("%%d%+", ("%d"):format(err.status))
    assert.equal(line, found)
  else
    assert.equal(line, found)
  end
  assert.equal(cause.unknown, err.outcome_unknown)
  if err.outcome_unknown then
    assert.is_nil(found:find("try again", 1, true))
    assert.is_nil(found:find("retry after", 1, true))
  end
  assert.is_nil(found:find("SENTINEL", 1, true))
end

describe("the message of an error", function()
  before_each(helper.reset)

  for _, cause in ipairs(CAUSES) do
    it("describes " .. cause[1], function()
      for name, call in pairs(CALLS) do
        if not cause.only or cause.only == name then
          helper.reset()
          if cause.before then cause.before(name) end
          local options = {}
          for key, value in pairs(type(cause[2]) == "function" and cause[2]() or cause[2]) do
            options[key] = key == "base_url" and type(value) == "function" and value() or value
          end
          check(cause, name, with(options, call))
        end
      end
    end)
  end

  it("describes a proxy that requires a password, after one request", function()
    for status, reason in pairs { [407] = "proxy_auth", [403] = "proxy", [502] = "proxy" } do
      local url, asked, stop = proxy_start(status)
      local options = { proxy = url, token = "secret", max_attempts = 2 }
      for name, call in pairs(CALLS) do
        local before = asked()
        local result, err = with(options, call)
        assert.is_nil(result)
        assert.equal(reason, err.reason)
        assert.equal(status, err.status)
        assert.equal("network", err.kind)
        assert.equal(name, err.operation)
        assert.equal(0, err.attempts)
        assert.matches(status == 407 and "check those in the option proxy$" or "check the option proxy$", tostring(err))
        assert.equal(status == 502 and 2 or 1, asked() - before, name)
      end
      local _, err = with({ proxy = url, max_attempts = 2 }, get)
      assert.equal("token", err.operation)
      assert.equal(reason, err.reason)
      stop()
    end
  end)

  it("describes the end of the local budget", function()
    local client = helper.client { monthly_quota = 1, token = helper.token() }
    local patient = client:patient(PATIENT)
    assert(patient:page())
    local _, err = patient:page()
    assert.equal("monthly_quota", err.reason)
    assert.equal("list", err.operation)
    assert.equal(("nymbl: list: quota (monthly_quota), retry after %.0f s: this month's budget is spent: "
      .. "wait for the next month"):format(math.ceil(err.retry_after)), tostring(err))
    client:close()
    -- the service's quota: one call is sent after an hour, so no caller waits for a month
    client = helper.client { token = helper.token(), monthly_quota = 100 }
    patient = client:patient(PATIENT)
    fault("list", { status = 429, body = '{"message":"Limit Exceeded"}' })()
    patient:page()
    _, err = patient:page()
    assert.equal("limit_exceeded", err.reason)
    assert.is_true(err.retry_after <= 3600)
    assert.matches("^nymbl: list: quota %(limit_exceeded%), retry after %d+ s: the service says that the month's quota is "
      .. "spent: ask it for more$", tostring(err))
    client:close()
  end)

  it("names the call that was refused before anything was sent", function()
    with({}, function(patient)
      local function refused(line, result, err)
        assert.is_nil(result)
        assert.equal(line, tostring(err))
        assert.equal(line:match "^nymbl: (%l+)", err.operation)
        assert.equal(0, err.attempts)
      end
      local document = patient:document("7")
      refused("nymbl: upload: io (not_found): there is no such file or directory: check the path",
        patient:upload("/no/such/file.pdf"))
      refused("nymbl: upload: unsupported_type (signature): the bytes are not of that type: check the file",
        patient:upload({ data = "x" }, NAME))
      refused("nymbl: upload: unsupported_type (empty): there are no bytes: check the file",
        patient:upload({ data = "" }, NAME))
      refused("nymbl: upload: unsupported_type: the file type is not accepted: use PDF, PNG, JPEG, TIFF or DOCX",
        patient:upload({ data = "x" }, { file_name = "a.pdf", content_type = "text/plain" }))
      refused("nymbl: download: io (not_a_file): no file can be created there: pass a file handle or a sink",
        document:download("/dev/stdout"))
      refused("nymbl: download: io (not_found): there is no such file or directory: check the path",
        document:download("/no/such/folder/a"))
      refused("nymbl: download: io (directory): it is a directory: pass the path of a file", document:download("/"))
      return true
    end)
  end)

  it("is as documented for a call that cannot be made in its context", function()
    local options = helper.options { token = "t" }
    options.credentials = { token_url = "https://x/", client_id = "i", client_secret = "s" }
    assert.has_error(function() nymbl.client(options) end,
      "bad argument #1 to 'client' (only one of the options 'credentials' and 'token' may be given)")
    options.credentials, options.token = nil, nil
    assert.has_error(function() nymbl.client(options) end,
      "bad argument #1 to 'client' (one of the options 'credentials' and 'token' is required)")
    options.token, options.max_attempts = "t", 0
    assert.has_error(function() nymbl.client(options) end,
      "bad argument #1 to 'client' (option 'max_attempts': out of range (1 to 1000))")
    with({ token = "t" }, function(patient, client)
      local document = patient:document("7")
      for class, object in pairs { client = client, patient = patient, document = document } do
        local ran, message = pcall(function() object.file_name = "x" end)
        assert.is_false(ran)
        assert.matches("error_message_spec.lua:%d+: fields of a nymbl." .. class .. " are read%-only$", message)
      end
      return true
    end)
  end)
end)
