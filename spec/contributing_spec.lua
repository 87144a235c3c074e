-- SPDX-License-Identifier: MIT
-- What spec/README.md and .github/ tell contributors: their examples run, and what they name exists.

local helper = require "helper"

local quote = helper.quote
local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")
local GUIDE = helper.read_file(helper.path("spec/README.md"))

-- Run a command in the root of the repository; whether it succeeded, and its output.
local function try(command)
  local log = helper.temporary(".log")
  local status = helper.output(("cd %s; { %s; } </dev/null >%s 2>&1; echo $?"):format(quote(ROOT), command, quote(log)))
  return status == "0", helper.read_file(log)
end

local function run(command)
  local ok, text = try(command)
  assert(ok, command .. "\n" .. text)
  return text
end

local function blocks(language)
  local found = {}
  for text in GUIDE:gmatch("\n```" .. language .. " skip\n(.-\n)```") do found[#found + 1] = text end
  return found
end

describe("the guide to the tests #once", function()
  it("has a spec that passes", function()
    local found = blocks "lua"
    assert.equal(1, #found)
    local spec = helper.write_file(helper.temporary("_spec.lua"), found[1])
    local text = run("busted --lua=lua5.4 -o plainTerminal --cpath './build/?.so' " .. quote(spec))
    assert.matches("2 successes / 0 failures / 0 errors / 0 pending", text, 1, true)
    assert.equal("", (run("luacheck -q --no-color --std +busted " .. quote(spec)):gsub("Total: 0 warnings[^\n]*\n", "")))
  end)

  it("has a C test that passes", function()
    local found = blocks "c"
    assert.equal(1, #found)
    local source, program = helper.write_file(helper.temporary(".c"), found[1]), helper.temporary("-test")
    run(("cc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -DNYMBL_STATIC -Icore -Ispec/core -o %s %s spec/core/test.c build/libnymbl.a "
      .. "-lcurl -ldl -pthread"):format(quote(program), quote(source)))
    assert.matches("1 tests, 0 failed, 0 skipped", run(quote(program)), 1, true)
  end)

  it("names commands, stages, files and tests that exist", function()
    local found = blocks "sh"
    assert.equal(3, #found)
    for line in found[3]:gmatch("[^\n]+") do helper.read_file(ROOT .. "/" .. line:match("spec/%S+")) end
    local script = helper.read_file(helper.path("spec/run"))
    local stages = {}
    for name in script:match("stages: ([^\n]+)\n"):gmatch("%S+") do stages[name] = true end
    local count = 0
    for line in found[1]:gmatch("[^\n]+") do
      local command, filter = line:gsub("%s+#.*$", ""), nil
      local arguments = assert(command:match("^spec/run(.*)$"), command)
      arguments = arguments:gsub('%-%-filter "(.-)"', function(text)
        filter = text
        return ""
      end)
      for word in arguments:gmatch("%S+") do
        if word:match("^spec/") then
          local spec = helper.read_file(ROOT .. "/" .. word)
          assert.is_true(not filter or spec:find(filter, 1, true) ~= nil, line)
        elseif word:match("^%-%-") then
          assert.is_not_nil(script:find(word .. ")", 1, true), word)
        else
          assert.is_true(stages[word], word)
        end
      end
      count = count + 1
    end
    assert.is_true(count > 4)
  end)

  it("runs single tests", function()
    for line in blocks("sh")[2]:gmatch("[^\n]+") do
      -- another ctest may be running in that directory: only list the tests
      local text = run((line:gsub("^ctest", "ctest -N")))
      local count = text:match("(%d+) success") or text:match("Total Tests: (%d+)") or text:match("(%d+) tests, 0 failed")
      assert.is_true(tonumber(count) > 0, line)
    end
  end)

  it("names every directory of tests, and files that exist", function()
    for name in GUIDE:gmatch("`([%w_/]+_spec%.lua)`") do assert.is_true(helper.exists(helper.path("spec/" .. name)), name) end
    for name in GUIDE:gmatch("`(core/[%w_]+%.c)`") do
      if name ~= "core/test_NAME.c" then assert.is_true(helper.exists(helper.path("spec/" .. name)), name) end
    end
    for name in GUIDE:gmatch("helper%.([%w_]+)%(") do assert.is_function(helper[name]) end
  end)
end)

describe("the pages for contributors #once", function()
  it("link to files that exist", function()
    local count = 0
    for _, page in ipairs { "spec/README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md", ".github/CHANGELOG.md" } do
      local folder = page:match("^.*/")
      for link in helper.read_file(helper.path(page)):gmatch("%]%(([^)#]+)") do
        if not link:match("^https:") then
          assert.is_true(helper.exists(helper.path(folder .. link)), page .. ": " .. link)
          count = count + 1
        end
      end
    end
    assert.is_true(count > 8)
  end)

  it("name the version", function()
    local version = helper.read_file(helper.path("core/nymbl.h")):match('define NYMBL_VERSION "([^"]+)"')
    assert.equal(version, helper.read_file(helper.path(".github/CHANGELOG.md")):match("\n## ([%d.]+)"))
  end)
end)
