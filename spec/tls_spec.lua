-- SPDX-License-Identifier: MIT
-- The client trusts a server only if its certificate is valid for the server's name.
local helper = require "helper"

local PATIENT = "12345"

local clients

local function client_new(given)
  local options = { timeout = 20, rate = false, monthly_quota = false, max_attempts = 1 }
  for name, value in pairs(given or {}) do options[name] = value end
  clients[#clients + 1] = helper.client(options)
  return clients[#clients]
end

local function setup()
  helper.reset()
  helper.admin("POST", "documents", { patient = PATIENT, id = "d", size = 20000, content_type = "application/pdf" })
  clients = {}
end

local function close_all()
  for _, client in ipairs(clients) do client:close() end
  clients = nil
end

local function teardown()
  close_all() -- in a separate function: LuaJIT keeps the values in a loop's slots
  assert.equal(0, helper.object_count())
end

local CALLS = {
  { "upload", function(client)
    return client:patient(PATIENT):upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
  end },
  { "get", function(client) return client:patient(PATIENT):get("d") end },
  { "page", function(client) return client:patient(PATIENT):page() end },
  { "documents", function(client)
    local ok, err = pcall(function()
      local step, list = client:patient(PATIENT):documents()
      step(list)
    end)
    return ok or nil, not ok and err or nil
  end },
  { "count", function(client) return client:patient(PATIENT):count() end },
  { "download", function(client)
    return client:patient(PATIENT):document("d"):download(function() return 1 end)
  end },
  { "open", function(client)
    local stream, err = client:patient(PATIENT):document("d"):open()
    if stream then stream:close() end
    return stream, err
  end },
  { "delete", function(client) return client:patient(PATIENT):document("d"):delete() end },
}

local function refused(client, kind, reasons, status)
  for _, call in ipairs(CALLS) do
    local result, err = call[2](client)
    assert.is_nil(result, call[1])
    assert.equal(kind, err.kind, call[1] .. ": " .. tostring(err))
    local fits = reasons == nil
    for _, reason in ipairs(reasons or {}) do fits = fits or err.reason == reason end
    assert.is_true(fits, call[1] .. ": " .. tostring(err))
    assert.equal(0, err.attempts, call[1])
    assert.is_nil(err.outcome_unknown, call[1])
    assert.equal(status, err.status, call[1])
  end
end

local function seen_by(name)
  local count = 0
  for _, entry in ipairs(helper.admin("GET", "journal").requests) do
    if entry.listener == name then count = count + 1 end
  end
  return count
end

-- Run a script in another interpreter of the same kind, with an environment.
local function child(environment, script)
  local path = helper.write_file(helper.temporary(".lua"), script)
  local interpreter = jit and "luajit" or "lua" .. _VERSION:match("%d+%.%d+") -- luacheck: ignore
  return helper.output(("env LUA_PATH=%s LUA_CPATH=%s %s %s %s 2>&1"):format(helper.quote(package.path),
    helper.quote(package.cpath), environment, interpreter, path))
end

-- Source text with a client's options, and a call that prints its result.
local function script(options)
  local lines = {}
  for name, value in pairs(options) do
    lines[#lines + 1] = ("%s = %s"):format(name, type(value) == "string" and ("%q"):format(value) or tostring(value))
  end
  return ([[
    local client = assert(require("nymbl").client { %s })
    local count, err = client:patient("%s"):count()
    io.write(count and "count " .. count or err.kind .. " " .. tostring(err.reason) .. " " .. err.attempts)
    client:close()
  ]]):format(table.concat(lines, ", "), PATIENT)
end

describe("a server's certificate", function()
  before_each(setup)
  after_each(teardown)

  for kind, reasons in pairs {
    expired = { "certificate_expired" },
    not_yet_valid = { "certificate_not_yet_valid" },
    wrong_host = { "host_name" },
    self_signed = { "certificate_self_signed" },
    other_ca = { "certificate_untrusted" },
    tls11 = { "protocol_version" },
    none = { "handshake", "protocol_version" },
  } do
    it("that is " .. kind .. " is refused before anything is sent", function()
      local listener = helper.admin("POST", "listen", { tls = kind, name = "bad" })
      local url = listener.url:gsub("^http:", "https:") -- plain HTTP on a port that should have TLS
      refused(client_new { base_url = url, token = "secret" }, "tls", reasons)
      refused(client_new { credentials = { token_url = url .. "/oauth2/token", client_id = "a", client_secret = "b",
        scope = "c" } },
        "tls", reasons)
      assert.equal(0, seen_by("bad"))
      assert.equal(0, #helper.journal())
      helper.admin("DELETE", "listen?name=bad")
    end)
  end

  it("that is valid is accepted, by any of its names", function()
    for _, host in ipairs { "localhost", "127.0.0.1", "LOCALHOST" } do
      local client = client_new { base_url = (helper.sandbox().base_url:gsub("localhost", host)) }
      assert.equal(1, (assert(client:patient(PATIENT):count())))
    end
  end)

  it("is checked by every client separately", function()
    local good = client_new()
    assert.equal(1, (assert(good:patient(PATIENT):count())))
    -- the same service with an open connection: but this client does not trust its authority
    local listener = helper.admin("POST", "listen", { tls = "self_signed", name = "other" })
    local foreign_ca = helper.temporary(".pem")
    os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -out %s "
      .. "-subj /CN=nobody -days 1 2>/dev/null"):format(foreign_ca))
    refused(client_new { ca_file = foreign_ca, token = "secret" }, "tls", { "certificate_untrusted",
      "certificate_self_signed" })
    assert.equal(1, (assert(good:patient(PATIENT):count())))
    helper.admin("DELETE", "listen?name=" .. listener.name)
  end)

  it("is not trusted because of the system's authorities", function()
    local options = helper.options { token = "secret", timeout = 20 }
    options.ca_file = nil
    local client = require("nymbl").client(options)
    clients[#clients + 1] = client
    refused(client, "tls", { "certificate_untrusted", "certificate_self_signed" })
  end)
end)

describe("the options ca_file and ca_path", function()
  before_each(setup)
  after_each(teardown)

  it("fail if there is no certificate", function()
    local garbage = helper.write_file(helper.temporary(".pem"),
      "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    for _, path in ipairs { garbage, helper.write_file(helper.temporary(".pem"), ""), "/dev/null" } do
      refused(client_new { ca_file = path, token = "secret" }, "tls")
    end
    refused(client_new { ca_file = garbage }, "tls", { "ca_file" }) -- during the token request
    local options = helper.options { token = "secret" }
    options.ca_file, options.ca_path = nil, helper.folder
    local client = require("nymbl").client(options)
    clients[#clients + 1] = client
    refused(client, "tls")
    assert.equal(0, #helper.admin("GET", "journal").requests)
  end)

  it("are rejected when the client is created if they cannot be read", function()
    local file = helper.write_file(helper.temporary(".pem"), "x")
    for _, case in ipairs { { "ca_file", "/nonexistent/SENTINEL.pem" }, { "ca_file", helper.folder },
                            { "ca_file", file .. "/x" }, { "ca_path", "/nonexistent/SENTINEL" }, { "ca_path", file },
                            { "ca_path", "/nonexistent:" .. file } } do
      local name, path = case[1], case[2]
      local options = helper.options()
      options.ca_file, options.ca_path = nil, nil
      options[name] = path
      local client, err = require("nymbl").client(options)
      assert.is_nil(client, path)
      assert.equal("tls", err.kind)
      assert.equal(name, err.reason)
      assert.is_nil(err.operation)
      assert.equal(0, err.attempts or 0)
      assert.is_nil(tostring(err):find("SENTINEL", 1, true))
    end
    assert.equal(0, #helper.admin("GET", "journal").requests)
  end)

  it("accept a directory of certificates", function()
    local folder = helper.temporary()
    os.execute(("mkdir %s && cp %s %s/ca.pem && openssl rehash %s"):format(folder, helper.sandbox().ca_file, folder,
      folder))
    local options = helper.options()
    options.ca_file, options.ca_path = nil, folder
    local client = require("nymbl").client(options)
    clients[#clients + 1] = client
    assert.equal(1, (assert(client:patient(PATIENT):count())))
  end)
end)

-- A preloaded library with OpenSSL functions that do nothing, which precedes libcurl's TLS library;
-- `names` are its functions, with or without a symbol version.
local function fake(version, names, symbol_version, backend)
  local lines = { "#include <curl/curl.h>" }
  for _, name in ipairs(names) do
    lines[#lines + 1] = name == "OpenSSL_version"
      and ('const char *%s(int t) { (void)t; return "%s"; }'):format(name, version)
      or ("void *%s(void) { return 0; }"):format(name)
  end
  if backend then
    lines[#lines + 1] = ('curl_version_info_data *curl_version_info(CURLversion v) { (void)v; '
      .. 'static curl_version_info_data d; d.ssl_version = "%s"; return &d; }'):format(backend)
  end
  local source, library = helper.temporary(".c"), helper.temporary(".so")
  helper.write_file(source, table.concat(lines, "\n") .. "\n")
  local map = ""
  if symbol_version then
    map = "-Wl,--version-script=" .. helper.write_file(helper.temporary(".map"), symbol_version .. " { *; };")
  end
  assert.equal("", helper.output(("gcc -shared -fPIC -o %s %s %s 2>&1"):format(library, source, map)))
  return library
end

-- The result of `require "nymbl"` with it: "good", or the error.
local function required_with(library)
  return child("", ([[
    assert(package.loadlib(%q, "*"))
    local good, problem = pcall(require, "nymbl")
    io.write(good and "good" or tostring(problem))
  ]]):format(library))
end

local OPENSSL = { "OpenSSL_version", "SSL_CTX_new", "SSL_get_shutdown", "X509_STORE_set_flags", "BIO_meth_new",
                  "X509_LOOKUP_file" }

describe("require 'nymbl'", function()
  it("refuses a process in which another TLS library is bound instead of libcurl's", function()
    for _, version in ipairs { "OpenSSL 1.1.1w  11 Sep 2023", "LibreSSL 3.8.2", "BoringSSL", "" } do
      local problem = required_with(fake(version, OPENSSL))
      assert.truthy(problem:find("a TLS connection would crash: install a libcurl that", 1, true), problem)
      assert.truthy(problem:find("linked with the system's OpenSSL", 1, true), problem)
      assert.truthy(problem:find(version, 1, true), problem)
    end
  end)

  it("refuses a library that exports a part of another minor version", function()
    for _, names in ipairs { { "OpenSSL_version", "SSL_CTX_new" }, { "SSL_CTX_new" }, { "BIO_meth_new" } } do
      local problem = required_with(fake("OpenSSL 3.99.0", names))
      assert.truthy(problem:find("would crash", 1, true), problem)
    end
  end)

  it("accepts a compatible library", function()
    -- every function that libcurl needs
    local libcurl = helper.output("ldd " .. package.searchpath("nymbl.core", package.cpath)):match("libcurl%S* => (%S+)")
    local needed = {}
    for name in helper.output("nm -D --undefined-only " .. libcurl):gmatch("([%w_]+)@OPENSSL_") do
      needed[#needed + 1] = name
    end
    assert.is_true(#needed > 100)
    assert.equal("good", required_with(fake("OpenSSL 3.99.0", needed)))
    assert.truthy(required_with(fake("OpenSSL 3.99.0", OPENSSL)):find("would crash", 1, true))
    local same = helper.output("openssl version"):match("^OpenSSL %d+%.%d+%.") .. "99"
    assert.equal("good", required_with(fake(same, { "OpenSSL_version", "SSL_CTX_new" })))
  end)

  it("accepts a library separated by symbol versions", function()
    assert.equal("good", required_with(fake("OpenSSL 1.1.1w", OPENSSL, "OPENSSL_1_1_0")))
  end)

  it("accepts another library if libcurl uses a different kind of TLS library", function()
    assert.equal("good", required_with(fake("OpenSSL 1.1.1w", OPENSSL, nil, "GnuTLS/3.7.9")))
    assert.equal("good", required_with(fake("OpenSSL 1.1.1w", OPENSSL, nil, "(OpenSSL/3.0.2) GnuTLS/3.7.9")))
  end)
end)

describe("the option allow_http", function()
  before_each(function()
    setup()
    helper.admin("POST", "listen", { tls = "none", name = "plain" })
  end)
  after_each(function()
    helper.admin("DELETE", "listen?name=plain")
    teardown()
  end)

  local function plain_url()
    helper.admin("DELETE", "listen?name=plain")
    return helper.admin("POST", "listen", { tls = "none", name = "plain" }).url
  end

  it("allows the service and the token endpoint on a loopback address", function()
    local url, sandbox = plain_url(), helper.sandbox()
    for _, host in ipairs { "localhost", "127.0.0.1" } do
      local base = url:gsub("localhost", host)
      local client = client_new { allow_http = true, base_url = base, credentials = {
        token_url = base .. "/oauth2/token", client_id = sandbox.client_id, client_secret = sandbox.client_secret,
        scope = sandbox.scope,
      } }
      for _, call in ipairs(CALLS) do
        if call[1] ~= "delete" then assert(call[2](client)) end
      end
    end
    for _, entry in ipairs(helper.admin("GET", "journal").requests) do assert.equal("plain", entry.listener) end
  end)

  it("is required for it, and does not allow other addresses", function()
    local url = plain_url()
    for _, base in ipairs { url, "http://192.0.2.1", "http://127.0.0.1.example.org", "http://localhost.example.org",
                            "http://[::2]", "http://0.0.0.0", "http://128.0.0.1", "http://localhost@example.org" } do
      for _, allowed in ipairs { true, false } do
        if not (allowed and base == url) then
          assert.has_error(function() client_new { allow_http = allowed, base_url = base, token = "secret" } end)
        end
      end
    end
  end)

  it("never uses a proxy", function()
    local url = plain_url()
    local token, sandbox = helper.token(), helper.sandbox()
    local options = { base_url = url, allow_http = true, api_key = sandbox.api_key, token = token, timeout = 20 }
    local proxies = "http_proxy=http://127.0.0.1:1 HTTP_PROXY=http://127.0.0.1:1 https_proxy=http://127.0.0.1:1 "
      .. "all_proxy=http://127.0.0.1:1 ALL_PROXY=http://127.0.0.1:1"
    assert.equal("count 1", child(proxies, script(options)))
    options.proxy = "http://127.0.0.1:1"
    assert.equal("count 1", child("", script(options)))
  end)

  it("does not weaken a TLS connection", function()
    local url = plain_url():gsub("^http:", "https:")
    refused(client_new { allow_http = true, base_url = url, token = "secret" }, "tls")
    assert.equal(0, seen_by("plain"))
  end)
end)

describe("the option proxy", function()
  before_each(setup)
  after_each(teardown)

  it("fails with network if there is no proxy", function()
    refused(client_new { proxy = "http://127.0.0.1:1", token = "secret" }, "network", { "proxy" })
    refused(client_new { proxy = "http://127.0.0.1:1" }, "network", { "proxy" })
    refused(client_new { proxy = "http://" .. ("x"):rep(64) .. ".invalid", token = "secret" }, "network", { "proxy" })
    assert.equal(0, #helper.journal())
  end)

  it("defaults to the environment's proxy", function()
    local sandbox = helper.sandbox()
    local options = { base_url = sandbox.base_url, api_key = sandbox.api_key, ca_file = sandbox.ca_file,
      token = helper.token(),
                      timeout = 20, max_attempts = 1 }
    assert.equal("count 1", child("https_proxy=", script(options)))
    assert.equal("network proxy 0", child("https_proxy=http://127.0.0.1:1", script(options)))
    assert.equal("network proxy 0", child("all_proxy=http://127.0.0.1:1", script(options)))
    assert.equal("count 1", child("https_proxy=http://127.0.0.1:1 no_proxy=localhost", script(options)))
    options.proxy = ""
    assert.equal("count 1", child("https_proxy=http://127.0.0.1:1", script(options)))
  end)

  it("receives no header of the request", function()
    local plain = helper.admin("POST", "listen", { tls = "none", name = "proxy" })
    helper.admin("DELETE", "journal")
    refused(client_new { proxy = plain.url, token = "secret" }, "network", { "proxy" }, 400)
    local seen = 0
    for _, entry in ipairs(helper.admin("GET", "journal").requests) do
      if entry.listener == "proxy" then
        seen = seen + 1
        assert.equal("CONNECT", entry.method)
        assert.is_nil(helper.header(entry, "authorization"))
        assert.is_nil(helper.header(entry, "x-api-key"))
      end
    end
    assert.is_true(seen > 0)
    helper.admin("DELETE", "listen?name=proxy")
  end)
end)
