-- SPDX-License-Identifier: MIT
-- The command `nymbl`: upload --once, with and without a terminal, and if it is killed.

local command = require "command"
local helper = require "helper"

local quote = helper.quote

local PDF = helper.output("realpath " .. quote(helper.path("spec/fixtures/referral.pdf")))

local clock = command.clock()

-- A generator that is the same in all versions of Lua.
local function random_from(seed)
  local state = seed
  return function()
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
  end
end

-- A run without the rate limit of the runs before, which skips all sleeps.
local function fresh(options)
  options = options or {}
  options.env = options.env or {}
  for name, value in pairs(clock) do options.env[name] = value end
  options.env.XDG_STATE_HOME = helper.directory()
  return options
end

-- Run without and with a terminal. Both must end with the same status and print the same data.
local function both(arguments, expected, options)
  local status, out, err = command.run(arguments, fresh(options))
  assert.equal("", err)
  assert.equal(expected, out)
  local file = helper.temporary(".out")
  options = fresh(options)
  options.stdout = file
  local in_terminal, screen = command.run_in_terminal(arguments, options)
  assert.equal(status, in_terminal, screen)
  assert.equal(expected, helper.read_file(file))
  return status, screen
end

local function keys(object)
  local names = {}
  for name in pairs(object) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, " ")
end

before_each(function()
  helper.reset()
  command.home()
end)

describe("nymbl upload --once", function()
  local journal

  before_each(function() journal = helper.temporary ".journal" end)

  local function report(uploaded, unchanged, requests, bytes)
    return ("uploaded\t%d\nunchanged\t%d\nfailed\t0\nunknown\t0\nrequests\t%d\nbytes\t%d\n"):format(uploaded, unchanged,
      requests, bytes)
  end

  it("uploads each file once, whatever its path", function()
    local size = #helper.read_file(PDF)
    local status, out, err = command.run({ "upload", "1", PDF, "--once", journal, "--type", "Referral" }, fresh())
    assert.equal(0, status, err)
    local requests = #helper.journal()
    assert.equal(report(1, 0, requests, size), out)
    local copy = helper.directory() .. "/referral.pdf"
    helper.write_file(copy, helper.read_file(PDF))
    assert.equal(0, (both({ "upload", "1", PDF, "--once", journal }, report(0, 1, 0, 0))))
    assert.equal(0, (command.run({ "upload", "1", "-", "-0", "--once", journal, "--quiet" }, fresh { input = PDF .. "\0" })))
    assert.equal(1, #helper.stored("1"))
    assert.equal("Referral", helper.stored("1")[1].metadata.document_type)
  end)

  it("has the keys of the report with --json", function()
    local _, out = command.run({ "upload", "1", PDF, "/nowhere.pdf", "--once", journal, "--json" }, fresh())
    local result = command.objects(out)[1]
    assert.equal("bytes complete errors failed requests unchanged unknown uploaded", keys(result))
    assert.equal("/nowhere.pdf", result.errors[1].path)
    assert.equal("not_found", result.errors[1].err.reason)
    _, out = command.run({ "upload", "1", PDF, "--once", helper.temporary(), "--json", "--dry-run" }, fresh())
    assert.is_number(command.objects(out)[1].would.requests)
    _, out = command.run({ "upload", "1", PDF, "--once", helper.temporary(), "--dry-run" }, fresh())
    assert.matches("^would be uploaded\t1\nunchanged\t0\nfailed\t0\nunknown\t0\nrequests\t%d\nbytes\t8872\n$", out)
    assert.equal(1, #helper.stored("1"))
  end)

  it("ends with 8 if some failed, and with 7 if it is unknown whether a file arrived", function()
    assert.equal(8, (command.run({ "upload", "1", PDF, "/nowhere.pdf", "--once", journal }, fresh())))
    assert.equal(1, (command.run({ "upload", "1", "/nowhere.pdf", "--once", journal }, fresh())))
    helper.faults({ operation = "upload", times = 1, action = { before = "close" } },
      { operation = "list", skip = 1, times = -1, action = { status = 403 } })
    local other = helper.write_file(helper.temporary(".pdf"), "%PDF-1.4 other")
    assert.equal(7, (command.run({ "upload", "1", other, "--once", journal }, fresh())))
  end)

  it("killed at a random moment uploads nothing twice #slow", function()
    local paths = {}
    for i = 1, 8 do paths[i] = helper.write_file(helper.temporary(".pdf"), "%PDF-1.4 number " .. i) end
    local input = table.concat(paths, "\0") .. "\0"
    for seed = 1, 16 do
      helper.reset()
      helper.faults { operation = "upload", times = -1, action = { delay = 0.05, delay_effect = 0.05 } }
      local random = random_from(300 + seed)
      journal = helper.temporary ".journal"
      for _ = 1, 2 do
        local list = helper.write_file(helper.temporary(), input)
        local options = fresh()
        options.before = "exec <" .. quote(list)
        local run = command.start({ "upload", "1", "-", "-0", "--once", journal }, options)
        os.execute(("sleep %.3f"):format(random() * 0.7))
        command.signal(run, random() < 0.5 and "INT" or "TERM")
        local status, _, err = command.finish(run)
        local line = ("seed %d: status %d, %s"):format(seed, status, err)
        assert.is_true(status == 0 or status == 130 or status == 143, line)
        if err ~= "" then assert.matches("nymbl: stopped by SIG%u+: .*\n$", err, nil, line) end
      end
      os.execute "sleep 0.2" -- what was sent is carried out
      command.run({ "upload", "1", "-", "-0", "--once", journal }, fresh { input = input })
      local found = {}
      for _, row in ipairs(helper.stored("1")) do
        assert.is_nil(found[row.sha256], ("seed %d: uploaded twice"):format(seed))
        found[row.sha256] = true
      end
    end
  end)
end)
