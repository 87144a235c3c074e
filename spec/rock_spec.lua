-- SPDX-License-Identifier: MIT
-- The rock, built by LuaRocks for the current Lua and used from its tree alone.

local helper = require "helper"

local quote = helper.quote
local JIT = rawget(_G, "jit") ~= nil
local VERSION = _VERSION:match("%d+%.%d+")
local LUA = JIT and "luajit" or "lua" .. VERSION
local PDF = helper.path("spec/fixtures/referral.pdf")

-- The paths of this run must not help.
local CLEAN = "env -u LUA_PATH -u LUA_CPATH -u LUA_INIT HOME=" .. quote(helper.folder) .. " "

local function run(command)
  local log = helper.temporary(".log")
  local status = helper.output(("{ %s; } </dev/null >%s 2>&1; echo $?"):format(command, quote(log)))
  assert(status == "0", helper.read_file(log))
  return helper.read_file(log)
end

local function lines(text)
  local found = {}
  for line in text:gmatch("[^\n]+") do found[#found + 1] = line end
  table.sort(found)
  return found
end

-- The source files of the rock, without build results.
local function copy_of_checkout()
  local folder = helper.temporary("-checkout")
  run(("mkdir %s && cd %s && cp -R CMakeLists.txt LICENSE .luals core lua rockspec %s"):format(quote(folder),
    quote(helper.path(".")), quote(folder)))
  return folder
end

local MAKE = "make --deps-mode=none --tree %s"
if JIT then MAKE = MAKE .. " LUA_INCDIR=" .. quote(helper.output("pkg-config --variable=includedir luajit")) end

-- A rockspec's fields.
local function rockspec(name)
  local fields = {}
  local code = helper.read_file(helper.path("rockspec/" .. name))
  local chunk = JIT and setfenv(assert(loadstring(code)), fields) or assert(load(code, name, "t", fields)) -- luacheck: ignore
  chunk()
  return fields
end

describe("the rockspecs", function()
  it("agree with each other, and with the version of nymbl.h", function()
    local version = helper.read_file(helper.path("core/nymbl.h")):match('define NYMBL_VERSION "([^"]+)"')
    local scm, released = rockspec "nymbl-scm-1.rockspec", rockspec(("nymbl-%s-1.rockspec"):format(version))
    assert.equal(version .. "-1", released.version)
    assert.equal("v" .. version, released.source.tag)
    assert.equal("2", helper.output("ls " .. quote(helper.path("rockspec")) .. " | wc -l"):match("%d+"))
    released.version, released.source.tag = scm.version, nil
    assert.same(scm, released)
  end)
end)

describe("the rock #slow", function()
  local checkout, tree, modules, libraries

  local function luarocks(arguments, ...)
    return run(("cd %s && %s luarocks --lua-version %s %s"):format(quote(checkout), CLEAN, VERSION, arguments:format(...)))
  end

  setup(function()
    checkout, tree = copy_of_checkout(), helper.temporary("-tree")
    modules, libraries = tree .. "/share/lua/" .. VERSION, tree .. "/lib/lua/" .. VERSION
    luarocks(MAKE, quote(tree))
  end)

  it("is not made with a libcurl that is too old", function()
    local old, log = helper.temporary("-old"), helper.temporary(".log")
    run(("mkdir -p %s/include/curl && cd %s/include/curl && touch curl.h && echo '#define LIBCURL_VERSION \"7.86.0\"' >curlver.h"):format(
      quote(old), quote(old)))
    local status = helper.output(("cd %s && CMAKE_PREFIX_PATH=%s %s luarocks --lua-version %s %s </dev/null >%s 2>&1; echo $?"):format(
      quote(copy_of_checkout()), quote(old), CLEAN, VERSION, MAKE:format(quote(old .. "/tree")), quote(log)))
    assert.not_equal("0", status)
    assert.matches("nymbl needs libcurl 7.87 or newer", helper.read_file(log), 1, true)
    assert.equal("", helper.output("find " .. quote(old) .. " -name '*.so' -o -name 'nymbl*'"))
  end)

  it("runs spec/run as its tests", function()
    local log = helper.temporary(".log")
    os.execute(("cd %s && %s luarocks test --lua-version %s -- --help </dev/null >%s 2>&1"):format(
      quote(helper.path(".")), CLEAN, VERSION, quote(log)))
    assert.matches("spec/run --quick", helper.read_file(log), 1, true)
  end)

  it("can be packed, and installed from its file alone", function()
    local other = helper.temporary("-tree")
    luarocks("pack nymbl --tree %s", quote(tree))
    luarocks("install --deps-mode=none --tree %s %s/nymbl-scm-1.*.rock", quote(other), quote(checkout))
    local function content(folder)
      return lines(run(("cd %s && find share/lua lib/lua -type f -exec sha256sum {} +"):format(quote(folder))))
    end
    assert.is_true(#content(tree) > 20)
    assert.same(content(tree), content(other))
  end)

  it("contains the Lua modules, the annotations for editors and the core only", function()
    local wanted = lines(run(("cd %s && ls nymbl.lua && find nymbl -type f -name '*.lua' && echo nymbl/nymbl.meta.lua"):format(
      quote(helper.path("lua")))))
    assert.same(wanted, lines(run(("cd %s && find * -type f"):format(quote(modules)))))
    assert.same({ "nymbl/core.so" }, lines(run(("cd %s && find * -type f"):format(quote(libraries)))))
  end)

  it("has annotations that no program loads", function()
    local found = run(("cd / && LUA_PATH=%s %s -e %s"):format(quote(modules .. "/?.lua"), LUA,
      quote('print(pcall(require, "nymbl.meta"), pcall(require, "nymbl.nymbl.meta"))')))
    assert.matches("^false%s.*false%s", found)
  end)

  it("exports one symbol", function()
    local symbols = run("nm -D --defined-only " .. quote(libraries .. "/nymbl/core.so"))
    local names = {}
    for _, line in ipairs(lines(symbols)) do names[#names + 1] = line:match("(%S+)$") end
    assert.same({ "luaopen_nymbl_core" }, names)
  end)

  it("has the command, which uploads from its tree alone", function()
    helper.reset()
    local sandbox, settings = helper.sandbox(), {}
    for _, name in ipairs { "base_url", "ca_file", "api_key", "token_url", "client_id", "client_secret", "scope" } do
      settings[#settings + 1] = ("NYMBL_%s=%s"):format(name:upper(), quote(sandbox[name]))
    end
    local program = CLEAN .. table.concat(settings, " ") .. " " .. quote(tree .. "/bin/nymbl")
    assert.matches("^nymbl [%d.]+\n$", run(program .. " --version"))
    local id = run(("%s upload rock %s"):format(program, quote(PDF))):match("\t(%S+)")
    assert.equal(helper.sha256(PDF), helper.stored("rock")[1].sha256)
    assert.equal(helper.stored("rock")[1].id, id)
    assert.is_true(helper.exists(helper.folder .. "/.local/state/nymbl/store"))
  end)

  it("uploads and downloads from its tree alone", function()
    local sandbox = helper.sandbox()
    local script = helper.write_file(helper.temporary(".lua"), [[
      require "cjson" -- the only dependency
      package.path, package.cpath = arg[1] .. "/?.lua", arg[2] .. "/?.so"
      local nymbl = require "nymbl"
      local client = assert(nymbl.client {
        base_url = arg[3], ca_file = arg[4], api_key = arg[5], timeout = 60,
        credentials = { token_url = arg[6], client_id = arg[7], client_secret = arg[8], scope = arg[9] },
      })
      local doc = assert(client:patient("rock"):upload(arg[10]))
      print(assert(doc:download(arg[11])))
    ]])
    local copy = helper.temporary(".pdf")
    local command = { CLEAN .. LUA, quote(script) }
    for _, argument in ipairs { modules, libraries, sandbox.base_url, sandbox.ca_file, sandbox.api_key,
                                sandbox.token_url, sandbox.client_id, sandbox.client_secret,
                                sandbox.scope, PDF, copy } do
      command[#command + 1] = quote(argument)
    end
    assert.equal(#helper.read_file(PDF) .. "\tapplication/pdf\n", run(table.concat(command, " ")))
    assert.equal(helper.sha256(PDF), helper.sha256(copy))
  end)
end)
