-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- client:export(): every document of some patients as a file, with a manifest.

local core = require "nymbl.core"
local helper = require "helper"
local nymbl = require "nymbl"

local quote = helper.quote

local KEYS = { "content_type", "description", "document_type", "file_name", "id", "path", "patient_id", "sha256", "size",
               "uploaded_at" }

describe("client:export()", function()
  local client, folder

  before_each(function()
    helper.reset()
    client = helper.client()
    folder = helper.temporary()
  end)

  after_each(function()
    client:close()
    client = nil
    assert.equal(0, helper.object_count())
  end)

  -- Add a document of 1,000 bytes to the service.
  local function add(patient, id, fields)
    return helper.add_document({ patient = patient, id = id, size = 1000, file_name = "a.pdf" }, fields)
  end

  local function export(options)
    return assert(client:export(folder, options))
  end

  -- The fields of a report that are numbers, in words; and what has ended it.
  local function words(report)
    local text = {}
    for _, name in ipairs { "patients", "downloaded", "unchanged", "failed", "gone" } do
      if report[name] ~= 0 then text[#text + 1] = ("%d %s"):format(report[name], name) end
    end
    if report.stopped then text[#text + 1] = report.stopped end
    if report.complete then text[#text + 1] = "complete" end
    return table.concat(text, ", ")
  end

  -- The last objects of the manifest, by patient and document.
  local function manifest()
    local records, count = {}, 0
    for line in io.lines(folder .. "/manifest.jsonl") do
      local record = helper.json.decode(line)
      local key = record.patient_id .. " " .. record.id
      if not records[key] then count = count + 1 end
      records[key] = record
    end
    return records, count
  end

  -- Compare the folder with the service: every document is there once, as the manifest says, and
  -- nothing else is.
  local function check_folder(patients)
    local records, expected = manifest(), 0
    local paths = {}
    for _, patient in ipairs(patients) do
      for _, stored in ipairs(helper.stored((patient:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)))) do
        expected = expected + 1
        local record = assert(records[patient .. " " .. stored.id], "no line for a document")
        assert.equal(stored.sha256, record.sha256)
        assert.equal(stored.size, record.size)
        assert.equal(stored.sha256, helper.sha256(folder .. "/" .. record.path))
        local folded = record.path:lower()
        assert.is_nil(paths[folded], "two documents have one path")
        paths[folded] = true
      end
    end
    assert.equal(expected, select(2, manifest()))
    local files = helper.output(("cd %s && find . -mindepth 2 -type f | wc -l"):format(quote(folder)))
    assert.equal(tostring(expected), files)
    assert.equal(".nymbl-export\nmanifest.jsonl", helper.output(("cd %s && find . -maxdepth 1 -type f -printf '%%P\\n' | sort")
      :format(quote(folder))))
    assert.equal("", helper.output(("find %s -mindepth 2 -name '*.nymbl-*'"):format(quote(folder))))
  end

  it("writes every document, and a manifest", function()
    add("p1", "d1", { file_name = "letter.pdf", document_type = "Referral", description = "two\nlines" })
    add("p1", "d2", { size = 20000 })
    add("p2", "d3", { content_type = "image/png", file_name = "x" })
    local report = export()
    assert.equal("2 patients, 3 downloaded, complete", words(report))
    assert.same({ 6, 22000 }, { report.requests, report.bytes })
    assert.same({}, report.errors)
    check_folder { "p1", "p2" }
    local record = manifest()["p1 d1"]
    local names = {}
    for name in pairs(record) do names[#names + 1] = name end
    table.sort(names)
    assert.same(KEYS, names)
    local doc = assert(client:patient("p1"):get "d1")
    assert.equal("p1/" .. doc:safe_name { unique = true }, record.path)
    assert.same({ "letter.pdf", "Referral", "two\nlines", "application/pdf", doc.uploaded_at },
      { record.file_name, record.document_type, record.description, record.content_type, record.uploaded_at })
    assert.equal(helper.json.decode("[null]")[1], manifest()["p2 d3"].description)
    assert.equal("", helper.output(("find %s -type d ! -perm 700 -o -type f ! -perm 600"):format(folder)))
  end)

  it("lists only, if nothing has changed", function()
    add("p1", "d1")
    add("p2", "d2")
    export()
    local before = helper.output(("cd %s && find . -type f -name '*.pdf' -printf '%%p %%T@ %%i\\n'"):format(folder))
    helper.admin("DELETE", "journal")
    local report = export()
    assert.equal("2 patients, 2 unchanged, complete", words(report))
    assert.same({ 3, 0 }, { report.requests, report.bytes })
    assert.equal(3, #helper.journal())
    assert.equal(before, helper.output(("cd %s && find . -type f -name '*.pdf' -printf '%%p %%T@ %%i\\n'"):format(folder)))
    assert.equal(2, select(2, manifest()))
  end)

  it("downloads what has changed, to the path that it has", function()
    for i = 1, 5 do add("p", "d" .. i, { uploaded_at = "2026-01-01T00:00:00Z" }) end
    export()
    local path = manifest()["p d2"].path
    local function change(id, fields)
      fields.uploaded_at = fields.uploaded_at or "2026-01-01T00:00:00Z"
      add("p", id, fields)
    end
    change("d1", { size = 2000 })
    change("d2", { file_name = "renamed.pdf" })
    change("d3", { uploaded_at = "2026-01-02T00:00:00Z", content = "%PDF-other" .. ("x"):rep(990) })
    change("d4", { content_type = "image/png" })
    change("d5", { description = "this alone is no change" })
    assert.equal("1 patients, 4 downloaded, 1 unchanged, complete", words(export()))
    assert.equal(path, manifest()["p d2"].path)
    assert.equal("renamed.pdf", manifest()["p d2"].file_name)
    check_folder { "p" }
    assert.equal("1 patients, 5 unchanged, complete", words(export()))
  end)

  it("downloads what is missing or has another size, and with verify what has other bytes", function()
    for i = 1, 4 do add("p", "d" .. i) end
    export()
    local records = manifest()
    local function file(i) return folder .. "/" .. records["p d" .. i].path end
    os.remove(file(1))
    helper.write_file(file(2), "short")
    helper.write_file(file(3), ("x"):rep(1000))
    assert.equal("1 patients, 2 downloaded, 2 unchanged, complete", words(export()))
    assert.equal("1 patients, 1 downloaded, 3 unchanged, complete", words(export { verify = true }))
    check_folder { "p" }
    assert.equal("1 patients, 4 unchanged, complete", words(export { verify = true }))
  end)

  it("keeps what has gone, and counts it", function()
    for i = 1, 3 do add("p", "d" .. i) end
    add("q", "e")
    export()
    helper.admin("DELETE", "documents?patient=p&id=d2")
    helper.admin("DELETE", "documents?patient=q&id=e") -- the sandbox lists only patients with documents
    for _ = 1, 2 do
      assert.equal("1 patients, 2 unchanged, 2 gone, complete", words(export()))
      assert.is_truthy(manifest()["p d2"])
      assert.is_true(helper.exists(folder .. "/" .. manifest()["p d2"].path))
    end
    assert.equal("1 patients, 2 unchanged, 1 gone, complete", words(export { patients = { "p" } }))
    assert.equal("2 patients, 2 unchanged, 2 gone, complete", words(export { patients = { "p", "q" } }))
    assert.equal("1 patients, 2 unchanged, complete", words(export { filter = "file_name eq 'a.pdf'" }))
  end)

  it("accepts patients as ids or objects, in an array or an iterator, each once", function()
    for i = 1, 4 do add(tostring(i), "d" .. i) end
    assert.equal("3 patients, 3 downloaded, complete", words(export {
      patients = { 1, "1", client:patient(2), "2", "3", 3 },
    }))
    assert.equal("1 patients, 1 downloaded, complete", words(export { patients = client:patients { filter = "id gt '3'" } }))
    local list = { "2", 4 }
    assert.equal("2 patients, 2 unchanged, complete", words(export { patients = function() return table.remove(list) end }))
    assert.equal("complete", words(export { patients = {} }))
    check_folder { "1", "2", "3", "4" }
  end)

  it("downloads the documents that match a filter", function()
    add("p", "d1", { document_type = "Referral" })
    add("p", "d2", { document_type = "Scan" })
    local filter = nymbl.filter("document_type eq ?", "Scan")
    assert.equal("1 patients, 1 downloaded, complete", words(export { filter = filter }))
    assert.is_truthy(manifest()["p d2"])
    assert.equal("1 patients, 1 downloaded, 1 unchanged, complete", words(export()))
  end)

  it("lists a patient completely before it downloads", function()
    helper.admin("POST", "seed", { patient = "p", count = 250 })
    export()
    local first_download
    for i, entry in ipairs(helper.journal()) do
      if entry.operation == "download" then first_download = first_download or i end
      if entry.operation == "list" then assert.is_nil(first_download) end
    end
    assert.equal(250, #helper.journal "download")
  end)

  it("downloads some at once", function()
    for i = 1, 12 do add("p", "d" .. i) end
    helper.faults { operation = "download", times = -1, action = { delay = 0.2 } }
    for concurrency, seconds in pairs { [12] = { 0.2, 0.9 }, [4] = { 0.6, 1.5 } } do
      folder = helper.temporary()
      local began = core.now()
      export { concurrency = concurrency }
      local took = core.now() - began
      assert.is_true(took > seconds[1] and took < seconds[2] * 3, took)
    end
  end)

  it("pays no attention to the names in a manifest that lead elsewhere", function()
    add("p", "d1")
    export()
    local line = helper.read_file(folder .. "/manifest.jsonl")
    local path = helper.json.decode(line).path
    for _, wrong in ipairs { "../x", "/etc/x", "p/../../x", "q/x", "p/", "p/.", "p/..", "", "p", "p/a/b" } do
      local record = helper.json.decode(line)
      record.path = wrong
      helper.write_file(folder .. "/manifest.jsonl", helper.json.encode(record) .. "\n")
      assert.equal("1 patients, 1 downloaded, complete", words(export()))
      assert.equal(path, manifest()["p d1"].path)
    end
    check_folder { "p" }
  end)

  describe("as a dry run", function()
    it("sends reads only, writes nothing, and states what a run then takes", function()
      helper.admin("POST", "seed", { patient = "p", count = 230 })
      add("q", "d", { size = 5000 })
      local report = export { dry_run = true }
      assert.equal("2 patients, complete", words(report))
      assert.is_false(helper.exists(folder))
      assert.equal(#helper.journal "list" + 1, report.requests)
      assert.equal(#helper.journal(), report.requests)
      assert.equal(231, report.would.downloads)
      local run = export()
      assert.same({ run.requests, run.downloaded, run.bytes },
        { report.would.requests, report.would.downloads, report.would.bytes })

      add("q", "d", { size = 6000 })
      os.remove(folder .. "/" .. manifest()["p doc-seed-00007"].path)
      local function state()
        return helper.output(("cd %s && find . -printf '%%p %%T@ %%s\\n' | sort | sha256sum"):format(folder))
      end
      local before = state()
      report = export { dry_run = true, verify = true }
      assert.equal("2 patients, 229 unchanged, complete", words(report))
      assert.equal(before, state())
      run = export()
      assert.same({ 2, 2, run.bytes }, { run.downloaded, report.would.downloads, report.would.bytes })
      assert.equal(run.requests, report.would.requests)
    end)

    it("states what a run takes of a budget", function()
      for i = 1, 4 do
        for k = 1, 3 do add("p" .. i, ("d%d%d"):format(i, k), { size = 1000 * i + k }) end
      end
      for budget = 0, 18 do
        local report = export { dry_run = true, budget = budget }
        assert.is_true(report.requests <= budget)
        local run = export { budget = budget }
        assert.same({ run.requests, run.downloaded, run.bytes, run.stopped },
          { report.would.requests, report.would.downloads, report.would.bytes, report.stopped })
        os.execute("rm -r " .. folder)
      end
    end)
  end)

  describe("with a budget", function()
    it("sends no more requests, and continues", function()
      for i = 1, 20 do add("p", "d" .. i) end
      local downloaded = 0
      for i = 1, 3 do
        helper.admin("DELETE", "journal")
        local report = export { patients = { "p" }, budget = 8 }
        assert.equal("budget", report.stopped)
        assert.equal(8, report.requests)
        assert.equal(8, #helper.journal())
        downloaded = downloaded + report.downloaded
        if i == 2 then break end
      end
      assert.equal(14, downloaded)
      local report = export { patients = { "p" }, budget = 8 }
      assert.equal("1 patients, 6 downloaded, 14 unchanged, complete", words(report))
      check_folder { "p" }
    end)

    it("leaves no file open if that is spent in the middle of a patient", function()
      for i = 1, 9 do add("p", "d" .. i) end
      collectgarbage "stop"
      finally(function() collectgarbage "restart" end)
      assert.equal("budget", export({ patients = { "p" }, budget = 3 }).stopped)
      assert.equal(0, helper.times_open(folder .. "/p"))
    end)

    it("counts repeated requests", function()
      client:close()
      client = helper.client { max_attempts = 3 }
      for i = 1, 5 do add("p", "d" .. i) end
      helper.faults { operation = "download", times = 2, action = { status = 503, headers = { { "Retry-After", "0" } } } }
      local report = export { patients = { "p" }, budget = 5, concurrency = 1 }
      assert.equal("1 patients, 2 downloaded, budget", words(report))
      assert.equal(5, report.requests)
      assert.equal(5, #helper.journal())
    end)

    it("of 0 sends nothing", function()
      assert.equal("budget", words(export { budget = 0 }))
      assert.equal(0, #helper.journal())
    end)

    -- The patients who were listed since the last look, in their order.
    local function visited()
      local ids = {}
      for i, entry in ipairs(helper.journal "list") do ids[i] = entry.path:match("^/Patients%((.-)%)") end
      helper.admin("DELETE", "journal")
      return ids
    end

    it("visits all patients in turn, none twice before the others", function()
      -- the whole account takes a minute
      local patients, budget = 300, 60
      if os.getenv "NYMBL_SPEC_LARGE" then patients, budget = 5000, 500 end
      for i = 1, patients do helper.admin("POST", "seed", { patient = ("p%04d"):format(i), count = i % 3, prefix = "d" .. i .. "-" }) end
      local present, documents = 0, 0 -- the sandbox lists only patients with documents
      for i = 1, patients do
        if i % 3 > 0 then present, documents = present + 1, documents + i % 3 end
      end
      local seen, count, runs, downloaded = {}, 0, 0, 0
      for round = 1, 2 do
        while count < round * present do
          local report = export { budget = budget }
          assert.is_true(report.requests <= budget)
          assert.equal("budget", report.stopped)
          runs, downloaded = runs + 1, downloaded + report.downloaded
          for _, id in ipairs(visited()) do
            count = count + 1
            seen[id] = (seen[id] or 0) + 1
            if count <= round * present then assert.equal(round, seen[id], id) end
          end
        end
      end
      -- at the end of a run, a patient may have to wait for its documents until its next turn
      assert.is_true(downloaded == documents and runs < 40, ("%d documents in %d runs"):format(downloaded, runs))
    end)
  end)

  describe("whatever the service calls patients and documents", function()
    local IDS = { "..", ".", "../../x", "/etc/passwd", "a/b", "A", "a", "con", "CON", "nul.txt", "manifest.jsonl",
                  ".nymbl-export", ".nymbl-tmp-00", ("x"):rep(64), ("x"):rep(65), ("y"):rep(300), "a\nb", "a\27[2Jb",
                  "a\\b", "a:b", " ", "a ", "a.", "\195\169", "\255", "-rf", "~", "$HOME", "*", "'", "%2e%2e" }

    it("stays in the folder, and no two share a file", function()
      local names = { "a.pdf", "a.pdf", "A.PDF", "../a.pdf", "/a.pdf", "..", "con", "manifest.jsonl", ".nymbl-tmp-00",
                      ("n"):rep(300), ("n"):rep(300) .. ".pdf", "a\nb\0c.pdf", "", "x.nymbl-part", "\226\128\174fdp.exe" }
      local outside = helper.directory()
      folder = outside .. "/folder"
      for _, id in ipairs(IDS) do add(id, "d", { id = "d-" .. id }) end
      for i, name in ipairs(names) do add("a", ("D%d"):format(i), { file_name = name }) end
      for i, id in ipairs(IDS) do add("docs", id, { file_name = names[i % #names + 1] }) end
      local report = export { patients = IDS }
      assert.equal(("%d patients, %d downloaded, complete"):format(#IDS, #IDS + #names), words(report))
      report = export { patients = { "docs" } }
      assert.equal(("1 patients, %d downloaded, complete"):format(#IDS), words(report))
      local all = { "docs" }
      for _, id in ipairs(IDS) do all[#all + 1] = id end
      check_folder(all)
      assert.equal("folder", helper.names(outside))
      local directories = {}
      for name in helper.output("ls -A " .. folder):gmatch("[^\n]+") do
        assert.is_nil(directories[name:lower()], name)
        directories[name:lower()] = true
      end
      assert.equal(("%d patients, %d unchanged, complete"):format(#IDS, #IDS + #names), words(export { patients = IDS }))
    end)

    it("says nothing of them in an error", function()
      local words_of_data = { "patient-of-test", "document-of-test", "name-of-test", "folder-of-test", "detail-of-test" }
      folder = folder .. "folder-of-test"
      add("patient-of-test", "document-of-test", { file_name = "name-of-test.pdf" })
      add("patient-of-test-2", "document-of-test", { file_name = "name-of-test.pdf" })
      helper.faults({ operation = "download", action = { status = 404, message = "detail-of-test" } },
        { operation = "list", skip = 1, action = { status = 500, message = "detail-of-test" } })
      local report = export()
      assert.equal("1 patients, 2 failed", words(report))
      local lines = {}
      for _, failure in ipairs(report.errors) do lines[#lines + 1] = tostring(failure.err) end
      os.execute(("ln -s / %s/manifest.jsonl.d; rm %s/manifest.jsonl; ln -s x %s/manifest.jsonl"):format(folder, folder, folder))
      lines[#lines + 1] = tostring((select(2, client:export(folder))))
      lines[#lines + 1] = tostring((select(2, client:export(folder .. "/none/none"))))
      lines = table.concat(lines, "\n")
      for _, word in ipairs(words_of_data) do assert.is_nil(lines:find(word, 1, true), lines) end
      assert.matches("symbolic_link", lines)
    end)
  end)

  it("follows no link below the folder", function()
    local elsewhere = helper.directory()
    add("p", "d1")
    add("q", "d2")
    add("r", "d3")
    export { patients = { "q" } }
    local path = folder .. "/" .. manifest()["q d2"].path
    os.execute(("ln -s %s %s/p; rm %s; ln -s %s/x %s"):format(elsewhere, folder, quote(path), elsewhere, quote(path)))
    local report = export()
    assert.equal("2 patients, 1 downloaded, 2 failed", words(report))
    for _, failure in ipairs(report.errors) do
      assert.equal("io symbolic_link", failure.err.kind .. " " .. failure.err.reason)
    end
    assert.equal("", helper.names(elsewhere))
    for _, name in ipairs { "manifest.jsonl", ".nymbl-export" } do
      os.execute(("mv %s/%s %s/x && ln -s %s/x %s/%s"):format(folder, name, elsewhere, elsewhere, folder, name))
      local before = helper.read_file(elsewhere .. "/x")
      for _, dry_run in ipairs { false, true } do
        local failed, err = client:export(folder, { dry_run = dry_run })
        assert.is_nil(failed)
        assert.equal("io symbolic_link", err.kind .. " " .. err.reason)
      end
      assert.equal(before, helper.read_file(elsewhere .. "/x"))
      os.execute(("mv %s/x %s/%s"):format(elsewhere, folder, name))
    end
    -- the folder itself may be one
    os.execute(("ln -s %s %s.link"):format(folder, folder))
    folder = folder .. ".link"
    assert.equal("2 patients, 1 unchanged, 2 failed", words(export()))
  end)

  it("cannot begin without a folder", function()
    local function fails(path, reason)
      local report, err = client:export(path)
      assert.is_nil(report)
      assert.is_true(require("nymbl.errors").is(err))
      assert.equal("io " .. reason, err.kind .. " " .. err.reason)
      assert.is_nil(err.operation)
    end
    fails(folder .. "/none/folder", "not_found")
    helper.write_file(folder, "")
    fails(folder, "not_a_directory")
    assert.equal(0, #helper.journal())
  end)

  it("runs once at a time in a folder", function()
    add("p", "d")
    local inner = {}
    local report = export { patients = function()
      if inner[1] ~= nil then return nil end
      for i, dry_run in ipairs { false, true } do
        local err
        inner[i], err = client:export(folder, { dry_run = dry_run })
        assert.equal("io in_use", err.kind .. " " .. err.reason)
        inner[i] = false
      end
      return "p"
    end }
    assert.equal("1 patients, 1 downloaded, complete", words(report))
    assert.same({ false, false }, inner)
    assert.equal("1 patients, 1 unchanged, complete", words(export()))
  end)

  it("is refused in the folder of another service, but not with other credentials", function()
    add("p", "d")
    export()
    client:close()
    client = helper.client { base_url = helper.sandbox().base_url .. "/other" }
    for _, dry_run in ipairs { false, true } do
      local report, err = client:export(folder, { dry_run = dry_run })
      assert.is_nil(report)
      assert.equal("io other_service", err.kind .. " " .. err.reason)
    end
    client:close()
    client = helper.client { token = helper.token(), base_url = helper.sandbox().base_url .. "/" }
    assert.equal("1 patients, 1 unchanged, complete", words(export()))
  end)

  it("has its service on the disk before it asks for anything", function()
    local job = require "nymbl.job"
    local sync, flushed, seen = job.sync, 0, nil
    finally(function() job.sync = sync end)
    function job.sync(...)
      flushed = flushed + 1
      return sync(...)
    end
    export { patients = function()
      seen = seen or { flushed, helper.read_file(folder .. "/.nymbl-export"):match '"service":' }
    end }
    assert.same({ 3, '"service":' }, seen) -- the folder's name, the file and its name
  end)

  it("removes what a killed run has left", function()
    add("p", "d1")
    add("q", "d2")
    export()
    local function litter()
      for _, path in ipairs { "/p/.nymbl-tmp-00", "/q/.nymbl-tmp-07", "/.nymbl-new-manifest.jsonl",
                              "/.nymbl-new-.nymbl-export" } do
        helper.write_file(folder .. path, "half")
      end
    end
    for _ = 1, 2 do
      litter()
      local visits = helper.read_file(folder .. "/.nymbl-export")
      helper.write_file(folder .. "/.nymbl-export", (visits:gsub('{"ended":true}\n$', "")))
      helper.write_file(folder .. "/manifest.jsonl", helper.read_file(folder .. "/manifest.jsonl") .. '{"patient_id"')
      assert.equal("2 patients, 2 unchanged, complete", words(export()))
      check_folder { "p", "q" }
    end
  end)

  -- Let the last run look as if it had been killed.
  local function unend()
    local text = helper.read_file(folder .. "/.nymbl-export")
    assert.matches('{"ended":true}\n$', text)
    helper.write_file(folder .. "/.nymbl-export", (text:gsub('{"ended":true}\n$', "")))
  end

  it("finds the files that a killed run could not record", function()
    for i = 1, 4 do add("p", "d" .. i) end
    export { concurrency = 1 }
    local before = manifest()
    helper.write_file(folder .. "/manifest.jsonl", helper.read_file(folder .. "/manifest.jsonl"):match("^.-\n"))
    unend()
    assert.is_truthy(manifest()["p d1"])
    helper.admin("DELETE", "documents?patient=p&id=d3")
    os.remove(folder .. "/" .. before["p d4"].path)
    assert.equal("1 patients, 1 downloaded, 2 unchanged, 1 gone, complete", words(export()))
    assert.same(before, manifest())
    for _, record in pairs(before) do assert.equal(record.sha256, helper.sha256(folder .. "/" .. record.path)) end
  end)

  it("finds the file that a run could not record, although it could end", function()
    local module = require "nymbl.export.manifest"
    for _, case in ipairs { { "append" }, { "append", "raised" }, { "flush" } } do
      local name = case[1]
      local id, original = table.concat(case, "-"), module[name]
      add("p", id, { uploaded_at = "2026-01-01T00:00:00Z" })
      export()
      local digest = add("p", id, { uploaded_at = "2026-01-02T00:00:00Z", size = 2000 }).sha256
      local works = name == "flush" -- before anything is downloaded
      module[name] = function(...)
        local problem = nymbl.error { kind = "io", reason = "no_space" } -- the line that ends a run is shorter
        if case[2] then error "no memory" end
        if not works then return nil, problem end
        works = false
        return original(...)
      end
      local ran, report = pcall(client.export, client, folder)
      module[name] = original
      assert.equal(case[2] == nil, ran)
      if ran then assert.is_false(report.complete) end
      if name == "flush" then -- and a power cut
        local text = helper.read_file(folder .. "/manifest.jsonl")
        helper.write_file(folder .. "/manifest.jsonl", (text:gsub("[^\n]*" .. digest .. "[^\n]*\n", "")))
      end
      helper.admin("DELETE", "documents?patient=p&id=" .. id)
      export { patients = { "p" } }
      local record = manifest()["p " .. id]
      assert.equal(digest, record.sha256)
      assert.equal(digest, helper.sha256(folder .. "/" .. record.path))
    end
  end)

  it("does not take a changed file for one that a killed run has downloaded", function()
    add("p", "d")
    export()
    local path, digest = folder .. "/" .. manifest()["p d"].path, manifest()["p d"].sha256
    helper.write_file(path, ("x"):rep(1000))
    helper.faults { operation = "download", action = { status = 404 } }
    assert.equal("1 patients, 1 failed", words(export { verify = true }))
    unend()
    assert.equal("1 patients, 1 unchanged, complete", words(export()))
    assert.equal(digest, manifest()["p d"].sha256)
    assert.equal("1 patients, 1 downloaded, complete", words(export { verify = true }))
    check_folder { "p" }
  end)

  it("leaves what is not its own", function()
    add("p", "d1")
    export()
    helper.write_file(folder .. "/p/mine", "mine")
    helper.write_file(folder .. "/mine", "mine")
    helper.write_file(folder .. "/.nymbl-export", "")
    export()
    assert.equal("mine", helper.read_file(folder .. "/p/mine"))
    assert.equal("mine", helper.read_file(folder .. "/mine"))
  end)

  describe("if something fails", function()
    before_each(function()
      for i = 1, 6 do add("p" .. i, "d" .. i) end
    end)

    it("reports it and goes on", function()
      helper.faults({ operation = "download", skip = 1, action = { status = 404 } },
        { operation = "list", skip = 3, action = { status = 500 } })
      local report = export { concurrency = 1 }
      assert.equal("5 patients, 4 downloaded, 2 failed", words(report))
      assert.same({ "p2", "d2", "not_found", "p4", nil, "server" }, { report.errors[1].patient_id, report.errors[1].id,
        report.errors[1].err.kind, report.errors[2].patient_id, report.errors[2].id, report.errors[2].err.kind })
      assert.equal("6 patients, 2 downloaded, 4 unchanged, complete", words(export()))
    end)

    it("ends early if it would fail for all", function()
      local cases = {
        { { operation = "download", action = { status = 401 }, times = -1 }, "unauthorized", 1 },
        { { operation = "list", action = { status = 401 }, times = -1 }, "unauthorized", 1 },
        { { operation = "list", action = { status = 403 }, times = -1 }, "forbidden", 3 },
        { { operation = "download", action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }, "quota", 1 },
        { { operation = "patients", action = { status = 401 }, times = -1 }, "unauthorized", 1 },
        { { operation = "patients", action = { status = 500 }, times = -1 }, "server", 1 },
      }
      for _, case in ipairs(cases) do
        client:close()
        client = helper.client()
        helper.faults(case[1])
        folder = helper.temporary()
        local report = export { concurrency = 1 }
        assert.is_false(report.complete)
        assert.equal(case[2], report.stopped)
        assert.equal(case[3], report.failed)
        helper.faults()
        client:close()
        client = helper.client()
        assert.is_true(export().complete)
      end
    end)

    it("ends after ten failures of the network in a row", function()
      for i = 7, 30 do add("p" .. i, "d" .. i) end
      helper.faults { operation = "list", action = { before = "reset" }, times = -1 }
      local report = export()
      assert.equal("10 failed, network", words(report))
    end)

    it("is a report without a token, too", function()
      client:close()
      client = helper.client { token = function() return nil, "no" end }
      local report = export()
      assert.equal("1 failed, unauthorized", words(report))
      assert.equal("token_function", report.errors[1].err.reason)
      assert.equal(0, report.requests)
    end)

    it("tells misuse", function()
      for _, wrong in ipairs { { patients = 1 }, { patients = { 1.5 } }, { patients = { {} } }, { patients = { "" } }, { budget = -1 },
                               { concurrency = 0 }, { dry_run = 1 }, { filter = "" }, { progress = true }, { what = 1 }, "x" } do
        local ok, message = pcall(function() client:export(folder, wrong) end)
        assert.is_false(ok)
        assert.matches("bad argument #2 to 'export'", message, 1, true)
        assert.matches("^spec/export_spec.lua", message)
      end
      for _, wrong in ipairs { false, "", 7 } do
        assert.has_error(function() client:export(wrong or nil) end)
      end
      assert.is_false(helper.exists(folder))
    end)

    it("raises again what an iterator or progress raises, and the next run continues", function()
      local err = {}
      for _, options in ipairs {
        { patients = function() error(err) end },
        { progress = function() error(err) end },
      } do
        local ok, raised = pcall(client.export, client, folder, options)
        assert.is_false(ok)
        assert.equal(err, raised)
      end
      assert.is_true(export().complete)
    end)

    it("and is canceled by progress, the next run continues", function()
      helper.faults { operation = "download", action = { delay = 0.4 }, times = -1 }
      local calls = 0
      local began = core.now()
      local report = export { concurrency = 2, progress = function(report)
        calls = calls + 1
        assert.is_true(report.downloaded <= 6)
        return calls < 2
      end }
      assert.equal("canceled", report.stopped)
      assert.equal(0, report.failed)
      assert.is_true(core.now() - began < 10)
      assert.is_true(calls <= 4)
      helper.faults()
      report = export()
      assert.is_true(report.complete)
      check_folder { "p1", "p2", "p3", "p4", "p5", "p6" }
    end)

    it("closing the client ends it, and the next run continues", function()
      helper.faults { operation = "download", action = { delay = 0.4 }, times = -1 }
      local report = export { progress = function() client:close() end }
      assert.equal("canceled", report.stopped)
      assert.equal(0, report.failed)
      helper.faults()
      client = helper.client()
      assert.is_true(export().complete)
    end)
  end)

  it("calls progress at the end, with the report", function()
    add("p", "d")
    local last
    local report = export { progress = function(current) last = current end }
    assert.equal(report, last)
    assert.is_true(last.complete)
  end)

  it("compacts the manifest when a run begins, whatever is in it", function()
    for i = 1, 3 do add("p", "d" .. i) end
    export()
    local lines = helper.read_file(folder .. "/manifest.jsonl")
    local old = lines:gsub("%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x\"", ("0"):rep(16) .. '"')
    helper.write_file(folder .. "/manifest.jsonl", old .. "nonsense\n{}\n\0\0\n" .. lines .. lines:sub(1, -2))
    assert.equal("1 patients, 3 unchanged, complete", words(export { verify = true }))
    assert.equal(#lines, #helper.read_file(folder .. "/manifest.jsonl"))
    check_folder { "p" }
  end)

  it("cut off anywhere in its files, continues", function()
    for i = 1, 3 do add("p" .. i, "d" .. i) end
    export()
    local texts, whole = {}, {}
    for _, name in ipairs { "manifest.jsonl", ".nymbl-export" } do
      texts[name], whole[name] = helper.read_file(folder .. "/" .. name), { 0 }
      for at in texts[name]:gmatch("()\n") do table.insert(whole[name], at) end
    end
    for name, text in pairs(texts) do
      for cut = 0, #text, 31 do
        helper.write_file(folder .. "/" .. name, text:sub(1, cut))
        local lines = 0
        for _, at in ipairs(whole[name]) do if at > 0 and at <= cut then lines = lines + 1 end end
        local lost = name == "manifest.jsonl" and 3 - lines or 0
        local report = export()
        assert.same({ 3, lost, 3 - lost, true }, { report.patients, report.downloaded, report.unchanged, report.complete })
        check_folder { "p1", "p2", "p3" }
      end
    end
  end)
end)
