-- SPDX-License-Identifier: MIT
-- The command `nymbl`: its configuration file, profiles and store, and that no secret leaves it.

local command = require "command"
local helper = require "helper"

local quote = helper.quote

local NAMES = { "base_url", "ca_file", "api_key", "token_url", "client_id", "client_secret", "scope" }

-- No setting in the environment.
local NONE = {}
for _, name in ipairs(NAMES) do NONE["NYMBL_" .. name:upper()] = false end

-- An environment without settings, and these variables.
local function env(variables)
  local result = {}
  for name in pairs(NONE) do result[name] = false end
  for name, value in pairs(variables or {}) do result[name] = value end
  return result
end

-- The lines of a configuration file for the sandbox.
local function lines(changes)
  local sandbox, found = helper.sandbox(), {}
  for _, name in ipairs(NAMES) do
    local value = (changes or {})[name]
    if value == nil then value = sandbox[name] end
    if value then found[#found + 1] = ("NYMBL_%s=%s"):format(name:upper(), value) end
  end
  return table.concat(found, "\n") .. "\n"
end

local function write_config(text, name, mode)
  local folder = command.current_home .. "/.config/nymbl"
  os.execute("mkdir -p " .. quote(folder))
  local path = folder .. "/" .. (name or "config")
  helper.write_file(path, text)
  os.execute(("chmod %s %s"):format(mode or "600", quote(path)))
  return path
end

local function run(arguments, variables)
  return command.run(arguments, { env = env(variables) })
end

before_each(function()
  helper.reset()
  command.home()
end)

describe("the configuration file of nymbl", function()
  it("has the settings that the environment lacks", function()
    write_config("# a comment\n\n" .. lines())
    assert.equal(0, (run { "list", "12345" }))
    assert.equal(4, (run({ "list", "12345" }, { NYMBL_API_KEY = "wrong" })))
    write_config(lines { api_key = "wrong" })
    assert.equal(4, (run { "list", "12345" }))
    assert.equal(0, (run({ "list", "12345" }, { NYMBL_API_KEY = helper.sandbox().api_key })))
  end)

  it("is below XDG_CONFIG_HOME, if that is an absolute path", function()
    local path = write_config(lines())
    local other = helper.directory()
    os.execute(("mkdir %s/nymbl && mv %s %s/nymbl/"):format(quote(other), quote(path), quote(other)))
    assert.equal(4, (run { "list", "12345" }))
    assert.equal(0, (run({ "list", "12345" }, { XDG_CONFIG_HOME = other })))
    write_config(lines())
    assert.equal(0, (run({ "list", "12345" }, { XDG_CONFIG_HOME = "relative" })))
  end)

  it("may have several profiles", function()
    write_config(lines { api_key = "wrong" })
    write_config(lines(), "clinic.config")
    assert.equal(4, (run { "list", "12345" }))
    assert.equal(0, (run { "list", "12345", "--profile", "clinic" }))
    local status, _, err = run { "list", "12345", "--profile", "none" }
    assert.equal(4, status)
    assert.matches("^nymbl: settings %(not_found%)", err)
  end)

  it("keeps all that follows the first '='", function()
    write_config(lines { client_secret = "a=b #c " })
    local status, out = run { "ping" }
    assert.equal(4, status)
    assert.matches("\ntoken       failed", out)
    assert.matches("settings    ok", out)
  end)

  it("is refused with an unknown name, or a line that is no setting", function()
    write_config(lines() .. "NYMBL_API_KYE=secret-of-mine\n")
    local status, _, err = run { "list", "12345" }
    assert.equal(4, status)
    assert.equal("nymbl: settings (unknown_name): NYMBL_API_KYE: the configuration file has a name that is no setting: check it\n", err)
    for _, line in ipairs { "secret-of-mine", " NYMBL_SCOPE=secret-of-mine", "export NYMBL_SCOPE=secret-of-mine", "PATH=secret-of-mine" } do
      write_config(lines() .. line .. "\n")
      local out
      status, out, err = run { "list", "12345" }
      assert.equal(4, status, line)
      assert.not_matches("secret%-of%-mine", out .. err)
    end
  end)

  it("is refused if others can read or write it", function()
    for _, mode in ipairs { "640", "604", "620", "602", "644" } do
      write_config(lines(), nil, mode)
      local status, _, err = run { "list", "12345" }
      assert.equal(4, status, mode)
      assert.matches("^nymbl: settings %(permission%)", err)
      assert.not_matches(".config", err, 1, true)
    end
    for _, mode in ipairs { "600", "400", "700" } do
      write_config(lines(), nil, mode)
      assert.equal(0, (run { "list", "12345" }), mode)
    end
  end)

  it("is read through a link, and must be a file", function()
    local path = write_config(lines())
    os.execute(("mv %s %s.real && ln -s %s.real %s"):format(quote(path), quote(path), quote(path), quote(path)))
    assert.equal(0, (run { "list", "12345" }))
    os.execute(("chmod 644 %s"):format(quote(path)))
    assert.equal(4, (run { "list", "12345" }))
    os.execute(("rm %s && mkdir %s"):format(quote(path), quote(path)))
    assert.equal(4, (run { "list", "12345" }))
    os.execute(("rmdir %s && mkfifo %s"):format(quote(path), quote(path)))
    assert.equal(4, (run { "list", "12345" }))
  end)

  it("loses to the environment as a whole, if only one of several settings is used", function()
    local sandbox = helper.sandbox()
    local secret = helper.write_file(helper.temporary(".key"), sandbox.api_key .. "\n")
    os.execute("chmod 600 " .. quote(secret))
    write_config(lines { api_key = "wrong" })
    assert.equal(0, (run({ "list", "12345" }, { NYMBL_API_KEY_FILE = secret })))
    write_config(lines { client_id = false, client_secret = false, token_url = false, scope = false } .. "NYMBL_TOKEN=wrong\n")
    assert.equal(0, (run({ "list", "12345" }, {
      NYMBL_TOKEN_URL = sandbox.token_url, NYMBL_CLIENT_ID = sandbox.client_id, NYMBL_CLIENT_SECRET = sandbox.client_secret,
      NYMBL_SCOPE = sandbox.scope,
    })))
    write_config(lines { client_secret = "wrong" })
    assert.equal(0, (run({ "list", "12345" }, { NYMBL_TOKEN = helper.token() })))
  end)
end)

describe("nymbl config", function()
  it("says where each setting comes from, and no secret", function()
    local path = write_config(lines())
    local status, out, err = run({ "config" }, { NYMBL_SCOPE = "other", NYMBL_PROXY = "" })
    assert.equal(0, status)
    assert.equal("", err)
    local sandbox = helper.sandbox()
    assert.is_truthy(out:find(("NYMBL_BASE_URL\t%s\t%s\n"):format(path, sandbox.base_url), 1, true))
    assert.is_truthy(out:find(("NYMBL_CLIENT_SECRET\t%s\t(not shown)\n"):format(path), 1, true))
    assert.is_truthy(out:find("NYMBL_SCOPE\tenvironment\t(not shown)\n", 1, true))
    assert.is_truthy(out:find(("NYMBL_STORE\tdefault\t%s/.local/state/nymbl/store\n"):format(command.current_home), 1, true))
    assert.is_nil(out:find("NYMBL_PROXY", 1, true))
    for _, name in ipairs { "api_key", "client_secret" } do assert.is_nil(out:find(sandbox[name], 1, true)) end
    status, out = run { "config", "--json" }
    assert.equal(0, status)
    local objects = command.objects(out)
    assert.same({ name = "NYMBL_API_KEY", source = path }, objects[2])
  end)

  it("shows no URL with a user or password", function()
    write_config(lines())
    local _, out = run({ "config" }, { NYMBL_STORE = "rediss://user:secret-of-mine@localhost",
                                       NYMBL_PROXY = "http://user:secret-of-mine@localhost" })
    assert.not_matches("secret%-of%-mine", out)
  end)

  it("ends with 4 if a setting is missing", function()
    write_config(lines { api_key = false })
    local status, out, err = run { "config" }
    assert.equal(4, status)
    assert.matches("^NYMBL_BASE_URL\t", out)
    assert.matches("^nymbl: settings %(missing%): NYMBL_API_KEY: ", err)
  end)
end)

describe("the store of nymbl", function()
  before_each(function() write_config(lines()) end)

  local function mode(path)
    return helper.output("stat -c %a " .. quote(path))
  end

  it("is below ~/.local/state, for this user alone, and has no token", function()
    assert.equal(0, (run { "list", "12345" }))
    local folder = command.current_home .. "/.local/state/nymbl"
    assert.equal("700", mode(folder))
    assert.equal("600", mode(folder .. "/store"))
    assert.equal("store", helper.names(folder))
    assert.not_matches("token", helper.read_file(folder .. "/store"))
    assert.equal(1, #helper.journal "token")
    assert.equal(0, (run { "list", "12345" }))
    assert.equal(2, #helper.journal "token")
  end)

  it("is below XDG_STATE_HOME, or where NYMBL_STORE says", function()
    local folder = helper.directory()
    assert.equal(0, (run({ "list", "12345" }, { XDG_STATE_HOME = folder .. "/new" })))
    assert.is_true(helper.exists(folder .. "/new/nymbl/store"))
    assert.equal(0, (run({ "list", "12345" }, { NYMBL_STORE = folder .. "/mine", XDG_STATE_HOME = folder .. "/other" })))
    assert.is_true(helper.exists(folder .. "/mine"))
    assert.is_false(helper.exists(folder .. "/other"))
  end)

  it("keeps the rate limit between runs", function()
    local now = require("nymbl.core").now
    local began = now()
    for _ = 1, 7 do assert.equal(0, (run { "list", "12345" })) end
    assert.is_true(now() - began > 1, now() - began) -- a burst of 4, then 2 per second
  end)

  it("that cannot be created is a failure", function()
    local status, _, err = run({ "list", "12345" }, { XDG_STATE_HOME = "/dev/null/x" })
    assert.equal(1, status)
    assert.matches("^nymbl: io %(not_a_directory%)", err)
    local home = helper.directory()
    status, _, err = command.run({ "list", "12345" }, { home = home, directory = "/", env = { HOME = false } })
    assert.equal(4, status)
    assert.matches("^nymbl: settings %(missing%): NYMBL_STORE: ", err)
  end)
end)

describe("the secrets of nymbl", function()
  it("are in no argument, file or output", function()
    local sandbox = helper.sandbox()
    local secrets = { sandbox.api_key, sandbox.client_secret }
    write_config(lines())
    local id = helper.add_document { patient = "12345", file_name = "a.pdf", content_type = "application/pdf", content = "%PDF-1.4 a" }.id
    helper.faults { operation = "list", action = { delay = 1 }, times = 1 }
    local background = command.start({ "list", "12345" }, { env = env() })
    helper.wait_for(function() return #helper.journal "list" > 0 end)
    local arguments = helper.read_file("/proc/" .. background.pid .. "/cmdline")
    assert.matches("main.lua", arguments, 1, true)
    command.finish(background)
    local printed = { arguments }
    for _, words in ipairs {
      { "list", "12345", "--verbose" }, { "show", "12345", id, "--json" }, { "download", "12345", id }, { "ping" }, { "config" },
      { "quota" }, { "delete", "12345", "none", "--yes", "--verbose" },
    } do
      local _, out, err = run(words)
      printed[#printed + 1] = out .. err
      _, out = command.run_in_terminal(words, { env = env() })
      printed[#printed + 1] = out
    end
    os.execute("rm " .. quote(command.current_home .. "/.config/nymbl/config"))
    for _, secret in ipairs(secrets) do
      assert.is_nil(table.concat(printed):find(secret, 1, true))
      assert.equal("", helper.output(("grep -rlF -e %s %s"):format(quote(secret), quote(command.current_home))))
    end
  end)
end)
