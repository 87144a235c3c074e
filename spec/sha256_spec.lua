-- SPDX-License-Identifier: MIT
-- The digest that a download returns is that of the whole document, for every target and after every failure.
local helper = require "helper"

local SIZE = 3000000

describe("document:download() with sha256", function()
  local client, document, sum, path

  before_each(function()
    helper.reset()
    client = helper.client { max_attempts = 3 }
    local made = helper.admin("POST", "documents",
      { patient = "12345", size = SIZE, content_type = "application/pdf" })
    document, sum = assert(client:patient("12345"):get(made.id)), made.sha256
    path = helper.directory() .. "/a.pdf"
  end)

  after_each(function()
    client:close()
    client, document = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function check(target, options)
    options = options or {}
    options.sha256 = true
    local bytes, content_type, digest = document:download(target, options)
    assert.equal(SIZE, bytes, tostring(content_type))
    assert.equal("application/pdf", content_type)
    assert.equal(sum, digest)
  end

  local function interrupt(cut)
    local once = helper.client()
    helper.faults { operation = "download", action = { cut = cut } }
    local bytes, err, digest = once:patient("12345"):document(document.id):download(path, { resume = true, sha256 = true })
    once:close()
    assert.is_nil(bytes)
    assert.equal("truncated", err.kind)
    assert.is_nil(digest)
  end

  it("returns it for a path, a handle and a sink", function()
    check(path)
    assert.equal(sum, helper.sha256(path))
    check(path, { progress = function() end })
    local handle = assert(io.open(path, "wb"))
    check(handle)
    handle:close()
    assert.equal(sum, helper.sha256(path))
    local pieces = {}
    check(function(chunk)
      pieces[#pieces + 1] = chunk
      return 1
    end)
    assert.equal(SIZE, #table.concat(pieces))
  end)

  it("returns none unless it is wanted", function()
    assert.equal(2, select("#", document:download(path)))
    assert.equal(2, select("#", document:download(path, { sha256 = false })))
  end)

  it("begins again with every attempt", function()
    helper.faults({ operation = "download", action = { cut = 2000000 } },
      { operation = "download", action = { status = 503, body_kind = "html", headers = { { "Retry-After", "0" } } } })
    check(path)
    helper.faults { operation = "download", action = { cut = 2000000 } }
    local handle = assert(io.open(path, "wb"))
    check(handle)
    handle:close()
  end)

  it("follows a redirect", function()
    local other = helper.admin("POST", "listen", { tls = "good", name = "foreign" })
    helper.faults { operation = "download",
                    action = { redirect = { status = 302, location = other.url .. "/blob/" .. document.id } } }
    check(path)
    helper.admin("DELETE", "listen?name=foreign")
  end)

  it("has the bytes of a partial file, as they are on the disk", function()
    for _, cut in ipairs { 20000, 262144, 1500000, SIZE - 1 } do
      interrupt(cut)
      helper.admin("DELETE", "journal")
      check(path, { resume = true })
      assert.equal(206, helper.journal("download")[1].status)
      assert.equal(sum, helper.sha256(path))
      os.remove(path)
    end
    -- The digest is not of bytes that are remembered: other bytes on the disk have another digest.
    interrupt(1500000)
    local part = assert(io.open(path .. ".nymbl-part", "r+b"))
    part:seek("set", 1000000)
    part:write("changed")
    part:close()
    local _, _, digest = assert(document:download(path, { resume = true, sha256 = true }))
    assert.not_equal(sum, digest)
    assert.equal(helper.sha256(path), digest)
  end)

  it("is of the new document if the partial file cannot be continued", function()
    for _, action in ipairs { { ignore_range = true }, { bad_range = "wrong_start" }, { status = 400, body_kind = "empty" },
                              { etag = '"other"' } } do
      interrupt(1500000)
      helper.faults { operation = "download", action = action }
      check(path, { resume = true })
      assert.equal(sum, helper.sha256(path))
      os.remove(path)
    end
  end)

  it("is not returned if the target fails", function()
    local bytes, err, digest = document:download(function() return nil, "full" end, { sha256 = true })
    assert.is_nil(bytes)
    assert.equal("sink", err.reason)
    assert.is_nil(digest)
  end)

  it("refuses anything but a boolean", function()
    local ran, problem = pcall(document.download, document, path, { sha256 = "yes" })
    assert.is_false(ran)
    assert.truthy(problem:find("option 'sha256': boolean expected, got string", 1, true))
  end)
end)
