-- SPDX-License-Identifier: MIT
-- client:export: every document of some patients as a file, with a manifest.
--
-- All patients are listed first, and sorted by how long they have waited. Then one coroutine visits
-- one patient after the other: it lists all documents of the patient, and queues those that must be
-- downloaded. Others download them, while the first one lists the next patient. The queue is in a file
-- (visits.lua). So in memory there are a page of documents, and for each document that was exported
-- some bytes of the manifest's index.
--
-- A kill at any moment does no harm. Before a document is downloaded, its record is in the queue. The
-- file appears complete (core/file/atomic_file.c), and then its line in the manifest. If a run was
-- killed between these two, the next one finds the record and the file. If a power cut has lost any of
-- these lines, the document is downloaded again.

local batch = require "nymbl.batch"
local call = require "nymbl.call"
local check = require "nymbl.check"
local core = require "nymbl.core"
local document = require "nymbl.document"
local each = require "nymbl.each"
local errors = require "nymbl.errors"
local job = require "nymbl.job"
local manifest = require "nymbl.export.manifest"
local meter = require "nymbl.meter"
local patient = require "nymbl.patient"
local safe_name = require "nymbl.safe_name"
local visits = require "nymbl.export.visits"
local wait = require "nymbl.wait"

local FIELDS = core.FIELDS
local null = core.null

local DEFAULT_CONCURRENCY = 4

-- Seconds between two flushes of the manifest. After a power cut, the documents of this time are
-- downloaded again.
local FLUSH_INTERVAL = 1

-- A patient is begun only if the rest of the budget is enough for as many requests as a patient has
-- taken on average, or for so many. Otherwise its list might be paid for twice.
local MAX_SPARED = 10

-- The most patients' directories that are cleaned after a kill (core/nymbl.h, NYMBL_DIRECTORY_MAX), and
-- how many of them in one go.
local MAX_DIRECTORIES = 1000000
local SLICE = 100

local export = {}

local OPTIONS = call.options {
  patients = each.check_items,
  filter = check.nonempty,
  concurrency = check.integer(1, 100000),
  budget = check.integer(0, 2^53),
  dry_run = check.boolean,
  verify = check.boolean,
  progress = check["function"],
}

-- The state of an export, `self` below:
--   env, options, run, report
--   dir         descriptor of the folder; nil if a dry run has found none
--   manifest, visits
--   ids, next   the patients in the order of their visits, and the next one
--   begun       how many patients were begun
--   spent       requests that the list of patients took
--   visit       the visit whose documents are being handed out, or nil. It has
--     patient_id, directory   and the name of its directory
--     dir       the descriptor of that, once it exists
--     adopt     creates its documents (document.collection), once it is needed
--     next, till   offsets of the documents in the queue: the next one and the end
--     planned   in a dry run: their sizes
--     is_replacing   whether any of them has a file already
--     running   how many of them are being downloaded
--     is_over   whether no more will be
--   flushed_at, has_new_directory   for the next flush

-- The directory and the name in a path of the manifest; nothing if it is not such a path.
local function path_parts(path)
  if type(path) ~= "string" then return end
  local directory, name = path:match("^([^/]+)/([^/%z]+)$")
  if name ~= "." and name ~= ".." then return directory, name end
end

-- ---- the folder ----

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

-- Which file has a name: its number in the file system, which a file that replaces it cannot have.
-- (The number of the device may change when the machine starts again.) null if there is none.
local function file_number(status)
  return status and status.identity:sub(-8):gsub(".", function(c) return ("%02x"):format(c:byte()) end) or null
end

-- Complete a step of a run that was killed: if a document's new file has taken its place, but the
-- manifest has no line for that, append it.
-- @tparam table begun a document of a queue (visits.lua)
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
local function recover(self, begun)
  local directory, name = path_parts(begun.path)
  if not directory then return true end
  local dir = self.dir:open_directory(directory)
  local file = dir and dir:open_file(name, "read")
  if dir then dir:close() end
  if not file then return true end
  local is_new, digest, size = file_number(file:stat()) ~= begun.before, nil, nil
  if is_new then digest, size = job.digest(file) end
  file:close()
  if not digest then
    if not is_new or size.kind == "io" then return true end
    return nil, size
  end
  local record, err = self.manifest:find(begun.patient_id, begun.id)
  if err then return nil, err end
  if record and record.sha256 == digest then return true end
  begun.size, begun.sha256, begun.before = size, digest, nil
  return self.manifest:append(begun)
end

-- Open the folder with its files. Returns true, or nil and an error.
local function open(self, path)
  local dry_run, err = self.options.dry_run or false, nil
  local made = dry_run
  if not dry_run then made, err = core.system.make_directory(path) end
  if made ~= nil then self.dir, err = core.system.open_directory(path) end
  if not self.dir then
    if dry_run and err.reason == "not_found" then return true end
    return nil, errors.new(err)
  end
  self.visits, err = visits.open(self.dir, batch.service(self.env), dry_run)
  if not self.visits then return nil, err end
  local done = true
  if not dry_run and not self.visits.is_clean then done, err = remove_leftovers(self, path) end
  if done then self.manifest, err = manifest.open(self.dir, dry_run) end
  if not self.manifest then return nil, err end
  if dry_run then return true end
  done, err = self.visits:each_begun(function(record) return recover(self, record) end)
  if done then done, err = self.manifest:flush() end
  if done then done, err = self.visits:begin() end
  return done, err
end

local function close(self)
  if self.visit and self.visit.dir then self.visit.dir:close() end -- the run has ended in the middle
  if self.manifest then self.manifest:close() end
  if self.dir then self.dir:close() end
  if self.visits then self.visits:close() end -- the lock is released last
end

-- A file of the library failed: that ends the run. Returns nil and the error.
local function fail_to_write(self, err)
  self.run:stop(err.reason == "no_space" and "no_space" or err.kind)
  return nil, err
end

-- The same, for a failure that belongs to no document.
local function fail_for_all(self, err)
  if self.run.stopped == "no_space" and err.reason == "no_space" then return end -- it is known already
  self.run:fail({}, err)
  if not self.run.stopped then self.run:stop(err.kind) end
end

-- Wait until all directories and the manifest are on the disk.
local function flush(self)
  local flushed, err = true, nil
  self.flushed_at = wait.now()
  if self.has_new_directory then
    self.has_new_directory = false
    flushed, err = job.sync(self.dir)
  end
  if flushed then flushed, err = self.manifest:flush() end
  if not flushed then fail_for_all(self, err) end
end

-- ---- patients ----

local function patient_id_of(item)
  local state = type(item) == "userdata" and core.state(item, "nymbl.patient")
  return state and state.id or check.id(item, 2, "export")
end

-- The options of a request, besides those of `others`.
local function call_options(self, others)
  local options = self.options
  others.timeout, others.headers, others.tag = options.timeout, options.headers, options.tag
  return others
end

-- The ids of all patients, without duplicates: an array and a set. Raises the error of the iterator.
local function list_patients(self)
  local items = self.options.patients
  local next_item
  if items then
    next_item = each.iterator(items)
  else
    next_item = require("nymbl.patients").list(self.env, call_options(self, {}))
  end
  local ids, seen = {}, {}
  while not self.run:is_stopped() do
    local item = next_item()
    if item == nil then break end
    local id = patient_id_of(item)
    if not seen[id] then
      ids[#ids + 1], seen[id] = id, true
    end
  end
  return ids, seen
end

-- Count the documents of patients that the service has no more.
local function count_gone_patients(self, seen)
  if self.options.patients or self.options.filter or not self.manifest then return end
  for id, count in pairs(self.manifest.counts) do
    if not seen[id] then self.report.gone = self.report.gone + count end
  end
end

-- ---- documents ----

local function text(value)
  return type(value) == "string" and value or nil
end

-- The size that the service states, or nil.
local function size_of(fields)
  local size = fields.file_size_bytes
  return type(size) == "number" and size >= 0 and size % 1 == 0 and size < 2^53 and size or nil
end

-- The name of a document's file in the directory of its patient: that of its record, if it has one.
local function name_of(visit, fields, record)
  local directory, name
  if record then directory, name = path_parts(record.path) end
  if directory == visit.directory then return name end
  return safe_name.file(text(fields.file_name), text(fields.content_type), visit.patient_id, fields.id)
end

-- Whether a document's file is there, and was written from what the service has now.
local function is_current(self, visit, record, name, fields)
  local size = size_of(fields)
  if (size and size ~= record.size) or record.path ~= visit.directory .. "/" .. name then return false end
  for _, key in ipairs { "uploaded_at", "file_name", "content_type" } do
    if record[key] ~= (text(fields[key]) or null) then return false end
  end
  local status = visit.dir and visit.dir:stat(name)
  if not status or status.kind ~= "file" or status.size ~= record.size then return false end
  if not self.options.verify then return true end
  local file = visit.dir:open_file(name, "read")
  if not file then return false end
  local digest, err = job.digest(file)
  file:close()
  if not digest and err.kind ~= "io" then error(err, 0) end
  return digest == record.sha256
end

-- The record of a document as far as it is known before the download. `before`: which file it has.
local function new_record(visit, fields, name, before)
  local record = {
    before = before,
    patient_id = visit.patient_id, id = fields.id, path = visit.directory .. "/" .. name,
    size = size_of(fields) or null,
  }
  for _, key in ipairs { "content_type", "document_type", "file_name", "description", "uploaded_at" } do
    record[key] = text(fields[key]) or null
  end
  return record
end

-- Queue a listed document unless it is current. Returns whether the manifest has it.
local function queue(self, visit, fields)
  local record, err
  if self.manifest then record, err = self.manifest:find(visit.patient_id, fields.id) end
  if err then error(err, 0) end
  local report, name = self.report, name_of(visit, fields, record)
  if record and is_current(self, visit, record, name, fields) then
    report.unchanged = report.unchanged + 1
  elseif self.options.dry_run then
    visit.planned[#visit.planned + 1] = size_of(fields) or 0
  else
    local status = visit.dir and visit.dir:stat(name)
    local queued, problem = self.visits:queue(new_record(visit, fields, name, file_number(status)))
    if not queued then error(problem, 0) end
    if status then visit.is_replacing = true end
  end
  return record ~= nil
end

-- List all documents of a patient. Raises the error if that fails.
local function list_documents(self, visit)
  local known = 0
  if self.dir then
    local err
    visit.dir, err = self.dir:open_directory(visit.directory)
    if not visit.dir and err.reason ~= "not_found" then error(errors.new(err), 0) end
  end
  local query = call_options(self, { filter = self.options.filter })
  for found in patient.new(self.env, visit.patient_id):documents(query) do
    if queue(self, visit, core.state(found, document.CLASS)[FIELDS]) then known = known + 1 end
  end
  local report = self.report
  report.patients = report.patients + 1
  if not self.options.filter and self.manifest then
    report.gone = report.gone + (self.manifest.counts[visit.patient_id] or 0) - known
  end
end

-- ---- visits ----

-- The directory of a patient, which is created if necessary.
local function directory_of(self, visit)
  if visit.dir then return visit.dir end
  local made, err = self.dir:make_directory(visit.directory)
  if made then self.has_new_directory = true end
  if made ~= nil then visit.dir, err = self.dir:open_directory(visit.directory) end
  if not visit.dir then return nil, errors.new(err) end
  return visit.dir
end

local function close_visit(visit)
  if not visit.is_over or visit.running > 0 then return end
  if visit.dir then visit.dir:close() end
end

-- Whether the budget allows to begin another patient.
local function can_begin(self)
  local run, expected = self.run, 1
  if self.begun > 0 then
    expected = math.min(MAX_SPARED, math.ceil((run.requests + run.prepaid - self.spent) / self.begun))
  end
  if meter.left(run) >= expected then return true end
  run:stop "budget"
  return false
end

-- Count the downloads of a dry run, as far as the budget allows them.
local function plan_downloads(self, visit)
  local would = self.report.would
  for _, size in ipairs(visit.planned) do
    if not self.run:prepay() then return end
    would.downloads, would.bytes = would.downloads + 1, would.bytes + size
  end
end

-- Visit the next patient: list its documents. If that fails, the visit has none.
local function begin_visit(self, patient_id)
  local visit = {
    patient_id = patient_id, directory = safe_name.directory(patient_id), next = 0, till = 0, planned = {},
    is_replacing = false, running = 0, is_over = false,
  }
  local is_dry, err = self.options.dry_run, nil
  self.begun = self.begun + 1
  if not is_dry then visit.next, err = self.visits:add(patient_id) end
  if not visit.next then return fail_for_all(self, err) end
  local ran
  ran, err = pcall(list_documents, self, visit)
  if ran and is_dry then
    plan_downloads(self, visit)
  elseif ran then
    visit.till, err = self.visits:end_queue(visit.is_replacing)
    if not visit.till then
      visit.till = 0
      fail_for_all(self, err)
    end
  end
  if ran then
    self.run:succeed()
    return visit
  end
  visit.is_over = true
  close_visit(visit)
  if not errors.is(err) then error(err, 0) end
  self.run:fail({ patient_id = patient_id }, err)
end

-- The next document of the current visit, or nil.
local function next_of_visit(self)
  local visit = self.visit
  if not visit then return nil end
  if visit.next < visit.till then
    if not self.run:prepay() then return nil end
    local record, following = self.visits:read(visit.next)
    if record then
      visit.next, visit.running = following, visit.running + 1
      return { visit = visit, record = record }
    end
    fail_for_all(self, following)
  end
  self.visit, visit.is_over = nil, true
  close_visit(visit)
end

-- The next document to download, or nil at the end.
local function next_document(self)
  while not self.run:is_stopped() do
    local item = next_of_visit(self)
    if item then return item end
    if not self.run:is_stopped() and not self.visit then
      local id = self.ids[self.next]
      if not id or not can_begin(self) then return nil end
      self.next = self.next + 1
      self.visit = begin_visit(self, id)
      self.run:poll()
    end
  end
end

-- Download a document and record it. Returns the bytes; or nil and the error.
local function download(self, item)
  local visit, record = item.visit, item.record
  local dir, err = directory_of(self, visit)
  if not dir then return nil, err end
  visit.adopt = visit.adopt or document.collection(self.env, visit.patient_id).adopt
  local found = visit.adopt { id = record.id, content_type = record.content_type, file_size_bytes = record.size }
  local _, name = path_parts(record.path)
  local size, more, digest = document.save(found, dir, name, call_options(self, {
    sha256 = true, progress = self.run:transfer_progress(),
  }))
  if not size then return nil, more end
  record.size, record.sha256, record.before = size, digest, nil
  local written
  written, err = self.manifest:append(record)
  if not written then return fail_to_write(self, err) end
  return size
end

local function process(self, item)
  local visit, report = item.visit, self.report
  local ran, size, err = pcall(download, self, item)
  visit.running = visit.running - 1
  close_visit(visit)
  if not ran then error(size, 0) end
  if not size then return self.run:fail({ patient_id = visit.patient_id, id = item.record.id }, err) end
  report.downloaded, report.bytes = report.downloaded + 1, report.bytes + size
  self.run:succeed()
  -- here, so that the other downloads go on meanwhile
  if wait.now() - self.flushed_at >= FLUSH_INTERVAL then flush(self) end
end

-- ---- the run ----

local function visit_all(self)
  local ran, ids, seen = pcall(list_patients, self)
  if not ran then
    if not errors.is(ids) then error(ids, 0) end
    return fail_for_all(self, ids)
  end
  if self.run:is_stopped() then return end
  count_gone_patients(self, seen)
  self.ids, self.next, self.spent = self.visits and self.visits:sort(ids) or ids, 1, self.run.requests
  self.run:each(function() return next_document(self) end, function(item) process(self, item) end, 1)
end

-- End the run: what it has written is flushed to the disk.
local function finish(self)
  if self.options.dry_run then
    local would = self.report.would
    would.requests = self.run.requests + would.downloads
    return
  end
  flush(self)
  local finished, err = self.visits:finish()
  if not finished then fail_for_all(self, err) end
end

-- client:export(folder, options), see client.lua.
function export.export(env, folder, options)
  local problem = check.nonempty(folder)
  if problem then check.raise_argument(1, "export", problem) end
  options = check.options(options, OPTIONS, 2, "export")
  if type(options.patients) == "table" then
    for _, item in ipairs(options.patients) do patient_id_of(item) end
  end
  local ready, err = batch.prepare()
  if not ready then return nil, err end
  local report = { patients = 0, downloaded = 0, unchanged = 0, gone = 0, bytes = 0 }
  if options.dry_run then report.would = { requests = 0, downloads = 0, bytes = 0 } end
  local self = {
    env = env, options = options, report = report, begun = 0, spent = 0, flushed_at = wait.now(),
    has_new_directory = false,
  }
  local opened
  opened, err = open(self, folder)
  if not opened then
    close(self)
    return nil, err
  end
  local ran, raised = pcall(batch.run, env, {
    concurrency = options.concurrency or DEFAULT_CONCURRENCY, budget = options.budget, progress = options.progress,
  }, report, function(run)
    self.run = run
    local ok, problem_raised = pcall(visit_all, self)
    finish(self)
    if not ok then error(problem_raised, 0) end
  end)
  close(self)
  if not ran then error(raised, 0) end
  return report
end

return export
