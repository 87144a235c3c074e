-- SPDX-License-Identifier: MIT
-- The first bytes of an upload are checked against its type.
local helper = require "helper"

local DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
local PDF = "%PDF-1.4\nand so on"
local PNG = "\137PNG\r\n\26\n" .. ("x"):rep(20)
local JPEG = "\255\216\255\224" .. ("x"):rep(20)
local TIFF = "II*\0\8\0\0\0" .. ("x"):rep(20)

-- Little-endian numbers of 2 and 4 bytes.
local function le2(value) return string.char(value % 256, math.floor(value / 256) % 256) end
local function le4(value) return le2(value % 65536) .. le2(math.floor(value / 65536)) end

-- A ZIP file of stored entries { name, bytes }; `streamed`: the sizes follow the bytes, as in a
-- file that was written to a pipe.
local function zip(entries, streamed)
  local parts, list, at = {}, {}, 0
  for _, entry in ipairs(entries) do
    local name, bytes = entry[1], entry[2] or "<x/>"
    local flags, size = streamed and 8 or 0, le4(#bytes)
    local known = streamed and le4(0) or size
    local part = "PK\3\4" .. le2(20) .. le2(flags) .. ("\0"):rep(6) .. le4(0) .. known .. known ..
      le2(#name) .. le2(0) .. name .. bytes
    if streamed then part = part .. "PK\7\8" .. le4(0) .. size .. size end
    list[#list + 1] = "PK\1\2" .. le2(20) .. le2(20) .. le2(flags) .. ("\0"):rep(6) .. le4(0) .. size .. size ..
      le2(#name) .. ("\0"):rep(12) .. le4(at) .. name
    parts[#parts + 1] = part
    at = at + #part
  end
  local directory = table.concat(list)
  return table.concat(parts) .. directory .. "PK\5\6" .. le4(0) .. le2(#entries) .. le2(#entries) ..
    le4(#directory) .. le4(at) .. le2(0)
end

local TYPES, RELS = { "[Content_Types].xml" }, { "_rels/.rels" }
local word = { TYPES, RELS, { "docProps/app.xml" }, { "word/document.xml" } }

local ZIPS = {
  ["an XLSX"] = { TYPES, RELS, { "xl/workbook.xml" } },
  ["a PPTX"] = { TYPES, RELS, { "ppt/presentation.xml" } },
  ["an ODT"] = { { "mimetype", "application/vnd.oasis.opendocument.text" }, { "content.xml" }, { "META-INF/manifest.xml" } },
  ["an EPUB"] = { { "mimetype", "application/epub+zip" }, { "META-INF/container.xml" }, { "word/x" } },
  ["a JAR"] = { { "META-INF/MANIFEST.MF" }, { "word/Main.class" } },
  ["a ZIP of a folder"] = { { "word/" }, { "word/notes.txt" } },
  ["a ZIP of a PDF"] = { { "a.pdf", PDF } },
  ["a ZIP of a DOCX"] = { { "letter.docx", zip(word) } },
  ["a ZIP of nothing"] = {},
  ["a DOCM"] = { TYPES, RELS, { "word/document.xml" }, { "word/vbaProject.bin" } },
  ["an XLSX with a DOCX in it"] = { TYPES, RELS, { "xl/workbook.xml" }, { "xl/embeddings/letter.docx", zip(word) } },
}

describe("an upload", function()
  local client, patient

  before_each(function()
    helper.reset()
    client = helper.client()
    patient = client:patient(12345)
  end)

  after_each(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  -- The same bytes as every kind of source: functions that open each one anew.
  local function sources(bytes)
    local path = helper.write_file(helper.temporary(), bytes)
    local function pieces(length)
      return function()
        local at = 1
        return function()
          local piece = bytes:sub(at, at + length - 1)
          at = at + length
          return piece ~= "" and piece or nil
        end
      end
    end
    return {
      ["a path"] = function() return path end,
      ["a handle"] = function() return assert(io.open(path, "rb")) end,
      ["a pipe"] = function() return io.popen("cat " .. helper.quote(path), "r") end,
      bytes = function() return { data = bytes } end,
      ["a source"] = pieces(1000),
      ["a source of single bytes"] = pieces(1),
    }
  end

  local function each_source(bytes, options, check)
    for name, open in pairs(sources(bytes)) do
      local what = open()
      local document, err = patient:upload(what, options)
      check(document, err, name)
      if io.type(what) == "file" then what:close() end
      collectgarbage()
    end
  end

  local function refused(bytes, options, reason)
    each_source(bytes, options, function(document, err, name)
      name = name .. " named " .. options.file_name
      assert.is_nil(document, name)
      assert.equal("unsupported_type", err.kind, name)
      assert.equal(reason, err.reason, name)
      assert.equal(0, err.attempts, name)
      assert.is_nil(err.outcome_unknown, name)
    end)
    assert.equal(0, #helper.journal("upload"))
  end

  local function taken(bytes, options, content_type)
    each_source(bytes, options, function(document, err, name)
      name = name .. " named " .. options.file_name .. ": " .. tostring(err)
      assert.is_truthy(document, name)
      assert.equal(content_type, document.content_type, name)
      assert.equal(#bytes, document.file_size_bytes, name)
      assert(document:delete())
    end)
  end

  it("is refused if its bytes have no accepted type", function()
    for _, name in ipairs { "a.pdf", "a.PDF", "a.png", "a.jpg", "a.tiff", "a.docx", "a", "a.txt", "v1.2" } do
      refused("Dear Dr. Smith,\n", { file_name = name }, "signature")
    end
    refused("Dear Dr. Smith,\n", { file_name = "a", content_type = "application/pdf" }, "signature")
  end)

  it("is refused if the type of its bytes does not match its name", function()
    refused(PNG, { file_name = "a.jpg" }, "signature")
    refused(JPEG, { file_name = "a.pdf" }, "signature")
    refused(PDF, { file_name = "a.docx" }, "signature")
    refused(zip(word), { file_name = "a.pdf" }, "signature")
    refused(zip { { "a.pdf", PDF } }, { file_name = "a.pdf" }, "signature")
    refused(PDF, { file_name = "a.pdf", content_type = "image/png; x=y" }, "signature")
    refused("II+\0\8\0\1\0" .. ("x"):rep(20), { file_name = "a.tiff" }, "signature")
    refused("%PDF", { file_name = "a.pdf" }, "signature")
    refused(("x"):rep(1020) .. PDF, { file_name = "a.pdf" }, "signature")
  end)

  it("is refused if it is empty", function()
    for _, name in ipairs { "a.pdf", "a.docx", "a" } do refused("", { file_name = name }, "empty") end
    local document, err = patient:upload(function() return nil end, { file_name = "a.pdf", size = 0 })
    assert.is_nil(document)
    assert.equal("empty", err.reason)
    local path = helper.write_file(helper.temporary(), PDF)
    local handle = assert(io.open(path, "rb"))
    handle:seek("end")
    document, err = patient:upload(handle, { file_name = "a.pdf" })
    assert.is_nil(document)
    assert.equal("empty", err.reason)
    handle:close()
    assert.equal(0, #helper.journal("upload"))
  end)

  it("requests no token if the bytes can be read at once", function()
    local path = helper.write_file(helper.temporary(), "text")
    for _, what in ipairs { path, { data = "text" }, { data = "" } } do
      assert.is_nil((patient:upload(what, { file_name = "a.pdf" })))
    end
    assert.equal(0, #helper.journal())
  end)

  it("accepts a PDF that begins within the first 1,024 bytes", function()
    for _, before in ipairs { 0, 1, 9, 1019 } do
      taken(("x"):rep(before) .. PDF, { file_name = "a.pdf" }, "application/pdf")
    end
    taken("\27%-12345X@PJL JOB\r\n" .. PDF, { file_name = "scan" }, "application/pdf")
  end)

  it("accepts both kinds of TIFF in both byte orders", function()
    for _, head in ipairs { "II*\0\8\0\0\0", "MM\0*\0\0\0\8", "II+\0\8\0\0\0", "MM\0+\0\8\0\0" } do
      taken(head .. ("x"):rep(20), { file_name = "scan" }, "image/tiff")
      taken(head .. ("x"):rep(20), { file_name = "scan.tif" }, "image/tiff")
    end
  end)

  it("uses the bytes if the extension is unknown", function()
    local letter = helper.read_file(helper.path("spec/fixtures/referral.docx"))
    for _, name in ipairs { "letter", "letter v1.2", "Letter to Dr. Smith", "letter.", "letter.bak", ".docx_" } do
      taken(letter, { file_name = name }, DOCX)
      taken(PDF, { file_name = name }, "application/pdf")
    end
    taken(TIFF, { file_name = "page.1" }, "image/tiff")
    taken(PNG, { file_name = "page.1" }, "image/png")
  end)

  it("accepts every ZIP file that is a DOCX", function()
    local long = { { "docProps/thumbnail.jpeg", ("x"):rep(50000) }, { "word/media/1.png", ("PK\3\4"):rep(30000) },
                   { "word/embeddings/sheet.xlsx", zip(ZIPS["an XLSX"]) }, { "word/document2.xml" }, TYPES, RELS }
    for _, streamed in ipairs { false, true } do
      taken(zip(word, streamed), { file_name = "a" }, DOCX)
      taken(zip(word, streamed), { file_name = "a.docx" }, DOCX)
      taken(zip({ TYPES, { "customXml/item1.xml" }, { "word/" }, { "word/document.xml" } }, streamed),
        { file_name = "a" }, DOCX)
    end
    -- the central directory at the end of a stream is not available
    taken(zip(long), { file_name = "a.docx" }, DOCX)
    assert.equal(DOCX, assert(patient:upload({ data = zip(long) }, { file_name = "a" })).content_type)
    local commented = zip(word):sub(1, -3) .. le2(12) .. "PK\5\6 comment"
    taken(commented, { file_name = "a" }, DOCX)
  end)

  it("accepts no other ZIP file as a DOCX", function()
    for _, entries in pairs(ZIPS) do
      for _, streamed in ipairs { false, true } do
        local bytes = zip(entries, streamed)
        for _, file_name in ipairs { "a", "a.docx", "sheet.xlsx", "all.zip" } do
          refused(bytes, { file_name = file_name }, "signature")
        end
      end
    end
  end)

  it("accepts a DOCX by its name alone if the available bytes do not identify it", function()
    -- the first entry fills the bytes that are buffered to learn the size
    local bytes = zip { { "docProps/thumbnail.jpeg", ("x"):rep(1200000) }, TYPES, { "word/document.xml" } }
    local function pieces()
      local at = 1
      return function()
        local piece = bytes:sub(at, at + 9999)
        at = at + 10000
        return piece ~= "" and piece or nil
      end
    end
    assert.equal(DOCX, assert(patient:upload(pieces(), { file_name = "a.docx" })).content_type)
    assert.equal(DOCX, assert(patient:upload({ data = bytes }, { file_name = "a" })).content_type)
    local document, err = patient:upload(pieces(), { file_name = "a" })
    assert.is_nil(document)
    assert.equal("signature", err.reason)
    document, err = patient:upload(pieces(), { file_name = "a.pdf" })
    assert.is_nil(document)
    assert.equal("signature", err.reason)
  end)

  it("is sent unchecked if the check is switched off", function()
    local options = { file_name = "a.pdf", check_type = false }
    local document, err = patient:upload({ data = "text" }, options)
    assert.is_nil(document)
    assert.equal(400, err.status) -- checked by the service
    assert.equal(1, #helper.journal("upload"))
    document, err = patient:upload({ data = "text" }, { file_name = "a", check_type = false })
    assert.is_nil(document)
    assert.equal("signature", err.reason) -- there is no type to send
    assert.has_error(function() patient:upload({ data = PDF }, { file_name = "a.pdf", check_type = 1 }) end)
  end)

  it("sends the content of a file that reports size 0", function()
    local comm = io.open("/proc/self/comm", "r+") -- the writable name of this process
    if not comm then return pending("no /proc") end
    local name = comm:read("l")
    comm:close()
    local function rename(to)
      local file = assert(io.open("/proc/self/comm", "w"))
      file:write(to)
      file:close()
    end
    rename("%PDF-1.4")
    local by_path, path_err = patient:upload("/proc/self/comm", { file_name = "a.pdf" })
    local handle = assert(io.open("/proc/self/comm"))
    local by_handle, handle_err = patient:upload(handle, { file_name = "b.pdf" })
    handle:close()
    rename("text")
    local document, err = patient:upload("/proc/self/comm", { file_name = "c.pdf" })
    rename(name)
    assert.equal(9, assert(by_path, path_err).file_size_bytes)
    assert.equal(9, assert(by_handle, handle_err).file_size_bytes)
    assert.is_nil(document)
    assert.equal("signature", err.reason) -- not "empty"
  end)

  it("is refused before it is sent if a file that reports size 0 is endless", function()
    local document, err = patient:upload("/proc/self/pagemap", { file_name = "a.pdf" })
    assert.is_nil(document)
    assert.is_true(err.kind == "too_large" or err.kind == "io", err)
    assert.equal(0, #helper.journal())
  end)
end)
