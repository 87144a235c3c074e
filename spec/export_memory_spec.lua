-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- The memory that an export takes, with a service that only exists in this process; and its time.

local document = require "nymbl.document"
local helper = require "helper"
local nymbl = require "nymbl"
local page = require "nymbl.page"

local DOCUMENTS = os.getenv "NYMBL_SPEC_LARGE" and 100000 or 25000
local LIMIT = 100 -- bytes of memory for each of them

describe("the memory of an export #memory", function()
  local real_fetch, real_save = page.fetch, document.save
  local client, folder
  local saved

  before_each(function()
    client = assert(nymbl.client { base_url = "https://localhost:1", api_key = "k", token = "t" })
    folder, saved = helper.temporary(), 0
  end)

  after_each(function()
    page.fetch, document.save = real_fetch, real_save
    client:close()
    client = nil
  end)

  -- Bytes in use, without garbage.
  local function used()
    collectgarbage()
    collectgarbage()
    return collectgarbage "count" * 1024
  end

  -- Let every patient have so many documents. Returns a function that returns the most bytes used.
  local function serve(count)
    local most, calls = 0, 0
    local function look()
      calls = calls + 1
      if calls % 200 == 0 then most = math.max(most, used()) end
    end
    function page.fetch(collection, _, request)
      look()
      local rows = {}
      for i = request.from + 1, math.min(count, request.from + 100) do
        rows[#rows + 1] = {
          id = ("doc-%08d"):format(i), patient_id = collection.path[2], file_name = "letter.pdf", file_size_bytes = 1000,
          content_type = "application/pdf", document_type = "Referral", uploaded_at = "2026-01-01T00:00:00Z",
        }
      end
      local ids, valid, problem = collection.adopt_page(rows)
      return { rows = rows, ids = ids, valid = valid, problem = problem, count = count, attempts = 1 }
    end
    function document.save()
      saved = saved + 1
      if saved % 20 == 0 then look() end
      return 1000, "application/pdf", ("0"):rep(64)
    end
    return function() return most end
  end

  local function patients(count)
    local i = 0
    return function()
      i = i + 1
      if i <= count then return ("patient-%05d"):format(i) end
    end
  end

  for count, each in pairs { [1000] = DOCUMENTS / 1000, [1] = DOCUMENTS } do
    it(("is %d bytes at most for each of %d documents of %d patients"):format(LIMIT, DOCUMENTS, count), function()
      local most = serve(each)
      -- the first run finds all of them new, and the second one knows all, but finds no files
      for _ = 1, 2 do
        saved = 0
        local before = used()
        local report = assert(client:export(folder, { patients = patients(count) }))
        assert.same({ true, DOCUMENTS }, { report.complete, report.downloaded })
        assert.equal(DOCUMENTS, saved)
        local each_document = (most() - before) / DOCUMENTS
        print(("%d patients: %.0f bytes for each document"):format(count, each_document))
        assert.is_true(each_document < LIMIT, each_document)
      end
    end)
  end
end)

describe("the time of an export", function()
  it("is at most 1.2 of that of the same downloads #speed", function()
    local now = require("nymbl.core").now
    local patients, documents = {}, {}
    helper.reset()
    for i = 1, 10 do
      patients[i] = "p" .. i
      helper.admin("POST", "seed", { patient = patients[i], count = 100, prefix = i .. "-" })
      for j = 1, 100 do documents[#documents + 1] = { patients[i], ("%d-%05d"):format(i, j) } end
    end
    local client = helper.client()
    local downloads, exports = math.huge, math.huge
    -- the best of three, each after the other, and of more if the machine is busy
    for round = 1, 10 do
      if round > 3 and exports < 1.2 * downloads then break end
      local folder = helper.directory()
      for _, patient in ipairs(patients) do os.execute(("mkdir %s/%s"):format(folder, patient)) end
      local began = now()
      local count = nymbl.each(documents, { concurrency = 4 }, function(item)
        return client:patient(item[1]):document(item[2]):download(folder .. "/" .. item[1] .. "/" .. item[2])
      end)
      downloads = math.min(downloads, now() - began)
      assert.equal(1000, count)
      began = now()
      local report = assert(client:export(helper.temporary()))
      exports = math.min(exports, now() - began)
      assert.same({ true, 1000 }, { report.complete, report.downloaded })
    end
    client:close()
    print(("1,000 downloads: %.2f s, their export: %.2f s"):format(downloads, exports))
    assert.is_true(exports < 1.2 * downloads, exports / downloads)
  end)
end)
