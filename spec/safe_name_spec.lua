-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- File names for documents: what is unchanged, what is replaced, and properties of random hostile names.

local core = require "nymbl.core"
local helper = require "helper"
local safe_name = require "nymbl.safe_name"

local file = safe_name.file

local PDF = "application/pdf"

-- Whether a text is UTF-8, by another program than ours.
local function is_utf8(path)
  return helper.output("iconv -f UTF-8 -t UTF-8 < " .. helper.quote(path) .. " > /dev/null 2>&1 && echo yes") == "yes"
end

local function char(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

describe("core.sha256()", function()
  it("returns the digests of FIPS 180-4's examples", function()
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", core.sha256 "")
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", core.sha256 "abc")
    assert.equal("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      core.sha256 "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
  end)

  it("agrees with sha256sum on any bytes", function()
    local bytes = {}
    for i = 0, 255 do bytes[i + 1] = string.char(i) end
    bytes = table.concat(bytes)
    assert.equal(helper.sha256(helper.write_file(helper.temporary(), bytes)), core.sha256(bytes))
  end)
end)

describe("a safe name", function()
  it("is the document's own if that is harmless", function()
    for _, name in ipairs {
      "referral.pdf", "Scan.PDF", "a b.pdf", "x.tar.pdf", "report .pdf", " leading.pdf", ".hidden.pdf", "-rf.pdf",
      "O'Brien & Sons (2).pdf", "100%.pdf", "a,b;c=d+e@f#g!h$i^j`k~l{m}[n].pdf",
      "Gr\195\182\195\159e.pdf", "Gro\204\136\195\159e.pdf", "\227\130\171\227\131\171\227\131\134.pdf",
      "\217\133\219\140\226\128\140\216\174\217\136\216\167\217\135\217\133.pdf", -- Persian, with U+200C
      "\240\159\145\169\226\128\141\226\154\149\239\184\143.pdf", -- emoji with U+200D and U+FE0F
      "CONTRACT.pdf", "com.pdf", "COM10.pdf", "lpt.pdf", "nullable.pdf", "nymbl-tmp-1.pdf",
      ("x"):rep(251) .. ".pdf", ("\195\164"):rep(125) .. "x.pdf",
    } do
      assert.equal(name, file(name, PDF))
      assert.equal(name, file(name, nil))
    end
  end)

  it("has no separators, no characters that Windows forbids, and no controls", function()
    assert.equal(".._.._etc_passwd.pdf", file("../../etc/passwd", PDF))
    assert.equal("C__temp_x.pdf", file("C:\\temp\\x.pdf", PDF))
    assert.equal("a_b_c_d_e_f_g_h_i.pdf", file('a"b*c:d<e>f?g|h\\i.pdf', PDF))
    for byte = 0, 31 do assert.equal("a_b.pdf", file("a" .. string.char(byte) .. "b.pdf", PDF)) end
    assert.equal("a_b.pdf", file("a\127b.pdf", PDF))
  end)

  it("has no invisible characters and none that reorder the text", function()
    for _, code in ipairs { 0x80, 0x85, 0x9F, 0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x180E, 0x200B, 0x200E, 0x200F, 0x2028,
                            0x2029, 0x202A, 0x202E, 0x2060, 0x2066, 0x2069, 0x206F, 0x3164, 0xFDD0, 0xFEFF, 0xFFA0, 0xFFF9,
                            0xFFFE, 0xFFFF, 0x1FFFE, 0xE0001, 0xE007F, 0x10FFFF } do
      assert.equal("report_fdp.pdf", file("report" .. char(code) .. "fdp", PDF), ("U+%04X"):format(code))
    end
    for _, code in ipairs { 0xA0, 0xAC, 0xAE, 0x34E, 0x350, 0x200A, 0x200C, 0x200D, 0x2010, 0x202F, 0x2070, 0xFDCF, 0xFDF0,
                            0xFE0F, 0xFFEF, 0xFFFC, 0xFFFD, 0x10000, 0xE0100, 0xE01EF, 0x10FFFD } do
      local name = "a" .. char(code) .. "b.pdf"
      assert.equal(name, file(name, PDF), ("U+%04X"):format(code))
    end
  end)

  it("has one _ for each byte that is not valid UTF-8", function()
    assert.equal("a_b.pdf", file("a\255b.pdf", PDF))
    assert.equal("a__b.pdf", file("a\192\175b.pdf", PDF)) -- an overlong "/"
    assert.equal("a___b.pdf", file("a\237\160\128b.pdf", PDF)) -- a surrogate
    assert.equal("a____b.pdf", file("a\244\144\128\128b.pdf", PDF)) -- beyond U+10FFFF
    assert.equal("a__.pdf", file("a\226\130", PDF)) -- cut off
    assert.equal("_a.pdf", file("\128a.pdf", PDF))
  end)

  it("is never one that Windows reserves", function()
    for _, name in ipairs { "CON", "con", "Prn", "AUX", "nul", "COM1", "com9", "LPT1", "COM\194\185", "lpt\194\179",
                            "CONIN$", "conout$" } do
      assert.equal("_" .. name .. ".pdf", file(name, PDF))
      assert.equal("_" .. name, file(name, nil))
      assert.equal("_" .. name .. ".pdf", file(name .. ".pdf", PDF))
      assert.equal("_" .. name .. ".tar.pdf", file(name .. ".tar.pdf", PDF))
      assert.equal("_" .. name .. "  .pdf", file(name .. "  .pdf", PDF))
      assert.truthy(file(name .. ".x.pdf", PDF, "p", "d"):find("^_"))
    end
    local long = file("CON" .. (" "):rep(300) .. "x.pdf", PDF)
    assert.truthy(long:find("^_CON +%.pdf$"))
    assert.equal(255, #long)
  end)

  it("is never one of the library's own", function()
    assert.equal("_nymbl-tmp-0123.pdf", file(".nymbl-tmp-0123", PDF))
    assert.equal("_Nymbl-Export", file(".Nymbl-Export", nil))
    assert.equal("x.pdf_nymbl-part", file("x.pdf.nymbl-part", nil))
    assert.equal("x.pdf_NYMBL-META", file("x.pdf.NYMBL-META", nil))
    assert.equal("_manifest.jsonl", file("manifest.jsonl", nil))
    assert.equal("_Manifest.JSONL", file("Manifest.JSONL", "application/x-ndjson"))
  end)

  it("ends neither in dots nor in spaces, and is never empty", function()
    assert.equal("report.pdf", file("report.", PDF))
    assert.equal("report.pdf", file("report.pdf. . ", PDF))
    assert.equal("report", file("report... ", nil))
    for _, name in ipairs { "", ".", "..", "...", " ", ". ." } do
      assert.equal("document.pdf", file(name, PDF))
    end
    assert.equal(".pdf.pdf", file(".pdf", PDF)) -- a name without an extension
    assert.equal("document", file("..", nil))
    assert.equal("document", file((" "):rep(255) .. "x", nil)) -- empty once it is cut
    assert.equal("document", file(nil, nil))
    assert.equal("document.tif", file(nil, "image/tiff"))
  end)

  it("has an extension of its type", function()
    assert.equal("scan.exe.pdf", file("scan.exe", PDF))
    assert.equal("scan.jpeg.pdf", file("scan.jpeg", PDF))
    assert.equal("scan.png", file("scan", "image/png"))
    assert.equal("scan.jpg", file("scan", "image/jpeg"))
    assert.equal("scan.JPEG", file("scan.JPEG", "image/jpeg"))
    assert.equal("scan.tiff", file("scan.tiff", "IMAGE/TIFF"))
    assert.equal("scan.pdf", file("scan", "application/pdf; charset=binary"))
    assert.equal("scan.docx", file("scan.docx",
      "application/vnd.openxmlformats-officedocument.wordprocessingml.document"))
  end)

  it("keeps its extension if the type is not known", function()
    assert.equal("notes.txt", file("notes.txt", "text/plain"))
    assert.equal("scan", file("scan", ""))
  end)

  it("has at most 255 bytes, cut before the extension at a character", function()
    assert.equal(("x"):rep(251) .. ".pdf", file(("x"):rep(300) .. ".pdf", PDF))
    assert.equal(("\195\164"):rep(125) .. ".pdf", file(("\195\164"):rep(200) .. ".pdf", PDF)) -- 2 bytes each
    assert.equal(("\240\159\146\137"):rep(62) .. ".docx", file(("\240\159\146\137"):rep(100),
      "application/vnd.openxmlformats-officedocument.wordprocessingml.document"))
    assert.equal(("x"):rep(255), file(("x"):rep(300), nil))
    assert.equal(("x"):rep(254), file(("x"):rep(254) .. "." .. ("x"):rep(50), nil))
    local unique = file(("x"):rep(300) .. ".pdf", PDF, "p", "d")
    assert.truthy(unique:find("^x+%-%x+%.pdf$"))
    assert.equal(255, #unique)
  end)

  it("has 16 hexadecimal digits of both ids if it must be unique", function()
    local name = file("scan.pdf", PDF, "12345", "doc-1")
    assert.equal("scan-" .. core.sha256("12345\0doc-1"):sub(1, 16) .. ".pdf", name)
    assert.equal(name, file("scan.pdf", PDF, "12345", "doc-1"))
    assert.are_not.equal(name, file("scan.pdf", PDF, "12345", "doc-2"))
    assert.are_not.equal(file("a.pdf", PDF, "1", "23"), file("a.pdf", PDF, "12", "3"))
    assert.truthy(file("scan", nil, "p", "d"):find("^scan%-%x+$"))
  end)

  it("of a patient's directory is the id, or has digits of it", function()
    for _, id in ipairs { "1", "12345", "ab-c_d", ("9"):rep(64) } do assert.equal(id, safe_name.directory(id)) end
    for id, expected in pairs { ["A"] = "A", ["con"] = "_con", ["a.b"] = "a.b", ["../x"] = ".._x", [".."] = "document",
                                [("9"):rep(65)] = ("9"):rep(65), ["com1"] = "_com1", ["x y "] = "x y" } do
      assert.equal((expected .. "-"):gsub("^_", "") .. core.sha256(id):sub(1, 16), (safe_name.directory(id):gsub("^_", "")))
    end
    assert.equal(255, #safe_name.directory(("\195\164"):rep(300)))
  end)
end)

-- Each Lua has other names; NYMBL_SPEC_LARGE has each of them try more.
describe("safe names of many hostile names", function()
  local COUNT = os.getenv "NYMBL_SPEC_LARGE" and 200000 or 25000

  -- A generator of our own (Park and Miller)
  local seed = 20260211 + (rawget(_G, "jit") and 1 or _VERSION == "Lua 5.3" and 2 or os.getenv "ASAN_OPTIONS" and 3 or 0)
  local function random(most)
    seed = seed * 16807 % 2147483647
    return seed % most + 1
  end

  local PIECES = {
    "/", "\\", "..", ".", " ", "...", "\0", "\n", "\r", "\27[2J", "\127", ":", "*", "?", "<", ">", "|", "\"",
    "CON", "con.", "nul", "COM1", "COM\194\185", "LPT9 ", "AUX.", "conin$", ".nymbl-", "nymbl-part", ".nymbl-meta",
    "manifest.jsonl", "report", "a", "A", "k", "\226\132\170", "\197\191", "\195\169", "e\204\129", "\195\159", "SS",
    "\226\128\174", "\226\128\139", "\239\187\191", "\226\128\168", "\194\133", "\240\159\146\137", "\240\159\145\168",
    "\226\128\141", "\239\191\189", "\239\191\191", "\255", "\192\175", "\237\160\128", "\244\144\128\128", "\226\130",
    "\128", ".pdf", ".PDF", ".exe", ".jpeg", ".tif", ".docx", ".", "-0123456789abcdef", "~1", "$", "%00", "%2f", "-",
    ("x"):rep(100), ("\227\131\134"):rep(40), ("\240\159\146\137"):rep(30), (" "):rep(200), ("."):rep(130),
  }
  local TYPES = { PDF, PDF, "image/png", "image/jpeg", "image/tiff", "", "text/plain", "x/y; a=b",
                  "application/vnd.openxmlformats-officedocument.wordprocessingml.document", false }
  local EXTENSIONS = {
    [PDF] = { pdf = true }, ["image/png"] = { png = true }, ["image/jpeg"] = { jpg = true, jpeg = true },
    ["image/tiff"] = { tif = true, tiff = true },
    ["application/vnd.openxmlformats-officedocument.wordprocessingml.document"] = { docx = true },
  }
  local DEVICE = { con = true, prn = true, aux = true, nul = true, ["conin$"] = true, ["conout$"] = true }

  local function hostile()
    local made = {}
    for i = 1, random(8) do
      made[i] = random(5) == 1 and string.char(random(256) - 1) or PIECES[random(#PIECES)]
    end
    return table.concat(made)
  end

  -- What is wrong with a name, or nil. Written from the contract, not from the code.
  local function problem(name)
    if name == "" or #name > 255 then return "length" end
    if name:find("[%z\1-\31\127/\\:*?\"<>|]") then return "character" end
    if name:find("[. ]$") then return "end" end
    local device = name:match("^[^.]*"):gsub(" +$", ""):lower()
    if DEVICE[device] or device:find("^com[1-9]$") or device:find("^lpt[1-9]$")
      or device:find("^com\194[\185\178\179]$") or device:find("^lpt\194[\185\178\179]$") then
      return "device"
    end
    local lower = name:lower()
    if lower:find("^%.nymbl%-") or lower:find("%.nymbl%-part$") or lower:find("%.nymbl%-meta$")
      or lower == "manifest.jsonl" then
      return "own"
    end
    for _, sequence in ipairs { "\226\128\174", "\226\128\139", "\239\187\191", "\226\128\168", "\194\133", "\239\191\191" } do
      if name:find(sequence, 1, true) then return "invisible" end
    end
  end

  local function has_extension(name, content_type)
    local extensions = EXTENSIONS[content_type or ""]
    return not extensions or extensions[(name:match("%.(%w+)$") or ""):lower()]
  end

  it("are file names everywhere, have the extension of their type, and differ for different documents", function()
    local all, seen, documents = {}, {}, 0
    local function check(condition, what, name, safe)
      if not condition then error(("%s: %q becomes %q"):format(what, name, safe)) end
    end
    for i = 1, COUNT do
      local name, content_type = hostile(), TYPES[random(#TYPES)] or nil
      local plain = file(name, content_type)
      local unique = file(name, content_type, "patient " .. i % 317, "document " .. i)
      for _, safe in ipairs { plain, unique } do
        local wrong = problem(safe)
        check(not wrong, wrong, name, safe)
        check(has_extension(safe, content_type), "extension", name, safe)
        all[#all + 1] = safe
      end
      check(file(plain, content_type) == plain, "a safe name is not harmless", name, plain)
      -- What no folding can change: the digits and the extension, both of ASCII, in one case.
      local digits = unique:match("%-([0-9a-f]+)%.[A-Za-z0-9]+$") or unique:match("%-([0-9a-f]+)$")
      check(digits and #digits == 16, "no digits", name, unique)
      if not seen[digits] then documents = documents + 1 end
      seen[digits] = true
    end
    assert.equal(COUNT, documents)
    assert.is_false(is_utf8(helper.write_file(helper.temporary(), "a\255")))
    assert.is_true(is_utf8(helper.write_file(helper.temporary(), table.concat(all, "\n"))))
  end)

  it("are names of patients' directories, too", function()
    for _ = 1, COUNT / 10 do
      local id = hostile():gsub("%z", "")
      local wrong = problem(safe_name.directory(id))
      if wrong then error(("%s: %q becomes %q"):format(wrong, id, safe_name.directory(id))) end
    end
  end)
end)

describe("doc:safe_name()", function()
  local client, patient

  setup(function()
    helper.reset()
    client = helper.client()
    patient = client:patient("names")
    helper.admin("POST", "documents", { patient = "names", id = "d/1", content = "%PDF-1.4\n",
      file_name = "../Befund: 1.exe", content_type = "application/pdf" })
  end)

  teardown(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  it("is made of the metadata and the ids", function()
    local doc = assert(patient:get("d/1"))
    assert.equal(".._Befund_ 1.exe.pdf", doc:safe_name())
    assert.equal(".._Befund_ 1.exe-" .. core.sha256("names\0d/1"):sub(1, 16) .. ".pdf", doc:safe_name { unique = true })
    assert.equal(doc:safe_name(), doc:safe_name { unique = false })
  end)

  it("is there without metadata", function()
    local doc = patient:document("d/1")
    assert.equal("document", doc:safe_name())
    assert.equal("document-" .. core.sha256("names\0d/1"):sub(1, 16), doc:safe_name { unique = true })
  end)

  it("raises on wrong options", function()
    local doc = patient:document("d/1")
    assert.has_error(function() doc:safe_name(1) end)
    assert.has_error(function() doc:safe_name { uniq = true } end)
    assert.has_error(function() doc:safe_name { unique = 1 } end)
  end)
end)
