-- SPDX-License-Identifier: MIT
-- An upload from a source that cannot be read twice is sent with `Expect: 100-continue`. A server
-- that does not support it answers 417 (RFC 9110, section 15.5.18).
local helper = require "helper"

local PDF = "%PDF-1.4 " .. ("x"):rep(300000)

local SOURCES = {
  ["a function"] = function(patient, options)
    local chunks = { PDF:sub(1, 100), PDF:sub(101) }
    return patient:upload(function() return table.remove(chunks, 1) end, options)
  end,
  ["a function with its size"] = function(patient, options)
    options.size = #PDF
    local chunks = { PDF:sub(1, 100), PDF:sub(101) }
    return patient:upload(function() return table.remove(chunks, 1) end, options)
  end,
  ["a pipe"] = function(patient, options)
    local handle = assert(io.popen("cat " .. helper.write_file(helper.temporary(".pdf"), PDF)))
    local document, err = patient:upload(handle, options)
    handle:close()
    return document, err
  end,
  ["a stream"] = function(patient, options)
    helper.admin("POST", "documents", { patient = "other", id = "d", content = PDF })
    local stream = assert(helper.client():patient("other"):document("d"):open())
    local document, err = patient:upload(stream, options)
    stream:close()
    return document, err
  end,
  ["more than is held back"] = function(patient, options)
    local left = 40
    return patient:upload(function()
      left = left - 1
      return left == 39 and PDF or left >= 0 and ("y"):rep(50000) or nil
    end, options)
  end,
}

describe("417 for an upload", function()
  local client, patient

  before_each(function()
    helper.reset()
    client = helper.client { max_attempts = 3 }
    patient = client:patient("12345")
  end)

  after_each(function() client:close() end)

  local function requests()
    local list = {}
    for i, entry in ipairs(helper.journal("upload")) do
      list[i] = ("%d"):format(entry.status) .. (helper.header(entry, "expect") and " expect" or "")
    end
    return table.concat(list, ", ")
  end

  local function upload(source)
    return source(patient, { file_name = "a.pdf", content_type = "application/pdf" })
  end

  for name, source in pairs(SOURCES) do
    it("is answered by a request without Expect, from " .. name, function()
      helper.faults { operation = "upload", action = { status = 417, body_kind = "html" } }
      assert(upload(source))
      assert.equal("417 expect, 201", requests())
      assert.equal(1, #helper.stored("12345"))
    end)

    it("ends the call the second time, from " .. name, function()
      helper.faults { operation = "upload", times = 2, action = { status = 417, body_kind = "empty" } }
      local document, err = upload(source)
      assert.is_nil(document)
      assert.equal(417, err.status)
      assert.equal(2, err.attempts)
      assert.is_nil(err.outcome_unknown)
      assert.equal("417 expect, 417", requests())
      assert.equal(0, #helper.stored("12345"))
    end)

    it("ends the call if bytes were already sent, from " .. name, function()
      helper.faults { operation = "upload", action = { status = 417, body_kind = "empty", effect = true } }
      local document, err = upload(source)
      assert.is_nil(document)
      assert.equal(417, err.status)
      assert.equal(1, err.attempts)
      assert.equal("417 expect", requests())
      assert.equal(1, #helper.stored("12345"))
    end)
  end

  it("counts as another request of the call", function()
    client:close()
    client = helper.client { max_attempts = 1 }
    patient = client:patient("12345")
    helper.faults { operation = "upload", action = { status = 417, body_kind = "empty" } }
    local document, err = upload(SOURCES["a function"])
    assert.is_nil(document)
    assert.equal(417, err.status)
    assert.equal("417 expect", requests())
  end)

  it("may come between other refusals", function()
    assert(client:patient("12345"):count()) -- to get a token
    helper.admin("POST", "settings", { expire_tokens = true })
    helper.faults { operation = "upload", skip = 1, action = { status = 417, body_kind = "empty" } }
    assert(upload(SOURCES["a function"]))
    assert.equal("401 expect, 417 expect, 201", requests())
    assert.equal(1, #helper.stored("12345"))
  end)

  it("is final for a request without Expect", function()
    for _, what in ipairs { { data = PDF }, helper.write_file(helper.temporary(".pdf"), PDF) } do
      helper.admin("DELETE", "journal")
      helper.faults { operation = "upload", action = { status = 417, body_kind = "empty" } }
      local document, err = patient:upload(what, { file_name = "a.pdf" })
      assert.is_nil(document)
      assert.equal(417, err.status)
      assert.equal("417", requests())
    end
  end)

  it("is final for an empty document, which may have been sent", function()
    helper.faults { operation = "upload", action = { status = 417, body_kind = "empty" } }
    local document, err = patient:upload(function() end,
      { file_name = "a.pdf", content_type = "application/pdf", check_type = false })
    assert.is_nil(document)
    assert.equal(417, err.status)
    assert.equal(1, #helper.journal("upload"))
  end)
end)
