-- SPDX-License-Identifier: MIT
-- client:check() names the step of a set-up that is broken.
local helper = require "helper"
local nymbl = require "nymbl"

local PATIENT = "12345"
local STEPS = { "settings", "name", "connection", "certificate", "clock", "token", "key", "quota" }

-- The states of a check as one text, in the order of STEPS.
local function states_of(steps)
  local words = {}
  for i, step in ipairs(steps) do
    assert.equal(STEPS[i], step.step)
    assert.equal(step.state == "failed", step.err ~= nil, step.step)
    words[i] = step.state
  end
  assert.equal(#STEPS, #words)
  return table.concat(words, " ")
end

-- The failures of a check as one text: step, kind and reason of each.
local function failures_of(steps)
  local words = {}
  for _, step in ipairs(steps) do
    local err = step.err
    if err then
      words[#words + 1] = ("%s: %s%s"):format(step.step, err.kind, err.reason and " " .. err.reason or "")
      -- the line says what to do, and nothing else than fixed words
      assert.matches("^nymbl: [%w_ :(),]+: .+", tostring(err))
    end
  end
  return table.concat(words, ", ")
end

local stop -- ends the server of a case, or nil

-- A server on a port of its own that sends `response` to each request, without TLS.
local function plain_server(response)
  local script = helper.write_file(helper.temporary(".lua"), [==[
    local cqueues, socket = require "cqueues", require "cqueues.socket"
    local response, path = ...
    local listener = socket.listen { host = "127.0.0.1", port = "0" }
    listener:listen()
    local _, _, port = listener:localname()
    local loop = cqueues.new()
    loop:wrap(function()
      while true do
        local peer = listener:accept()
        loop:wrap(function()
          repeat local line = peer:read("*L") until not line or line == "\r\n" or line == "\n"
          peer:write((response:gsub("|", "\r\n")))
          peer:flush()
          peer:shutdown("w")
        end)
      end
    end)
    loop:wrap(function()
      cqueues.poll { pollfd = 0, events = "r" }
      os.exit(0)
    end)
    local file = io.open(path .. ".new", "w")
    file:write(port, "\n")
    file:close()
    os.rename(path .. ".new", path)
    loop:loop()
  ]==])
  local path = helper.temporary(".port")
  local pipe = assert(io.popen(("exec luajit %s %s %s"):format(script, helper.quote(response), path), "w"))
  os.execute(("for i in $(seq 500); do [ -e %s ] && break; sleep 0.01; done"):format(path))
  stop = function() pipe:close() end
  return "http://127.0.0.1:" .. tonumber(helper.read_file(path))
end

local function refusing()
  local url
  url, stop = helper.unresponsive_server("refusing")
  return url
end

local function silent()
  local url
  url, stop = helper.unresponsive_server("silent")
  return url
end

local function listener(kind)
  local opened = helper.admin("POST", "listen", { tls = kind, name = kind })
  stop = function() helper.admin("DELETE", "listen?name=" .. kind) end
  return opened.url
end

local function fault(operation, action)
  helper.faults { operation = operation, action = action, times = -1 }
end

-- The sandbox's credentials with another value.
local function credentials(name, value)
  local changed = {}
  for key, text in pairs(helper.options().credentials) do changed[key] = text end
  changed[name] = value
  return changed
end

-- A foreign certificate authority.
local function other_authority()
  local path = helper.temporary(".pem")
  os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -out %s "
    .. "-subj /CN=nobody -days 1 2>/dev/null"):format(path))
  return path
end

-- A file of certificates that is deleted once the client is made.
local function lost_authority(client_of)
  local path = helper.write_file(helper.temporary(".pem"), helper.read_file(helper.sandbox().ca_file))
  local client = client_of { ca_file = path }
  os.remove(path)
  return client
end

local function date(offset)
  return os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + offset)
end

local OK = "ok ok ok ok ok ok ok ok"

-- Each case: a name; a function that returns options of the client; the states; the failures;
-- the number of token requests and of listings that the sandbox got.
local CASES = {
  { "a host name without an address",
    function() return { base_url = "https://sandbox.invalid" } end,
    "ok failed skipped skipped skipped ok skipped skipped", "name: network resolve", 1, 0 },
  { "a closed port",
    function() return { base_url = refusing() } end,
    "ok ok failed skipped skipped ok skipped skipped", "connection: network connect", 1, 0 },
  { "a port that does not speak TLS",
    function() return { base_url = (listener("none"):gsub("^http:", "https:")) } end,
    "ok ok failed skipped skipped ok skipped skipped", "connection: tls handshake", 1, 0 },
  { "a server that is silent",
    function() return { base_url = silent(), connect_timeout = 0.5 } end,
    "ok unknown failed skipped skipped ok skipped skipped", "connection: timeout connect", 1, 0 },
  { "a certificate of another authority",
    function() return { ca_file = other_authority() } end,
    "ok ok ok failed skipped skipped skipped skipped", "certificate: tls certificate_untrusted", 0, 0 },
  { "an expired certificate",
    function() return { base_url = listener "expired" } end,
    "ok ok ok failed skipped ok skipped skipped", "certificate: tls certificate_expired", 1, 0 },
  { "a certificate for another host",
    function() return { base_url = listener "wrong_host" } end,
    "ok ok ok failed skipped ok skipped skipped", "certificate: tls host_name", 1, 0 },
  { "a proxy that is down",
    function() return { proxy = refusing() } end,
    "ok unknown failed skipped skipped skipped skipped skipped", "connection: network proxy", 0, 0 },
  { "a proxy that wants a password",
    function()
      local url = plain_server "HTTP/1.1 407 No|Content-Length: 0|Connection: close||"
      return { proxy = url, token = helper.token() }
    end,
    "ok unknown failed skipped skipped skipped skipped skipped", "connection: network proxy_auth", 0, 0 },
  { "a clock that is ahead",
    function() fault("patients", { headers = { { "Date", date(-3600) } } }) end,
    "ok ok ok ok failed ok ok ok", "clock: io clock_skew", 1, 1 },
  { "a wrong client secret",
    function() return { credentials = credentials("client_secret", "wrong") } end,
    "ok ok ok ok ok failed skipped skipped", "token: unauthorized", 1, 1 },
  { "a token endpoint that is down",
    function() return { credentials = credentials("token_url", refusing() .. "/oauth2/token") } end,
    "ok ok ok ok ok failed skipped skipped", "token: network connect", 0, 1 },
  { "a token endpoint that fails",
    function() fault("token", { status = 503 }) end,
    "ok ok ok ok ok failed skipped skipped", "token: server", 1, 1 },
  { "a token endpoint that hangs",
    function() fault("token", { delay = 30 }) end,
    "ok unknown unknown unknown unknown failed skipped skipped", "token: timeout deadline", 1, 0, { timeout = 1 } },
  { "a token endpoint that sends garbage",
    function() fault("token", { status = 200, body = "<html>", content_type = "text/html" }) end,
    "ok ok ok ok ok failed skipped skipped", "token: protocol token_response", 1, 1 },
  { "a token that the service refuses",
    function() return { token = "stale" } end,
    "ok ok ok ok ok failed skipped skipped", "token: unauthorized", 0, 1 },
  { "a token function that gives none",
    function() return { token = function() return nil, "none today" end } end,
    "ok ok ok ok ok failed skipped skipped", "token: unauthorized token_function", 0, 1 },
  { "a token function that raises",
    function() return { token = function() error "broken" end } end,
    "ok ok ok ok ok failed skipped skipped", "token: unauthorized token_function", 0, 1 },
  { "a wrong API key",
    function() return { api_key = "wrong" } end,
    "ok ok ok ok ok ok failed skipped", "key: forbidden api_key", 1, 1 },
  { "a wrong prefix in base_url",
    function() return { base_url = helper.sandbox().base_url .. "/v2" } end,
    "failed ok ok ok ok ok skipped skipped", "settings: forbidden unknown_route", 1, 0 },
  { "a service without patients",
    function() fault("patients", { status = 404, body_kind = "service" }) end,
    "failed ok ok ok ok ok skipped skipped", "settings: not_found", 1, 1 },
  { "a month that is spent locally",
    function()
      local store = require("nymbl.store").memory()
      local client = helper.client { store = store, monthly_quota = 1 }
      helper.admin("POST", "seed", { patient = PATIENT, count = 1 })
      assert(client:patient(PATIENT):count())
      return { store = store, monthly_quota = 1 }
    end,
    "ok unknown unknown unknown unknown ok unknown failed", "quota: quota monthly_quota", 0, 0 },
  { "a month that the check itself spends",
    function() return { monthly_quota = 1 } end,
    "ok ok ok ok ok ok ok failed", "quota: quota monthly_quota", 1, 1 },
  { "a month that is spent at the service",
    function() helper.admin("POST", "settings", { limits = true, quota = 0 }) end,
    "ok ok ok ok ok ok ok failed", "quota: quota", 1, 1 },
  { "a service that is asked too often",
    function() fault("patients", { status = 429, message = "Too Many Requests" }) end,
    "ok ok ok ok ok ok ok failed", "quota: throttled", 1, 1, { max_attempts = 5 } },
  { "a service that fails",
    function() fault("patients", { status = 503 }) end,
    "ok ok failed ok ok ok skipped skipped", "connection: server", 1, 1, { max_attempts = 5 } },
  { "a response that breaks off",
    function() fault("patients", { lost_reply = "reset" }) end,
    "ok ok failed ok skipped ok skipped skipped", "connection: network reset", 1, 1, { max_attempts = 5 } },
  { "a redirect",
    function() fault("patients", { redirect = { location = "https://localhost/elsewhere" } }) end,
    "failed ok ok ok ok ok skipped skipped", "settings: redirect not_followed", 1, 1 },
  { "garbage instead of JSON",
    function() fault("patients", { status = 200, body = "<html>", content_type = "text/html" }) end,
    "failed ok ok ok ok ok skipped skipped", "settings: protocol bad_json", 1, 1 },
  { "a file of certificates that is lost",
    function() return lost_authority end,
    "failed skipped skipped skipped skipped skipped skipped skipped", "settings: tls ca_file", 0, 0 },
}

describe("client:check()", function()
  before_each(helper.reset)
  after_each(function()
    if stop then stop() end
    stop = nil
  end)

  local function step_of(steps, name)
    for _, step in ipairs(steps) do
      if step.step == name then return step end
    end
  end

  it("finds nothing wrong with the sandbox, and costs one token request and one listing", function()
    helper.admin("POST", "seed", { patient = PATIENT, count = 3 })
    local client = helper.client()
    local steps, ok = client:check()
    assert.equal(OK, states_of(steps))
    assert.is_true(ok)
    assert.is_true(step_of(steps, "certificate").days >= 0)
    assert.equal(0, step_of(steps, "certificate").days % 1)
    assert.is_true(math.abs(step_of(steps, "clock").skew) <= 2)
    assert.equal(1, #helper.journal("token"))
    assert.equal(1, #helper.journal())
    local path = helper.journal("patients")[1].path
    assert.matches("[?&]%$top=1%f[^%d]", path .. "&")
    assert.matches("[?&]%$select=id&", path .. "&")
    client:close()
  end)

  it("lists the documents of a patient instead, if one is given", function()
    local client = helper.client()
    for i, given in ipairs { PATIENT, tonumber(PATIENT), client:patient(PATIENT) } do
      local steps = client:check { patient = given }
      assert.equal(OK, states_of(steps))
      local listings = helper.journal("list")
      assert.equal(i, #listings)
      assert.matches("^/Patients%(12345%)/Documents%?", listings[i].path)
    end
    assert.equal(0, #helper.journal("patients"))
    assert.equal("failed ok ok ok ok ok skipped skipped", states_of(client:check { patient = "missing" }))
    client:close()
  end)

  it("knows both names of a patient's key", function()
    helper.admin("POST", "seed", { patient = PATIENT, count = 1 })
    helper.admin("POST", "settings", { patient_key = "patient_id" })
    local client = helper.client()
    assert.equal(OK, states_of((client:check())))
    assert.equal(2, #helper.journal("patients"))
    assert.equal(200, helper.journal("patients")[2].status)
    client:close()
  end)

  it("gets another token once if the service refuses a cached one", function()
    local client = helper.client { max_attempts = 5 }
    assert.equal(OK, states_of((client:check())))
    helper.admin("POST", "settings", { expire_tokens = true })
    assert.equal(OK, states_of((client:check())))
    assert.equal(2, #helper.journal("token"))
    assert.equal(3, #helper.journal())
    client:close()
  end)

  it("tells how far the clocks are apart", function()
    for _, offset in ipairs { -30, 30, -7200, 7200 } do
      fault("patients", { headers = { { "Date", date(offset) } } })
      local client = helper.client()
      local step = step_of(client:check(), "clock")
      assert.is_true(math.abs(step.skew + offset) <= 2, step.skew)
      assert.equal(math.abs(offset) > 60 and "failed" or "ok", step.state)
      client:close()
    end
  end)

  it("does not know the certificate and the clock if there are none", function()
    fault("patients", { remove_headers = { "Date" } })
    local client = helper.client()
    local steps, ok = client:check()
    assert.equal("ok ok ok ok unknown ok ok ok", states_of(steps))
    assert.is_true(ok)
    client:close()
    fault("patients", { status = 200, body = '{"value":[]}' })
    client = helper.client { base_url = listener "none", allow_http = true }
    assert.equal("ok ok ok unknown ok ok ok ok", states_of((client:check())))
    client:close()
  end)

  for _, case in ipairs(CASES) do
    local name, setting, states, failures, tokens, listings, extra = (table.unpack or unpack)(case) -- luacheck: ignore
    it("names the broken step of " .. name, function()
      local overrides = setting() or {}
      local client
      if type(overrides) == "function" then
        client = overrides(helper.client)
      else
        for key, value in pairs(extra or {}) do overrides[key] = value end
        client = helper.client(overrides)
      end
      helper.admin("DELETE", "journal")
      local steps, ok = client:check()
      assert.equal(states, states_of(steps))
      assert.is_false(ok)
      assert.equal(failures, failures_of(steps))
      assert.equal(tokens, #helper.journal("token"))
      assert.equal(listings, #helper.journal("patients"))
      client:close()
    end)
  end

  it("does not look for a patient if the service has no list of them", function()
    fault("patients", { status = 404, body_kind = "service" })
    local client = helper.client()
    assert.equal("nymbl: patients: not_found 404: there is no list of patients: check the prefix in base_url",
      tostring(step_of(client:check(), "settings").err))
    client:close()
  end)

  it("fails as a whole if it may not wait", function()
    local client = helper.client()
    local steps, ok
    assert.equal(1, (nymbl.each({ 1 }, {}, function()
      string.gsub("x", "x", function() steps, ok = client:check() end)
      return true
    end)))
    assert.equal("failed" .. (" skipped"):rep(7), states_of(steps))
    assert.equal("settings: context c_call_boundary", failures_of(steps))
    assert.is_false(ok)
    assert.equal(0, #helper.journal("token") + #helper.journal())
    client:close()
  end)

  it("reports a client that is closed meanwhile", function()
    local client
    client = helper.client { token = function() client:close() return "t" end }
    local steps, ok = client:check()
    assert.is_false(ok)
    assert.equal("connection: canceled closed", failures_of(steps))
    assert.equal(0, #helper.journal())
  end)

  it("runs in each", function()
    local client = helper.client()
    local succeeded = nymbl.each({ 1, 2, 3 }, {}, function()
      local steps, ok = client:check()
      assert(states_of(steps) == OK)
      return ok
    end)
    assert.equal(3, succeeded)
    assert.equal(1, #helper.journal("token"))
    client:close()
  end)

  it("refuses misuse", function()
    local client = helper.client()
    for _, options in ipairs { { patient = true }, { patient = "" }, { patient = 1.5 }, { patient = client },
                               { timeout = 0 }, { other = 1 } } do
      assert.has_error(function() client:check(options) end)
    end
    assert.has_error(function() client:check(1) end)
    client:close()
    assert.has_error(function() client:check() end)
  end)
end)
