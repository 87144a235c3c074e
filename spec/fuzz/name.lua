-- SPDX-License-Identifier: MIT
-- Safe file names. The input is the service's name for a document; its last byte selects the
-- media type.
local safe_name = require "nymbl.safe_name"

local TYPES = { false, "application/pdf", "image/jpeg", "text/plain", "image/tiff" }

local function check(name)
  assert(#name > 0 and #name <= 255, "length")
  assert(utf8 == nil or utf8.len(name), "not UTF-8") -- luacheck: ignore
  assert(not name:find "[%z\1-\31\127/\\:*?\"<>|]", "unsafe character")
  assert(not name:find "[. ]$", "dot or blank at the end")
  assert(not name:find "^%.*$" and not name:lower():find("^%.nymbl%-"), "name of a file of the library")
  assert(name:lower() ~= "manifest.jsonl", "reserved")
  local stem = name:lower():match "^[^.]*":gsub(" +$", "")
  for _, device in ipairs { "con", "prn", "aux", "nul", "com1", "lpt9" } do assert(stem ~= device, "device") end
end

local function try(input)
  local text, media_type = input:sub(1, -2), TYPES[(input:byte(-1) or 0) % #TYPES + 1] or nil
  local name = safe_name.file(text, media_type)
  local unique = safe_name.file(text, media_type, "p", "d")
  check(name)
  check(unique)
  assert(safe_name.file(name, media_type) == name, "a safe name is not safe")
  assert(unique:find "%-%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x", "not unique")
  assert(unique ~= safe_name.file(text, media_type, "p", "e"), "one name for two documents")
  local directory = safe_name.directory(text)
  check(directory)
  if directory == text then return "directory unchanged" end
  return name == text and "unchanged" or "changed"
end

return { try = try, reached = { "changed", "unchanged", "directory unchanged" } }
