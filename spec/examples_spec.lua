-- SPDX-License-Identifier: MIT
-- The programs in examples, run by the current interpreter.

local core = require "nymbl.core"
local helper = require "helper"
local nymbl = require "nymbl"

local LUA = rawget(_G, "jit") and "luajit" or "lua" .. _VERSION:match("%d+%.%d+")
local PDF = helper.path("spec/fixtures/referral.pdf")
local store -- for examples that keep rate limits between runs

-- The command that runs an example with the sandbox's settings.
local function command(name, ...)
  local sandbox = helper.sandbox()
  local words = { "env" }
  local function add(word) words[#words + 1] = helper.quote(word) end
  add("LUA_PATH=" .. package.path)
  add("LUA_CPATH=" .. package.cpath)
  for _, setting in ipairs { "base_url", "ca_file", "api_key", "token_url", "client_id",
                             "client_secret", "scope" } do
    add(("NYMBL_%s=%s"):format(setting:upper(), sandbox[setting]))
  end
  add("NYMBL_STORE=" .. store)
  add(LUA)
  add(helper.path("examples/" .. name .. ".lua"))
  for _, argument in ipairs { ... } do add(argument) end
  return table.concat(words, " ")
end

-- Run an example. Returns its exit status, standard output and standard error.
local function example(...)
  local out, err = helper.temporary(".out"), helper.temporary(".err")
  local status = helper.output(("%s </dev/null >%s 2>%s; echo $?"):format(command(...),
    helper.quote(out), helper.quote(err)))
  return tonumber(status), helper.read_file(out), helper.read_file(err)
end

local function uploaded(patient, ...)
  local status, out, err = example("upload", patient, ...)
  assert.equal("", err)
  assert.equal(0, status)
  return assert(out:match("^(%S+)\t"))
end

describe("the example", function()
  before_each(function()
    helper.reset()
    store = helper.temporary(".store")
  end)

  it("upload.lua uploads a file and prints its id, name and size", function()
    local status, out, err = example("upload", "12345", PDF, "Referral")
    assert.equal("", err)
    assert.equal(0, status)
    local stored = helper.stored("12345")
    assert.equal(1, #stored)
    assert.equal(helper.sha256(PDF), stored[1].sha256)
    assert.equal("Referral", stored[1].metadata.document_type)
    assert.equal(("%s\treferral.pdf\t%d\n"):format(stored[1].id, #helper.read_file(PDF)), out)
  end)

  it("upload.lua reports in one line why a file was refused", function()
    local text = helper.write_file(helper.temporary(".txt"), "hello\n")
    local status, out, err = example("upload", "12345", text)
    assert.equal(1, status)
    assert.equal("", out)
    assert.matches("^nymbl: upload: unsupported_type[^\n]*\n$", err)
  end)

  it("list.lua lists all documents, the newest first", function()
    helper.admin("POST", "seed", { patient = "12345", count = 120, prefix = "d" })
    local status, out, err = example("list", "12345")
    assert.equal("", err)
    assert.equal(0, status)
    local _, lines = out:gsub("\n", "")
    assert.equal(120, lines)
  end)

  it("list.lua lists the documents of one type, whatever its name contains", function()
    uploaded("12345", PDF, "Referral")
    local id = uploaded("12345", PDF, "patient's own")
    local status, out = example("list", "12345", "patient's own")
    assert.equal(0, status)
    assert.matches("^" .. id:gsub("%p", "%%%0") .. "\t[^\n]*\n$", out)
  end)

  it("list.lua reports in one line what failed", function()
    helper.faults { operation = "list", times = -1, action = { status = 403, body_kind = "service" } }
    local status, out, err = example("list", "12345")
    assert.equal(1, status)
    assert.equal("", out)
    assert.matches("^nymbl: list: forbidden 403[^\n]*\n$", err)
  end)

  it("download.lua downloads a file, but does not replace an existing one", function()
    local id, copy = uploaded("12345", PDF), helper.temporary(".pdf")
    local status, out, err = example("download", "12345", id, copy)
    assert.equal("", err)
    assert.equal(0, status)
    assert.equal(#helper.read_file(PDF) .. " bytes\n", out)
    assert.equal(helper.sha256(PDF), helper.sha256(copy))

    helper.write_file(copy, "mine")
    status, out, err = example("download", "12345", id, copy)
    assert.equal(1, status)
    assert.equal("", out)
    assert.equal("there is such a file already\n", err)
    assert.equal("mine", helper.read_file(copy))
  end)

  it("stream.lua writes a document to standard output", function()
    local status, out, err = example("stream", "12345", uploaded("12345", PDF))
    assert.equal("", err)
    assert.equal(0, status)
    assert.is_true(out == helper.read_file(PDF))
  end)

  it("stream.lua fails if the document breaks off", function()
    local id = uploaded("12345", PDF)
    helper.faults { operation = "download", times = -1, action = { cut = 5000 } }
    local status, out, err = example("stream", "12345", id)
    assert.equal(1, status)
    assert.is_true(#out < #helper.read_file(PDF))
    assert.matches("^nymbl: %l+[^\n]*\n$", err)
  end)

  it("delete.lua deletes a document, and reports a missing one", function()
    local id = uploaded("12345", PDF)
    local status, out, err = example("delete", "12345", id)
    assert.equal("", err)
    assert.equal("", out)
    assert.equal(0, status)
    assert.equal(0, #helper.stored("12345"))

    status, out = example("delete", "12345", id)
    assert.equal(0, status)
    assert.equal("there is no such document\n", out)
  end)

  describe("never lets the service control a terminal:", function()
    -- Characters that must not be printed: they are shown as "?".
    local STEERING = { "\27[2J", "\27]0;title\7", "\r", "\n", "\t", "\8", "\127", "\0", "\194\15531m", "\194\144", "\194\159",
                       "\226\128\174", "\226\128\170", "\226\128\168", "\226\129\166", "\226\129\169" }
    -- Allowed characters that share bytes with the others.
    local HARMLESS = { "caf\195\169", "\194\160", "\226\128\167", "\226\128\175", "\226\129\165", "\195\155",
                       "\240\159\145\141", "100 %", "-rf" }

    local function steers(text)
      return text:find("[%z\1-\9\11-\31\127]") or text:find("\194[\128-\159]")
        or text:find("\226\128[\168-\174]") or text:find("\226\129[\166-\169]")
    end

    it("list.lua", function()
      for i, text in ipairs(STEERING) do
        helper.admin("POST", "documents", { patient = "12345", id = "s" .. i, file_name = "a" .. text .. "b.pdf" })
      end
      for i, text in ipairs(HARMLESS) do
        helper.admin("POST", "documents", { patient = "12345", id = "h" .. i, file_name = text .. ".pdf" })
      end
      local status, out, err = example("list", "12345")
      assert.same({ 0, "" }, { status, err })
      local shown = {}
      for line in out:gmatch("[^\n]+") do
        local id, name = line:match("^(%w+)\t([^\t]+)\t%d+$")
        shown[assert(id, line)] = name
        assert.is_nil(steers((line:gsub("\t", ""))))
      end
      for i, text in ipairs(STEERING) do
        local rest = text:gsub("^[\194\226]?[\128-\191]*", ""):gsub("%c", "?")
        local expected = text:byte() < 128 and text:gsub("%c", "?") or "?" .. rest
        assert.equal("a" .. expected .. "b.pdf", shown["s" .. i])
      end
      for i, text in ipairs(HARMLESS) do assert.equal(text .. ".pdf", shown["h" .. i]) end
    end)

    -- Every value is printed with show, ids and types too.
    local function patch(text)
      return { operation = "upload", times = -1, action = { body_patch = {
        file_name = text, content_type = text, id = "i" .. text,
      } } }
    end

    it("upload.lua", function()
      for _, text in ipairs(STEERING) do
        helper.faults(patch("a" .. text .. "b.pdf"))
        local _, out, err = example("upload", "12345", PDF)
        assert.is_nil(steers((out:gsub("\t", ""))))
        assert.is_nil(steers(err))
        assert.matches("^[^\n]*\n$", out .. err)
        assert.is_truthy(err ~= "" or out:find("?", 1, true))
      end
    end)

    it("quickstart", function()
      local text = helper.read_file(helper.path("examples/quickstart"))
      local tour = assert(text:match("tour%.lua\" <<'LUA'\n(.-)\nLUA\n"))
      for line in tour:gmatch("[^\n]+") do -- print may only be used for our own text
        assert.is_nil(line:find("print.*doc[.:]") or line:find("print.*stream[.:]"), line)
      end
      local show = assert(tour:match("(local function show%(%.%.%.%).-\nend)\n"))
      local script = helper.write_file(helper.temporary(".lua"), show .. "\nshow(nil, 1, io.read 'a')")
      for _, one in ipairs(STEERING) do
        local out = helper.output(("lua5.4 %s <%s"):format(script, helper.write_file(helper.temporary(), one)))
        assert.matches("^nil\t1\t[^\n]", out)
        assert.is_nil(steers((out:gsub("\t", ""))), out)
      end
      for _, one in ipairs(HARMLESS) do
        local out = helper.output(("lua5.4 %s <%s"):format(script, helper.write_file(helper.temporary(), one)))
        assert.equal("nil\t1\t" .. one, (out:gsub("\n$", "")))
      end
    end)
  end)

  it("export.lua writes every document to a file, within a budget", function()
    local _, lines = helper.read_file(helper.path("examples/export.lua")):gsub("\n", "")
    assert.is_true(lines < 20)
    for i = 1, 3 do helper.add_document { patient = "p" .. i, size = 1000 } end
    local folder = helper.temporary()
    local status, out, err = example("export", folder, "5")
    assert.equal("", err)
    assert.equal("2 new, 0 unchanged, 0 failed, 5 requests; stopped: budget\n", out)
    assert.equal(0, status)
    status, out = example("export", folder)
    assert.equal("1 new, 2 unchanged, 0 failed, 5 requests\n", out)
    assert.equal(0, status)
    helper.faults { operation = "list", action = { status = 403 } }
    status, out = example("export", folder)
    assert.equal("0 new, 2 unchanged, 1 failed, 4 requests\n", out)
    assert.equal(1, status)
    status, out, err = example("export", folder .. "/none/none")
    assert.equal("", out)
    assert.matches("^nymbl: io %(not_found%)[^\n]*\n$", err)
    assert.equal(1, status)
  end)

  describe("overnight.lua", function()
    local NAMES = { "it's $(a) scan.PDF", "second \195\164.pdf", "third.pdf" }
    local folder

    before_each(function()
      folder = helper.temporary("-outbox")
      assert(os.execute("mkdir " .. helper.quote(folder)))
      for _, name in ipairs(NAMES) do helper.write_file(folder .. "/" .. name, "%PDF-1.4 " .. name) end
      helper.write_file(folder .. "/notes.txt", "not for the service")
      helper.write_file(folder .. "/.half.pdf", "%PDF-1.4")
    end)

    -- Each file is stored exactly once.
    local function all_are_there()
      local seen = {}
      for _, row in ipairs(helper.stored("12345")) do
        local name = row.metadata.file_name
        seen[name] = (seen[name] or 0) + 1
      end
      assert.same({ [NAMES[1]] = 1, [NAMES[2]] = 1, [NAMES[3]] = 1 }, seen)
    end

    local function tells_no_name(...)
      for _, text in ipairs { ... } do
        assert.is_nil(text:find("scan", 1, true))
        assert.is_nil(text:find("second", 1, true))
        assert.is_nil(text:find(folder, 1, true))
        assert.is_nil(text:find("12345", 1, true))
      end
    end

    it("has fewer than 20 lines, uploads the accepted files, and nothing in a second run", function()
      local _, lines = helper.read_file(helper.path("examples/overnight.lua")):gsub("\n", "")
      assert.is_true(lines < 20)
      local status, out, err = example("overnight", "12345", folder, "Referral")
      assert.equal("", err)
      assert.equal(0, status)
      assert.equal("3 uploaded, 0 unchanged, 0 failed, 0 unknown\n", out)
      all_are_there()
      assert.equal("Referral", helper.stored("12345")[1].metadata.document_type)
      assert.equal("600", helper.output("stat -c %a " .. helper.quote(folder .. ".nymbl-journal")))
      local requests = #helper.journal()
      status, out, err = example("overnight", "12345", folder .. "/", "Referral")
      assert.same({ 0, "0 uploaded, 3 unchanged, 0 failed, 0 unknown\n", "" }, { status, out, err })
      assert.equal(requests, #helper.journal())
    end)

    it("accepts a folder and files whose names look like options, and reports a missing folder", function()
      helper.write_file(folder .. "/-rf --help.pdf", "%PDF-1.4 dash")
      local dir, out, err = helper.temporary("-dir"), helper.temporary(".out"), helper.temporary(".err")
      local status = helper.output(('mkdir %s && ln -s "$PWD"/* %s && mv %s %s/-outbox && cd %s && '
        .. "{ %s </dev/null >%s 2>%s; echo $?; }"):format(dir, dir, helper.quote(folder), dir, dir,
        command("overnight", "12345", "-outbox"), out, err))
      assert.equal("", helper.read_file(err))
      assert.equal("0", status)
      assert.equal("4 uploaded, 0 unchanged, 0 failed, 0 unknown\n", helper.read_file(out))
      local seen = {}
      for _, row in ipairs(helper.stored("12345")) do seen[row.metadata.file_name] = true end
      assert.is_true(seen["-rf --help.pdf"])
      local missing, text, problem = example("overnight", "12345", folder)
      assert.same({ 1, "" }, { missing, text })
      assert.matches("there is no such folder", problem)
    end)

    it("finds files that were stored before the script was killed", function()
      helper.faults { operation = "upload", skip = 1, action = { delay = 20 } }
      local pid = helper.output(("(exec %s </dev/null >/dev/null 2>&1) & echo $!"):format(
        command("overnight", "12345", folder)))
      helper.wait_for(function() return #helper.stored("12345") == 3 end)
      os.execute("kill -KILL " .. pid)
      helper.wait_for(function() return not helper.exists("/proc/" .. pid .. "/exe") end)
      local status, out, err = example("overnight", "12345", folder)
      assert.equal("", err)
      assert.equal(0, status)
      assert.matches("^[12] uploaded, [12] unchanged, 0 failed, 0 unknown\n$", out)
      all_are_there()
    end)

    it("stops at the quota, and tells no name", function()
      helper.faults { operation = "upload", skip = 1, times = -1,
                      action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
      local status, out, err = example("overnight", "12345", folder)
      assert.equal(1, status)
      assert.matches("^1 uploaded, 0 unchanged, %d failed, 0 unknown; stopped: quota\n$", out)
      assert.matches("^nymbl: upload: quota 429", err)
      tells_no_name(out, err)
      helper.faults()
      store = helper.temporary(".store")
      assert.equal(0, (example("overnight", "12345", folder)))
      all_are_there()
    end)
  end)

  it("copy_account.lua copies what the other account does not have", function()
    local _, lines = helper.read_file(helper.path("examples/copy_account.lua")):gsub("\n", "")
    assert.is_true(lines < 20)
    -- another sandbox, which ends with its standard input
    local path = helper.temporary(".env")
    local pipe = assert(io.popen(("exec %s --limits off --stdin > %s"):format(
      helper.quote(helper.path("examples/sandbox/run")), helper.quote(path)), "w"))
    local settings = {}
    local text = helper.wait_for(function()
      local printed = helper.exists(path) and helper.read_file(path) or ""
      return printed:find("\nready\n", 1, true) and printed
    end)
    for name, value in text:gmatch "(NYMBL_[%u_]+)=([^\n]*)" do settings[name] = value end
    local other = assert(nymbl.client {
      base_url = settings.NYMBL_BASE_URL, api_key = settings.NYMBL_API_KEY, ca_file = settings.NYMBL_CA_FILE, rate = false,
      credentials = { token_url = settings.NYMBL_TOKEN_URL, client_id = settings.NYMBL_CLIENT_ID,
                      client_secret = settings.NYMBL_CLIENT_SECRET, scope = settings.NYMBL_SCOPE },
    })
    assert(other:patient("12345"):upload(PDF))
    local token = core.state(other, "nymbl.client").env.cached_token()
    -- unlike two real services, they have certificates of different authorities of the same name
    local before = helper.before_program(([[
      local nymbl = require "nymbl"
      local client = nymbl.client
      function nymbl.client(options)
        if options.base_url == %q then options.ca_file = %q end
        return client(options)
      end
    ]]):format(settings.NYMBL_BASE_URL, settings.NYMBL_CA_FILE))
    uploaded("12345", PDF, "Referral")
    uploaded("12345", helper.path("spec/fixtures/photo.jpg"), "Photo")
    uploaded("54321", PDF, "Referral")
    local run = ("env -u LUA_INIT_5_4 LUA_INIT=%s TO_BASE_URL=%s TO_API_KEY=%s TO_TOKEN=%s %s"):format(before.LUA_INIT,
      settings.NYMBL_BASE_URL, settings.NYMBL_API_KEY, token, command("copy_account"))
    for _ = 1, 2 do
      assert.equal("2 documents there, 0 failed\n1 documents there, 0 failed", helper.output(run .. " 2>&1"))
      assert.equal(2, other:patient("12345"):count())
      assert.equal(1, other:patient("54321"):count(nymbl.filter("document_type eq ?", "Referral")))
    end
    other:close()
    pipe:close()
  end)
end)
