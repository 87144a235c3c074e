-- SPDX-License-Identifier: MIT
-- Records of documents: what the manifest says about a document and its file, or what is known of it
-- before the download (visits.lua).

local core = require "nymbl.core"
local job = require "nymbl.job"
local safe_name = require "nymbl.safe_name"

local null = core.null

local records = {}

-- The fields, in their order.
records.KEYS = { "patient_id", "id", "path", "size", "sha256", "content_type", "document_type", "file_name",
                 "description", "uploaded_at" }

local TEXTS = { "patient_id", "id", "sha256" }
local TEXTS_OR_NULL = { "content_type", "document_type", "file_name", "description", "uploaded_at" }

-- Names that are no files of a directory.
local DOTS = { ["."] = true, [".."] = true }

-- The directory and the name in the path of a record; nothing if it leads elsewhere.
function records.path_parts(path)
  if type(path) ~= "string" then return end
  local directory, name = path:match "^([^/%z]+)/([^/%z]+)$"
  if directory and not DOTS[directory] and not DOTS[name] then return directory, name end
end

-- Whether an object is the record of a document that was downloaded, as an export writes it.
function records.is_complete(object)
  local size = object.size
  if not records.path_parts(object.path) then return false end
  if type(size) ~= "number" or not (size >= 0 and size < 2^53 and size % 1 == 0) then return false end
  for _, key in ipairs(TEXTS) do
    if type(object[key]) ~= "string" then return false end
  end
  for _, key in ipairs(TEXTS_OR_NULL) do
    if type(object[key]) ~= "string" and object[key] ~= null then return false end
  end
  return true
end

-- Which file has a name: its number in the file system, which a file that replaces it cannot have.
-- (The number of the device may change when the machine starts again.) null if there is none.
-- @tparam ?table status
function records.file_number(status)
  return status and status.identity:sub(-8):gsub(".", function(c) return ("%02x"):format(c:byte()) end) or null
end

local function text(value)
  return type(value) == "string" and value or nil
end

-- The size that the service states, or nil.
-- @tparam table fields the metadata of a document
function records.size_of(fields)
  local size = fields.file_size_bytes
  return type(size) == "number" and size >= 0 and size % 1 == 0 and size < 2^53 and size or nil
end

-- The path of a document's file, and its name: those of its last record if that is in the same directory.
-- @tparam table visit with `patient_id` and `directory`
-- @tparam table fields the metadata of the document
-- @tparam ?table last the record
function records.path_of(visit, fields, last)
  local directory, name
  if last then directory, name = records.path_parts(last.path) end
  if directory == visit.directory then return last.path, name end
  name = safe_name.file(text(fields.file_name), text(fields.content_type), visit.patient_id, fields.id)
  return visit.directory .. "/" .. name, name
end

-- Whether a document's file was written from what the service has now.
-- @tparam table last the record
-- @tparam table fields the metadata of the document
-- @tparam string path
function records.is_current(last, fields, path)
  local size = records.size_of(fields)
  if (size and size ~= last.size) or last.path ~= path then return false end
  for _, key in ipairs { "uploaded_at", "file_name", "content_type" } do
    if last[key] ~= (text(fields[key]) or null) then return false end
  end
  return true
end

-- Whether the file of a record is there.
-- @tparam table last the record
-- @param dir descriptor of the directory, or nil if there is none
-- @tparam string name
-- @tparam ?boolean verify whether to read the file
-- @raise the error if reading was interrupted: by `client:close()`, for example
function records.has_file(last, dir, name, verify)
  local status = dir and dir:stat(name)
  if not status or status.kind ~= "file" or status.size ~= last.size then return false end
  if not verify then return true end
  local file = dir:open_file(name, "read")
  if not file then return false end
  local digest, err = job.digest(file)
  file:close()
  if not digest and err.kind ~= "io" then error(err, 0) end
  return digest == last.sha256
end

-- The record of a document as far as it is known before the download.
-- @tparam table visit with `patient_id`
-- @tparam table fields the metadata of the document
-- @tparam string path
-- @param before which file the path leads to (`file_number`)
function records.new(visit, fields, path, before)
  local new = {
    before = before, patient_id = visit.patient_id, id = fields.id, path = path, size = records.size_of(fields) or null,
  }
  for _, key in ipairs(TEXTS_OR_NULL) do
    new[key] = text(fields[key]) or null
  end
  return new
end

return records
