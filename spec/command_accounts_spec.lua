-- SPDX-License-Identifier: MIT
-- The command `nymbl`: whole accounts. What patients, copy, check and export do, with and without a
-- terminal, and if an export is killed.

local command = require "command"
local helper = require "helper"

local quote = helper.quote

local clock = command.clock()

local function add(patient, fields)
  return helper.add_document({ patient = patient, file_name = "a.pdf", content_type = "application/pdf",
                               content = "%PDF-1.4 a", document_type = "Referral" }, fields).id
end

local keys, random_from = command.keys, command.random_from

local function fresh(options)
  return command.fresh(clock, options)
end

local function both(arguments, expected, options)
  return command.both(clock, arguments, expected, options)
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
    out = select(2, command.run({ "copy", "1", id, "2", "--json" }, fresh()))
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
    assert.equal("nymbl: 1 the same, 1 missing here, 0 missing there, 0 different\n", err)
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

describe("nymbl export", function()
  local folder

  before_each(function() folder = helper.temporary() end)

  -- An export as it is reported in columns.
  local function report(patients, downloaded, unchanged, requests, bytes)
    return ("patients\t%d\ndownloaded\t%d\nunchanged\t%d\ngone\t0\nfailed\t0\nrequests\t%d\nbytes\t%d\n"):format(patients,
      downloaded, unchanged, requests, bytes)
  end

  it("downloads everything, and then only what is new", function()
    add "1"
    add "2"
    assert.equal(0, (both({ "export", "--to", folder, "--dry-run" },
      (report(2, 2, 0, 5, 20):gsub("downloaded", "would be downloaded")))))
    assert.is_false(helper.exists(folder))
    local status, out, err = command.run({ "export", "--to", folder }, fresh())
    assert.equal(0, status, err)
    assert.equal(report(2, 2, 0, 5, 20), out)
    assert.equal(2, #command.lines(files(folder)))
    assert.equal(0, (both({ "export", "--to", folder }, report(2, 0, 2, 3, 0))))
    add "2"
    status, out, err = command.run({ "export", "--to", folder, "--quiet" }, fresh())
    assert.equal("0", status .. out .. err)
    assert.equal(3, #command.lines(files(folder)))
  end)

  it("exports some patients, also those of standard input, and none if there are none", function()
    for _, patient in ipairs { "1", "2", "3" } do add(patient) end
    assert.equal(0, (command.run({ "export", "1", "--to", folder }, fresh())))
    assert.equal(1, #command.lines(files(folder)))
    assert.equal(0, (command.run({ "export", "-", "--to", folder }, fresh { input = "2\n" })))
    assert.equal(2, #command.lines(files(folder)))
    local requests = #helper.journal()
    assert.equal(0, (command.run({ "export", "-", "--to", folder }, fresh { input = "" })))
    assert.equal(requests, #helper.journal())
  end)

  it("has the keys of the report with --json", function()
    add "1"
    local _, out = command.run({ "export", "--to", folder, "--json", "--dry-run" }, fresh())
    assert.equal("bytes complete downloaded errors failed gone patients requests unchanged would", keys(command.objects(out)[1]))
    assert.same({ requests = 3, downloads = 1, bytes = 10 }, command.objects(out)[1].would)
    out = select(2, command.run({ "export", "--to", folder, "--json" }, fresh()))
    assert.equal("bytes complete downloaded errors failed gone patients requests unchanged", keys(command.objects(out)[1]))
    assert.matches('"errors":%[%]', out)
  end)

  it("ends with 6 if the budget or the month is spent, and continues the next time", function()
    for i = 1, 4 do add("1", { content = "%PDF-1.4 " .. i }) end
    local status, out, err = command.run({ "export", "1", "--to", folder, "--budget", "3", "--json" }, fresh())
    assert.equal(6, status)
    assert.equal("budget", command.objects(out)[1].stopped)
    assert.equal("nymbl: ended early (budget): the next run continues\n", err)
    status, out, err = command.run({ "export", "1", "--to", folder, "--budget", "2", "--quiet" }, fresh())
    assert.equal("6", status .. out .. err)
    helper.faults { operation = "download", times = -1, action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
    status, out, err = command.run({ "export", "1", "--to", folder, "--quiet" }, fresh())
    assert.equal("6", status .. out)
    assert.matches("^nymbl: download: quota 429: ", err)
    helper.faults()
    assert.equal(0, (command.run({ "export", "1", "--to", folder }, fresh())))
    assert.equal(4, #command.lines(files(folder)))
  end)

  it("ends with 8 if a part of it failed, and with the status of all failures otherwise", function()
    local first = add "1"
    add "1"
    helper.faults { operation = "download", path_contains = first, times = -1, action = { status = 404 } }
    local status, out, err = command.run({ "export", "1", "--to", folder, "--json" }, fresh())
    assert.equal(8, status)
    local failure = command.objects(out)[1].errors[1]
    assert.equal(first, failure.id)
    assert.equal("1", failure.patient_id)
    assert.equal("not_found", failure.err.kind)
    assert.matches("^nymbl: download: not_found 404[^\n]*\n$", err)
    helper.faults { operation = "list", times = -1, action = { status = 404 } }
    assert.equal(3, (command.run({ "export", "1", "2", "--to", folder }, fresh())))
  end)

  it("is refused while another one runs, and for another service", function()
    add "1"
    helper.faults { operation = "list", times = 1, action = { delay = 3 } }
    local run = command.start({ "export", "1", "--to", folder }, fresh())
    helper.wait_for(function() return #helper.journal "list" > 0 end)
    local status, _, err = command.run({ "export", "1", "--to", folder }, fresh())
    assert.equal(1, status)
    assert.matches("^nymbl: io %(in_use%)", err)
    assert.equal(0, (command.finish(run)))
    status, _, err = command.run({ "export", "1", "--to", folder }, fresh { env = { NYMBL_BASE_URL = "https://localhost:1" } })
    assert.equal(1, status)
    assert.matches("^nymbl: io %(other_service%)", err)
  end)

  it("shows its progress at a terminal", function()
    for i = 1, 4 do add("1", { content = "%PDF-1.4 " .. i }) end
    -- in real time: otherwise it is over at once
    local status, screen = command.run_in_terminal({ "export", "--to", folder },
      { stdout = helper.temporary(), columns = 140 })
    assert.equal(0, status, screen)
    assert.matches("\r1 patients, %d downloaded, %d+ B | [^\r]*waiting for the rate limit | 99%d%d requests left this month\27%[K",
      screen)
  end)

  it("killed at a random moment leaves no partial file, and the next run completes it #slow", function()
    for i = 1, 6 do
      for j = 1, 3 do
        helper.add_document { patient = "p" .. i, file_name = ("%d.pdf"):format(j), content_type = "application/pdf",
                              size = 100000 + i * 1000 + j }
      end
    end
    local sizes = {}
    for i = 1, 6 do
      for _, row in ipairs(helper.stored("p" .. i)) do sizes[row.sha256] = row.size end
    end
    for seed = 1, 16 do
      local random = random_from(200 + seed)
      folder = helper.temporary()
      local signal = random() < 0.5 and "INT" or "TERM"
      for _ = 1, 2 do
        local run = command.start({ "export", "--to", folder, "--jobs", "4" }, fresh())
        os.execute(("sleep %.3f"):format(random() * 0.5))
        command.signal(run, signal)
        local status, _, err = command.finish(run)
        local line = ("seed %d: status %d, %s"):format(seed, status, err)
        assert.is_true(status == 0 or status == 130 or status == 143, line)
        if err ~= "" then assert.matches("nymbl: stopped by SIG%u+: .*\n$", err, nil, line) end
        if helper.exists(folder) then
          assert.equal("", helper.output(("find %s -name '.nymbl-tmp*' -o -name '*.nymbl-part'"):format(quote(folder))), line)
          for path in files(folder):gmatch("[^\n]+") do
            assert.is_truthy(sizes[helper.sha256(folder .. "/" .. path)], line .. path)
          end
        end
      end
      local status, out, err = command.run({ "export", "--to", folder, "--json", "--jobs", "8" }, fresh())
      assert.equal(0, status, err)
      local result = command.objects(out)[1]
      assert.equal(18, result.downloaded + result.unchanged, ("seed %d"):format(seed))
      assert.equal("18", helper.output(("wc -l < %s/manifest.jsonl"):format(quote(folder))), ("seed %d"):format(seed))
    end
    helper.tried(32, "runs ended by a signal")
  end)
end)
