-- SPDX-License-Identifier: MIT
-- `require "nymbl"` in processes whose libcurl would call two TLS libraries. All libraries are fakes,
-- libcurl too: their functions do nothing.
local helper = require "helper"

local quote = helper.quote
local LUA = rawget(_G, "jit") and "luajit" or "lua" .. _VERSION:match("%d+%.%d+")
local CORE = assert(package.searchpath("nymbl.core", package.cpath))

-- The functions that the fake libcurl needs: those that the guard always checks, and more.
local OLD = { "OpenSSL_version", "SSL_CTX_new", "SSL_get_shutdown", "X509_STORE_set_flags", "BIO_meth_new",
              "X509_LOOKUP_file", "SSL_pending" }
local NEW = { "SSL_get0_group_name", "X509_STORE_get1_objects" } -- of OpenSSL 3.2 and 3.3

local folder

local function join(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, item in ipairs(list) do all[#all + 1] = item end
  end
  return all
end

local function functions(names, version)
  local lines = {}
  for _, name in ipairs(names) do
    lines[#lines + 1] = name == "OpenSSL_version"
      and ('const char *%s(int t) { (void)t; return "%s"; }'):format(name, version)
      or ("void *%s(void) { return 0; }"):format(name)
  end
  return table.concat(lines, "\n") .. "\n"
end

-- A function that calls others; it is not called itself.
local function calls(name, callees)
  local lines = { ("void *%s(void) {"):format(name) }
  for _, callee in ipairs(callees) do lines[#lines + 1] = ("extern void *%s(); %s();"):format(callee, callee) end
  return table.concat(lines, "\n") .. "\nreturn 0; }\n"
end

local function compile(name, source, flags)
  local path = helper.write_file(folder .. "/" .. name .. ".c", source)
  assert.equal("", helper.output(("cd %s && gcc -std=gnu11 -w -o %s %s %s 2>&1"):format(quote(folder), name,
    quote(path), flags)))
  return folder .. "/" .. name
end

-- A library that is linked with others, with or without a symbol version.
local function library(name, source, flags, symbol_version)
  if symbol_version then
    helper.write_file(folder .. "/" .. name .. ".map", symbol_version .. " { *; };\n")
    flags = ("-Wl,--version-script=%s.map %s"):format(name, flags)
  end
  return compile(name, source, ("-shared -fPIC -Wl,-soname,%s %s"):format(name, flags))
end

local function except(names, one)
  local others = {}
  for _, name in ipairs(names) do
    if name ~= one then others[#others + 1] = name end
  end
  return others
end

-- A libcurl.so.4 that needs some functions, and the TLS library that it is linked with, which needs two
-- functions of its own libcrypto.
local function libcurl_make(own)
  local flags = own.flags or "-Wl,-z,now"
  local crypto = functions({ "OpenSSL_version", "EVP_sha256", "BN_new" }, own.version)
    .. calls("CRYPTO_caller", { "BN_new" })
  local ssl = functions(except(own.needs, "OpenSSL_version")) .. calls("SSL_caller", { "EVP_sha256" })
  local inside, linked = "", ""
  if own.is_inside then
    inside = crypto .. ssl
  else
    library("libcrypto.so.3", crypto, flags, own.symbol_version)
    library("libssl.so.3", ssl, flags .. " ./libcrypto.so.3", own.symbol_version)
    linked = " ./libssl.so.3 ./libcrypto.so.3"
  end
  local undefined, lines = helper.output("nm -D --undefined-only " .. quote(CORE)), {}
  for name in undefined:gmatch("curl_[%w_]+") do
    if name ~= "curl_version_info" then lines[#lines + 1] = ("void *%s() { return 0; }"):format(name) end
  end
  helper.write_file(folder .. "/rest.c", inside .. table.concat(lines, "\n") .. "\n")
  library("libcurl.so.4", [[
    #include <curl/curl.h>
    curl_version_info_data *curl_version_info(CURLversion version)
    {
        static curl_version_info_data data = {.version = "8.14.1", .ssl_version = "OpenSSL/3"};
        return &data;
    }
  ]] .. calls("Curl_caller", join(own.needs, { "curl_easy_init" })), flags .. " rest.c" .. linked,
    undefined:match("curl_[%w_]+@([%w_]+)") or "CURL_4")
end

-- The result of `require "nymbl"` there: "good", or the error.
local function required(interpreter, before)
  local script = helper.write_file(folder .. "/script.lua", (before or "") .. [[
    local good, problem = pcall(require, "nymbl")
    io.write(good and "good" or tostring(problem))
  ]])
  return helper.output(("env LD_LIBRARY_PATH=%s LUA_PATH=%s LUA_CPATH=%s %s %s 2>&1"):format(quote(folder),
    quote(package.path), quote(package.cpath), interpreter or LUA, quote(script)))
end

-- The same in a process that has preloaded a library with `names`.
local function required_with(version, names, symbol_version, flags)
  local path = library("program.so", functions(names, version), flags or "", symbol_version)
  return required(nil, ("assert(package.loadlib(%q, '*'))\n"):format(path))
end

local function refused(problem, version)
  assert.truthy(problem:find("libcurl is linked with OpenSSL 3.5.9", 1, true), problem)
  assert.truthy(problem:find("this program has " .. version, 1, true), problem)
  assert.truthy(problem:find("a TLS connection would crash: install a libcurl that", 1, true), problem)
end

describe("require 'nymbl' if libcurl is linked with OpenSSL 3.5 #core", function()
  before_each(function()
    folder = helper.temporary("-tls")
    assert(os.execute("mkdir " .. quote(folder)))
  end)

  local NEEDS = join(OLD, NEW)

  local function own(given)
    local all = { version = "OpenSSL 3.5.9 29 Sep 2026", needs = NEEDS, symbol_version = "OPENSSL_3.0.0" }
    for name, value in pairs(given or {}) do all[name] = value end
    return all
  end

  for _, flags in ipairs { "-Wl,-z,now", "-Wl,-z,lazy", "-fno-plt", "-Wl,-z,now -Wl,--hash-style=sysv -s",
                           "-Wl,-z,now -Wl,-z,pack-relative-relocs -Wl,-z,norelro" } do
    describe("and everything is built with " .. flags, function()
      before_each(function() libcurl_make(own { flags = flags }) end)

      it("accepts a process without another TLS library", function()
        assert.equal("good", required())
      end)

      it("refuses an older library of the same major version, whatever it lacks", function()
        for _, names in ipairs { OLD, join(OLD, { NEW[1] }), NEEDS } do
          refused(required_with("OpenSSL 3.0.19 27 Jan 2026", names), "OpenSSL 3.0.19")
        end
      end)

      it("refuses a newer library that lacks a function", function()
        for _, missing in ipairs(NEEDS) do
          local problem = required_with("OpenSSL 3.6.0 1 Oct 2025", except(NEEDS, missing))
          assert.truthy(problem:find("for some functions", 1, true), missing .. ": " .. problem)
        end
      end)

      it("refuses a library with a single function, even a function for the TLS library itself", function()
        for _, name in ipairs(join(NEEDS, { "EVP_sha256", "BN_new" })) do
          local problem = required_with("OpenSSL 3.6.0", { name })
          assert.truthy(problem:find("would crash", 1, true), name .. ": " .. problem)
          assert.truthy(problem:find("(" .. name .. ")", 1, true), problem)
        end
      end)

      it("accepts a newer library with every function, and a part of the same minor version", function()
        assert.equal("good", required_with("OpenSSL 3.6.0 1 Oct 2025", NEEDS))
        assert.equal("good", required_with("OpenSSL 3.5.1 1 Jul 2025", OLD))
      end)

      it("accepts a library separated by symbol versions", function()
        assert.equal("good", required_with("OpenSSL 1.1.1w", NEEDS, "OPENSSL_1_1_0"))
      end)
    end)
  end

  it("refuses an older library with the same symbol version", function()
    libcurl_make(own())
    refused(required_with("OpenSSL 3.0.19", OLD, "OPENSSL_3.0.0"), "OpenSSL 3.0.19")
  end)

  it("detects symbols visible only to libcurl, because it was loaded together with a library that has one", function()
    libcurl_make(own())
    local path = library("local.so", functions(NEEDS, "OpenSSL 3.0.19") .. "void luaopen(void) {}\n"
      .. calls("caller", { "curl_version_info" }), "./libcurl.so.4")
    refused(required(nil, ("assert(package.loadlib(%q, 'luaopen'))\n"):format(path)), "OpenSSL 3.0.19")
  end)

  it("refuses functions from several libraries", function()
    libcurl_make(own())
    local before = {}
    for i, names in ipairs { { "OpenSSL_version" }, { "SSL_CTX_new" }, except(except(NEEDS, "SSL_CTX_new"),
                                                                               "OpenSSL_version") } do
      before[i] = ("assert(package.loadlib(%q, '*'))\n"):format(
        library(("program%d.so"):format(i), functions(names, "OpenSSL 3.5.9"), ""))
    end
    assert.truthy(required(nil, table.concat(before)):find("would crash", 1, true))
  end)

  it("works without symbol versions", function()
    libcurl_make(own { symbol_version = false })
    assert.equal("good", required())
    assert.equal("good", required_with("OpenSSL 3.6.0", NEEDS))
    refused(required_with("OpenSSL 3.0.19", NEEDS), "OpenSSL 3.0.19")
  end)

  it("works if the TLS library is linked into libcurl", function()
    libcurl_make(own { is_inside = true, symbol_version = false })
    assert.equal("good", required())
    refused(required_with("OpenSSL 3.0.19", NEEDS), "OpenSSL 3.0.19")
    assert.truthy(required_with("OpenSSL 3.6.0", { NEW[1] }):find("would crash", 1, true))
    assert.equal("good", required_with("", { "curl_easy_init" }))
  end)

  -- A program that runs a script like the interpreter.
  local function program(source, flags)
    local name = rawget(_G, "jit") and "luajit" or "lua" .. _VERSION:match("%d+%.%d+")
    return compile("program", [[
      #include <lua.h>
      #include <lauxlib.h>
      #include <lualib.h>
      #include <stdio.h>
      int main(int argc, char **argv)
      {
          lua_State *L = luaL_newstate();
          luaL_openlibs(L);
          if (luaL_loadfile(L, argv[1]) || lua_pcall(L, 0, 0, 0))
              puts(lua_tostring(L, -1));
          return 0;
      }
    ]] .. source, ("$(pkg-config --cflags %s) -Wl,-E %s $(pkg-config --libs %s) -lm"):format(name, flags, name))
  end

  it("refuses a program with an older library linked in", function()
    libcurl_make(own())
    for _, flags in ipairs { "-pie -fPIE", "-no-pie" } do
      refused(required(program(functions(OLD, "OpenSSL 3.0.19"), flags)), "OpenSSL 3.0.19")
      assert.equal("good", required(program(functions(NEEDS, "OpenSSL 3.6.0"), flags)))
    end
  end)

  it("accepts a program that is linked with the same libraries", function()
    for _, flags in ipairs { "-Wl,-z,now", "-fno-plt", "-Wl,-z,lazy" } do
      libcurl_make(own { flags = flags })
      -- a non-PIE program has a stub for each function whose address it uses
      assert.equal("good", required(program("extern void *SSL_CTX_new(); void *take(void) { return SSL_CTX_new; }\n",
        "-no-pie -fno-pie -Wl,-rpath-link,. ./libssl.so.3 ./libcrypto.so.3 ./libcurl.so.4")))
    end
  end)
end)

describe("require 'nymbl' if libcurl is linked with another library #core", function()
  for _, case in ipairs {
    { "OpenSSL 1.1.1w  11 Sep 2023", good = { "OpenSSL 1.1.1n  15 Mar 2022" },
      bad = { "OpenSSL 1.1.0l  10 Sep 2019", "OpenSSL 1.0.2u  20 Dec 2019", "OpenSSL 3.0.19", "LibreSSL 1.1.1" } },
    { "LibreSSL 3.8.2", good = { "LibreSSL 3.8.2" }, bad = { "LibreSSL 3.9.0", "OpenSSL 3.8.2", "LibreSSL 3.8" } },
    { "BoringSSL", good = {}, bad = { "BoringSSL", "OpenSSL 3.5.9", "" } },
    { "OpenSSL 3.0.2 15 Mar 2022", good = { "OpenSSL 3.10.0", "OpenSSL 3.0.19" },
      bad = { "OpenSSL 4.0.0", "OpenSSL 2.0.2", "OpenSSL 3", "OpenSSL" } },
  } do
    it("detects libraries that can replace " .. case[1], function()
      folder = helper.temporary("-tls")
      assert(os.execute("mkdir " .. quote(folder)))
      libcurl_make { version = case[1], needs = OLD }
      for _, version in ipairs(case.good) do assert.equal("good", required_with(version, OLD)) end
      for _, version in ipairs(case.bad) do
        local problem = required_with(version, OLD)
        assert.truthy(problem:find("would crash", 1, true), version .. ": " .. problem)
      end
    end)
  end
end)
