-- SPDX-License-Identifier: MIT
-- The bytes of documents: written to files as they arrive, hashed meanwhile, and identified by their signatures.

local body = require "body"
local digest = require "openssl.digest"
local ffi = require "ffi"
local system = require "system"

local content = {}

local writer = {}
writer.__index = writer

local BLOCK = 1048576
local HEAD = 1024 -- number of first bytes that are checked against the type
local DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

-- The accepted types, each with the beginnings its files may have.
local signatures = {
  ["application/pdf"] = { "%PDF-" },
  ["image/png"] = { "\137PNG\r\n\26\n" },
  ["image/jpeg"] = { "\255\216\255" },
  ["image/tiff"] = { "II*\0", "MM\0*", "II+\0", "MM\0+" },
  [DOCX] = { "PK\3\4" },
}

local extensions = {
  ["application/pdf"] = "pdf", ["image/png"] = "png", ["image/jpeg"] = "jpg",
  ["image/tiff"] = "tiff", [DOCX] = "docx",
}

function content.extension(media_type)
  return extensions[media_type] or "bin"
end

--- Whether a file whose first bytes are `head` can be of `media_type`. An empty file can be of each type.
function content.is_accepted(media_type, head)
  local beginnings = signatures[media_type]
  if not beginnings then
    return false
  elseif head == "" then
    return true
  end
  for _, beginning in ipairs(beginnings) do
    if head:sub(1, #beginning) == beginning then
      return true
    end
  end
  -- a PDF may have other bytes before its signature
  return media_type == "application/pdf" and head:find("%PDF-", 1, true) ~= nil
end

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

function content.sha256(bytes)
  return hex(digest.new("sha256"):final(bytes))
end

--- Content that is short enough to be kept in memory.
function content.bytes(bytes)
  return { bytes = bytes, size = #bytes, sha256 = content.sha256(bytes) }
end

local files = 0

local function path_new(folder)
  files = files + 1
  return ("%s/content-%d"):format(folder, files)
end

--- Create a new file in `folder`.
function content.writer(folder)
  local path = path_new(folder)
  return setmetatable({
    path = path, file = assert(io.open(path, "wb")), digest = digest.new "sha256", size = 0, head = "",
  }, writer)
end

function writer:write(bytes)
  if #self.head < HEAD then
    self.head = (self.head .. bytes:sub(1, HEAD)):sub(1, HEAD)
  end
  self.size = self.size + #bytes
  self.digest:update(bytes)
  assert(self.file:write(bytes))
end

--- Close the file and return its content.
function writer:finish()
  self.file:close()
  return { path = self.path, size = self.size, sha256 = hex(self.digest:final()), head = self.head }
end

--- `size` bytes that look random, are the same each time, and begin as `media_type` does.
function content.generate(folder, size, media_type)
  local words = ffi.new("uint32_t[?]", BLOCK / 4)
  local x = 2463534242
  for i = 0, BLOCK / 4 - 1 do
    x = bit.bxor(x, bit.lshift(x, 13))
    x = bit.bxor(x, bit.rshift(x, 17))
    x = bit.bxor(x, bit.lshift(x, 5))
    words[i] = x
  end
  local out = content.writer(folder)
  local beginning = (signatures[media_type] or { "" })[1]
  out:write(beginning:sub(1, size))
  local block = 0
  while out.size < size do
    words[0] = block -- so that all blocks differ
    out:write(ffi.string(words, math.min(BLOCK, size - out.size)))
    block = block + 1
  end
  return out:finish()
end

local function copy(out, source)
  for piece in source:pieces(65536) do
    out:write(piece)
  end
  return out:finish()
end

--- The output of a shell filter that reads a body.
function content.filter(folder, command, source)
  local input = copy(content.writer(folder), source)
  local output = path_new(folder)
  system.filter(command, input.path, output)
  local file = assert(io.open(output, "rb"))
  local size = file:seek "end"
  local result = copy(content.writer(folder), body.new { file = file, from = 0, size = size })
  file:close()
  os.remove(input.path)
  os.remove(output)
  return result
end

--- Delete the content's file, if it has one.
function content.discard(self)
  if self.path then
    os.remove(self.path)
  end
end

return content
