-- SPDX-License-Identifier: MIT
local helper = require "helper"

local SIZE = 300000

describe("document:download() with resume", function()
  local client, patient, folder, path

  before_each(function()
    helper.reset()
    client = helper.client { max_attempts = 2 }
    patient = client:patient("12345")
    folder = helper.directory()
    path = folder .. "/a.pdf"
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function document_of(fields)
    local made = helper.add_document({ patient = "12345", size = SIZE, content_type = "application/pdf" }, fields)
    return assert(patient:get(made.id)), made.sha256
  end

  local function names()
    return helper.names(folder)
  end

  -- Break a download in the middle. Returns the headers of the next one, which must succeed.
  local function interrupted(document, action)
    action = action or {}
    action.cut = 200000
    local once = helper.client()
    helper.faults { operation = "download", action = action }
    local bytes, err = once:patient("12345"):document(document.id):download(path, { resume = true })
    once:close()
    assert.is_nil(bytes)
    assert.equal("truncated", err.kind)
    assert.is_nil(io.open(path))
    helper.admin("DELETE", "journal")
  end

  local function whole(document, sum, options)
    options = options or {}
    options.resume = true
    local bytes, content_type = assert(document:download(path, options))
    assert.equal(SIZE, bytes)
    assert.equal("application/pdf", content_type)
    assert.equal(sum, helper.sha256(path))
    assert.equal("a.pdf", names())
    assert.equal("600", helper.output("stat -c %a " .. path))
  end

  local function range_of(entry)
    return helper.header(entry, "range"), helper.header(entry, "if-range")
  end

  it("continues from the partial file, with its validator", function()
    local document, sum = document_of()
    interrupted(document)
    local reported = {}
    whole(document, sum, { progress = function(done, total)
      assert.equal(SIZE, total)
      reported[#reported + 1] = done
    end })
    assert.is_true(reported[1] >= 100000)
    assert.equal(SIZE, reported[#reported])
    local entries = helper.journal("download")
    assert.equal(1, #entries)
    assert.equal(206, entries[1].status)
    local range, validator = range_of(entries[1])
    assert.truthy(range:match("^bytes=%d+%-$"))
    assert.truthy(validator:match('^"'))
  end)

  it("can be interrupted again and again", function()
    local document, sum = document_of()
    interrupted(document)
    helper.faults { operation = "download", times = 2, action = { cut = 20000 } }
    assert.is_nil((document:download(path, { resume = true })))
    whole(document, sum)
  end)

  it("leaves no partial file if not requested", function()
    local document = document_of()
    helper.faults { operation = "download", times = 2, action = { cut = 200000 } }
    assert.is_nil((document:download(path)))
    assert.equal("", names())
  end)

  it("starts over if the service sends no strong validator", function()
    for _, action in ipairs { { no_validators = true }, { etag = 'W/"weak"' } } do
      local document, sum = document_of()
      interrupted(document, action)
      whole(document, sum)
      assert.is_nil((range_of(helper.journal("download")[1])))
      os.remove(path)
    end
  end)

  it("starts over if the document has changed", function()
    local document = document_of { id = "same" }
    interrupted(document)
    helper.admin("DELETE", "documents?patient=12345&id=same")
    local changed = helper.admin("POST", "documents",
      { patient = "12345", id = "same", content_type = "application/pdf", content = "%PDF-1.4 " .. ("other "):rep(40000) })
    local fresh = assert(patient:get("same"))
    helper.admin("DELETE", "journal")
    assert(fresh:download(path, { resume = true }))
    assert.equal(changed.sha256, helper.sha256(path))
    assert.equal(200, helper.journal("download")[1].status)
    assert.equal("a.pdf", names())
  end)

  it("starts over for another document, patient or service", function()
    local document = document_of()
    interrupted(document)
    local other, sum = document_of()
    helper.admin("DELETE", "journal")
    whole(other, sum)
    assert.is_nil((range_of(helper.journal("download")[1])))
  end)

  it("starts over if the service does not support ranges", function()
    local document, sum = document_of()
    interrupted(document)
    helper.faults { operation = "download", action = { ignore_range = true } }
    whole(document, sum)
    assert.equal(1, #helper.journal("download"))
  end)

  it("appends nothing from a wrong 206", function()
    for _, how in ipairs { "wrong_start", "wrong_total" } do
      local document, sum = document_of()
      interrupted(document)
      helper.faults { operation = "download", action = { bad_range = how } }
      local bytes, err = document:download(path, { resume = true })
      if not bytes then
        assert.equal("corrupt", err.kind)
        assert.is_nil(io.open(path))
      end
      os.remove(path)
      whole(document, sum)
      os.remove(path)
    end
  end)

  it("continues with a date only while the date is the same", function()
    local document, sum = document_of()
    local old = "Wed, 01 Jan 2025 00:00:00 GMT"
    local function dated(date) return { no_validators = true, headers = { { "Last-Modified", date } } } end
    interrupted(document, dated(old))
    helper.faults { operation = "download", action = dated("Thu, 02 Jan 2025 00:00:00 GMT") }
    whole(document, sum)
    local entries = helper.journal("download")
    local _, validator = range_of(entries[1])
    assert.equal(old, validator)
  end)

  it("starts over after a 416", function()
    local document, sum = document_of()
    interrupted(document)
    helper.faults { operation = "download", action = { status = 416, body_kind = "empty" } }
    whole(document, sum)
    local entries = helper.journal("download")
    assert.equal(2, #entries)
    assert.is_nil((range_of(entries[2])))
  end)

  it("keeps the partial file while the service refuses the token", function()
    local document, sum = document_of()
    interrupted(document)
    helper.admin("POST", "settings", { expire_tokens = true })
    whole(document, sum)
    local entries = helper.journal("download")
    assert.equal(401, entries[1].status)
    assert.equal(206, entries[2].status)
  end)

  -- The files after an interrupted download: the partial file and its metadata.
  local function part_files()
    local part, meta
    for name in names():gmatch("[^\n]+") do
      if name:match("part$") then part = folder .. "/" .. name else meta = folder .. "/" .. name end
    end
    return assert(part), assert(meta)
  end

  it("ignores a partial file that is a link, readable by others or has other content", function()
    local changes = {
      function(part) -- a link to the same bytes
        os.execute(("mv %s %s.moved && ln -s %s.moved %s"):format(part, part, part, part))
      end,
      function(part) os.execute(("ln %s %s.second"):format(part, part)) end,
      function(part) os.execute("chmod 644 " .. part) end,
      function(_, meta) os.execute(("mv %s %s.moved && ln -s %s.moved %s"):format(meta, meta, meta, meta)) end,
      function(_, meta) helper.write_file(meta, "nymbl part 1\ngarbage") end,
      function(_, meta) helper.write_file(meta, ("x"):rep(100000)) end,
      function(_, meta) os.remove(meta) end,
      function(part) os.execute("truncate -s 0 " .. part) end,
      function(part) os.execute("truncate -s 300000 " .. part) end,
      function(part) os.execute("truncate -s 999999 " .. part) end,
    }
    for i, change in ipairs(changes) do
      local document, sum = document_of()
      interrupted(document)
      change(part_files())
      assert(document:download(path, { resume = true }))
      assert.equal(sum, helper.sha256(path), i)
      assert.is_nil((range_of(helper.journal("download")[1])), i)
      os.execute("rm -rf " .. folder .. "/* " .. folder .. "/.n*")
    end
  end)

  it("does not mix the bytes of two processes with the same path", function()
    local document, sum = document_of()
    interrupted(document)
    local other = helper.client()
    local nested
    whole(document, sum, { progress = function()
      if nested == nil then
        nested = other:patient("12345"):document(document.id):download(folder .. "/a.pdf", { resume = true })
      end
    end })
    assert.equal(SIZE, nested)
    other:close()
  end)
end)
