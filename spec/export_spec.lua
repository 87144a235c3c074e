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

    it("has a budget, too", function()
      for i = 1, 5 do add("p" .. i, "d" .. i) end
      local report = export { dry_run = true, budget = 3 }
      assert.equal("2 patients, budget", words(report))
      assert.equal(3, report.requests)
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
      local present = 0
      for i = 1, patients do if i % 3 > 0 then present = present + 1 end end
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
      assert.is_true(downloaded == patients and runs < 40, ("%d documents in %d runs"):format(downloaded, runs))
    end)
  end)
end)
