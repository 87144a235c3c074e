-- SPDX-License-Identifier: MIT
-- The journal of uploads: what was sent, and what became of it. It serves many runs and patients of one
-- service.
--
-- It is a file of JSON objects (jsonl.lua). Their field `state` is
--   journal   the first line, with the `service`
--   begun     written and flushed before an upload is sent: what is sent (`patient_id`, `file_name`, `size`,
--             `sha256`, `path`, `document_type`, `description`), which documents of that name and size the
--             patient had then (`known`, their ids), and when it was
--   unknown   it has failed, and may have been carried out: when that was
--   ended     it was not carried out
--   done      it was carried out: the document's `id`, and once more what was sent
--   hashed    what is known of a file whose content was sent before, perhaps from another path
-- `begun`, `unknown`, `ended` and `done` of one upload have the same number, `attempt`. Every upload that
-- was begun and is neither ended nor done is pending: its document must be looked for.
--
-- What lines a power cut can lose, no upload depends on: a lost `done` leaves the upload pending.

local batch = require "nymbl.batch"
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local index = require "nymbl.upload_all.index"
local jsonl = require "nymbl.jsonl"
local wait = require "nymbl.wait"

local VERSION = 1

-- State:
--   log       the file, or nil if a dry run has found none
--   last      number of the last upload
--   done      index by patient, name and digest: the offsets of the lines of documents, separated by spaces
--   paths     index by patient, name and path: the offset of the last line about the file
--   pending   array of the uploads of all patients that are pending, as they were begun
local journal = {}
journal.__index = journal

-- The fields that each kind of line must have, and their types.
local COMMON = { patient_id = "string", file_name = "string", path = "string", sha256 = "string", size = "number" }
local TIME = { time = "number", boot = "number", boot_id = "string" }
local FIELDS = {
  journal = { service = "string", version = "number" },
  begun = { COMMON, TIME, attempt = "number", known = "table" },
  unknown = { TIME, attempt = "number" },
  ended = { attempt = "number" },
  done = { COMMON, attempt = "number", id = "string" },
  hashed = { COMMON },
}

local function has_fields(record, fields)
  for name, expected in pairs(fields) do
    if type(expected) == "table" then
      if not has_fields(record, expected) then return false end
    elseif type(record[name]) ~= expected then
      return false
    end
  end
  return true
end

-- Add the present time to a line. The boot clock cannot be set, but is only valid until the next boot.
local function stamp(record)
  record.time, record.boot, record.boot_id = wait.wall_clock(), wait.boot_clock()
  return record
end

-- A moment, for `journal.seconds_since`.
function journal.now()
  return stamp {}
end

-- Seconds from an upload's last line to a moment.
function journal.seconds_since(upload, moment)
  if upload.boot_id == moment.boot_id then return moment.boot - upload.boot end
  return moment.time - upload.time
end

local function content_key(record)
  return { record.patient_id, record.file_name, record.sha256 }
end

local function path_key(record)
  return { record.patient_id, record.file_name, record.path }
end

local function remember_path(self, record, offset)
  self.paths:set(path_key(record), ("%.0f"):format(offset))
end

-- Remove an upload from those that are pending. Returns it, or nil.
local function take_pending(self, attempt)
  for i, upload in ipairs(self.pending) do
    if upload.attempt == attempt then return table.remove(self.pending, i) end
  end
end

-- What the lines mean, by their state.
local apply = {}

function apply.begun(self, record, offset)
  take_pending(self, record.attempt) -- it was sent once more, after a refusal
  self.pending[#self.pending + 1] = record
  self.last = math.max(self.last, record.attempt)
  remember_path(self, record, offset)
end

function apply.unknown(self, record)
  for _, upload in ipairs(self.pending) do
    if upload.attempt == record.attempt then
      upload.time, upload.boot, upload.boot_id = record.time, record.boot, record.boot_id
    end
  end
end

function apply.ended(self, record)
  take_pending(self, record.attempt)
end

function apply.done(self, record, offset)
  take_pending(self, record.attempt)
  self.last = math.max(self.last, record.attempt)
  local key = content_key(record)
  local offsets = self.done:get(key) or ""
  self.done:set(key, ("%s %.0f"):format(offsets, offset))
  remember_path(self, record, offset)
end

function apply.hashed(self, record, offset)
  remember_path(self, record, offset)
end

-- Append a line. Returns true, or nil and the error.
local function append(self, record)
  local offset, err = self.log:append(record)
  if not offset then return nil, err end
  apply[record.state](self, record, offset)
  return true
end

local function is_ours(header, service)
  return header and header.state == "journal" and header.service == service and header.version == VERSION
end

-- Whether a file has no line, because the first one was cut off by a power cut. Another file of the user
-- is not overwritten. (The keys of a line are in no particular order. Some file systems leave NULs.)
local function is_cut_off(self, first_line)
  local text = self.log:rest(#first_line + 1) or ""
  if #text > #first_line then return false end
  if not text:find "%Z" then return true end
  for _, key in ipairs { "state", "service", "version" } do
    local beginning = ('{"%s":'):format(key)
    if text:sub(1, #beginning) == beginning:sub(1, #text) then return true end
  end
  return false
end

-- Read all lines. A new file gets its first line.
local function load(self, service, read_only)
  local header, count = nil, 0
  local first = { state = "journal", service = service, version = VERSION }
  local ignored, err = self.log:scan(function(record, offset)
    count = count + 1
    local state = record.state
    if not FIELDS[state] or not has_fields(record, FIELDS[state]) then return end
    if count == 1 then header = record elseif apply[state] then apply[state](self, record, offset) end
  end)
  if not ignored then return nil, err end
  if is_ours(header, service) then return true end
  if self.log.size > 0 or not is_cut_off(self, jsonl.line(first)) then return batch.other_service() end
  if read_only then return true end
  local appended
  appended, err = self.log:append(first)
  if not appended then return nil, err end
  return self.log:flush()
end

-- Open a journal and lock it.
-- @tparam string path
-- @tparam string service an id of the client's service
-- @tparam boolean read_only whether nothing may be written; it need not exist then
-- @treturn[1] table the journal
-- @treturn[2] nil
-- @treturn[2] table the error
function journal.open(path, service, read_only)
  local self = setmetatable({ last = 0, done = index.new(), paths = index.new(), pending = {} }, journal)
  local folder, name = path:match("^(.*/)([^/]*)$")
  name = name or path
  if name == "" or name == "." or name == ".." then return nil, errors.new { kind = "io", reason = "directory" } end
  local dir, err = core.system.open_directory(folder or ".")
  if not dir then return nil, errors.new(err) end
  self.dir = dir
  self.log, err = jsonl.open(dir, name, { keys = { "state" }, lock = true, read_only = read_only })
  local ready = self.log or (read_only and err.reason == "not_found")
  if self.log then ready, err = load(self, service, read_only) end
  if ready then return self end
  self:close()
  return nil, err
end

function journal:close()
  if self.log then self.log:close() end
  self.dir:close()
end

-- How many documents of a patient have a name and a digest.
-- @tparam table file `patient_id`, `file_name` and `sha256`
function journal:count_done(file)
  return select(2, (self.done:get(content_key(file)) or ""):gsub(" ", " "))
end

-- A file of this run has one of these documents, if it can that of its path: it is not there for another
-- file.
-- @tparam table file `patient_id`, `file_name`, `sha256` and `path`
-- @treturn integer the offset of the document's line, for `id_at`
function journal:use_done(file)
  local key = content_key(file)
  local offsets = self.done:get(key) .. " "
  local own = (" %s "):format(self.paths:get(path_key(file)) or "")
  local first, last = offsets:find(own, 1, true)
  if not first then first, last = offsets:find " %d+ " end
  self.done:set(key, offsets:sub(1, first - 1) .. offsets:sub(last, -2))
  return tonumber(offsets:sub(first + 1, last - 1))
end

-- The id of the document whose line begins at an offset.
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] table the error
function journal:id_at(offset)
  local record, err = self.log:read(offset)
  if record and record.id then return record.id end
  return nil, err or errors.new { kind = "io", reason = "changed" }
end

-- The last line about a file.
-- @tparam table file `patient_id`, `file_name` and `path`
-- @treturn[1] ?table the line
-- @treturn[2] nil
-- @treturn[2] table the error
function journal:find(file)
  local offset = self.paths:get(path_key(file))
  if not offset then return nil end
  local record, err = self.log:read(tonumber(offset))
  if not record then return nil, err end
  for _, name in ipairs { "patient_id", "file_name", "path" } do
    if record[name] ~= file[name] then return nil end
  end
  return record
end

-- The uploads of a patient that are pending: a new array.
function journal:pending_of(patient_id)
  local found = {}
  for _, upload in ipairs(self.pending) do
    if upload.patient_id == patient_id then found[#found + 1] = upload end
  end
  return found
end

-- What lines have in common that are about a file.
local function line(state, file, others)
  local record = {
    state = state, patient_id = file.patient_id, file_name = file.file_name, path = file.path, size = file.size,
    sha256 = file.sha256, version = file.version,
  }
  for name, value in pairs(others) do record[name] = value end
  return record
end

-- Record that the content of a file is known.
function journal:add_hashed(file)
  return append(self, line("hashed", file, {}))
end

-- Record that a file is about to be sent, and wait until that is on the disk.
-- @tparam table file
-- @tparam table sent `document_type` and `description`, and `known`: the ids of the patient's documents of
--   that name and size
-- @tparam ?integer attempt the number of the upload, if it is sent once more
-- @treturn[1] integer the number of the upload
-- @treturn[2] nil it must not be sent
-- @treturn[2] table the error
function journal:begin(file, sent, attempt)
  attempt = attempt or self.last + 1
  self.last = math.max(self.last, attempt)
  local ok, err = append(self, stamp(line("begun", file, {
    attempt = attempt, known = sent.known, document_type = sent.document_type, description = sent.description,
  })))
  if ok then ok, err = self.log:flush() end
  if not ok then return nil, err end
  return attempt
end

-- Record that an upload may have been carried out.
function journal:set_unknown(attempt)
  return append(self, stamp { state = "unknown", attempt = attempt })
end

-- Record that an upload was not carried out.
function journal:set_ended(attempt)
  return append(self, { state = "ended", attempt = attempt })
end

-- Record the document of an upload.
function journal:set_done(attempt, file, id)
  return append(self, line("done", file, { attempt = attempt, id = id }))
end

-- The ids of the documents of files with a name and a size that were uploaded: a set.
function journal:ids_of(patient_id, names)
  local ids = {}
  local ok, err = self.log:scan(function(record)
    if record.state == "done" and record.patient_id == patient_id and names[record.file_name] and record.id then
      ids[record.id] = true
    end
  end)
  if not ok then return nil, err end
  return ids
end

-- Wait until all lines are on the disk.
function journal:flush()
  return self.log:flush()
end

return journal
