-- SPDX-License-Identifier: MIT
-- The installed library, as another project uses it; and the messages and the cache of CMake.

local helper = require "helper"

local quote = helper.quote
local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")
local BUILD = ROOT .. "/build" -- of spec/run, with the library and the module for Lua 5.4
local PDF = helper.path("spec/fixtures/referral.pdf")
local VERSION = helper.read_file(helper.path("core/nymbl.h")):match('define NYMBL_VERSION "([^"]+)"')

-- Run a command; exit status, standard output and standard error.
local function try(command)
  local out, err = helper.temporary(".out"), helper.temporary(".err")
  local status = helper.output(("{ %s; } </dev/null >%s 2>%s; echo $?"):format(command, quote(out), quote(err)))
  return tonumber(status), helper.read_file(out), helper.read_file(err)
end

local function run(command)
  local status, out, err = try(command)
  assert(status == 0, command .. "\n" .. out .. err)
  return out
end

-- Run the consumer with the sandbox's settings.
local function consumer(program, ...)
  local sandbox = helper.sandbox()
  local words = { "env HOME=" .. quote(helper.folder) }
  for _, setting in ipairs { "base_url", "ca_file", "api_key", "token_url", "client_id", "client_secret", "scope" } do
    words[#words + 1] = quote(("NYMBL_%s=%s"):format(setting:upper(), sandbox[setting]))
  end
  words[#words + 1] = program
  for _, argument in ipairs { ... } do words[#words + 1] = quote(argument) end
  return try(table.concat(words, " "))
end

-- All calls of a program.
local function tour(program)
  helper.reset()
  local function call(...)
    local status, out, err = consumer(program, ...)
    assert.equal("", err)
    assert.equal(0, status)
    return out
  end
  local id = assert(helper.json.decode(call("upload", "12345", PDF)).id)
  local stored = helper.stored("12345")
  assert.equal(1, #stored)
  assert.equal(id, stored[1].id)
  assert.equal(helper.sha256(PDF), stored[1].sha256)
  assert.equal("application/pdf", stored[1].metadata.content_type)
  assert.equal(id, helper.json.decode(call("list", "12345")).value[1].id)
  assert.equal("referral.pdf", helper.json.decode(call("get", "12345", id)).file_name)
  local copy = helper.temporary(".pdf")
  assert.equal("", call("download", "12345", id, copy))
  assert.equal(helper.sha256(PDF), helper.sha256(copy))
  call("delete", "12345", id)
  assert.equal(0, #helper.stored("12345"))
  local status, out, err = consumer(program, "get", "12345", id)
  assert.equal(1, status)
  assert.equal("", out)
  assert.matches("^not_found, no reason: .*check the ids\n$", err)
end

describe("the installed library #slow #install", function()
  local prefix, libraries, project

  setup(function()
    local first = helper.temporary("-first")
    prefix = helper.temporary("-prefix")
    run(("cmake --install %s --prefix %s && mv %s %s"):format(quote(BUILD), quote(first), quote(first), quote(prefix)))
    libraries = helper.output(("dirname $(find %s -name libnymbl.so)"):format(quote(prefix)))
  end)

  -- The consumer project, configured and built once.
  local function built()
    if not project then
      project = helper.temporary("-project")
      run(("cmake -S %s -B %s -DCMAKE_PREFIX_PATH=%s -DCMAKE_C_FLAGS=%s -DCMAKE_CXX_FLAGS=%s && cmake --build %s -j 2"):format(
        quote(helper.path("spec/consumer")), quote(project), quote(prefix), quote "-Wall -Wextra -Werror",
        quote "-std=c++20 -Wall -Werror", quote(project)))
    end
    return project
  end

  local function pkg_config(arguments)
    return helper.output(("PKG_CONFIG_PATH=%s pkg-config %s nymbl"):format(quote(libraries .. "/pkgconfig"), arguments))
  end

  it("exports what its header declares, and nothing else", function()
    local declared, exported = {}, {}
    for name in helper.read_file(prefix .. "/include/nymbl.h"):gmatch("\nNYMBL_API[%w_%s*]-([%w_]+)%(") do
      declared[#declared + 1] = name
    end
    for name in run("nm -D --defined-only " .. quote(libraries .. "/libnymbl.so")):gmatch("(%S+)\n") do
      exported[#exported + 1] = name
    end
    table.sort(declared)
    table.sort(exported)
    assert.is_true(#declared > 50)
    assert.same(declared, exported)
  end)

  it("is loaded by the version of its interface", function()
    assert.equal("libnymbl.so.0", run("readelf -d " .. quote(libraries .. "/libnymbl.so." .. VERSION)):match("soname: %[(.-)%]"))
  end)

  for _, program in ipairs { "c_shared", "c_static", "cpp_shared", "cpp_static" } do
    it("is found by a CMake project: " .. program, function()
      tour(quote(built() .. "/" .. program))
    end)
  end

  it("is linked as the target says", function()
    local function needs(program)
      return run("readelf -d " .. quote(built() .. "/" .. program)):match("%[libnymbl") ~= nil
    end
    assert.is_true(needs "c_shared")
    assert.is_false(needs "c_static")
  end)

  it("is found by pkg-config, in C and in C++, shared and static", function()
    local flags = pkg_config("--cflags")
    for language, compiler in pairs { c = "cc -std=c11", cpp = "c++ -std=c++20" } do
      local shared, static = helper.temporary("-shared"), helper.temporary("-static")
      local compile = ("%s -Wall -Werror %s %%s %s"):format(compiler, flags, quote(helper.path("spec/consumer/consumer." .. language)))
      run((compile .. " %s -Wl,-rpath,%s"):format("-o " .. quote(shared), pkg_config("--libs"), quote(libraries)))
      tour(quote(shared))
      -- libcurl itself stays shared: what it needs of its own is seldom installed
      run((compile .. " %s $(pkg-config --libs libcurl) -pthread -ldl"):format("-o " .. quote(static), quote(libraries .. "/libnymbl.a")))
      tour(quote(static))
    end
    assert.equal(VERSION, pkg_config("--modversion"))
  end)

  it("tells pkg-config which libraries a static program needs", function()
    local status, out = try(("PKG_CONFIG_PATH=%s pkg-config --static --libs nymbl"):format(quote(libraries .. "/pkgconfig")))
    assert.equal(0, status)
    assert.matches("%-lnymbl.*%-lcurl", out)
    assert.not_matches("%-lcurl", pkg_config("--libs"))
  end)

  it("has a consumer say why it failed, and no secret", function()
    local program = quote(built() .. "/c_shared")
    local function fails(pattern, settings, ...)
      local status, out, err = consumer("env " .. settings .. " " .. program, ...)
      assert.equal(1, status)
      assert.equal("", out)
      assert.matches(pattern, err)
      assert.not_matches("secret%-of%-mine", err)
    end
    fails("^tls, certificate_untrusted: ", "-u NYMBL_CA_FILE", "list", "12345")
    fails("^tls, ca_file: ", "NYMBL_CA_FILE=/nowhere", "list", "12345")
    fails("^unauthorized, no reason: ", "NYMBL_CLIENT_SECRET=secret-of-mine", "list", "12345")
    fails("^misuse, api_key: ", "-u NYMBL_API_KEY", "list", "12345")
    fails("^misuse, usage: ", "", "list")
    fails("^unsupported_type, signature: ", "", "upload", "12345", helper.write_file(helper.temporary(".txt"), "hello\n"))
    fails("^io, not_found: ", "", "upload", "12345", "/nowhere")
  end)

  it("comes with the command and its manual page", function()
    local program = "env -u LUA_PATH -u LUA_CPATH " .. quote(prefix .. "/bin/nymbl")
    assert.equal("nymbl " .. VERSION .. "\n", run(program .. " --version"))
    assert.matches('^.TH "NYMBL" "1"', run("cat " .. quote(prefix .. "/share/man/man1/nymbl.1")))
    -- a link elsewhere finds the same installation
    local link = helper.temporary("-link")
    assert.equal("nymbl " .. VERSION .. "\n", run(("ln -s %s %s && %s --version"):format(quote(prefix .. "/bin/nymbl"), quote(link),
      quote(link))))
    helper.reset()
    local status, out, err = consumer(program, "upload", "12345", PDF)
    assert.equal("", err)
    assert.equal(0, status)
    assert.equal(helper.stored("12345")[1].id, out:match("\t(%S+)"))
  end)

  it("comes with the module, which needs nothing but its folder", function()
    local modules = prefix .. "/share/lua/5.4/?.lua"
    assert.equal("nymbl " .. VERSION, helper.output(("LUA_PATH=%s LUA_CPATH=%s lua5.4 -e 'print(require(\"nymbl\")._VERSION)'"):format(
      quote(modules), quote(libraries .. "/lua/5.4/?.so"))))
  end)
end)

describe("CMake's configuration #slow #install", function()
  -- Configure in a folder; status and what it says.
  local function configure(folder, arguments, environment)
    local status, out, err = try(("env %s cmake -S %s -B %s -DNYMBL_BUILD_LIBRARY=OFF -DCMAKE_BUILD_TYPE=Debug %s"):format(
      environment or "", quote(ROOT), quote(folder), arguments or ""))
    return status, (out .. err):gsub("%s+", " ")
  end

  it("is followed when it is changed: the second Lua is the one that is built", function()
    local folder, prefix = helper.temporary("-build"), helper.temporary("-prefix")
    for _, lua in ipairs { { "5.4", "lua5.4", "5.4" }, { "jit", "luajit", "5.1" } } do
      assert.equal(0, (configure(folder, "-DNYMBL_LUA=" .. lua[1])))
      run(("rm -rf %s && cmake --build %s -j 2 && cmake --install %s --prefix %s"):format(
        quote(prefix), quote(folder), quote(folder), quote(prefix)))
      assert.equal(lua[3], helper.output(("ls %s/share/lua"):format(quote(prefix))))
      local core = helper.output(("find %s -name core.so"):format(quote(prefix)))
      assert.matches("/lua/" .. lua[3] .. "/nymbl/core.so$", core)
      assert.equal(VERSION, helper.output(("LUA_CPATH=%s %s -e 'print(require(\"nymbl.core\").version)'"):format(
        quote((core:gsub("nymbl/core", "?"))), lua[2])))
    end
  end)

  it("refuses a libcurl that is too old", function()
    local old = helper.temporary("-old")
    run(("mkdir -p %s/include/curl && echo '#define LIBCURL_VERSION \"7.86.0\"' >%s/include/curl/curlver.h"
      .. " && touch %s/include/curl/curl.h"):format(quote(old), quote(old), quote(old)))
    local status, text = configure(helper.temporary("-build"), "", "CMAKE_PREFIX_PATH=" .. quote(old))
    assert.not_equal(0, status)
    assert.matches("nymbl needs libcurl 7.87 or newer, and its headers; libcurl here: 7.86.0", text, 1, true)
  end)

  it("names a Lua whose headers are missing", function()
    local status, text = configure(helper.temporary("-build"), "-DNYMBL_LUA=5.9")
    assert.not_equal(0, status)
    assert.matches("NYMBL_LUA is 5.9, whose headers were not found. On Debian: apt-get install liblua5.9-dev", text, 1, true)
  end)

  it("says if lua-cjson is missing, and how to install it", function()
    local status, text = configure(helper.temporary("-build"), "", "-u LUA_PATH -u LUA_CPATH")
    assert.equal(0, status)
    assert.not_matches("cjson", text)
    status, text = configure(helper.temporary("-build"), "", "LUA_CPATH=/nowhere LUA_PATH=/nowhere")
    assert.equal(0, status)
    assert.matches("lua-cjson was not found for Lua 5.4", text, 1, true)
    assert.matches("apt-get install lua-cjson", text, 1, true)
  end)
end)

describe("the scripts that install packages", function()
  -- Run packages_install as if Debian had this version of libcurl, or no list of packages.
  local function install(version)
    return try("bash -c " .. quote(([[
      . %s
      packages_is_installed() { return 1; }
      packages_apt_get() { echo "apt-get $*"; }
      apt-cache() { echo "  Candidate: %s"; }
      sudo() { "$@"; }
      packages_install make libcurl4-openssl-dev]]):format(quote(helper.path("spec/packages")), version)))
  end

  it("install nothing if libcurl is too old", function()
    local status, out, err = install "7.74.0-1.3+deb11u7"
    assert.equal(1, status)
    assert.equal("", out)
    assert.matches("nymbl needs libcurl 7.87 or newer", err, 1, true)
  end)

  it("install one that is new enough", function()
    for _, version in ipairs { "7.88.1-10+deb12u15", "8.14.1-2", "(none)", "" } do
      local status, out = install(version)
      assert.equal(0, status)
      assert.equal("Installing make libcurl4-openssl-dev\n", out)
    end
  end)
end)
