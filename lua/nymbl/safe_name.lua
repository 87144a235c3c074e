-- SPDX-License-Identifier: MIT
-- File names for documents whose names come from the service. A safe name denotes one file
-- below its directory on any common file system, and shows to a reader all that it has.

local core = require "nymbl.core"
local media_type = require "nymbl.media_type"

local safe_name = {}

local MAX_BYTES = 255 -- NAME_MAX; NTFS and APFS count at most as many units of UTF-16

local NO_NAME = "document"
local REPLACEMENT = "_"

-- Characters outside of ASCII that are replaced, as pairs of first and last code point: C1
-- controls, line and paragraph separators, interlinear annotation, noncharacters; and those
-- with the Unicode property Default_Ignorable_Code_Point, which are invisible or, as the
-- bidirectional controls, reorder the rest of the name ("report\u202Efdp.exe"). The joiners
-- U+200C and U+200D and the variation selectors have that property, too, but stay: Persian,
-- Indic scripts, names in Japanese and emoji need them.
local UNSAFE = {
  { 0x80, 0x9F }, { 0xAD, 0xAD }, { 0x34F, 0x34F }, { 0x61C, 0x61C }, { 0x115F, 0x1160 }, { 0x17B4, 0x17B5 },
  { 0x180E, 0x180E }, { 0x200B, 0x200B }, { 0x200E, 0x200F }, { 0x2028, 0x202E }, { 0x2060, 0x206F },
  { 0x3164, 0x3164 }, { 0xFDD0, 0xFDEF }, { 0xFEFF, 0xFEFF }, { 0xFFA0, 0xFFA0 }, { 0xFFF0, 0xFFFB },
  { 0x1BCA0, 0x1BCA3 }, { 0x1D173, 0x1D17A }, { 0xE0000, 0xE00FF }, { 0xE01F0, 0xE0FFF },
}

-- Device names of Windows, with any extension (Microsoft, "Naming Files, Paths, and
-- Namespaces").
local DEVICES = { con = true, prn = true, aux = true, nul = true, ["conin$"] = true, ["conout$"] = true }
for _, port in ipairs { "com", "lpt" } do
  for _, digit in ipairs { "1", "2", "3", "4", "5", "6", "7", "8", "9", "\194\185", "\194\178", "\194\179" } do
    DEVICES[port .. digit] = true
  end
end

-- Names in the folder of an export that are the library's own, apart from ".nymbl-…".
local RESERVED = { ["manifest.jsonl"] = true }

local SMALLEST = { 0, 0x80, 0x800, 0x10000 } -- code point of so many bytes of UTF-8

-- The code point at a position that is not ASCII, and its number of bytes; or nil if there is
-- no valid UTF-8 (RFC 3629).
local function code_point(text, at)
  local first = text:byte(at)
  local length = first < 0xC0 and 0 or first < 0xE0 and 2 or first < 0xF0 and 3 or first < 0xF8 and 4 or 0
  if length == 0 then return nil end
  local code = first % 2 ^ (7 - length)
  for i = at + 1, at + length - 1 do
    local byte = text:byte(i) or 0
    if byte < 0x80 or byte > 0xBF then return nil end
    code = code * 64 + byte - 0x80
  end
  if code < SMALLEST[length] or code > 0x10FFFF or (code >= 0xD800 and code <= 0xDFFF) then return nil end
  return code, length
end

local function is_unsafe(code)
  if code % 0x10000 >= 0xFFFE then return true end -- noncharacters
  for _, range in ipairs(UNSAFE) do
    if code <= range[2] then return code >= range[1] end
  end
  return false
end

-- A text of bytes that are not ASCII, with unsafe characters and invalid bytes replaced.
local function replace_in_run(text)
  local characters, at = {}, 1
  while at <= #text do
    local code, length = code_point(text, at)
    local is_safe = code and not is_unsafe(code)
    characters[#characters + 1] = is_safe and text:sub(at, at + length - 1) or REPLACEMENT
    at = at + (length or 1)
  end
  return table.concat(characters)
end

-- The text with separators, characters that Windows forbids, controls, unsafe characters and
-- invalid bytes replaced.
local function replace_unsafe(text)
  return (text:gsub('[%z\1-\31\127"*/:<>?\\|]', REPLACEMENT):gsub("[\128-\255]+", replace_in_run))
end

-- Windows ignores dots and spaces at the end of a name.
local function trim(name)
  return (name:gsub("[. ]+$", ""))
end

-- At most so many bytes of valid UTF-8, cut at a character.
local function cut(text, max)
  if #text <= max then return text end
  while text:find("^[\128-\191]", max + 1) do max = max - 1 end
  return text:sub(1, max)
end

local function is_reserved(name)
  local device = name:match("^[^.]*"):gsub(" +$", "")
  return DEVICES[core.lower(device)] or RESERVED[core.lower(name)] or false
end

-- A name from its safe stem and what follows it. The stem is cut to make room.
local function compose(stem, rest)
  local function fit(text)
    text = cut(text, MAX_BYTES - #rest)
    if rest == "" then text = trim(text) end
    return (text ~= "" and text or NO_NAME) .. rest
  end
  local name = fit(stem)
  return is_reserved(name) and fit(REPLACEMENT .. stem) or name
end

-- A safe text without the names of this library's incomplete and private files.
local function clean(text)
  text = trim(replace_unsafe(text))
  return (text:gsub("%.([Nn][Yy][Mm][Bb][Ll]%-)", REPLACEMENT .. "%1"))
end

-- "-" and 16 hexadecimal digits of a hash of ids, which contain no NUL. Names that end with
-- them differ on file systems that fold case or normalise Unicode, too: only letters and
-- digits of ASCII follow them, and these change to nothing but themselves.
local function digits(...)
  return "-" .. core.sha256(table.concat({ ... }, "\0")):sub(1, 16)
end

-- A safe name for a document's file.
-- @tparam ?string file_name the service's name for the document
-- @tparam ?string content_type its media type. If the service accepts this type, the name
--   gets its extension.
-- @tparam ?string patient_id for a name that no other document has
-- @tparam ?string id of the document, for the same
-- @treturn string
function safe_name.file(file_name, content_type, patient_id, id)
  local name = clean(file_name or "")
  local stem, extension = name:match("^(.+)%.([A-Za-z0-9]+)$")
  if not stem or #extension > 16 then stem, extension = name, nil end
  local expected = content_type and media_type.extension(content_type)
  local stated = extension and media_type.by_name(name)
  if expected and not (stated and media_type.extension(stated) == expected) then
    stem, extension = name, expected
  end
  return compose(stem, (id and digits(patient_id, id) or "") .. (extension and "." .. extension or ""))
end

-- A safe name for a patient's directory, which no other patient's directory has. Short ids
-- of lower-case letters, digits, "_" and "-" are their own.
-- @tparam string patient_id
-- @treturn string
function safe_name.directory(patient_id)
  if #patient_id <= 64 and patient_id:find("^[0-9a-z_-]+$") and not is_reserved(patient_id) then
    return patient_id
  end
  return compose(clean(patient_id), digits(patient_id))
end

return safe_name
