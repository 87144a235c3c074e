-- SPDX-License-Identifier: MIT
-- A partial file from which the service refuses to continue must not block later downloads.
local helper = require "helper"

local SIZE = 300000
local CUT = 200000

describe("a refused range", function()
  local folder, path, document, sum, events, client

  before_each(function()
    helper.reset()
    folder = helper.directory()
    path = folder .. "/a.pdf"
    events = {}
    client = helper.client { max_attempts = 3, on_event = function(event)
      if event.operation == "download" then events[#events + 1] = event.status end
    end }
    local made = helper.admin("POST", "documents",
      { patient = "12345", size = SIZE, content_type = "application/pdf" })
    document, sum = assert(client:patient("12345"):get(made.id)), made.sha256
  end)

  after_each(function()
    client:close()
    client, document = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function names()
    return helper.names(folder)
  end

  -- A download that breaks off leaves a partial file.
  local function interrupted()
    local once = helper.client()
    helper.faults { operation = "download", action = { cut = CUT } }
    local bytes, err = once:patient("12345"):document(document.id):download(path, { resume = true })
    once:close()
    assert.is_nil(bytes)
    assert.equal("truncated", err.kind)
    assert.equal("a.pdf.nymbl-meta\na.pdf.nymbl-part", names())
    helper.admin("DELETE", "journal")
  end

  local function ranges()
    local list = {}
    for i, entry in ipairs(helper.journal("download")) do
      list[i] = ("%d"):format(entry.status) .. (helper.header(entry, "range") and " range" or "")
    end
    return table.concat(list, ", ")
  end

  local function refuse(status, times)
    helper.faults { operation = "download", times = times, action = { status = status, body_kind = "empty" } }
  end

  for _, status in ipairs { 400, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 415, 416, 417, 422, 425, 428, 431,
                            451, 499, 501 } do
    it("starts over once after a " .. status, function()
      interrupted()
      refuse(status)
      assert.equal(SIZE, (assert(document:download(path, { resume = true }))))
      assert.equal(sum, helper.sha256(path))
      assert.equal(status .. " range, 200", ranges())
      assert.same({ status, 200 }, events) -- each is a request, and counts
      assert.equal("a.pdf", names())
    end)
  end

  it("is a failure if the whole document is refused, too", function()
    for _, status in ipairs { 400, 403, 412, 501 } do
      interrupted()
      refuse(status, 2)
      local bytes, err = document:download(path, { resume = true })
      assert.is_nil(bytes)
      assert.equal(status, err.status)
      assert.is_nil(err.reason)
      assert.equal(2, err.attempts)
      assert.equal(status .. " range, " .. status, ranges())
    end
  end)

  it("blocks no later call if a second request is not allowed", function()
    client:close()
    client = helper.client { max_attempts = 1 }
    document = assert(client:patient("12345"):get(document.id))
    for _, status in ipairs { 400, 403, 412, 416, 501 } do
      interrupted()
      refuse(status)
      local bytes, err = document:download(path, { resume = true })
      assert.is_nil(bytes)
      assert.equal(status, err.status)
      assert.equal("range_refused", err.reason)
      assert.equal(1, err.attempts)
      assert.equal(SIZE, (assert(document:download(path, { resume = true }))))
      assert.equal(status .. " range, 200", ranges())
      os.remove(path)
    end
  end)

  it("starts over if the redirect target refuses", function()
    local foreign = helper.admin("POST", "listen", { tls = "good", name = "foreign" })
    interrupted()
    helper.faults({ operation = "download",
                    action = { redirect = { status = 302, location = foreign.url .. "/blob/" .. document.id } } },
      { operation = "blob", action = { status = 403, body_kind = "empty" } })
    assert.equal(SIZE, (assert(document:download(path, { resume = true }))))
    assert.equal(sum, helper.sha256(path))
    assert.equal("a.pdf", names())
    helper.admin("DELETE", "listen?name=foreign")
  end)

  it("is reported if the service wants another token, or a pause", function()
    interrupted()
    helper.admin("POST", "settings", { expire_tokens = true })
    assert(document:download(path, { resume = true }))
    assert.equal("401 range, 206 range", ranges())
    os.remove(path)
    for _, status in ipairs { 429, 500, 502, 503, 504 } do
      interrupted()
      helper.faults { operation = "download", action = { status = status, body_kind = "gateway",
                                                         headers = { { "Retry-After", "0" } } } }
      assert.equal(SIZE, (assert(document:download(path, { resume = true }))))
      assert.equal(sum, helper.sha256(path))
      assert.equal(status .. " range, 206 range", ranges())
      os.remove(path)
    end
  end)

  it("is reported if no range was requested", function()
    for _, status in ipairs { 400, 403, 412, 416, 501 } do
      helper.admin("DELETE", "journal")
      refuse(status)
      local bytes, err = document:download(path, { resume = true })
      assert.is_nil(bytes)
      assert.equal(1, err.attempts)
      assert.is_nil(err.reason)
      assert.equal(tostring(status), ranges())
      assert.equal("", names())
    end
  end)

  it("requests one byte of a complete document that could not be renamed", function()
    os.execute("mkdir " .. folder .. "/sub && mkdir " .. folder .. "/sub/b")
    local other = client:patient("12345"):document(document.id) -- its size is unknown
    for _, doc in ipairs { document, other } do
      helper.admin("DELETE", "journal")
      os.execute("rmdir " .. folder .. "/sub/b")
      local bytes, err = doc:download(folder .. "/sub/b", { resume = true, progress = function(done, total)
        if done == total then os.execute("mkdir " .. folder .. "/sub/b") end -- now the rename fails
      end })
      assert.is_nil(bytes)
      assert.equal("io", err.kind)
      assert.equal("directory", err.reason)
      os.execute("rmdir " .. folder .. "/sub/b")
      assert.equal("b.nymbl-meta\nb.nymbl-part", helper.output("ls -A " .. folder .. "/sub"))
      assert.equal(SIZE, (assert(doc:download(folder .. "/sub/b", { resume = true }))))
      assert.equal(sum, helper.sha256(folder .. "/sub/b"))
      local entries = helper.journal("download")
      assert.equal(("bytes=%d-"):format(SIZE - 1), helper.header(entries[2], "range"))
      assert.equal(206, entries[2].status)
      os.remove(folder .. "/sub/b")
      os.execute("mkdir " .. folder .. "/sub/b")
    end
  end)
end)
