-- SPDX-License-Identifier: MIT
-- patient:upload_all(): each file once, with a journal.
local core = require "nymbl.core"
local helper = require "helper"
local nymbl = require "nymbl"

describe("patient:upload_all()", function()
  local client, patient, folder, journal

  before_each(function()
    helper.reset()
    client = helper.client()
    patient = client:patient "p"
    folder = helper.directory()
    journal = helper.temporary ".journal"
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- Write a file, an hour old unless it is to be new. Returns its path.
  local function file(name, text, is_new)
    local path = helper.write_file(folder .. "/" .. name, "%PDF-1.4 " .. (text or name))
    if not is_new then assert(os.execute("touch -d '1 hour ago' " .. helper.quote(path))) end
    return path
  end

  local function files(count)
    local paths = {}
    for i = 1, count do paths[i] = file(("%d.pdf"):format(i)) end
    return paths
  end

  local function upload_all(paths, options)
    local all = { journal = journal, concurrency = 1 }
    for name, value in pairs(options or {}) do all[name] = value end
    return assert(patient:upload_all(paths, all))
  end

  -- The numbers of a report in a few words.
  local function words(report)
    return ("%s%s: %d uploaded, %d unchanged, %d failed, %d unknown, %d requests, %d bytes"):format(
      report.complete and "complete" or "incomplete", report.stopped and " " .. report.stopped or "", report.uploaded,
      report.unchanged, report.failed, report.unknown, report.requests, report.bytes)
  end

  local function stored(id)
    local names = {}
    for i, entry in ipairs(helper.stored(id or "p")) do names[i] = entry.metadata.file_name end
    table.sort(names)
    return table.concat(names, " ")
  end

  local function lines()
    local list = {}
    for line in io.lines(journal) do list[#list + 1] = helper.json.decode(line) end
    return list
  end

  -- Remove the last lines of the journal, as if the process had been killed before.
  local function forget_lines(count)
    local text = helper.read_file(journal)
    for _ = 1, count do text = text:gsub("[^\n]*\n$", "") end
    helper.write_file(journal, text)
  end

  it("uploads files, and nothing in a second run", function()
    local paths = files(3)
    assert.equal("complete: 3 uploaded, 0 unchanged, 0 failed, 0 unknown, 4 requests, 42 bytes",
      words(upload_all(paths, { document_type = "Referral", description = "left" })))
    assert.equal("1.pdf 2.pdf 3.pdf", stored())
    local metadata = helper.stored("p")[1].metadata
    assert.same({ "Referral", "left" }, { metadata.document_type, metadata.description })
    assert.equal("complete: 0 uploaded, 3 unchanged, 0 failed, 0 unknown, 0 requests, 0 bytes", words(upload_all(paths)))
    assert.equal("600", helper.output("stat -c %a " .. journal))
  end)

  it("takes an iterator, and tables with names and types of their own", function()
    local paths, i = files(2), 0
    upload_all(function()
      i = i + 1
      return paths[i] and { path = paths[i], file_name = i .. "-sent.pdf", document_type = "T" .. i, description = "D" .. i }
    end, { document_type = "other" })
    local all = helper.stored "p"
    for n = 1, 2 do
      local metadata = all[n].metadata
      assert.same({ n .. "-sent.pdf", "T" .. n, "D" .. n },
        { metadata.file_name, metadata.document_type, metadata.description })
    end
  end)

  it("records what it sends, and the ids of that name and size, before it sends", function()
    helper.add_document({ patient = "p", content = "%PDF-1.4 1.pdx" }, { id = "before", file_name = "1.pdf" })
    helper.add_document({ patient = "p", content = "%PDF-1.4 longer" }, { id = "other", file_name = "1.pdf" })
    local path = file "1.pdf"
    local seen
    local report = upload_all({ path }, { document_type = "T", description = "D" })
    assert.is_true(report.complete)
    seen = lines()
    assert.equal(3, #seen)
    assert.equal("journal", seen[1].state)
    local begun = seen[2]
    assert.same({ "begun", "p", "1.pdf", 14, helper.sha256(path), "T", "D", { "before" } }, { begun.state, begun.patient_id,
      begun.file_name, begun.size, begun.sha256, begun.document_type, begun.description, begun.known })
    assert.equal(helper.output("realpath " .. path), begun.path)
    local id
    for _, entry in ipairs(helper.stored "p") do if entry.sha256 == begun.sha256 then id = entry.id end end
    assert.same({ "done", id }, { seen[3].state, seen[3].id })
  end)

  describe("knows a file", function()
    it("by its content: a new path or time is no new document", function()
      local path = file "1.pdf"
      upload_all { path }
      assert(os.execute("touch " .. path))
      assert.equal(1, upload_all({ path }).unchanged)
      local elsewhere = helper.directory() .. "/1.pdf"
      assert(os.rename(path, elsewhere))
      assert.equal(1, upload_all({ elsewhere }).unchanged)
      assert.equal("1.pdf", stored())
    end)

    it("by its content: changed content is a new document, even of the same size and time", function()
      local path = file("1.pdf", "a")
      upload_all { path }
      file("1.pdf", "b")
      assert.equal(1, upload_all({ path }).uploaded)
      assert.equal("1.pdf 1.pdf", stored())
      file("1.pdf", "a")
      assert.equal(1, upload_all({ path }).unchanged)
    end)

    it("by its name as sent", function()
      local path = file "1.pdf"
      upload_all { path }
      assert.equal(1, upload_all({ { path = path, file_name = "2.pdf" } }).uploaded)
      assert.equal("1.pdf 2.pdf", stored())
      assert.equal(2, upload_all({ path, { path = path, file_name = "2.pdf" } }).unchanged)
    end)

    it("by its patient", function()
      local path = file "1.pdf"
      upload_all { path }
      local other = client:patient "q"
      assert.equal(1, assert(other:upload_all({ path }, { journal = journal })).uploaded)
      assert.equal("1.pdf", stored "q")
      assert.equal(1, upload_all({ path }).unchanged)
    end)

    it("once if it is listed twice", function()
      local path = file "1.pdf"
      local link = helper.temporary()
      assert(os.execute(("ln -s %s %s"):format(folder, link)))
      local report = upload_all { path, path, folder .. "/./1.pdf", link .. "/1.pdf" }
      assert.equal("complete: 1 uploaded, 0 unchanged, 0 failed, 0 unknown, 2 requests, 14 bytes", words(report))
    end)

    it("twice if the same name and content are listed from two paths", function()
      local path, other = file "1.pdf", helper.directory() .. "/1.pdf"
      helper.write_file(other, helper.read_file(path))
      assert.equal(2, upload_all({ path, other }).uploaded)
      assert.equal(2, upload_all({ other, path }).unchanged)
      assert.equal("1.pdf 1.pdf", stored())
    end)

    it("twice if the second path is listed later, together with the first one", function()
      local path, other = file "1.pdf", helper.directory() .. "/1.pdf"
      upload_all { path }
      helper.write_file(other, helper.read_file(path))
      assert.equal(1, upload_all({ other }).unchanged)
      local report = upload_all { other, path }
      assert.same({ 1, 1 }, { report.uploaded, report.unchanged })
      assert.equal(2, upload_all({ other, path }).unchanged)
    end)

    it("without hashing it again if path, size and time are the same", function()
      local paths = files(2)
      upload_all(paths)
      local job, hashed = require "nymbl.job", 0
      local digest = job.digest
      job.digest = function(...)
        hashed = hashed + 1
        return digest(...)
      end
      upload_all(paths)
      assert.equal(0, hashed)
      assert(os.execute("touch -d '2 hours ago' " .. paths[1]))
      upload_all(paths)
      assert.equal(1, hashed)
      upload_all(paths)
      assert.equal(1, hashed)
      local new = file("3.pdf", nil, true) -- it may change within the same step of the file system's clock
      upload_all { new }
      upload_all { new }
      assert.equal(3, hashed)
      job.digest = digest
    end)
  end)

  it("goes on after files that cannot be sent, and reports them", function()
    local good = file "good.pdf"
    assert(os.execute(("cd %s && mkfifo fifo.pdf && mkdir sub.pdf && ln -s good.pdf link.pdf && ln -s none loose.pdf"
      .. " && touch empty.pdf && echo text >text.pdf && echo text >notes.txt"):format(folder)))
    local wrong = { ["fifo.pdf"] = "io not_a_file", ["sub.pdf"] = "io directory", ["loose.pdf"] = "io not_found",
      ["missing.pdf"] = "io not_found", ["empty.pdf"] = "unsupported_type empty", ["text.pdf"] = "unsupported_type signature",
      ["notes.txt"] = "unsupported_type signature", ["sub.pdf/"] = "io directory", ["/dev/null"] = "io not_a_file",
      ["new\nline.pdf"] = "io bad_metadata" }
    local paths = {}
    for name in pairs(wrong) do paths[#paths + 1] = name:find("^/") and name or folder .. "/" .. name end
    paths[#paths + 1], paths[#paths + 2] = good, folder .. "/link.pdf"
    local report = upload_all(paths)
    assert.is_false(report.complete)
    assert.same({ 2, 10, 3 }, { report.uploaded, report.failed, report.requests })
    for _, item in ipairs(report.errors) do
      local name = item.path:find("^/dev") and item.path or item.path:sub(#folder + 2)
      assert.equal(wrong[name], item.err.kind .. " " .. item.err.reason, name)
      assert.equal("upload", item.err.operation)
      assert.is_nil(tostring(item.err):find(name, 1, true))
    end
    assert.equal("good.pdf link.pdf", stored())
    assert.same({ 2, 10, 0 }, (function(again) return { again.unchanged, again.failed, again.requests } end)(upload_all(paths)))
  end)

  it("refuses files over the limit before it hashes them", function()
    client:close()
    client = helper.client { max_upload_bytes = 12 }
    patient = client:patient "p"
    local report = upload_all { file "1.pdf" }
    assert.same({ "too_large", 0 }, { report.errors[1].err.kind, report.requests })
  end)

  it("sends no file that changes after it was hashed, or while it is sent", function()
    local path = file "1.pdf"
    local job = require "nymbl.job"
    local digest = job.digest
    job.digest = function(...)
      local result, size = digest(...)
      file("1.pdf", "changed")
      return result, size
    end
    local report = upload_all { path }
    job.digest = digest
    assert.same({ "io", "changed", 0 }, { report.errors[1].err.kind, report.errors[1].err.reason, report.requests })
    local big = helper.temporary ".pdf"
    assert(os.execute(("cp %s %s"):format(helper.big_file(3000000), big)))
    local start = core.start
    core.start = function(of, token, request)
      local transfer, err = start(of, token, request)
      if request.method == "POST" then
        local handle = io.open(big, "r+b")
        handle:seek("set", 2000000)
        handle:write "other bytes"
        handle:close()
      end
      return transfer, err
    end
    report = upload_all { big }
    core.start = start
    assert.same({ "io", "changed", 1, 0 },
      { report.errors[1].err.kind, report.errors[1].err.reason, report.failed, report.unknown })
    assert.equal("", stored())
    assert.equal(1, upload_all({ big }).uploaded)
  end)

  describe("if the response to an upload is lost,", function()
    local LOST = { operation = "upload", action = { lost_reply = "reset" } }

    it("finds the document at the end of the run", function()
      helper.faults(LOST)
      assert.equal("complete: 3 uploaded, 0 unchanged, 0 failed, 0 unknown, 6 requests, 42 bytes",
        words(upload_all(files(3)))) -- two lists, three uploads, one download
      assert.equal("complete: 0 uploaded, 3 unchanged, 0 failed, 0 unknown, 0 requests, 0 bytes", words(upload_all(files(3))))
    end)

    it("reports the file as unknown, and finds the document in a later run", function()
      helper.faults(LOST, { operation = "list", skip = 1, action = { status = 400 } })
      local paths = files(2)
      local report = upload_all(paths)
      assert.equal("incomplete: 1 uploaded, 0 unchanged, 0 failed, 1 unknown, 4 requests, 14 bytes", words(report))
      assert.same({ paths[1], true }, { report.errors[1].path, report.errors[1].err.outcome_unknown })
      assert.equal("complete: 1 uploaded, 1 unchanged, 0 failed, 0 unknown, 2 requests, 0 bytes", words(upload_all(paths)))
      assert.equal("complete: 0 uploaded, 2 unchanged, 0 failed, 0 unknown, 0 requests, 0 bytes", words(upload_all(paths)))
    end)

    it("finds the document even if the service does not state its size", function()
      local path = file "1.pdf"
      local function add(id, content)
        helper.add_document({ patient = "p", content = content, file_size_bytes = helper.json.null }, { id = id, file_name = "1.pdf" })
      end
      add("before", helper.read_file(path))
      helper.faults { operation = "upload", action = { before = "reset" } }
      assert.equal(1, upload_all({ path }).unknown)
      add("wrong", "%PDF-1.4 another")
      add("mine", helper.read_file(path))
      assert.equal(1, upload_all({ path }).uploaded)
      assert.equal(3, #helper.stored "p")
      assert.equal("mine", lines()[#lines()].id)
    end)

    it("takes no document that was there before, has other bytes or is another file's", function()
      local path, other = file "1.pdf", helper.directory() .. "/1.pdf"
      helper.write_file(other, helper.read_file(path))
      helper.add_document({ patient = "p", content = helper.read_file(path) }, { id = "before", file_name = "1.pdf" })
      helper.faults { operation = "upload", times = 2, action = { before = "reset" } }
      local report = upload_all { path, other }
      assert.equal(2, report.unknown)
      helper.add_document({ patient = "p", content = "%PDF-1.4 1.pdx" }, { id = "wrong", file_name = "1.pdf" })
      helper.add_document({ patient = "p", content = helper.read_file(path) }, { id = "mine", file_name = "1.pdf" })
      report = upload_all { path, other }
      assert.same({ 1, 1, 0 }, { report.uploaded, report.unknown, report.failed })
      assert.equal("mine", lines()[#lines()].id)
    end)
  end)

  describe("with an upload whose document is not there,", function()
    local clock, path

    before_each(function()
      client:close()
      client = helper.client { timeout = false } -- the clock jumps to the next deadline
      patient = client:patient "p"
      clock = helper.clock()
      path = file "1.pdf"
      helper.faults { operation = "upload", action = { before = "reset" } }
      assert.equal(1, upload_all({ path }).unknown)
    end)

    after_each(function() clock.restore() end)

    it("sends the file again after `settle`, not before", function()
      clock.offset = clock.offset + 890
      local report = upload_all { path }
      assert.equal("incomplete: 0 uploaded, 0 unchanged, 0 failed, 1 unknown, 1 requests, 0 bytes", words(report))
      assert.same({ "canceled", "unconfirmed", true },
        { report.errors[1].err.kind, report.errors[1].err.reason, report.errors[1].err.outcome_unknown })
      assert.equal("", stored())
      clock.offset = clock.offset + 20
      assert.equal("complete: 1 uploaded, 0 unchanged, 0 failed, 0 unknown, 2 requests, 14 bytes", words(upload_all { path }))
      assert.equal("1.pdf", stored())
    end)

    it("accepts another `settle`", function()
      clock.offset = clock.offset + 9
      assert.equal(1, upload_all({ path }, { settle = 10 }).unknown)
      assert.equal(1, upload_all({ path }, { settle = 9 }).uploaded)
    end)

    it("counts from the last attempt, by a clock that nobody can set", function()
      clock.wall_time = clock.wall_time + 100000
      assert.equal(1, upload_all({ path }).unknown)
      clock.wall_time, clock.offset = clock.wall_time - 200000, clock.offset + 1000
      helper.faults { operation = "upload", action = { before = "reset" } }
      assert.equal(1, upload_all({ path }).unknown) -- sent again
      clock.offset = clock.offset + 800
      assert.equal(1, upload_all({ path }).unknown)
      assert.equal("", stored())
      clock.offset = clock.offset + 200
      assert.equal(1, upload_all({ path }).uploaded)
    end)

    it("counts from the end of a slow upload that was killed", function()
      local slow, patients = file "slow.pdf", patient
      local slow_client = helper.client { timeout = false, headers = function(operation)
        if operation == "upload" then clock.offset = clock.offset + 500 end -- once the journal has the upload
      end }
      patient = slow_client:patient "p"
      assert.equal(1, upload_all({ slow }).uploaded)
      slow_client:close()
      patient = patients
      helper.write_file(journal, (helper.read_file(journal):gsub("[^\n]*\n$", ""))) -- as if killed before the answer
      assert(patient:document(helper.stored("p")[1].id):delete())
      clock.offset = clock.offset + 890
      assert.equal(1, upload_all({ slow }).unknown)
      clock.offset = clock.offset + 20
      assert.equal(1, upload_all({ slow }).uploaded)
    end)

    it("does not send the file if the list is not complete", function()
      clock.offset = clock.offset + 1000
      helper.faults { operation = "list", action = { status = 500 } }
      local report = upload_all { path }
      assert.same({ false, "server", 0, 1 }, { report.complete, report.stopped, report.uploaded, report.requests })
      assert.equal("", stored())
    end)

    it("does not send the file if a document of its name and size cannot be compared", function()
      clock.offset = clock.offset + 1000
      helper.add_document({ patient = "p", content = helper.read_file(path) }, { id = "found", file_name = "1.pdf" })
      helper.faults { operation = "download", action = { status = 500 } }
      assert.equal(1, upload_all({ path }).unknown)
      assert.equal("1.pdf", stored())
      assert.equal(1, upload_all({ path }).uploaded)
      assert.equal("1.pdf", stored())
    end)
  end)

  describe("with a process killed", function()
    it("before an upload was answered, does not send it again", function()
      local paths = files(2)
      upload_all(paths)
      forget_lines(1) -- the last `done`
      assert.equal("complete: 1 uploaded, 1 unchanged, 0 failed, 0 unknown, 2 requests, 0 bytes", words(upload_all(paths)))
      assert.equal("1.pdf 2.pdf", stored())
    end)

    it("before an upload was begun, sends it", function()
      local paths = files(2)
      upload_all { paths[1] }
      assert.equal(1, upload_all(paths).uploaded)
    end)

    it("while it wrote, ignores the incomplete line, and cuts it off", function()
      local paths = files(2)
      upload_all(paths)
      local text = helper.read_file(journal)
      helper.write_file(journal, text:sub(1, -10))
      assert.equal(1, upload_all(paths).uploaded) -- it is found
      helper.write_file(journal, helper.read_file(journal) .. '{"state":"begun"')
      assert.equal(2, upload_all(paths).unchanged)
      upload_all { file "3.pdf" }
      assert.is_nil(helper.read_file(journal):find('{"state":"begun"{', 1, true))
      assert.equal("1.pdf 2.pdf 3.pdf", stored())
    end)
  end)

  it("has on the disk what it sends, whenever it sends", function()
    helper.faults({ operation = "upload", action = { status = 401, body_kind = "gateway" } },
      { operation = "upload", skip = 3, action = { lost_reply = "reset" } })
    client:close()
    client = helper.client { max_attempts = 3 }
    patient = client:patient "p"
    local job = require "nymbl.job"
    local start, sync, on_disk, uploads = core.start, job.sync, "", 0
    job.sync = function(...)
      local text = helper.exists(journal) and helper.read_file(journal) or ""
      local synced, err = sync(...)
      if synced then on_disk = text end
      return synced, err
    end
    core.start = function(of, token, request)
      if request.method == "POST" then
        uploads = uploads + 1
        local name = request.upload.file_name
        local line = on_disk:match('[^\n]*"file_name":"' .. name:gsub("%p", "%%%0") .. '"[^\n]*\n')
        assert(line and helper.json.decode(line).state == "begun", name)
      end
      return start(of, token, request)
    end
    local ran, report = pcall(upload_all, files(6), { concurrency = 3 })
    core.start, job.sync = start, sync
    assert.is_true(ran, report)
    assert.same({ 7, 6 }, { uploads, report.uploaded })
  end)

  it("never sends a file twice if the journal is cut off at any byte whose loss a power cut can cause", function()
    local paths = files(2)
    local size, last = 0
    repeat
      for _, entry in ipairs(helper.stored "p") do assert(patient:document(entry.id):delete()) end
      os.remove(journal)
      upload_all(paths)
      local text = helper.read_file(journal)
      -- what was flushed before the last upload was sent cannot be lost
      local flushed = #text:match('^.*"begun"[^\n]*\n')
      last = #text
      size = math.max(size + (size < flushed + 20 and 1 or size > last - 20 and 1 or 17), flushed)
      helper.write_file(journal, text:sub(1, size))
      if size < last then
        assert.equal("complete: 1 uploaded, 1 unchanged, 0 failed, 0 unknown, 2 requests, 0 bytes",
          words(upload_all(paths)), size)
      end
      assert.equal("1.pdf 2.pdf", stored())
      assert.equal("complete: 0 uploaded, 2 unchanged, 0 failed, 0 unknown, 0 requests, 0 bytes", words(upload_all(paths)))
    until size >= last
  end)

  it("believes nothing of what a power cut has left in place of lines", function()
    local paths = files(2)
    for _, rest in ipairs { ("\0"):rep(300), ("\0"):rep(300) .. "\n", '"done"}\n', '{"state":"done"}\n', '{"state":"hashed",\n' } do
      for _, entry in ipairs(helper.stored "p") do assert(patient:document(entry.id):delete()) end
      os.remove(journal)
      upload_all(paths)
      local text = helper.read_file(journal)
      helper.write_file(journal, text:match('^.*"begun"[^\n]*\n') .. rest)
      assert.equal("complete: 1 uploaded, 1 unchanged, 0 failed, 0 unknown, 2 requests, 0 bytes", words(upload_all(paths)))
      assert.equal("1.pdf 2.pdf", stored())
    end
  end)

  describe("ends early", function()
    it("at the quota", function()
      helper.faults { operation = "upload", skip = 1, action = { status = 429, message = "Limit Exceeded" } }
      local report = upload_all(files(5))
      assert.same({ false, "quota", 1, 1, 0 },
        { report.complete, report.stopped, report.uploaded, report.failed, report.unknown })
      assert.equal(2, #helper.journal "upload")
    end)

    it("if the patient cannot be listed", function()
      local report = assert(client:patient("missing"):upload_all(files(5), { journal = journal }))
      assert.same({ "not_found", 1, 1 }, { report.stopped, report.failed, report.requests })
      assert.equal("list", report.errors[1].err.operation)
    end)

    it("after three refusals in a row", function()
      helper.faults { operation = "upload", times = -1, action = { status = 403, body_kind = "service" } }
      local report = upload_all(files(5))
      assert.same({ "forbidden", 3, 4 }, { report.stopped, report.failed, report.requests })
    end)

    it("if progress returns false", function()
      helper.faults { operation = "upload", times = -1, action = { delay = 0.3 } }
      local report = upload_all(files(3), { progress = function() return false end })
      assert.same({ false, "canceled", 1, 0, 0 }, { report.complete, report.stopped, report.uploaded, report.failed,
        report.unknown })
    end)

    it("if the journal cannot be written, and keeps apart what may have arrived meanwhile", function()
      local journals = require "nymbl.upload_all.journal"
      local begin, count = journals.begin, 0
      finally(function() journals.begin = begin end)
      function journals.begin(...)
        count = count + 1
        if count == 2 then return nil, nymbl.error { kind = "io", reason = "no_space" } end
        return begin(...)
      end
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local paths = files(2)
      local report = upload_all(paths, { concurrency = 2 })
      assert.same({ "no_space", 1, 1 }, { report.stopped, report.failed, report.unknown })
      journals.begin = begin
      assert.equal(2, upload_all(paths).uploaded)
      assert.equal("1.pdf 2.pdf", stored())
    end)

    it("if the client is closed meanwhile", function()
      helper.faults { operation = "upload", times = -1, action = { delay = 0.4 } }
      local other = helper.client()
      local report = assert(other:patient("p"):upload_all(files(3), { journal = journal, concurrency = 1, progress = function()
        other:close()
      end }))
      assert.same({ false, "canceled", 0 }, { report.complete, report.stopped, report.failed })
      helper.faults()
      report = upload_all(files(3))
      assert.is_true(report.complete)
      assert.equal("1.pdf 2.pdf 3.pdf", stored())
    end)

    it("if the iterator raises, and raises that", function()
      local paths, i = files(3), 0
      local ok, raised = pcall(upload_all, function()
        i = i + 1
        if i == 2 then error("mine", 0) end
        return paths[i]
      end)
      assert.same({ false, "mine" }, { ok, raised })
      assert.equal("1.pdf", stored())
      assert.equal(1, upload_all(paths).unchanged)
    end)
  end)

  describe("with dry_run", function()
    it("sends reads only, writes nothing, and states what a run takes", function()
      local paths = files(3)
      upload_all { paths[1] }
      local before = helper.read_file(journal)
      local report = upload_all(paths, { dry_run = true })
      assert.same({ requests = 3, uploads = 2, bytes = 28 }, report.would)
      assert.same({ 0, 1, 1 }, { report.uploaded, report.unchanged, report.requests })
      assert.equal(before, helper.read_file(journal))
      assert.equal("1.pdf", stored())
      assert.equal(3, upload_all(paths).requests)
      assert.same({ requests = 0, uploads = 0, bytes = 0 }, upload_all(paths, { dry_run = true }).would)
    end)

    it("creates no journal", function()
      local report = upload_all(files(2), { dry_run = true })
      assert.same({ requests = 3, uploads = 2, bytes = 28 }, report.would)
      assert.is_false(helper.exists(journal))
    end)

    it("counts what must be looked for, and what cannot be sent", function()
      helper.faults({ operation = "upload", action = { lost_reply = "reset" } },
        { operation = "list", skip = 1, action = { status = 400 } })
      local paths = files(2)
      upload_all { paths[1] }
      paths[3] = helper.write_file(folder .. "/text.pdf", "text")
      local report = upload_all(paths, { dry_run = true })
      assert.same({ requests = 3, uploads = 1, bytes = 14 }, report.would)
      assert.equal(1, report.failed)
      assert.equal(3, upload_all(paths).requests)
    end)
  end)

  describe("with on_file", function()
    -- The documents of a run by path, or the words of errors; false if there is neither. Each file must be
    -- reported once.
    local function outcomes(paths, options)
      local found = {}
      options = options or {}
      function options.on_file(path, document, err)
        assert.is_nil(found[path])
        assert.is_true(not (document and err))
        found[path] = document and document.id or err and (err.reason or err.kind) or false
      end
      local report = upload_all(paths, options)
      return found, report
    end

    local function ids()
      local found = {}
      for _, entry in ipairs(helper.stored "p") do found[entry.metadata.file_name] = entry.id end
      return found
    end

    it("tells the document of each file, once, and the error of each other", function()
      local paths = files(3)
      upload_all { paths[1] }
      paths[4], paths[5] = folder .. "/none.pdf", paths[2]
      helper.faults({ operation = "upload", action = { before = "reset" } })
      local found, report = outcomes(paths)
      local id = ids()
      assert.same({ [paths[1]] = id["1.pdf"], [paths[2]] = "reset", [paths[3]] = id["3.pdf"], [paths[4]] = "not_found" },
        found)
      assert.same({ 1, 1, 1, 1 }, { report.uploaded, report.unchanged, report.failed, report.unknown })
    end)

    it("tells the documents that are found at the end of the run, and those of earlier runs", function()
      helper.faults({ operation = "upload", action = { lost_reply = "reset" } })
      local paths = files(2)
      local found = outcomes(paths)
      local id = ids()
      assert.same({ [paths[1]] = id["1.pdf"], [paths[2]] = id["2.pdf"] }, found)
      forget_lines(1) -- "done" of the first file
      local report
      found, report = outcomes(paths)
      assert.same({ [paths[1]] = id["1.pdf"], [paths[2]] = id["2.pdf"] }, found)
      assert.same({ 1, 1 }, { report.uploaded, report.unchanged })
    end)

    it("tells each of several files of one name and content its own document", function()
      local first, second = file "1.pdf", helper.directory() .. "/1.pdf"
      helper.write_file(second, helper.read_file(first))
      local found = outcomes { first, second }
      assert.are_not.equal(found[first], found[second])
      assert.same(found, (outcomes { second, first }))
      local third = helper.directory() .. "/1.pdf"
      assert(os.rename(first, third))
      assert.same({ [second] = found[second], [third] = found[first] }, (outcomes { second, third }))
    end)

    it("tells what is known of a document that was there before", function()
      local path, known = file "1.pdf", nil
      upload_all { path }
      upload_all({ path }, { on_file = function(_, document) known = document end })
      assert.same({ id = ids()["1.pdf"], patient_id = "p", file_name = "1.pdf", file_size_bytes = 14 }, known:metadata())
      assert.equal("application/pdf", known:refresh():metadata().content_type)
    end)

    it("tells neither in a dry run, if the file would be uploaded", function()
      local paths = files(2)
      upload_all { paths[1] }
      paths[3] = folder .. "/none.pdf"
      assert.same({ [paths[1]] = ids()["1.pdf"], [paths[2]] = false, [paths[3]] = "not_found" },
        (outcomes(paths, { dry_run = true })))
      assert.same({ [paths[2]] = false }, (outcomes({ paths[2] }, { dry_run = true, journal = helper.temporary() })))
    end)

    it("tells nothing of files that the end of the run leaves out", function()
      helper.faults { operation = "upload", times = -1, action = { status = 403 } }
      local paths = files(5)
      local found, report = outcomes(paths)
      assert.equal("forbidden", report.stopped)
      assert.same({ "string", "string", "string", "nil", "nil" }, { type(found[paths[1]]), type(found[paths[2]]),
        type(found[paths[3]]), type(found[paths[4]]), type(found[paths[5]]) })
    end)

    it("raises what it raised, after the document was recorded", function()
      local paths = files(2)
      local ok, raised = pcall(upload_all, paths, { on_file = function() error("mine", 0) end })
      assert.same({ false, "mine" }, { ok, raised })
      assert.equal("1.pdf", stored())
      ok, raised = pcall(upload_all, paths, { on_file = function() error("mine", 0) end })
      assert.same({ false, "mine" }, { ok, raised })
      local report = upload_all(paths)
      assert.same({ 1, 1 }, { report.uploaded, report.unchanged })
    end)
  end)

  describe("with a journal", function()
    it("of another service, does nothing", function()
      local paths = files(1)
      upload_all(paths)
      local text = helper.read_file(journal)
      helper.write_file(journal, (text:gsub('"service":"%x', '"service":"x')))
      local report, err = patient:upload_all(paths, { journal = journal })
      assert.is_nil(report)
      assert.same({ "io", "other_service" }, { err.kind, err.reason })
    end)

    it("that is another file, does nothing", function()
      local path = helper.write_file(helper.temporary(), "dear diary\n")
      local report, err = patient:upload_all(files(1), { journal = path })
      assert.is_nil(report)
      assert.same({ "io", "other_service" }, { err.kind, err.reason })
      assert.equal("dear diary\n", helper.read_file(path))
    end)

    it("whose first line was cut off by a power cut, begins it again", function()
      local path = files(1)[1]
      assert(patient:upload_all({}, { journal = journal }))
      local line = helper.read_file(journal)
      for _, text in ipairs { ("\0"):rep(#line), "" } do
        helper.write_file(journal, text)
        assert(patient:upload_all({}, { journal = journal }))
        assert.equal(#line, #helper.read_file(journal))
      end
      for cut = 1, #line - 1 do
        helper.write_file(journal, line:sub(1, cut))
        assert(patient:upload_all({}, { journal = journal, dry_run = true }))
        assert.equal(cut, #helper.read_file(journal))
        assert(patient:upload_all({}, { journal = journal }))
        assert.equal(#line, #helper.read_file(journal))
      end
      assert.equal(1, upload_all({ path }).uploaded)
      assert.equal(1, upload_all({ path }).unchanged)
    end)

    it("that is another file without a line, does nothing", function()
      for _, text in ipairs { "x", "{}", '{"state' .. ("x"):rep(500), '{"name":"Erika"', ("\0"):rep(500) } do
        helper.write_file(journal, text)
        local report, err = patient:upload_all(files(1), { journal = journal })
        assert.is_nil(report)
        assert.same({ "io", "other_service" }, { err.kind, err.reason })
        assert.equal(text, helper.read_file(journal))
      end
    end)

    it("that another run uses, does nothing", function()
      local paths, inner, err = files(2), nil, nil
      upload_all(paths, { progress = function()
        if not err then inner, err = patient:upload_all(paths, { journal = journal }) end
      end })
      assert.is_nil(inner)
      assert.same({ "io", "in_use" }, { err.kind, err.reason })
      assert.equal("1.pdf 2.pdf", stored())
    end)

    it("in no folder, or that is a folder or a link, does nothing", function()
      local link = helper.temporary()
      assert(os.execute(("ln -s %s %s"):format(journal, link)))
      for path, reason in pairs { [folder .. "/none/j"] = "not_found", [folder] = "directory", [folder .. "/"] = "directory",
                                  [link] = "symbolic_link" } do
        local report, err = patient:upload_all(files(1), { journal = path })
        assert.is_nil(report)
        assert.same({ "io", reason }, { err.kind, err.reason })
      end
      assert.same({}, helper.journal())
    end)

    it("that others could read, makes it private", function()
      helper.write_file(journal, "")
      assert(os.execute("chmod 644 " .. journal))
      upload_all(files(1))
      assert.equal("600", helper.output("stat -c %a " .. journal))
    end)

    it("keeps names that are no valid UTF-8", function()
      local path = file "\195\164 \255.pdf"
      assert.equal(1, upload_all({ path }).uploaded)
      assert.equal(1, upload_all({ path }).unchanged)
    end)
  end)

  it("has a timeout for each page and each upload, and the tag and headers of the program", function()
    for operation, outcome in pairs { list = { "timeout", 1, 0 }, upload = { nil, 0, 1 } } do
      helper.faults({ operation = operation, action = { delay = 3 } }, { operation = "list", skip = 1, action = { status = 400 } })
      local report = upload_all({ file(operation .. ".pdf") }, { timeout = 1 })
      assert.same(outcome, { report.stopped, report.failed, report.unknown })
      assert.same({ "timeout", operation }, { report.errors[1].err.kind, report.errors[1].err.operation })
    end
    local tags = {}
    local other = helper.client { on_event = function(event) tags[event.operation] = event.tag or "none" end }
    helper.faults { operation = "upload", action = { lost_reply = "reset" } }
    assert(other:patient("q"):upload_all({ file "1.pdf" }, { journal = journal, tag = "t", headers = { ["x-request-id"] = "r" } }))
    assert.same({ list = "t", upload = "t", download = "t" }, { list = tags.list, upload = tags.upload, download = tags.download })
    other:close()
  end)

  it("does nothing where it may not wait", function()
    local report, err
    nymbl.each({ 1 }, function()
      ("x"):gsub("x", function() report, err = patient:upload_all(files(1), { journal = journal }) end)
      return true
    end)
    assert.is_nil(report)
    assert.equal("context", err.kind)
    assert.is_false(helper.exists(journal))
    assert.same({}, helper.journal())
  end)

  it("tells no name and no id in its errors and in the text of its objects", function()
    local paths = { file "secret.pdf" }
    helper.faults { operation = "upload", action = { before = "reset" } }
    for _, item in ipairs(upload_all(paths).errors) do
      assert.is_nil(tostring(item.err):find("secret", 1, true))
      assert.is_nil(tostring(item.err):find(folder, 1, true))
    end
  end)

  it("lets other coroutines run while it looks at files", function()
    local paths = files(30)
    upload_all(paths, { concurrency = 16 })
    local wait = require "nymbl.wait"
    local ticks, is_over, i = 0, false, 0
    local function slowly()
      i = i + 1
      local till = core.now() + 0.003
      repeat until core.now() >= till
      return paths[i]
    end
    local _, failed = nymbl.each({ 1, 2 }, { concurrency = 2 }, function(number)
      if number == 1 then
        local ran, report = pcall(upload_all, slowly)
        is_over = true
        assert.is_true(ran, report)
        assert.equal(30, report.unchanged)
      else
        while not is_over do
          wait.wait(nil, wait.now() + 1 / 1000)
          ticks = ticks + 1
        end
      end
      return true
    end)
    assert.same({}, failed)
    assert.is_true(ticks >= 10, ticks .. " ticks")
  end)

  it("raises on misuse, before anything is read", function()
    for problem, fn in pairs {
      ["bad argument #1 to 'upload_all' (array or iterator expected, got no value)"] = function() patient:upload_all() end,
      ["bad argument #1 to 'upload_all' (path or table expected, got number)"] = function()
        patient:upload_all({ 5 }, { journal = journal })
      end,
      ["bad argument #1 to 'upload_all' (unknown field 'name')"] = function()
        patient:upload_all({ { path = "x", name = "y" } }, { journal = journal })
      end,
      ["bad argument #1 to 'upload_all' (field 'path' is required)"] = function()
        patient:upload_all({ {} }, { journal = journal })
      end,
      ["bad argument #2 to 'upload_all' (option 'journal' is required)"] = function() patient:upload_all({}) end,
      ["bad argument #2 to 'upload_all' (option 'settle': must not be negative)"] = function()
        patient:upload_all({}, { journal = journal, settle = -1 })
      end,
      ["bad argument #2 to 'upload_all' (unknown option 'budget')"] = function()
        patient:upload_all({}, { journal = journal, budget = 1 })
      end,
    } do
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.matches("upload_all_spec.lua:%d+: ", message)
      assert.is_truthy(message:find(problem, 1, true), message)
    end
    assert.is_false(helper.exists(journal))
    assert.equal(0, core.object_count() - helper.object_count())
  end)
end)
