-- SPDX-License-Identifier: MIT
-- patient:upload_all: every file once, whatever happens.
--
-- One coroutine looks at the files, one after the other: it hashes a file (upload_all/files.lua) and looks
-- into the journal (journal.lua). Others send those that must be sent. Before the first one is sent, the
-- patient's documents are listed (documents.lua). An upload whose outcome is unknown is looked for in such
-- a list: the pending ones of earlier runs before anything is sent, those of this run at its end.

local batch = require "nymbl.batch"
local call = require "nymbl.call"
local check = require "nymbl.check"
local documents = require "nymbl.upload_all.documents"
local each = require "nymbl.each"
local errors = require "nymbl.errors"
local files = require "nymbl.upload_all.files"
local journal = require "nymbl.upload_all.journal"
local source = require "nymbl.source"
local upload = require "nymbl.upload"
local wait = require "nymbl.wait"

local DEFAULT_CONCURRENCY = 2
local DEFAULT_SETTLE = 900

-- After so many seconds of looking at files in one go, other coroutines run.
local SLICE = 1 / 200

-- While a file is sent, the journal learns every so many seconds that it still is: `settle` counts from
-- the end of an upload, also if a slow one is killed.
local STAMP_INTERVAL = 60

local upload_all = {}

local function settle(value)
  if type(value) ~= "number" then return check.expected("number", value) end
  if not (value >= 0) then return "must not be negative" end
end

local OPTIONS = call.options {
  journal = check.nonempty,
  concurrency = check.integer(1, 100000),
  dry_run = check.boolean,
  settle = settle,
  document_type = check.string,
  description = check.string,
  progress = check["function"], on_file = check["function"],
}

-- The state of a run, `self` below:
--   collection, options, run, report, journal
--   files, documents   what is uploaded, and where to (upload_all/files.lua, documents.lua)
--   next_item     returns the next of the script's items
--   pending       the uploads of earlier runs whose outcome was unknown when this run began, without
--                 those that a file of this run has taken
--   unconfirmed   the script's paths of files whose outcome is unknown, each with its `err`; and if this
--                 run has sent it, with `attempt`, `size` and later `upload` (its line in the journal)

-- ---- telling the program ----

-- Tell the program what became of a file.
-- @tparam string path as the script gave it
-- @tparam ?table document nil after a dry run, if there is none yet
-- @tparam ?table err
local function tell(self, path, document, err)
  if self.options.on_file then self.options.on_file(path, document, err) end
end

-- Tell the program that a file has a document of an earlier upload.
local function tell_known(self, path, file, id)
  if not self.options.on_file then return end
  tell(self, path, self.documents:adopt(file, id))
end

-- Tell the program that a file is unchanged. Returns true, or nil and the error of the journal.
-- @tparam table file
-- @tparam integer offset of the document's line in the journal
local function tell_unchanged(self, file, offset)
  if not self.options.on_file then return true end
  local id, err = self.journal:id_at(offset)
  if not id then return nil, err end
  tell_known(self, file.given_path, file, id)
  return true
end

local function fail(self, file, err)
  local path = file.given_path or file.path
  if self.run:fail({ path = path }, err) then tell(self, path, nil, err) end
end

-- An error after which no other file can be sent.
local function fail_for_all(self, err, file)
  local is_failure = self.run:fail({ path = file and file.given_path }, err)
  self.run:stop(err.reason == "no_space" and "no_space" or err.kind)
  if file and is_failure then tell(self, file.given_path, nil, err) end
end

-- ---- looking for uploads ----

-- Record the document of a file, which is then there for no other file of this run.
local function set_done(self, attempt, file, id)
  if self.options.dry_run then return true end
  local recorded, err = self.journal:set_done(attempt, file, id)
  if recorded then self.journal:use_done(file) end
  return recorded, err
end

-- Look for the documents of uploads whose outcome is unknown. Those that are found get the field `id`,
-- those that are certainly not there `is_missing`. Returns true, or nil and the error.
local function find_documents(self, uploads)
  if not uploads[1] then return true end
  local names, digests = {}, {}
  for _, pending in ipairs(uploads) do names[pending.file_name] = true end
  local claimed, err = self.journal:ids_of(self.collection.path[2], names)
  if not claimed then return nil, err end
  for _, pending in ipairs(uploads) do
    if self.run:is_stopped() then return true end
    local id, problem = self.documents:find(pending, claimed, digests)
    local recorded = true
    if id == nil then
      self.run:note(problem)
    elseif id then
      pending.id, claimed[id] = id, true
      recorded, err = set_done(self, pending.attempt, pending, id)
    elseif journal.seconds_since(pending, self.documents.moment) >= (self.options.settle or DEFAULT_SETTLE) then
      pending.is_missing = true
      if not self.options.dry_run then recorded, err = self.journal:set_ended(pending.attempt) end
    end
    if not recorded then return nil, err end
  end
  return true
end

-- ---- deciding ----

-- Take the upload of an earlier run for a file: the one from its path, or with `any` another one of
-- the same content. Returns it, or nil.
local function take_pending(self, file, any)
  for i, pending in ipairs(self.pending) do
    if pending.file_name == file.file_name and pending.sha256 == file.sha256 and (any or pending.path == file.path) then
      return table.remove(self.pending, i)
    end
  end
end

local function unconfirmed_error()
  return errors.new({ kind = "canceled", reason = "unconfirmed", outcome_unknown = true }, "upload")
end

-- Decide about a file whose upload an earlier run has begun. Returns whether it must be sent.
local function resolve_pending(self, file, pending)
  if pending.id then
    self.report.uploaded = self.report.uploaded + 1
    tell_known(self, file.given_path, file, pending.id)
  elseif not pending.is_missing then
    self.unconfirmed[#self.unconfirmed + 1] = { path = file.given_path, err = unconfirmed_error() }
  end
  return pending.is_missing or false
end

-- Decide whether a file must be sent. Returns that, or nil and the error of the journal.
local function must_be_sent(self, file, was_hashed)
  local pending = take_pending(self, file)
  if not pending and self.journal:count_done(file) > 0 then
    local offset = self.journal:use_done(file)
    if was_hashed and file.version and not self.options.dry_run then
      local added, err = self.journal:add_hashed(file)
      if not added then return nil, err end
    end
    local told, err = tell_unchanged(self, file, offset)
    if not told then return nil, err end
    self.report.unchanged = self.report.unchanged + 1
    return false
  end
  pending = pending or take_pending(self, file, true)
  if pending then return resolve_pending(self, file, pending) end
  return true
end

-- Look at a file. Returns whether it must be sent. What cannot be sent is reported.
local function look_at(self, file)
  local was_hashed, err = self.files:identify(file, self.journal)
  if was_hashed == nil then return fail(self, file, err) end
  local must_send, problem = must_be_sent(self, file, was_hashed)
  if must_send == nil then return fail_for_all(self, problem, file) end
  if not must_send then return false end
  local opened
  opened, err = self.files:open(file)
  if not opened then return fail(self, file, err) end
  source.close(opened)
  if not self.documents.ids then
    local listed
    listed, problem = self.documents:list()
    if not listed then return fail_for_all(self, problem, file) end
  end
  return true
end

-- The next file that must be sent, or nil at the end.
local function next_to_send(self)
  local began = wait.now()
  while self.run:poll() do
    if wait.now() - began > SLICE then
      wait.wait(nil, wait.now() + 1 / 1000)
      began = wait.now()
    end
    local item = self.next_item()
    if item == nil then return nil end
    item = files.read_item(item)
    local file, err = self.files:add(item)
    if file == nil then
      fail(self, item, err)
    elseif file and look_at(self, file) then
      if not self.options.dry_run then return file end
      local would = self.report.would
      would.uploads, would.bytes = would.uploads + 1, would.bytes + file.size
      tell(self, file.given_path)
    end
  end
end

-- ---- sending ----

-- Send a file. Returns the document; or nil and the error. Then also returns the number of the upload, if
-- it was begun, and whether the journal has failed.
local function send(self, file)
  local opened, err = self.files:open(file)
  if not opened then return nil, err end
  local options, attempt, stamped_at, has_journal_failed = self.options, nil, math.huge, false
  local sent = { document_type = file.document_type, description = file.description }
  function opened.prepare()
    sent.known = self.documents:candidates(file)
    local begun, problem = self.journal:begin(file, sent, attempt)
    if not begun then
      has_journal_failed = true
      return nil, problem
    end
    attempt, stamped_at = begun, wait.now()
    return true
  end
  local function progress()
    if wait.now() - stamped_at >= STAMP_INTERVAL then
      stamped_at = wait.now()
      self.journal:set_unknown(attempt)
    end
    self.run:poll()
  end
  local document
  document, err = upload.send(self.collection, opened, {
    file_name = file.file_name, document_type = file.document_type, description = file.description,
    timeout = options.timeout, headers = options.headers, tag = options.tag,
    progress = progress,
  }, call.deadline(self.collection.env, options))
  return document, err, attempt, has_journal_failed
end

-- Send a file, and record what became of it.
local function process(self, file)
  local document, err, attempt, has_journal_failed = send(self, file)
  local recorded, problem = true, nil
  if document then
    self.documents:add(file, document.id)
    recorded, problem = set_done(self, attempt, file, document.id)
    self.report.uploaded, self.report.bytes = self.report.uploaded + 1, self.report.bytes + file.size
    self.run:succeed()
  elseif has_journal_failed then
    fail_for_all(self, err, file)
  elseif err.outcome_unknown then
    recorded, problem = self.journal:set_unknown(attempt)
    self.unconfirmed[#self.unconfirmed + 1] = { path = file.given_path, attempt = attempt, size = file.size, err = err }
    self.run:note(err)
  else
    if attempt then recorded, problem = self.journal:set_ended(attempt) end
    fail(self, file, err)
  end
  if not recorded then self.run:stop(problem.reason == "no_space" and "no_space" or problem.kind) end
  if document then tell(self, file.given_path, document) end
end

-- ---- the run ----

-- Look for the uploads of this run whose outcome is unknown.
local function find_unconfirmed(self)
  local attempts, uploads = {}, {}
  for _, file in ipairs(self.unconfirmed) do
    if file.attempt then attempts[file.attempt] = file end
  end
  for _, pending in ipairs(self.journal:pending_of(self.collection.path[2])) do
    local file = attempts[pending.attempt]
    if file then file.upload, uploads[#uploads + 1] = pending, pending end
  end
  if not uploads[1] or self.run:is_stopped() then return end
  local ok, err = self.documents:list()
  if ok then ok, err = find_documents(self, uploads) end
  if not ok then self.run:note(err) end
end

-- Report the files whose outcome is unknown.
local function report_unconfirmed(self)
  local report = self.report
  for _, file in ipairs(self.unconfirmed) do
    if file.upload and file.upload.id then
      report.uploaded, report.bytes = report.uploaded + 1, report.bytes + file.size
      tell_known(self, file.path, file.upload, file.upload.id)
    else
      report.unknown = report.unknown + 1
      self.run:add_error({ path = file.path }, file.err)
      tell(self, file.path, nil, file.err)
    end
  end
end

local function run_all(self)
  self.pending = self.journal:pending_of(self.collection.path[2])
  if self.pending[1] then
    local ok, err = self.documents:list()
    if ok then ok, err = find_documents(self, self.pending) end
    if not ok then return fail_for_all(self, err) end
  end
  self.run:each(function() return next_to_send(self) end, function(file) process(self, file) end)
  if not self.options.dry_run then find_unconfirmed(self) end
  report_unconfirmed(self)
  if self.options.dry_run then
    self.report.would.requests = self.run.requests + self.report.would.uploads
    return
  end
  local flushed, err = self.journal:flush()
  if not flushed then self.run:stop(err.kind) end
end

-- `patient:upload_all(files, options)`.
-- @tparam table collection the patient's documents (see page.lua)
-- @param items the files, as the script gave them
-- @tparam ?table options likewise
-- @treturn[1] table the report
-- @treturn[2] nil
-- @treturn[2] table the error: nothing was begun
function upload_all.run(collection, items, options)
  local problem = each.check_items(items)
  if problem then check.raise_argument(1, "upload_all", problem) end
  options = check.options(options, OPTIONS, 2, "upload_all")
  if not options.journal then check.raise_argument(2, "upload_all", "option 'journal' is required") end
  if type(items) == "table" then
    for _, item in ipairs(items) do files.read_item(item) end
  end
  local env = collection.env
  local ready, err = batch.prepare()
  if not ready then return nil, err end
  local opened
  opened, err = journal.open(options.journal, batch.service(env), options.dry_run)
  if not opened then return nil, err end
  local report = { uploaded = 0, unchanged = 0, unknown = 0, bytes = 0 }
  if options.dry_run then report.would = { requests = 0, uploads = 0, bytes = 0 } end
  local ran, result = pcall(batch.run, env, {
    concurrency = options.concurrency or DEFAULT_CONCURRENCY, progress = options.progress,
  }, report, function(run)
    run_all {
      collection = collection, options = options, run = run, report = report, journal = opened,
      next_item = each.iterator(items), files = files.new(collection, options),
      documents = documents.new(collection, options), pending = {}, unconfirmed = {},
    }
  end)
  opened:close()
  if not ran then error(result, 0) end
  return result
end

return upload_all
