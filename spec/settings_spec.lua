-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- nymbl.from_env(): options from variables and from files with secrets, and what is refused.

local core = require "nymbl.core"
local helper = require "helper"
local nymbl = require "nymbl"
local settings = require "nymbl.settings"

local quote = helper.quote
local is_root = core.system.user() == 0

local BASE = "https://api.example.org"

-- Variables that suffice, with changes. False removes one.
local function variables(changes)
  local all = { NYMBL_BASE_URL = BASE, NYMBL_API_KEY = "SENTINEL-key", NYMBL_TOKEN = "SENTINEL-token" }
  for name, value in pairs(changes or {}) do all[name] = value or nil end
  return all
end

local function read(changes, overrides)
  local all = variables(changes)
  return settings.read(function(name) return all[name] end, overrides or {})
end

local function fails(reason, name, changes, overrides)
  local options, err = read(changes, overrides)
  assert.is_nil(options)
  assert.equal("settings", err.kind)
  assert.equal(reason, err.reason)
  assert.equal(name, err.detail)
  assert.equal(0, err.attempts)
  local line = tostring(err)
  assert.truthy(line:find(("^nymbl: settings %%(%s%%): %s: %%l.+: %%l.+$"):format(reason, name)), line)
  assert.is_nil(line:find("SENTINEL", 1, true))
  return err
end

-- A file with a secret.
local function secret_file(text, mode)
  local path = helper.write_file(helper.temporary(".secret"), text)
  os.execute(("chmod %s %s"):format(mode or "600", quote(path)))
  return path
end

local CREDENTIALS = { NYMBL_TOKEN = false, NYMBL_TOKEN_URL = "https://idp.example.org/token", NYMBL_CLIENT_ID = "id",
                      NYMBL_CLIENT_SECRET = "SENTINEL-secret" }

local function with(base, changes)
  local all = {}
  for name, value in pairs(base) do all[name] = value end
  for name, value in pairs(changes) do all[name] = value end
  return all
end

describe("nymbl.from_env()", function()
  it("reads the environment", function()
    local code = [[
      local nymbl = require "nymbl"
      local options, err = nymbl.from_env { timeout = 5 }
      io.write(options and options.base_url .. " " .. options.api_key .. " " .. options.token .. " " .. options.timeout
        or tostring(err))
    ]]
    local command = helper.interpreter() .. " -e " .. quote(code) .. " 2>&1"
    local set = "env NYMBL_BASE_URL=https://a.example NYMBL_API_KEY=k NYMBL_TOKEN=t "
    assert.equal("https://a.example k t 5", helper.output(set .. command))
    assert.truthy(helper.output(set .. "NYMBL_API_KEY= " .. command)
      :find("nymbl: settings (missing): NYMBL_API_KEY: ", 1, true))
    assert.truthy(helper.output("env -u NYMBL_BASE_URL " .. command)
      :find("nymbl: settings (missing): NYMBL_BASE_URL: ", 1, true))
  end)

  it("returns options for a client", function()
    local options = assert(read { NYMBL_CA_FILE = "/etc/ca.pem", NYMBL_PROXY = "http://proxy.example:3128" })
    assert.same({ base_url = BASE, api_key = "SENTINEL-key", token = "SENTINEL-token", ca_file = "/etc/ca.pem",
                  proxy = "http://proxy.example:3128" }, options)
    options = assert(read(with(CREDENTIALS, { NYMBL_SCOPE = "s" })))
    assert.is_nil(options.token)
    assert.same({ token_url = "https://idp.example.org/token", client_id = "id", client_secret = "SENTINEL-secret",
                  scope = "s" }, options.credentials)
    assert.is_nil(assert(read(CREDENTIALS)).credentials.scope)
    local client = assert(nymbl.client(options))
    client:close()
  end)

  it("lets overrides win, does not read their variables, and leaves the table as it was", function()
    local overrides = { base_url = "https://b.example", api_key = "other", timeout = 3, user_agent = "x" }
    local options = assert(read({ NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = "/none", NYMBL_BASE_URL = "nonsense" },
      overrides))
    assert.same({ base_url = "https://b.example", api_key = "other", timeout = 3, user_agent = "x",
                  token = "SENTINEL-token" }, options)
    assert.same({ base_url = "https://b.example", api_key = "other", timeout = 3, user_agent = "x" }, overrides)
    assert.are_not.equal(overrides, options)
    local function token() end
    assert.equal(token, assert(read({ NYMBL_TOKEN = false }, { token = token })).token)
    options = assert(read({}, { credentials = { "c" } }))
    assert.is_nil(options.token)
    assert.same({ "c" }, options.credentials)
    assert.is_nil(assert(read({ NYMBL_STORE = "redis://x" }, { store = false })).base)
  end)

  it("raises on overrides that are no table", function()
    for _, value in ipairs { 1, true, "x" } do
      local ok, message = pcall(nymbl.from_env, value)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'from_env' (table expected, got ", 1, true), message)
    end
  end)

  it("names the first variable that is missing, and an empty one counts as missing", function()
    for _, value in ipairs { false, "" } do
      fails("missing", "NYMBL_BASE_URL", { NYMBL_BASE_URL = value, NYMBL_API_KEY = value })
      fails("missing", "NYMBL_API_KEY", { NYMBL_API_KEY = value, NYMBL_TOKEN = value })
      fails("missing", "NYMBL_TOKEN", { NYMBL_TOKEN = value })
      fails("missing", "NYMBL_TOKEN_URL", with(CREDENTIALS, { NYMBL_TOKEN_URL = value }))
      fails("missing", "NYMBL_CLIENT_ID", with(CREDENTIALS, { NYMBL_CLIENT_ID = value }))
      fails("missing", "NYMBL_CLIENT_SECRET", with(CREDENTIALS, { NYMBL_CLIENT_SECRET = value }))
      fails("missing", "NYMBL_TOKEN_URL", { NYMBL_TOKEN = value, NYMBL_SCOPE = "s" })
    end
    assert(read { NYMBL_API_KEY_FILE = "", NYMBL_STORE = "", NYMBL_PROXY = "", NYMBL_CA_FILE = "", NYMBL_SCOPE = "" })
  end)

  it("prefers a token to credentials", function()
    local options = assert(read(with(CREDENTIALS, { NYMBL_TOKEN = "t" })))
    assert.equal("t", options.token)
    assert.is_nil(options.credentials)
  end)

  it("refuses values that a client would not accept, and never shows them", function()
    fails("invalid", "NYMBL_BASE_URL", { NYMBL_BASE_URL = "SENTINEL" })
    fails("invalid", "NYMBL_BASE_URL", { NYMBL_BASE_URL = "http://localhost:8080" })
    assert(read({ NYMBL_BASE_URL = "http://localhost:8080" }, { allow_http = true }))
    fails("invalid", "NYMBL_API_KEY", { NYMBL_API_KEY = "SENTINEL\r" })
    fails("invalid", "NYMBL_API_KEY", { NYMBL_API_KEY = "SENTINEL\0" })
    fails("invalid", "NYMBL_TOKEN", { NYMBL_TOKEN = "SENTINEL token" })
    fails("invalid", "NYMBL_TOKEN_URL", with(CREDENTIALS, { NYMBL_TOKEN_URL = "ftp://SENTINEL" }))
    fails("invalid", "NYMBL_CLIENT_ID", with(CREDENTIALS, { NYMBL_CLIENT_ID = "SENTINEL\n" }))
    fails("invalid", "NYMBL_SCOPE", with(CREDENTIALS, { NYMBL_SCOPE = "SENTINEL\n" }))
    fails("invalid", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = secret_file "SENTINEL\n\n" })
  end)
end)

describe("a secret in a file", function()
  it("is read without one newline at its end", function()
    for text, expected in pairs { ["k"] = "k", ["k\n"] = "k", [" k "] = " k ", ["k=\"x\"\n"] = "k=\"x\"" } do
      local path = secret_file(text)
      assert.equal(expected, assert(read { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = path }).api_key)
      assert.equal(expected, assert(read { NYMBL_API_KEY = "", NYMBL_API_KEY_FILE = path }).api_key)
    end
    local path = secret_file "s\n"
    assert.equal("s", assert(read { NYMBL_TOKEN = false, NYMBL_TOKEN_FILE = path }).token)
    assert.equal("s", assert(read(with(CREDENTIALS, { NYMBL_CLIENT_SECRET = false, NYMBL_CLIENT_SECRET_FILE = path })))
      .credentials.client_secret)
    assert.equal("missing", select(2, read { NYMBL_TOKEN = false, NYMBL_CLIENT_SECRET_FILE = path }).reason)
  end)

  it("is not read if the variable itself is set", function()
    assert.equal("SENTINEL-key", assert(read { NYMBL_API_KEY_FILE = "/none" }).api_key)
  end)

  it("is missing if the file is empty", function()
    for _, text in ipairs { "", "\n" } do
      fails("missing", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = secret_file(text) })
    end
  end)

  it("is not found if there is no such file", function()
    local function check(path) fails("not_found", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = path }) end
    check(helper.temporary())
    check(secret_file "x" .. "/y")
    check("/none/SENTINEL")
    local link = helper.temporary()
    os.execute("ln -s nowhere " .. quote(link))
    check(link)
  end)

  it("is refused if it is no small regular file", function()
    local function check(path) fails("invalid", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = path }) end
    check(helper.folder)
    check(secret_file(("x"):rep(65537)))
    check "/dev/null"
    local fifo = helper.temporary()
    os.execute("mkfifo -m 600 " .. quote(fifo)) -- which has no writer: a read would wait for ever
    check(fifo)
  end)

  it("is refused if others may read or write it", function()
    for _, mode in ipairs { "640", "604", "620", "602", "644", "660", "666", "777" } do
      fails("permission", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = secret_file("k", mode) })
    end
    for _, mode in ipairs { "600", "400", "700" } do
      assert(read { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = secret_file("k", mode) })
    end
  end)

  it("is checked where links lead to", function()
    local link = helper.temporary()
    local target = secret_file("k", "644")
    os.execute(("ln -s %s %s"):format(quote(target), quote(link)))
    fails("permission", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = link })
    os.execute("chmod 600 " .. quote(target))
    assert.equal("k", assert(read { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = link }).api_key)
  end)

  -- What another user gets from a file that this user owns.
  local function as_nobody(path, mode, owner)
    os.execute(("chown %s %s && chmod %s %s"):format(owner, quote(path), mode, quote(path)))
    local code = ([[
      local options, err = require("nymbl.settings").read(function(name)
        return ({ NYMBL_BASE_URL = "https://a.example", NYMBL_TOKEN = "t", NYMBL_API_KEY_FILE = %q })[name]
      end, {})
      io.write(options and options.api_key or err.reason)
    ]]):format(path)
    local user = "setpriv --reuid=65534 --regid=65534 --clear-groups " .. helper.interpreter() .. " -e "
    if helper.output(user .. quote "require 'nymbl' io.write 'yes'") ~= "yes" then
      pending "another user cannot read this tree"
    end
    return helper.output(user .. quote(code))
  end

  it("must belong to this user or to root", function()
    if not is_root then pending "this needs root, to become another user" end
    local path = secret_file "k"
    os.execute("chmod 711 " .. quote(helper.folder))
    finally(function() os.execute("chmod 700 " .. quote(helper.folder)) end)
    assert.equal("k", as_nobody(path, "400", "65534"))
    assert.equal("permission", as_nobody(path, "600", "0")) -- which the system refuses
    assert.equal("permission", as_nobody(path, "604", "65533"))
    assert.equal("permission", as_nobody(path, "604", "0"))
    os.execute("chown 65534 " .. quote(path) .. " && chmod 600 " .. quote(path))
    fails("permission", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = path })
  end)

  it("may be readable by others below the directories of containers and of systemd", function()
    local provided = helper.temporary()
    os.execute("mkdir " .. quote(provided))
    local inside = helper.write_file(provided .. "/key", "k")
    local outside = secret_file("k", "644")
    os.execute(("chmod 644 %s && ln -s %s %s && ln -s key %s"):format(quote(inside), quote(outside),
      quote(provided .. "/out"), quote(provided .. "/in")))
    local function reason(path, mode, directory)
      os.execute(("chmod %s %s"):format(mode, quote(path)))
      local code = ([[
        local options, err = require("nymbl").from_env()
        io.write(options and options.api_key or err.reason)
      ]])
      return helper.output(("env -u NYMBL_API_KEY CREDENTIALS_DIRECTORY=%s NYMBL_BASE_URL=%s NYMBL_TOKEN=t NYMBL_API_KEY_FILE=%s %s -e %s")
        :format(quote(directory or provided), BASE, quote(path), helper.interpreter(), quote(code)))
    end
    assert.equal("k", reason(inside, "644"))
    assert.equal("k", reason(inside, "444"))
    assert.equal("k", reason(inside, "440"))
    assert.equal("k", reason(provided .. "/in", "644"))
    assert.equal("permission", reason(inside, "646"))
    assert.equal("permission", reason(inside, "664"))
    assert.equal("permission", reason(provided .. "/out", "644"))
    assert.equal("permission", reason(provided .. "/../" .. outside:match("[^/]+$"), "644"))
    assert.equal("permission", reason(inside, "644", ""))
    os.execute("mkdir " .. quote(provided .. "x")) -- whose path begins in the same way
    assert.equal("permission", reason(helper.write_file(provided .. "x/key", "k"), "644"))
    assert.equal("permission", reason(inside, "644", "/none"))
  end)

  it("may be readable by others below /run/secrets", function()
    if not is_root then pending "this needs root, to create /run/secrets" end
    local existed = core.system.lstat "/run/secrets"
    if existed then pending "/run/secrets exists here" end
    os.execute "mkdir /run/secrets"
    local path = helper.write_file("/run/secrets/nymbl-spec", "k\n")
    finally(function() os.execute "rm /run/secrets/nymbl-spec && rmdir /run/secrets" end)
    os.execute("chmod 444 " .. path)
    assert.equal("k", assert(read { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = path }).api_key)
    os.execute("chmod 446 " .. path)
    fails("permission", "NYMBL_API_KEY_FILE", { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = path })
  end)

  it("leaves no file open", function()
    collectgarbage()
    collectgarbage()
    local before = helper.descriptors()
    for _, path in ipairs { secret_file "k", secret_file("k", "644"), helper.folder, secret_file(("x"):rep(70000)) } do
      read { NYMBL_API_KEY = false, NYMBL_API_KEY_FILE = path }
    end
    assert.equal(before, helper.descriptors())
  end)
end)

describe("NYMBL_STORE", function()
  it("is the path of a file, which keeps the token if NYMBL_STORE_TOKEN is true", function()
    for value, shares in pairs { ["true"] = true, ["false"] = false, [""] = false } do
      local path = helper.temporary()
      local options = assert(read { NYMBL_STORE = path, NYMBL_STORE_TOKEN = value })
      assert.equal(shares, options.store.token)
      local client = assert(nymbl.client(options))
      assert.equal(0, assert(client:usage()).requests)
      client:close()
      assert.truthy(core.system.lstat(path))
    end
    fails("invalid", "NYMBL_STORE_TOKEN", { NYMBL_STORE = "x", NYMBL_STORE_TOKEN = "yes" })
  end)

  it("is a URL of a Redis, with its own variables", function()
    local secret = secret_file("SENTINEL-word\n")
    local options = assert(read {
      NYMBL_STORE = "rediss://redis.example.org:6380/1", NYMBL_STORE_USERNAME = "u", NYMBL_STORE_PASSWORD_FILE = secret,
      NYMBL_STORE_CA_FILE = "/ca.pem", NYMBL_STORE_TOKEN = "true", NYMBL_STORE_WHEN_DOWN = "alone",
    })
    assert.equal("nymbl.store.redis", tostring(options.store))
    assert.is_true(options.store.token)
    for _, url in ipairs { "redis://127.0.0.1", "rediss://x", "unix:/run/redis.sock?db=2" } do
      assert.is_false(assert(read { NYMBL_STORE = url }).store.token)
    end
  end)

  it("is refused if it or one of its variables is wrong", function()
    for _, url in ipairs { "redis://SENTINEL.example.org", "rediss://u:SENTINEL@x", "rediss:SENTINEL", "unix:SENTINEL",
                           "https://SENTINEL" } do
      fails("invalid", "NYMBL_STORE", { NYMBL_STORE = url })
    end
    for name, value in pairs { USERNAME = "a\nb", PASSWORD = "a\nb", TOKEN = "yes", WHEN_DOWN = "SENTINEL", CA_FILE = "\0" } do
      local changes = { NYMBL_STORE = "rediss://x", NYMBL_STORE_PASSWORD = "SENTINEL" }
      changes["NYMBL_STORE_" .. name] = value
      fails("invalid", "NYMBL_STORE_" .. name, changes)
    end
    fails("missing", "NYMBL_STORE_PASSWORD", { NYMBL_STORE = "rediss://x", NYMBL_STORE_USERNAME = "u" })
    fails("not_found", "NYMBL_STORE_PASSWORD_FILE", { NYMBL_STORE = "rediss://x", NYMBL_STORE_PASSWORD_FILE = "/nowhere" })
  end)
end)
