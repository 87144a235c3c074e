-- SPDX-License-Identifier: MIT
-- examples/quickstart, in a copy of the checkout that has not been built.

local helper = require "helper"

local quote = helper.quote

-- Run a command. Returns its exit status and output.
local function run(command)
  local log = helper.temporary(".log")
  local status = helper.output(("{ %s; } </dev/null >%s 2>&1; echo $?"):format(command, quote(log)))
  return tonumber(status), helper.read_file(log)
end

-- The files left in its temporary directory, and the processes that use it. A terminated process may
-- take a moment to end.
local function left_over(folder)
  local processes = helper.output(([[for i in $(seq 50); do
    found=$(grep -lsF TMPDIR=%s /proc/[0-9]*/environ) || break
    sleep 0.1
  done; echo "$found"]]):format(quote(folder)))
  return helper.output("ls -A " .. quote(folder)) .. processes
end

describe("examples/quickstart #slow #quickstart", function()
  local checkout, temporary, command

  setup(function()
    checkout, temporary = helper.temporary("-checkout"), helper.temporary("-tmp")
    local status, text = run(("mkdir %s %s && cd %s && cp -R CMakeLists.txt core examples lua spec %s"):format(
      quote(checkout), quote(temporary), quote(helper.path(".")), quote(checkout)))
    assert(status == 0, text)
    command = ("cd / && env TMPDIR=%s %s/examples/quickstart"):format(quote(temporary), quote(checkout))
  end)

  -- twice: the first run builds, the second finds the build
  for _, time in ipairs { "first", "second" } do
    it("prints each step and cleans up, the " .. time .. " time", function()
      local status, text = run(command)
      assert(status == 0, text)
      for number = 1, 7 do
        assert.matches("\n" .. number .. "%. ", text)
      end
      local _, same = text:gsub("  the same\n", "")
      assert.equal(5, same)
      assert.matches("> 4 documents are left\n", text)
      assert.matches("> downloaded\t4\n.*> downloaded\t0\n +> unchanged\t4\n", text)
      assert.equal("", left_over(temporary))
    end)
  end

  it("fails and cleans up if a step fails", function()
    local fixture = checkout .. "/spec/fixtures/photo.jpg"
    assert(os.rename(fixture, fixture .. ".away"))
    local status, text = run(command)
    assert(os.rename(fixture .. ".away", fixture))
    assert.equal(1, status)
    assert.matches("nymbl: upload: io", text)
    assert.matches("failed in step 2%. ", text)
    assert.matches("\nquickstart: the tour broke off", text)
    assert.equal("", left_over(temporary))
  end)

  it("fails and cleans up if the sandbox does not start", function()
    local part = checkout .. "/examples/sandbox/server.lua"
    assert(os.rename(part, part .. ".away"))
    local status, text = run(command)
    assert(os.rename(part .. ".away", part))
    assert.equal(1, status)
    assert.matches("\nquickstart: the sandbox did not start\n$", text)
    assert.equal("", left_over(temporary))
  end)

  it("cleans up if it is terminated halfway", function()
    local script = helper.write_file(helper.temporary(".sh"), [[
      "$1" >"$2" &
      until grep -qs "^Starting the sandbox" "$2" || ! kill -0 $!; do sleep 0.01; done
      kill $!
      wait $!
    ]])
    local status = run(("env TMPDIR=%s sh %s %s %s"):format(quote(temporary), quote(script),
      quote(checkout .. "/examples/quickstart"), quote(helper.temporary(".out"))))
    assert.equal(128 + 15, status)
    assert.equal("", left_over(temporary))
  end)
end)
