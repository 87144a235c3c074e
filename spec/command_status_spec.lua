-- SPDX-License-Identifier: MIT
-- The command `nymbl`: its exit statuses, and what it says about failures.

local command = require "command"
local helper = require "helper"
local redis = require "redis"

local quote = helper.quote
local PDF = helper.output("realpath " .. quote(helper.path("spec/fixtures/referral.pdf")))

local function add(fields)
  return helper.add_document({ patient = "12345", file_name = "a.pdf", content_type = "application/pdf",
                               content = "%PDF-1.4 a" }, fields).id
end

-- Run the command; assert the status, and that standard error has one line, which says this kind.
local function ends(expected, kind, arguments, options)
  local status, out, err = command.run(arguments, options)
  assert.equal(expected, status, err)
  local lines = command.lines(err)
  if kind then
    assert.matches("^nymbl: .*" .. kind, lines[1])
  else
    assert.equal("", err)
  end
  return out, err
end

before_each(function()
  helper.reset()
  command.home()
end)

describe("one operand of nymbl ends with", function()
  it("0 if it is done", function()
    ends(0, nil, { "show", "12345", add() })
  end)

  it("1 if it failed", function()
    ends(1, "unsupported_type", { "upload", "12345", helper.write_file(helper.temporary(".pdf"), "no PDF") })
    ends(1, "io %(not_found%)", { "upload", "12345", "/nowhere.pdf" })
    ends(1, "bad_request", { "list", "12345", "--filter", "nonsense" })
    helper.faults { operation = "list", action = { raw = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]" }, times = -1 }
    ends(1, "protocol", { "list", "12345" })
  end)

  it("3 if it is not found", function()
    ends(3, "not_found", { "show", "12345", "none" })
    ends(3, "not_found", { "download", "12345", "none" })
    ends(3, "not_found", { "delete", "12345", "none", "--yes" })
  end)

  it("4 for settings, authorization and TLS", function()
    ends(4, "settings %(missing%): NYMBL_BASE_URL", { "list", "12345" }, { env = { NYMBL_BASE_URL = false } })
    ends(4, "settings %(missing%): NYMBL_API_KEY", { "quota" }, { env = { NYMBL_API_KEY = "" } })
    ends(4, "unauthorized", { "list", "12345" }, { env = { NYMBL_CLIENT_SECRET = "wrong" } })
    ends(4, "forbidden", { "list", "12345" }, { env = { NYMBL_API_KEY = "wrong" } })
    ends(4, "tls", { "list", "12345" }, { env = { NYMBL_CA_FILE = false } })
    ends(4, "tls %(ca_file%)", { "list", "12345" }, { env = { NYMBL_CA_FILE = "/nowhere" } })
    local server = redis.start { password = "store's", tls = true }
    local env = { NYMBL_STORE = server.url }
    ends(4, "io %(store_certificate%)", { "list", "12345" }, { env = env })
    env.NYMBL_STORE_CA_FILE = server.ca
    ends(4, "io %(store_auth%)", { "list", "12345" }, { env = env })
    server:stop()
  end)

  it("5 if another try may succeed later", function()
    local url, stop = helper.unresponsive_server "refusing"
    ends(5, "network %(connect%)", { "list", "12345" }, { env = { NYMBL_BASE_URL = url } })
    stop()
    helper.faults { operation = "list", action = { delay = 30 }, times = -1 }
    ends(5, "timeout %(deadline%)", { "list", "12345", "--timeout", "0.5" })
    helper.faults { operation = "list", action = { status = 500, headers = { { "Retry-After", "600" } } }, times = -1 }
    ends(5, "server 500", { "list", "12345" })
    ends(5, "io %(store_down%)", { "list", "12345" }, { env = { NYMBL_STORE = "redis://127.0.0.1:1" } })
    helper.faults { operation = "list", action = { status = 429, headers = { { "Retry-After", "600" } } }, times = -1 }
    ends(5, "throttled 429", { "list", "12345" })
  end)

  it("6 if the month is spent", function()
    helper.faults { operation = "list", action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" }, times = 1 }
    ends(6, "quota", { "list", "12345" })
    ends(6, "quota %(limit_exceeded%)", { "list", "12345" })
    assert.equal(1, #helper.journal "list")
  end)

  it("7 if its outcome is unknown", function()
    helper.faults { operation = "upload", action = { lost_reply = "reset" }, times = 1 }
    local out = ends(7, "network .*look before you repeat it", { "upload", "12345", PDF })
    assert.equal("", out)
    assert.equal(1, #helper.stored("12345"))
  end)
end)

describe("several operands of nymbl end with", function()
  local function faults(...)
    helper.faults(...)
  end

  it("0 if all are done", function()
    ends(0, nil, { "delete", "12345", add(), add(), "--yes" })
  end)

  it("their common status if all failed alike", function()
    ends(3, "not_found", { "delete", "12345", "a", "b", "c", "--yes" })
  end)

  it("8 if some failed, or differently", function()
    local out, err = ends(8, "not_found", { "delete", "12345", add(), "none", "--yes", "--jobs", "1" })
    assert.matches("^doc%-%w+\tdeleted\nnone\tfailed: not_found\n$", out)
    assert.matches("\nnymbl: 1 done, 1 failed\n$", err)
    faults({ operation = "delete", path_contains = "b", action = { status = 403 }, times = -1 })
    ends(8, "not_found", { "delete", "12345", "a", "b", "--yes", "--jobs", "1" })
  end)

  it("7 if the outcome of any is unknown", function()
    faults({ operation = "upload", action = { lost_reply = "reset" }, times = 1 })
    local out = ends(7, "look before you repeat", { "upload", "12345", PDF, PDF, "/nowhere", "--jobs", "1" })
    assert.matches("\toutcome unknown\n", out)
  end)

  it("6 if the quota ended the run, and send nothing more", function()
    faults({ operation = "delete", action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" }, skip = 1, times = -1 })
    local out, err = ends(6, "quota", { "delete", "12345", add(), "b", "c", "d", "--yes", "--jobs", "1" })
    assert.equal(2, #helper.journal "delete")
    assert.equal(4, #command.lines(out))
    assert.equal(2, #command.lines(err))
  end)

  it("an early end if all others would fail likewise", function()
    ends(4, "unauthorized", { "delete", "12345", "a", "b", "c", "d", "e", "--yes", "--jobs", "1" },
      { env = { NYMBL_CLIENT_SECRET = "wrong" } })
    assert.equal(1, #helper.journal "token")
    faults({ operation = "delete", action = { status = 403 }, times = -1 })
    local out = ends(4, "forbidden", { "delete", "12345", "a", "b", "c", "d", "e", "--yes", "--json", "--jobs", "1" })
    assert.equal(3, #helper.journal "delete")
    assert.equal(5, #command.objects(out))
  end)
end)

describe("standard output of nymbl", function()
  it("that is full is a failure", function()
    add()
    local status = helper.output(("( %s ) >/dev/full 2>%s; echo $?"):format(command.words { "list", "12345" },
      quote(helper.temporary(".err"))))
    assert.equal("1", status)
    local err = helper.temporary(".err")
    status = helper.output(("( %s ) >/dev/full 2>%s; echo $?"):format(command.words { "download", "12345", add(), "-o", "-" }, quote(err)))
    assert.equal("1", status)
    assert.matches("^nymbl: [^\n]*\n$", helper.read_file(err))
  end)

  it("that is full is a failure of help and the version, too", function()
    for _, words in ipairs { { "--version" }, { "help" }, { "help", "list" }, { "list", "--help" }, { "completion", "bash" } } do
      assert.equal("1", helper.output(("( %s ) >/dev/full 2>&1; echo $?"):format(command.words(words))), words[1])
    end
  end)

  it("that has failed once has failed for good", function()
    local code = [[
      local out = require("nymbl.command.output").new()
      local rows = 0
      while rows < 10000 and out:write("a row, which a compiler of loops has seen often enough\n") do rows = rows + 1 end
      io.stderr:write(rows < 10000 and "ended" or "went on", " ", out.reason, " ", tostring((out:flush())))
    ]]
    assert.equal("ended no_space nil", helper.output(("%s -e %s 2>&1 >/dev/full"):format(helper.interpreter(), quote(code))))
  end)

  it("that is closed is a failure, and no document is damaged", function()
    local folder = helper.directory()
    local id = add()
    local status = helper.output(("( %s ) >&- 2>/dev/null; echo $?"):format(command.words { "list", "12345" }))
    assert.equal("1", status)
    helper.output(("( %s ) >&- 2>&-; echo $?"):format(command.words { "download", "12345", id, "-O", folder }))
    assert.equal("%PDF-1.4 a", helper.read_file(folder .. "/a.pdf"))
  end)

  it("whose reader has gone ends a listing without a word", function()
    helper.admin("POST", "seed", { patient = "12345", count = 5000 })
    local err = helper.temporary(".err")
    local out = helper.output(("bash -c %s"):format(quote(("( %s ) 2>%s | head -n 1; echo ${PIPESTATUS[0]}"):format(
      command.words { "list", "12345" }, quote(err)))))
    assert.matches("^doc%-[^\n]*\n1$", out)
    assert.equal("", helper.read_file(err))
    assert.is_true(#helper.journal "list" < 10) -- of 50 pages
  end)

  it("whose reader has gone ends a batch, which starts nothing more", function()
    local ids = {}
    for i = 1, 30 do ids[i] = add() end
    local err = helper.temporary(".err")
    helper.output(("bash -c %s"):format(quote(("( %s ) 2>%s | true"):format(command.words({
      "delete", "12345", "--yes", "--jobs", "1", (table.unpack or unpack)(ids) }), quote(err))))) -- luacheck: ignore
    local deleted = 30 - #helper.stored("12345")
    assert.is_true(deleted < 10)
    assert.matches(("^nymbl: io %%(pipe_closed%%)[^\n]*\nnymbl: %d done, 0 failed, %d left\n$"):format(deleted, 30 - deleted),
      helper.read_file(err))
  end)
end)
