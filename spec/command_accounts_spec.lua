-- SPDX-License-Identifier: MIT
-- The command `nymbl`: whole accounts. What patients, copy, check, export and upload --once do, with and
-- without a terminal, and if they are killed.

local command = require "command"
local helper = require "helper"

local quote = helper.quote

local FIXTURES = helper.output("realpath " .. quote(helper.path("spec/fixtures")))
local PDF = FIXTURES .. "/referral.pdf"

local function add(patient, fields)
  return helper.add_document({ patient = patient, file_name = "a.pdf", content_type = "application/pdf",
                               content = "%PDF-1.4 a", document_type = "Referral" }, fields).id
end

-- A generator that is the same in all versions of Lua.
local function random_from(seed)
  local state = seed
  return function()
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
  end
end

-- A run without the rate limit of the runs before.
local function fresh(options)
  options = options or {}
  options.env = options.env or {}
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

-- The paths of the files below a folder, sorted.
local function files(folder)
  return helper.output(("cd %s && find . -type f ! -name .nymbl-export ! -name manifest.jsonl | sort"):format(quote(folder)))
end

before_each(function()
  helper.reset()
  command.home()
end)

describe("nymbl patients", function()
  it("prints the ids, and the fields of --select", function()
    add "1"
    add "2"
    assert.equal(0, (both({ "patients" }, "1\n2\n")))
    assert.equal(0, (both({ "patients", "--top", "1", "--select", "active, first_name" }, "1\ttrue\t-\n")))
    local _, out = command.run({ "patients", "--json" }, fresh())
    assert.same({ { id = "1" }, { id = "2" } }, command.objects(out))
    _, out = command.run({ "patients", "--json", "--top", "1", "--select", "first_name" }, fresh())
    assert.equal('{"first_name":null,"id":"1"}\n', out)
  end)
end)

describe("nymbl copy", function()
  it("copies a document, and prints both ids", function()
    local id = add("1", { description = "d" })
    local status, out, err = command.run({ "copy", "1", id, "2" }, fresh())
    assert.equal(0, status, err)
    local stored = helper.stored("2")
    assert.equal(1, #stored)
    assert.equal(id .. "\t" .. stored[1].id .. "\n", out)
    assert.equal("d", stored[1].metadata.description)
    local requests = #helper.journal()
    status, out = command.run({ "copy", "1", id, "2", "--dry-run", "--json" }, fresh())
    assert.equal(0, status)
    assert.same({ operand = id, would = { requests = requests } }, command.objects(out)[1])
    assert.equal(requests, #helper.journal())
    _, out = command.run({ "copy", "1", id, "2", "--json" }, fresh())
    assert.equal(id, command.objects(out)[1].operand)
    assert.equal(0, (command.run_in_terminal({ "copy", "1", id, "2" }, fresh())))
    assert.equal(3, #helper.stored("2"))
    assert.equal(3, (command.run({ "copy", "1", "none", "2" }, fresh())))
  end)

  it("ends with 7 if it may have been carried out", function()
    local id = add "1"
    helper.faults { operation = "upload", action = { lost_reply = "reset" }, times = 1 }
    assert.equal(7, (command.run({ "copy", "1", id, "2" }, fresh())))
  end)
end)

describe("nymbl check", function()
  local folder

  before_each(function() folder = helper.directory() end)

  it("says what differs, and ends with 1", function()
    local first, second = add("1", { file_name = "a.pdf" }), add("1", { file_name = "b.pdf" })
    helper.write_file(folder .. "/a.pdf", "%PDF-1.4 a")
    local status, out, err = command.run({ "check", "1", folder }, fresh())
    assert.equal(1, status)
    assert.equal("missing_here\t" .. second .. "\tb.pdf\n", out)
    assert.equal("1 the same, 1 missing here, 0 missing there, 0 different\n", err)
    helper.write_file(folder .. "/b.pdf", "another size")
    helper.write_file(folder .. "/c\27.pdf", "")
    status, out = command.run({ "check", "1", folder }, fresh())
    assert.equal(1, status)
    assert.equal("missing_there\t-\tc?.pdf\ndifferent\t" .. second .. "\tb.pdf\n", out)
    local _, text = command.run({ "check", "1", folder, "--json" }, fresh())
    local report = command.objects(text)[1]
    assert.equal("different missing_here missing_there same", keys(report))
    assert.equal(first, report.same[1].document.id)
    assert.same({}, report.missing_here)
    assert.matches('"missing_here":%[%]', text)
    status, out, err = command.run({ "check", "1", folder, "--quiet" }, fresh())
    assert.equal("1", status .. out .. err)
  end)

  it("ends with 0 if nothing differs, and compares contents with --verify", function()
    add "1"
    helper.write_file(folder .. "/a.pdf", "%PDF-1.4 b")
    assert.equal(0, (command.run({ "check", "1", folder }, fresh())))
    assert.equal(1, (command.run({ "check", "1", folder, "--verify" }, fresh())))
    helper.write_file(folder .. "/a.pdf", "%PDF-1.4 a")
    assert.equal(0, (command.run({ "check", "1", folder, "--verify" }, fresh())))
    assert.equal(0, (command.run_in_terminal({ "check", "1", folder }, fresh())))
  end)

  it("ends with 1 if there is no folder", function()
    local status, _, err = command.run({ "check", "1", folder .. "/none" }, fresh())
    assert.equal(1, status)
    assert.matches("^nymbl: io %(not_found%)", err)
  end)
end)
