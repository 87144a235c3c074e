-- SPDX-License-Identifier: MIT
-- The command `nymbl`: upload --once, with and without a terminal, and if it is killed.

local command = require "command"
local helper = require "helper"

local quote = helper.quote

local PDF = helper.output("realpath " .. quote(helper.path("spec/fixtures/referral.pdf")))

local clock = command.clock()

local keys, random_from = command.keys, command.random_from

local function fresh(options)
  return command.fresh(clock, options)
end

local function both(arguments, expected, options)
  return command.both(clock, arguments, expected, options)
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

  local function row(...)
    return table.concat({ ... }, "\t") .. "\n"
  end

  it("uploads each file once, whatever its path", function()
    local size = #helper.read_file(PDF)
    local status, out, err = command.run({ "upload", "1", PDF, "--once", journal, "--type", "Referral" }, fresh())
    assert.equal(0, status, err)
    local requests = #helper.journal()
    local id = helper.stored("1")[1].id
    assert.equal(row(PDF, id) .. report(1, 0, requests, size), out)
    local copy = helper.directory() .. "/referral.pdf"
    helper.write_file(copy, helper.read_file(PDF))
    assert.equal(0, (both({ "upload", "1", copy, "--once", journal }, row(copy, id) .. report(0, 1, 0, 0))))
    status, out = command.run({ "upload", "1", "-", "-0", "--once", journal, "--quiet" }, fresh { input = PDF .. "\0" })
    assert.same({ 0, "" }, { status, out })
    assert.equal(1, #helper.stored("1"))
    assert.equal("Referral", helper.stored("1")[1].metadata.document_type)
  end)

  -- A run of few requests, which waits for nothing.
  local function few(options)
    options = options or {}
    options.env = { XDG_STATE_HOME = helper.directory() }
    return options
  end

  -- Four files: one that the journal knows, one whose upload is lost, one that can be sent, and one that
  -- does not exist.
  local function four_files()
    local folder, paths = helper.directory(), {}
    for i = 1, 3 do paths[i] = helper.write_file(("%s/%d.pdf"):format(folder, i), "%PDF-1.4 number " .. i) end
    paths[4] = folder .. "/4.pdf"
    assert.equal(0, (command.run({ "upload", "1", paths[1], "--once", journal }, few())))
    helper.faults({ operation = "upload", times = 1, action = { before = "close" } },
      { operation = "list", skip = 1, times = -1, action = { status = 403 } })
    return paths
  end

  -- The id of the stored document of a path.
  local function id_of(path)
    for _, entry in ipairs(helper.stored "1") do
      if entry.metadata.file_name == path:match "[^/]*$" then return entry.id end
    end
  end

  it("has a line for each file, and then the report", function()
    local paths = four_files()
    local status, out, err = command.run({ "upload", "1", "-", "--once", journal, "--jobs", "1" },
      few { input = table.concat(paths, "\n") })
    assert.equal(7, status)
    assert.matches("^nymbl: .*\nnymbl: ", err)
    local expected = { row(paths[1], id_of(paths[1])), row(paths[3], id_of(paths[3])), row(paths[4], "failed: io"),
      row(paths[2], "outcome unknown") }
    local lines = command.lines(out)
    assert.equal(4 + 6, #lines)
    for i = 1, 4 do
      local found
      for n = 1, 4 do found = found or lines[n] .. "\n" == expected[i] end
      assert.is_true(found, out)
    end
    assert.same({ "uploaded\t1", "unchanged\t1", "failed\t1", "unknown\t1" }, { lines[5], lines[6], lines[7], lines[8] })
  end)

  it("has an object for each file with --json, and then the report", function()
    local paths = four_files()
    local _, out = command.run({ "upload", "1", "-", "--once", journal, "--jobs", "1", "--json" },
      few { input = table.concat(paths, "\n") })
    local objects, by_operand = command.objects(out), {}
    assert.equal(5, #objects)
    for i = 1, 4 do by_operand[objects[i].operand] = objects[i] end
    local known, unknown, sent, failed = by_operand[paths[1]], by_operand[paths[2]], by_operand[paths[3]], by_operand[paths[4]]
    assert.same({ operand = paths[1], id = id_of(paths[1]), patient_id = "1", file_name = "1.pdf", file_size_bytes = 17 }, known)
    assert.equal(id_of(paths[3]), sent.id)
    assert.equal("application/pdf", sent.content_type)
    assert.equal("error operand", keys(unknown))
    assert.is_true(unknown.error.outcome_unknown)
    assert.equal("error operand", keys(failed))
    assert.equal("not_found", failed.error.reason)
    local last = objects[5]
    assert.same({ 1, 1, 1, 1 }, { last.uploaded, last.unchanged, last.failed, last.unknown })
  end)

  it("has a line for files that were not tried, because another one's failure is that of all", function()
    helper.faults { operation = "list", times = -1, action = { status = 403 } }
    local paths = {}
    for i = 1, 5 do paths[i] = helper.write_file(helper.temporary(".pdf"), "%PDF-1.4 number " .. i) end
    local input, expected = table.concat(paths, "\n"), ""
    for _, path in ipairs(paths) do expected = expected .. row(path, "failed: forbidden") end
    local status, out = command.run({ "upload", "1", "-", "--once", journal }, few { input = input })
    assert.equal(4, status)
    assert.equal(expected, out:match "^(.*\n)uploaded\t")
    out = select(2, command.run({ "upload", "1", "-", "--once", journal, "--json" }, few { input = input }))
    local objects = command.objects(out)
    assert.equal(6, #objects)
    for i = 1, 5 do assert.same({ paths[i], "forbidden" }, { objects[i].operand, objects[i].error.kind }) end
    assert.equal("forbidden", objects[6].stopped)
  end)

  it("has the keys of the report with --json", function()
    local _, out = command.run({ "upload", "1", PDF, "/nowhere.pdf", "--once", journal, "--json" }, fresh())
    local result = command.objects(out)[3]
    assert.equal("bytes complete errors failed requests unchanged unknown uploaded", keys(result))
    assert.equal("/nowhere.pdf", result.errors[1].path)
    assert.equal("not_found", result.errors[1].err.reason)
    _, out = command.run({ "upload", "1", PDF, "--once", helper.temporary(), "--json", "--dry-run" }, fresh())
    local objects = command.objects(out)
    assert.same({ operand = PDF, would = { requests = 1, bytes = 8872 } }, objects[1])
    assert.is_number(objects[2].would.requests)
    _, out = command.run({ "upload", "1", PDF, "--once", helper.temporary(), "--dry-run" }, fresh())
    out = assert(out:match("^[^\n]*\twould be uploaded, 8872 bytes\t1 request\n(.*)$"), out)
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

  -- The clock of this spec must not skip the time that a response takes.
  it("waits for a slow token", function()
    helper.faults { operation = "token", action = { delay = 0.5 } }
    local paths = {}
    for i = 1, 3 do paths[i] = helper.write_file(helper.temporary(".pdf"), "%PDF-1.4 number " .. i) end
    local status, _, err = command.run({ "upload", "1", "-", "--once", journal }, fresh { input = table.concat(paths, "\n") })
    assert.same({ 0, "" }, { status, err })
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
      for _, entry in ipairs(helper.stored("1")) do
        assert.is_nil(found[entry.sha256], ("seed %d: uploaded twice"):format(seed))
        found[entry.sha256] = true
      end
    end
    helper.tried(32, "runs ended by a signal")
  end)
end)
