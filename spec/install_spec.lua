-- SPDX-License-Identifier: MIT
-- What CMake says and keeps when it configures.

local helper = require "helper"

local quote = helper.quote
local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")
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
