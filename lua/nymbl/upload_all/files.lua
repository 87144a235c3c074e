-- SPDX-License-Identifier: MIT
-- The files of patient:upload_all: from the script's items, without duplicates, with their contents.
--
-- A file has
--   given_path    as the script gave it
--   path          absolute, but the last component may be a link; real_path: where that leads
--   patient_id, file_name, document_type, description   what is sent
--   size, sha256
--   opened_version   the version of the file (lua/helpers.h) whose content has that digest
--   version       the same, or nil if the file may change without another version

local check = require "nymbl.check"
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local index = require "nymbl.upload_all.index"
local job = require "nymbl.job"
local source = require "nymbl.source"
local upload = require "nymbl.upload"
local wait = require "nymbl.wait"

-- A file that was modified in the last seconds before it is hashed may change again without another
-- time: some file systems count in steps of 2 seconds.
local TIME_STEP = 2

local FIELDS = {
  path = check.nonempty, file_name = check.string, document_type = check.string, description = check.string,
}

-- State:
--   collection, options
--   folders   by folder: its real path
--   seen      index by path and name: the files that were added
local files = {}
files.__index = files

-- @tparam table collection the patient's documents (see page.lua)
-- @tparam table options of the run
function files.new(collection, options)
  return setmetatable({ collection = collection, options = options, folders = {}, seen = index.new() }, files)
end

-- The problem of a field of an item, or nil.
local function field_problem(name, value)
  local checker = FIELDS[name]
  if not checker then return ("unknown field '%s'"):format(tostring(name)) end
  local problem = checker(value)
  return problem and ("field '%s': %s"):format(name, problem)
end

-- The script's item as a table with `path`. Raises if it is none.
function files.read_item(item)
  if type(item) == "string" then item = { path = item } end
  if type(item) ~= "table" then check.raise_argument(1, "upload_all", check.expected("path or table", item)) end
  local problem
  for name, value in pairs(item) do problem = problem or field_problem(name, value) end
  if not problem and not item.path then problem = "field 'path' is required" end
  if problem then check.raise_argument(1, "upload_all", problem) end
  return item
end

local function io_error(reason)
  return errors.new({ kind = "io", reason = reason }, "upload")
end

-- Where a path leads, with a folder's links resolved. Files have the same name in the journal then,
-- however a script writes their paths.
local function absolute(self, path)
  local folder, name = path:match("^(.*/)([^/]*)$")
  folder, name = folder or ".", name or path
  if name == "" or name == "." or name == ".." then return nil, io_error "directory" end
  local real = self.folders[folder]
  if not real then
    local err
    real, err = core.system.realpath(folder)
    if not real then return nil, errors.new(err, "upload") end
    self.folders[folder] = real
  end
  return real:gsub("/$", "") .. "/" .. name, name
end

-- Add a file.
-- @tparam table item as `read_item` returns it
-- @treturn[1] ?table the file; false if it was added before
-- @treturn[2] nil
-- @treturn[2] table the error
function files:add(item)
  local path, name = absolute(self, item.path)
  if not path then return nil, name end
  local file = {
    path = path, given_path = item.path, patient_id = self.collection.path[2], file_name = item.file_name or name,
    document_type = item.document_type or self.options.document_type,
    description = item.description or self.options.description,
  }
  local key = { file.path, file.file_name }
  if upload.file_name(file.file_name) then return nil, io_error "bad_metadata" end
  if self.seen:get(key) then return false end
  self.seen:add(key, "")
  return file
end

-- Determine the content of a file: by its last line in the journal if it has not changed since, or by
-- hashing it.
-- @tparam table file
-- @tparam table journal (journal.lua)
-- @treturn[1] boolean whether it was hashed
-- @treturn[2] nil
-- @treturn[2] table the error
function files:identify(file, journal)
  local status, err
  file.real_path, err = core.system.realpath(file.path)
  if file.real_path then status, err = core.system.lstat(file.real_path) end
  if not status then return nil, errors.new(err, "upload") end
  if status.kind ~= "file" then return nil, io_error(status.kind == "directory" and "directory" or "not_a_file") end
  if status.size > core.max_upload_bytes(self.collection.env.client) then
    return nil, errors.new({ kind = "too_large" }, "upload")
  end
  file.size, file.opened_version = status.size, status.version
  local known
  known, err = journal:find(file)
  if err then return nil, err end
  if known and known.version == status.version then
    file.sha256, file.version = known.sha256, known.version
    return false
  end
  file.sha256, err = job.digest(file.real_path)
  if not file.sha256 then return nil, err end
  if wait.wall_clock() - status.modified > TIME_STEP then file.version = status.version end
  return true
end

-- Open a file whose content is known, and check that it can be sent.
-- @treturn[1] table the source (source.lua)
-- @treturn[2] nil
-- @treturn[2] table the error
function files:open(file)
  local opened = source.open(file.real_path)
  if opened.err then return nil, errors.new(opened.err, "upload") end
  local problem
  if opened.body:version() ~= file.opened_version then
    problem = io_error "changed"
  else
    problem = select(2, upload.inspect(self.collection.env, opened, file))
  end
  if not problem then return opened end
  source.close(opened)
  return nil, problem
end

return files
