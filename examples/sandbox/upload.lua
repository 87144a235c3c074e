-- SPDX-License-Identifier: MIT
-- One upload as it arrives: its form fields, its file on disk, and its problem, if any.

local content = require "content"
local json = require "json"
local multipart = require "multipart"
local responses = require "responses"

local upload = {}
upload.__index = upload

local MAX_FIELD_BYTES = 65536

local known_fields = { document_type = true, description = true }

local function part_begin(self, part)
  if self.seen[part.name] then
    return nil, "repeated field: " .. part.name
  elseif part.name == "file" then
    if not part.filename or part.filename == "" then
      return nil, "the file part has no filename"
    elseif not part.content_type then
      return nil, "the file part has no Content-Type"
    end
    self.writer = content.writer(self.folder)
    part.size = 0
  elseif not known_fields[part.name] then
    return nil, "unknown field: " .. part.name
  elseif part.filename then
    return nil, "a text field has a filename: " .. part.name
  else
    part.pieces, part.size = {}, 0
  end
  self.seen[part.name] = true
  return part
end

-- Bytes over a limit are counted, but not stored.
local function part_data(self, part, bytes)
  part.size = part.size + #bytes
  if part.name == "file" then
    if self.writer.size <= self.max_bytes then
      self.writer:write(bytes)
    end
  elseif part.size <= MAX_FIELD_BYTES then
    table.insert(part.pieces, bytes)
  end
end

local function part_end(self, part)
  local field = { { "name", part.name } }
  if part.name == "file" then
    self.file = self.writer:finish()
    self.file_name = part.filename
    self.content_type = part.content_type:match("^[^;]*"):match("^(.-)%s*$"):lower()
    field[#field + 1] = { "filename", part.filename }
    field[#field + 1] = { "size", part.size }
    field[#field + 1] = { "sha256", self.file.sha256 }
  else
    local value = table.concat(part.pieces)
    if part.size > MAX_FIELD_BYTES then
      return nil, "the field is too long: " .. part.name
    end
    self.values[part.name] = value
    field[#field + 1] = { "size", part.size }
    field[#field + 1] = { "sha256", content.sha256(value) }
    field[#field + 1] = { "value", value }
  end
  if part.content_type then
    field[#field + 1] = { "content_type", part.content_type }
  end
  table.insert(self.fields, json.object(field))
  return true
end

--- Prepare for the body of an upload. Its file is stored in `folder`.
function upload.new(folder, content_type, max_bytes)
  local self = setmetatable({
    folder = folder, max_bytes = max_bytes, fields = json.array {}, values = {}, seen = {},
  }, upload)
  local boundary = multipart.boundary(content_type or "")
  if boundary then
    self.parser = multipart.new(boundary, {
      part = function(part) return part_begin(self, part) end,
      data = function(part, bytes) return part_data(self, part, bytes) end,
      done = function(part) return part_end(self, part) end,
    })
  else
    self.problem = "Content-Type is not multipart/form-data with a boundary"
  end
  return self
end

--- Parse the next bytes. After the first problem, ignore the rest.
function upload:push(bytes)
  if not self.problem then
    local ok, problem = self.parser:push(bytes)
    self.problem = not ok and problem or nil
  end
end

function upload:finish()
  if not self.problem then
    local ok, problem = self.parser:finish()
    self.problem = not ok and problem or nil
  end
end

--- The error response for this upload, or nil if it is valid.
function upload:refusal()
  if self.writer and self.writer.size > self.max_bytes then
    return responses.service(413, "PayloadTooLarge", "The file exceeds the maximum upload size",
      ("The limit is %d bytes"):format(self.max_bytes))
  elseif self.problem then
    return responses.service(400, "InvalidRequest", "The multipart body is malformed", self.problem)
  elseif not self.file then
    return responses.service(400, "MissingField", "A required field is missing", "The field 'file' is required")
  elseif not content.is_accepted(self.content_type, self.file.head) then
    return responses.service(400, "UnsupportedFileType", "The file type is not supported",
      ("'%s' is not an accepted type, or the content is of another"):format(self.content_type))
  end
end

--- The stored content. Its file is then no longer deleted with this upload.
function upload:take()
  local file = self.file
  self.writer, self.file = nil, nil
  return file
end

--- Delete the received file, unless it was taken.
function upload:discard()
  if self.writer then
    if not self.file then
      self.writer:finish()
    end
    os.remove(self.writer.path)
    self.writer, self.file = nil, nil
  end
end

return upload
