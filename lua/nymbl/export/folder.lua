-- SPDX-License-Identifier: MIT
-- The folder of an export: it is opened with its manifest and its visits, and the step is completed that
-- a killed run has left half-done. At the end, and from time to time, what was written is flushed.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local job = require "nymbl.job"
local manifest = require "nymbl.export.manifest"
local records = require "nymbl.export.records"
local visits = require "nymbl.export.visits"
local wait = require "nymbl.wait"

-- Seconds between two flushes. After a power cut, the documents of this time are downloaded again.
local FLUSH_INTERVAL = 1

-- The most patients' directories that are cleaned after a kill (core/nymbl.h, NYMBL_DIRECTORY_MAX), and
-- how many of them in one go.
local MAX_DIRECTORIES = 1000000
local SLICE = 100

-- State:
--   dir         descriptor of the folder; nil if a dry run has found none
--   manifest, visits   the same
--   flushed_at, has_new_directory   for the next flush
local folder = {}
folder.__index = folder

-- Remove what a killed process has left half-written.
local function remove_leftovers(self, path)
  local entries, err = job.read_directory(path .. "/.", MAX_DIRECTORIES) -- the path itself may be a link
  if not entries then return nil, err end
  for i, entry in ipairs(entries) do
    local dir = entry.kind == "directory" and self.dir:open_directory(entry.name)
    if dir then
      dir:remove_leftovers()
      dir:close()
    end
    if i % SLICE == 0 then wait.wait(nil, wait.now() + 1 / 1000) end
  end
  return true
end

-- Complete a step of a run that was killed: if a document's new file has taken its place, but the
-- manifest has no line for that, append it.
-- @tparam table begun a document of a queue (visits.lua)
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
local function recover(self, begun)
  local directory, name = records.path_parts(begun.path)
  if not directory then return true end
  local dir = self.dir:open_directory(directory)
  local file = dir and dir:open_file(name, "read")
  if dir then dir:close() end
  if not file then return true end
  local is_new, digest, size = records.file_number(file:stat()) ~= begun.before, nil, nil
  if is_new then digest, size = job.digest(file) end
  file:close()
  if not digest then
    if not is_new or size.kind == "io" then return true end
    return nil, size
  end
  local record, err = self.manifest:find(begun.patient_id, begun.id)
  if err then return nil, err end
  if record and record.sha256 == digest then return true end
  begun.size, begun.sha256 = size, digest
  if not records.is_complete(begun) then return true end -- it was not written by an export
  return self.manifest:append(begun)
end

-- Wait until the folder's own name is on the disk. A parent that this user cannot read cannot be flushed.
local function flush_name(path)
  local parent, err = core.system.open_directory(path .. "/..")
  if not parent then
    if err.reason == "permission" then return true end
    return nil, errors.new(err)
  end
  local flushed
  flushed, err = job.sync(parent)
  parent:close()
  return flushed, err
end

-- Open the folder with its files. Returns true, or nil and the error.
local function open(self, path, service, dry_run)
  local made, err = dry_run, nil
  if not dry_run then made, err = core.system.make_directory(path) end
  if made ~= nil then self.dir, err = core.system.open_directory(path) end
  if not self.dir then
    if dry_run and err.reason == "not_found" then return true end
    return nil, errors.new(err)
  end
  self.visits, err = visits.open(self.dir, service, dry_run)
  if not self.visits then return nil, err end
  local done = true
  if not dry_run and not self.visits.is_clean then done, err = remove_leftovers(self, path) end
  if done then self.manifest, err = manifest.open(self.dir, dry_run) end
  if not self.manifest then return nil, err end
  if dry_run then return true end
  done, err = self.visits:each_begun(function(record) return recover(self, record) end)
  if done then done, err = self.manifest:flush() end
  if done and not self.visits.has_header then done, err = flush_name(path) end -- the folder may be new
  if done then done, err = self.visits:begin() end
  return done, err
end

-- Open and lock the folder of an export.
-- @tparam string path is created if it does not exist
-- @tparam string service the client's (batch.service)
-- @tparam boolean dry_run whether nothing may be written; it need not exist then
-- @treturn[1] table the folder
-- @treturn[2] nil
-- @treturn[2] table the error; reason "in_use" or "other_service"
function folder.open(path, service, dry_run)
  local self = setmetatable({ flushed_at = wait.now(), has_new_directory = false }, folder)
  local opened, err = open(self, path, service, dry_run)
  if opened then return self end
  self:close()
  return nil, err
end

function folder:close()
  if self.manifest then self.manifest:close() end
  if self.dir then self.dir:close() end
  if self.visits then self.visits:close() end -- the lock is released last
end

-- Open a directory of the folder.
-- @treturn[1] ?userdata its descriptor, or nil if it does not exist
-- @treturn[2] nil
-- @treturn[2] table the error
function folder:open_directory(name)
  if not self.dir then return nil end
  local dir, err = self.dir:open_directory(name)
  if dir or err.reason == "not_found" then return dir end
  return nil, errors.new(err)
end

-- Open a directory of the folder, which is created if necessary.
-- @treturn[1] userdata its descriptor
-- @treturn[2] nil
-- @treturn[2] table the error
function folder:make_directory(name)
  local dir
  local made, err = self.dir:make_directory(name)
  if made then self.has_new_directory = true end
  if made ~= nil then dir, err = self.dir:open_directory(name) end
  if dir then return dir end
  return nil, errors.new(err)
end

-- Wait until all directories and the manifest are on the disk.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function folder:flush()
  local flushed, err = true, nil
  self.flushed_at = wait.now()
  if self.has_new_directory then
    self.has_new_directory = false
    flushed, err = job.sync(self.dir)
  end
  if flushed then flushed, err = self.manifest:flush() end
  return flushed, err
end

-- The same, unless it was done a moment ago.
function folder:flush_if_due()
  if wait.now() - self.flushed_at < FLUSH_INTERVAL then return true end
  return self:flush()
end

return folder
