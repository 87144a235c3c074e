-- SPDX-License-Identifier: MIT
-- The command `nymbl`: what list, show, upload, download, delete, ping, quota and config do, with and
-- without a terminal.

local command = require "command"
local helper = require "helper"

local quote = helper.quote
local PDF = helper.path("spec/fixtures/referral.pdf")
local PDF_PATH = helper.output("realpath " .. quote(PDF))
local PNG_PATH = helper.output("realpath " .. quote(helper.path("spec/fixtures/insurance-card.png")))

-- Run without and with a terminal. Both must end with the same status.
local function both(arguments, options, check)
  local status, out, err = command.run(arguments, options)
  check(out, err)
  local stdout = helper.temporary(".out")
  local with_stdout = {}
  for name, value in pairs(options or {}) do with_stdout[name] = value end
  with_stdout.stdout = stdout
  local in_terminal, screen = command.run_in_terminal(arguments, with_stdout)
  assert.equal(status, in_terminal, screen)
  check(helper.read_file(stdout), nil, screen)
  return status
end

local function add(fields)
  return helper.add_document({ patient = "12345", file_name = "a.pdf", content_type = "application/pdf",
                               content = "%PDF-1.4 a", document_type = "Referral" }, fields)
end

local keys = command.keys

before_each(function()
  helper.reset()
  command.home()
end)

describe("nymbl list", function()
  it("prints a row for each document", function()
    local id = add { id = "doc-1", uploaded_at = "2026-02-03T10:00:00Z" }.id
    add { id = "doc-2", file_name = "b.pdf", uploaded_at = "2026-02-04T10:00:00Z", document_type = "Letter" }
    assert.equal(0, both({ "list", "12345", "--orderby", "file_name" }, nil, function(out)
      assert.equal(id .. "\t10\t2026-02-03T10:00:00Z\tReferral\ta.pdf\ndoc-2\t10\t2026-02-04T10:00:00Z\tLetter\tb.pdf\n", out)
    end))
  end)

  it("combines the filters with 'and'", function()
    add { id = "doc-1", uploaded_at = "2026-02-03T10:00:00Z" }
    add { id = "doc-2", file_name = "it's.pdf", uploaded_at = "2026-02-04T10:00:00Z" }
    local status, out = command.run { "list", "12345", "--filter", "file_size_bytes gt 1 or id eq 'x'", "--type", "Referral", "--since",
      "2026-02-04", "--name", "it's.pdf" }
    assert.equal(0, status)
    assert.matches("^doc%-2\t[^\n]*\n$", out)
    local filter = helper.journal("list")[1].path:match("filter=([^&]*)"):gsub("%%(%x%x)", function(code)
      return string.char(tonumber(code, 16))
    end)
    assert.equal("(file_size_bytes gt 1 or id eq 'x') and document_type eq 'Referral' and uploaded_at ge 2026-02-04T00:00:00Z"
      .. " and file_name eq 'it''s.pdf'", filter)
    assert.matches("^doc%-1\t", (select(2, command.run { "list", "12345", "--since", "2026-02-03T11:00:00+02:00", "--top", "1" })))
  end)

  it("has the keys of the metadata with --json", function()
    add { id = "doc-1" }
    local _, out = command.run { "list", "12345", "--json" }
    local objects = command.objects(out)
    assert.equal(1, #objects)
    assert.equal("content_type document_type file_name file_size_bytes id patient_id uploaded_at uploaded_by_id", keys(objects[1]))
    assert.equal("12345", objects[1].patient_id)
    assert.equal(10, objects[1].file_size_bytes)
  end)

  it("fetches all pages, and reports a failure of one", function()
    helper.admin("POST", "seed", { patient = "12345", count = 150 })
    local status, out = command.run { "list", "12345", "--quiet" }
    assert.equal(0, status)
    assert.equal(150, #command.lines(out))
    helper.faults { operation = "list", action = { status = 403 }, skip = 1, times = -1 }
    local err
    status, out, err = command.run { "list", "12345" }
    assert.equal(4, status)
    assert.equal(100, #command.lines(out))
    assert.matches("^nymbl: list: forbidden 403[^\n]*\n$", err)
  end)
end)

describe("nymbl show", function()
  it("prints the metadata", function()
    add { id = "doc-1", description = "two\nlines", uploaded_at = "2026-02-03T10:00:00Z" }
    assert.equal(0, both({ "show", "12345", "doc-1" }, nil, function(out)
      assert.equal("id\tdoc-1\npatient_id\t12345\nfile_name\ta.pdf\ncontent_type\tapplication/pdf\nfile_size_bytes\t10\n"
        .. "document_type\tReferral\ndescription\ttwo?lines\nuploaded_by_id\tuser-456\nuploaded_at\t2026-02-03T10:00:00Z\n", out)
    end))
    local _, out = command.run { "show", "12345", "doc-1", "--json" }
    assert.equal("two\nlines", command.objects(out)[1].description)
  end)
end)

describe("nymbl upload", function()
  it("prints the path and the new id of each file", function()
    assert.equal(0, both({ "upload", "12345", PDF_PATH, PNG_PATH, "--type", "Referral", "--description", "d" }, nil, function(out)
      local lines = command.lines(out)
      table.sort(lines)
      assert.equal(2, #lines)
      local stored = helper.stored("12345")
      local ids = {}
      for _, document in ipairs(stored) do ids[document.id] = document end
      for i, path in ipairs { PNG_PATH, PDF_PATH } do
        local found, id = lines[i]:match("^([^\t]+)\t([^\t]+)$")
        assert.equal(path, found)
        assert.equal(helper.sha256(path), ids[id].sha256)
        assert.equal("Referral", ids[id].metadata.document_type)
        assert.equal("d", ids[id].metadata.description)
      end
    end))
    assert.equal(4, #helper.stored("12345"))
  end)

  it("names a document by --name, and uploads standard input", function()
    assert.equal(0, (command.run { "upload", "12345", PDF_PATH, "--name", "x.pdf" }))
    local status, out = command.run({ "upload", "12345", "--stdin", "--name", "y.pdf" }, { input = helper.read_file(PDF) })
    assert.equal(0, status)
    assert.matches("^%-\tdoc%-", out)
    local names = {}
    for i, document in ipairs(helper.stored("12345")) do names[i] = document.metadata.file_name end
    table.sort(names)
    assert.same({ "x.pdf", "y.pdf" }, names)
    assert.equal(helper.sha256(PDF), helper.stored("12345")[2].sha256)
  end)

  it("reads paths from standard input, by lines or by NUL", function()
    local folder = helper.directory()
    local odd = folder .. "/a\nb.pdf"
    helper.write_file(odd, helper.read_file(PDF))
    local status, out = command.run({ "upload", "12345", "-" }, { input = PDF_PATH .. "\n\n" .. PNG_PATH })
    assert.equal(0, status)
    assert.equal(2, #command.lines(out))
    status, out = command.run({ "upload", "12345", "-", "-0", "--name", "ab.pdf" }, { input = odd .. "\0" })
    assert.equal(2, status)
    assert.equal("", out)
    status, out = command.run({ "upload", "12345", "-", "-0", "--json" }, { input = PDF_PATH .. "\0" .. odd .. "\0" })
    assert.equal(8, status) -- the name of the second one cannot be sent
    local objects = command.objects(out)
    assert.equal(2, #objects)
    for _, object in ipairs(objects) do
      assert.equal(object.operand == odd and "bad_metadata" or nil, object.error and object.error.reason)
    end
    assert.equal(1, (command.run({ "upload", "12345", "-", "-0", "--dry-run" }, { input = odd .. "\0" })))
    assert.equal(3, #helper.stored("12345"))
    assert.equal(0, (command.run({ "upload", "12345", "-" }, { input = "" })))
  end)

  it("has the keys of the metadata with --json, or those of the error", function()
    local _, out = command.run { "upload", "12345", PDF_PATH, "/nowhere.pdf", "--json", "--jobs", "1" }
    local objects = command.objects(out)
    assert.equal("content_type description document_type file_name file_size_bytes id operand patient_id uploaded_at uploaded_by_id",
      keys(objects[1]))
    assert.equal("error operand", keys(objects[2]))
    assert.equal("attempts kind message operation reason", keys(objects[2].error))
    assert.equal("/nowhere.pdf", objects[2].operand)
    assert.equal("io", objects[2].error.kind)
  end)

  it("says with --dry-run what it would do, and sends nothing", function()
    assert.equal(0, both({ "upload", "12345", PDF_PATH, "--dry-run" }, nil, function(out)
      assert.equal(PDF_PATH .. "\twould be uploaded, " .. #helper.read_file(PDF) .. " bytes\t1 request\n", out)
    end))
    local status, out = command.run { "upload", "12345", PDF_PATH, "/nowhere.pdf", "--dry-run", "--json" }
    assert.equal(8, status)
    assert.same({ requests = 1, bytes = #helper.read_file(PDF) }, command.objects(out)[1].would)
    assert.equal("not_found", command.objects(out)[2].error.reason)
    status, out = command.run({ "upload", "12345", "--stdin", "--name", "y.pdf", "--dry-run" }, { input = "%PDF-1.4" })
    assert.equal(0, status)
    assert.equal("-\twould be uploaded as y.pdf\t1 request\n", out)
    assert.same({}, helper.journal())
    assert.same({}, helper.journal "token")
  end)

  it("says nothing with --quiet, if all goes well", function()
    local status, out, err = command.run { "upload", "12345", PDF_PATH, PNG_PATH, "--quiet" }
    assert.equal(0, status)
    assert.equal("", out .. err)
    status, out, err = command.run { "upload", "12345", PDF_PATH, "/nowhere.pdf", "--quiet" }
    assert.equal(8, status)
    assert.equal("", out)
    assert.matches("^nymbl: upload: io %(not_found%)[^\n]*\n$", err)
  end)
end)

describe("nymbl download", function()
  it("names the file as the document, in the current or another directory", function()
    local id = add { file_name = "../a:b.pdf" }.id
    local status, out = command.run { "download", "12345", id }
    assert.equal(0, status)
    assert.equal(id .. "\t.._a_b.pdf\t10\n", out)
    assert.equal("%PDF-1.4 a", helper.read_file(command.current_home .. "/.._a_b.pdf"))
    local folder = helper.directory()
    assert.equal(0, both({ "download", "12345", id, "-O", folder .. "/", "--force" }, nil, function(text)
      assert.equal(("%s\t%s/.._a_b.pdf\t10\n"):format(id, folder), text)
    end))
    assert.equal(1, (command.run { "download", "12345", id, "-O", folder .. "/none" }))
  end)

  it("replaces no file without --force", function()
    local id = add().id
    local path = helper.write_file(helper.temporary(".pdf"), "mine")
    local status, _, err = command.run { "download", "12345", id, "-o", path }
    assert.equal(1, status)
    assert.matches("^nymbl: download: io %(exists%)", err)
    assert.equal("mine", helper.read_file(path))
    assert.equal(0, (command.run { "download", "12345", id, "-o", path, "--force" }))
    assert.equal("%PDF-1.4 a", helper.read_file(path))
  end)

  it("lets no document of the same name replace another one", function()
    local first, second = add(), add()
    local folder = helper.directory()
    local status = command.run { "download", "12345", first.id, second.id, "-O", folder, "--force", "--jobs", "1" }
    assert.equal(8, status)
    assert.equal("a.pdf", helper.names(folder))
  end)

  it("tries the other operands if one cannot be used at all", function()
    local status, out, err = command.run({ "download", "12345", "-", "--jobs", "1" }, { input = "a\0b\nnone\n" })
    assert.equal(8, status, err)
    assert.equal("a?b\tfailed: bad_request\nnone\tfailed: not_found\n", out)
  end)

  it("lets a document have the name of one that failed", function()
    local first, second = add(), add()
    local folder = helper.directory()
    helper.faults { operation = "download", action = { status = 403 } }
    local status, out = command.run { "download", "12345", first.id, second.id, "-O", folder, "--jobs", "1" }
    assert.equal(8, status)
    assert.equal(("%s\tfailed: forbidden\n%s\t%s/a.pdf\t10\n"):format(first.id, second.id, folder), out)
    assert.equal("a.pdf", helper.names(folder))
  end)

  it("writes one document to standard output, and nothing else", function()
    local id = add().id
    local status, out, err = command.run { "download", "12345", id, "-o", "-" }
    assert.equal(0, status)
    assert.equal("%PDF-1.4 a", out)
    assert.equal("", err)
    assert.equal("%PDF-1.4 a", (select(2, command.run { "download", "12345", id, "-o", "-", "--quiet" })))
    local file = helper.temporary(".out")
    assert.equal(0, (command.run_in_terminal({ "download", "12345", id, "-o", "-" }, { stdout = file })))
    assert.equal("%PDF-1.4 a", helper.read_file(file))
  end)

  it("continues an interrupted download with --resume", function()
    local path = helper.big_file(900000)
    local _, out = command.run { "upload", "12345", path }
    local id = out:match("\t(%S+)")
    local folder = helper.directory()
    helper.faults { operation = "download", action = { reset = 100000 }, times = -1 }
    assert.equal(5, (command.run { "download", "12345", id, "-O", folder, "--resume" }))
    assert.matches("%.nymbl%-part", helper.names(folder))
    helper.faults()
    assert.equal(0, (command.run { "download", "12345", id, "-O", folder, "--resume" }))
    assert.equal("big-900000.pdf", helper.names(folder))
    assert.equal(helper.sha256(path), helper.sha256(folder .. "/big-900000.pdf"))
    local requests = helper.journal "download"
    assert.matches("^bytes=", (helper.header(requests[#requests], "range")))
  end)

  it("has fixed keys with --json", function()
    local id = add().id
    local status, out = command.run { "download", "12345", id, "none", "--json", "--jobs", "1" }
    assert.equal(8, status)
    local objects = command.objects(out)
    assert.same({ operand = id, id = id, patient_id = "12345", path = "a.pdf", bytes = 10, content_type = "application/pdf" },
      objects[1])
    assert.equal("none", objects[2].operand)
    assert.equal("attempts code kind message operation request_id status", keys(objects[2].error))
  end)
end)

describe("nymbl delete", function()
  it("needs --yes without a terminal", function()
    local id = add().id
    assert.equal(2, (command.run { "delete", "12345", id }))
    assert.equal(2, (command.run({ "delete", "12345", "-" }, { input = id .. "\n" })))
    assert.equal(1, #helper.stored("12345"))
    local status, out = command.run { "delete", "12345", id, "--yes" }
    assert.equal(0, status)
    assert.equal(id .. "\tdeleted\n", out)
    assert.equal(0, #helper.stored("12345"))
  end)

  it("asks at a terminal", function()
    for answer, status in pairs { ["y\n"] = 0, ["Yes\n"] = 0, ["n\n"] = 1, ["\n"] = 1, ["yesterday\n"] = 1 } do
      helper.reset()
      local id = add().id
      local found, screen = command.run_in_terminal({ "delete", "12345", id }, { typed = answer })
      assert.equal(status, found, screen)
      assert.matches("Delete this document of patient 12345? [y/N]", screen, 1, true)
      assert.equal(status, #helper.stored("12345"))
    end
  end)

  it("reads ids from standard input", function()
    local first, second = add().id, add().id
    local status, out = command.run({ "delete", "12345", "-", "--yes", "--json", "--jobs", "1" },
      { input = first .. "\n" .. second .. "\nnone\n" })
    assert.equal(8, status)
    local objects = command.objects(out)
    assert.same({ operand = first, id = first, patient_id = "12345", deleted = true }, objects[1])
    assert.equal(3, #objects)
    assert.equal(0, #helper.stored("12345"))
  end)

  it("says with --dry-run what it would do, without a question or a request", function()
    local id = add().id
    local status, out = command.run { "delete", "12345", id, "--dry-run" }
    assert.equal(0, status)
    assert.equal(id .. "\twould be deleted\t1 request\n", out)
    assert.same({}, helper.journal())
  end)
end)

describe("nymbl ping", function()
  local STEPS = { "settings", "name", "connection", "certificate", "clock", "token", "key", "quota" }

  local function states(out)
    local found = {}
    for i, line in ipairs(command.lines(out)) do
      local step, state = line:match("^(%a+) +(%a+)")
      assert.equal(STEPS[i], step)
      found[step] = state
    end
    return found
  end

  it("prints a line for each step", function()
    assert.equal(0, both({ "ping" }, nil, function(out)
      for step, state in pairs(states(out)) do assert.equal("ok", state, step) end
      assert.matches("\ncertificate ok %(%d+ days left%)\n", out)
      assert.matches("\nclock       ok %(%-?%d+ s%)\n", out)
    end))
    assert.equal(0, (command.run { "ping", "12345" }))
    assert.equal("", table.concat({ select(2, command.run { "ping", "--quiet" }) }))
  end)

  it("begins with the settings, if they are missing", function()
    local status, out, err = command.run({ "ping" }, { env = { NYMBL_API_KEY = false } })
    assert.equal(4, status)
    assert.equal("", err)
    local found = states(out)
    assert.equal("failed", found.settings)
    assert.equal("skipped", found.quota)
    assert.matches("^settings    failed: nymbl: settings %(missing%): NYMBL_API_KEY: ", out)
    status, out, err = command.run({ "ping", "--quiet" }, { env = { NYMBL_API_KEY = false } })
    assert.equal(4, status)
    assert.equal("", out)
    assert.matches("^nymbl: settings %(missing%): NYMBL_API_KEY: [^\n]*\n$", err)
  end)

  it("says what to do about a failed step", function()
    local status, out = command.run({ "ping" }, { env = { NYMBL_CLIENT_SECRET = "wrong" } })
    assert.equal(4, status)
    assert.equal("failed", states(out).token)
    assert.matches("token       failed: nymbl: token: unauthorized .*check client_id and client_secret", out)
    status, out = command.run({ "ping", "--json" }, { env = { NYMBL_CLIENT_SECRET = "wrong" } })
    assert.equal(4, status)
    local objects = command.objects(out)
    assert.equal(8, #objects)
    assert.equal("days state step", keys(objects[4]))
    assert.equal("skew state step", keys(objects[5]))
    assert.equal("err state step", keys(objects[6]))
  end)
end)

describe("nymbl quota", function()
  it("prints the month's count, which all runs share", function()
    for _ = 1, 2 do command.run { "list", "12345" } end
    assert.equal(0, both({ "quota" }, nil, function(out)
      assert.equal(("month\t%s\nrequests\t2\nthrottled\t0\nremaining\t9998\n"):format(os.date("!%Y-%m")), out)
    end))
    local _, out = command.run { "quota", "--json" }
    assert.same({ month = os.date("!%Y-%m"), requests = 2, throttled = 0, remaining = 9998 }, command.objects(out)[1])
  end)
end)
