-- SPDX-License-Identifier: MIT
-- client:export: every document of some patients as a file, with a manifest.
--
-- All patients are listed first, and sorted by how long they have waited. Then one coroutine visits
-- one patient after the other: it lists all documents of the patient, and queues those that must be
-- downloaded. Others download them, while the first one lists the next patient. The queue is in a file
-- (export/visits.lua). So in memory there are a page of documents, and for each document that was exported
-- some bytes of the manifest's index (manifest.lua).
--
-- A kill at any moment does no harm. Before a document is downloaded, its record is in the queue. The
-- file appears complete (core/file/atomic_file.c), and then its line in the manifest. If a run was
-- killed between these two, the next one finds the record and the file (folder.lua). If a power cut has
-- lost any of these lines, the document is downloaded again.

local batch = require "nymbl.batch"
local call = require "nymbl.call"
local check = require "nymbl.check"
local core = require "nymbl.core"
local document = require "nymbl.document"
local each = require "nymbl.each"
local errors = require "nymbl.errors"
local folder = require "nymbl.export.folder"
local lazy = require "nymbl.lazy"
local meter = require "nymbl.meter"
local patient = require "nymbl.patient"
local records = require "nymbl.export.records"
local safe_name = require "nymbl.safe_name"

local FIELDS = core.FIELDS

local DEFAULT_CONCURRENCY = 4

-- A patient is begun only if the rest of the budget is enough for as many requests as a patient has
-- taken on average, or for so many. Otherwise its list might be paid for twice.
local MAX_SPARED = 10

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
--   folder      its files (export/folder.lua)
--   manifest, visits   the folder's; nil if a dry run has found none
--   is_half_done   whether the manifest may lack a line: the next run must look for it
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

-- A file of the library failed: that ends the run. Returns nil and the error.
local function fail_to_write(self, err)
  self.is_half_done = true
  self.run:stop(err.reason == "no_space" and "no_space" or err.kind)
  return nil, err
end

-- The same, for a failure that belongs to no document.
local function fail_for_all(self, err)
  if self.run.stopped == "no_space" and err.reason == "no_space" then return end -- it is known already
  self.run:fail({}, err)
  if not self.run.stopped then self.run:stop(err.kind) end
end

local function fail_to_flush(self, err)
  self.is_half_done = true
  fail_for_all(self, err)
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
    next_item = lazy.load("nymbl.patients").list(self.env, call_options(self, {}))
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

-- Queue a listed document unless it is current. Returns whether the manifest has it.
local function queue(self, visit, fields)
  local last, err
  if self.manifest then last, err = self.manifest:find(visit.patient_id, fields.id) end
  if err then error(err, 0) end
  local path, name = records.path_of(visit, fields, last)
  local is_current = last and records.is_current(last, fields, path)
  if is_current and records.has_file(last, visit.dir, name, self.options.verify) then
    self.report.unchanged = self.report.unchanged + 1
  elseif self.options.dry_run then
    visit.planned[#visit.planned + 1] = records.size_of(fields) or 0
  else
    local status = visit.dir and visit.dir:stat(name)
    local queued, problem = self.visits:queue(records.new(visit, fields, path, records.file_number(status)))
    if not queued then error(problem, 0) end
    if status then visit.is_replacing = true end
  end
  return last ~= nil
end

-- List all documents of a patient. Raises the error if that fails.
local function list_documents(self, visit)
  local dir, err = self.folder:open_directory(visit.directory)
  if err then error(err, 0) end
  visit.dir = dir
  local known, query = 0, call_options(self, { filter = self.options.filter })
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
  local err
  if not visit.dir then visit.dir, err = self.folder:make_directory(visit.directory) end
  if not visit.dir then return nil, err end
  visit.adopt = visit.adopt or document.collection(self.env, visit.patient_id).adopt
  local found = visit.adopt { id = record.id, content_type = record.content_type, file_size_bytes = record.size }
  local _, name = records.path_parts(record.path)
  local size, more, digest = document.save(found, visit.dir, name, call_options(self, {
    sha256 = true, progress = self.run:transfer_progress(),
  }))
  if not size then return nil, more end
  record.size, record.sha256 = size, digest
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
  if not ran then
    self.is_half_done = true
    error(size, 0)
  end
  if not size then return self.run:fail({ patient_id = visit.patient_id, id = item.record.id }, err) end
  report.downloaded, report.bytes = report.downloaded + 1, report.bytes + size
  self.run:succeed()
  local flushed, problem = self.folder:flush_if_due() -- here, so that the other downloads go on meanwhile
  if not flushed then fail_to_flush(self, problem) end
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
  local flushed, err = self.folder:flush()
  if not flushed then fail_to_flush(self, err) end
  if self.is_half_done then return end
  flushed, err = self.visits:finish()
  if not flushed then fail_for_all(self, err) end
end

-- client:export(folder, options), see client.lua.
function export.export(env, path, options)
  local problem = check.nonempty(path)
  if problem then check.raise_argument(1, "export", problem) end
  options = check.options(options, OPTIONS, 2, "export")
  if type(options.patients) == "table" then
    for _, item in ipairs(options.patients) do patient_id_of(item) end
  end
  local ready, err = batch.prepare()
  if not ready then return nil, err end
  local report = { patients = 0, downloaded = 0, unchanged = 0, gone = 0, bytes = 0 }
  if options.dry_run then report.would = { requests = 0, downloads = 0, bytes = 0 } end
  local opened
  opened, err = folder.open(path, batch.service(env), options.dry_run or false)
  if not opened then return nil, err end
  local self = {
    env = env, options = options, report = report, folder = opened, manifest = opened.manifest, visits = opened.visits,
    begun = 0, spent = 0, is_half_done = false,
  }
  local ran, raised = pcall(batch.run, env, {
    concurrency = options.concurrency or DEFAULT_CONCURRENCY, budget = options.budget, progress = options.progress,
  }, report, function(run)
    self.run = run
    local ok, problem_raised = pcall(visit_all, self)
    finish(self)
    if not ok then error(problem_raised, 0) end
  end)
  if self.visit and self.visit.dir then self.visit.dir:close() end -- the run has ended in the middle
  opened:close()
  if not ran then error(raised, 0) end
  return report
end

return export
