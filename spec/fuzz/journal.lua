-- SPDX-License-Identifier: MIT
-- The journal of upload_all: whatever its lines are, only whole lines with all fields count; what is
-- written after them is read again; and wherever the file is cut off, only the last line is lost. The
-- input is the file.
local is_same = require "is_same"
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local journal = require "nymbl.upload_all.journal"
local json = require "nymbl.json"

local SERVICE = "s"
local FILE = { patient_id = "p", file_name = "a.pdf", path = "/a.pdf", size = 9, sha256 = ("0"):rep(64), version = "v" }

local FILE_FIELDS = { patient_id = "string", file_name = "string", path = "string", sha256 = "string", size = "number" }
local OTHERS = {
  begun = { time = "number", boot = "number", boot_id = "string", attempt = "number", known = "table" },
  unknown = { time = "number", boot = "number", boot_id = "string", attempt = "number" },
  ended = { attempt = "number" }, done = { attempt = "number", id = "string" }, hashed = {},
}

-- In memory, which is faster than a disk.
local unique = os.tmpname()
local where = os.getenv "TMPDIR" or (core.system.lstat "/dev/shm" and "/dev/shm" or "/tmp")
local path = where .. "/nymbl-fuzz-" .. unique:match "[^/]*$"
local guard = setmetatable({}, { __gc = function()
  os.remove(unique)
  os.remove(path)
end })

local function read_file()
  local file = assert(io.open(path, "rb"))
  local content = file:read "*a"
  file:close()
  return content
end

local function write_file(content)
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
end

-- Run a function with the journal. Returns what it returned, or nil and the error.
local function with_journal(fn)
  local opened, err = journal.open(path, SERVICE)
  if not opened then return nil, err end
  local result = fn(opened)
  opened:close()
  return result
end

local function done_count() return assert(with_journal(function(it) return it:count_done(FILE) end)) end
local function pending_count() return assert(with_journal(function(it) return #it:pending_of "p" end)) end

-- No run has written numbers that cannot be counted up.
local function is_countable(content)
  for line in content:gmatch "[^\n]+" do
    local record = json.decode(line)
    local attempt = record and record.attempt
    if type(attempt) == "number" and not (attempt >= 0 and attempt < 2^52 and attempt % 1 == 0) then return false end
  end
  return true
end

-- ---- a model ----

local function has_fields(record, fields)
  for name, expected in pairs(fields) do
    if type(record[name]) ~= expected then return false end
  end
  return true
end

local function is_line(record)
  local others = OTHERS[record.state]
  if not others or not has_fields(record, others) then return false end
  return record.state == "unknown" or record.state == "ended" or has_fields(record, FILE_FIELDS)
end

local function key_of(record, field) return table.concat({ record.patient_id, record.file_name, record[field] }, "\0") end

-- What a journal says: the uploads that are pending, how many documents files have, and the last line
-- about each file.
local function model_of(content)
  local model = { pending = {}, done = {}, last = {} }
  local is_first = true
  for text in content:gmatch "([^\n]*)\n" do
    local record = text:sub(1, 1) == "{" and json.decode(text)
    if record and record.state ~= nil then
      if not is_first and is_line(record) then
        if record.state == "unknown" then
          for _, upload in ipairs(model.pending) do
            if upload.attempt == record.attempt then
              upload.time, upload.boot, upload.boot_id = record.time, record.boot, record.boot_id
            end
          end
        elseif record.state ~= "hashed" then -- another line about the same upload
          for i = #model.pending, 1, -1 do
            if model.pending[i].attempt == record.attempt then table.remove(model.pending, i) end
          end
        end
        if record.state == "begun" then table.insert(model.pending, (json.decode(text))) end
        if record.state == "done" then
          local key = key_of(record, "sha256")
          model.done[key] = model.done[key] or { record = record, count = 0 }
          model.done[key].count = model.done[key].count + 1
        end
        if record.patient_id and record.state ~= "unknown" and record.state ~= "ended" then
          model.last[key_of(record, "path")] = record
        end
      end
      is_first = false
    end
  end
  return model
end

-- Require that the journal says what its lines do.
local function check_model()
  local model = model_of(read_file())
  local opened = assert(journal.open(path, SERVICE, true))
  assert(is_same(model.pending, opened.pending), "other uploads are pending")
  for _, done in pairs(model.done) do
    assert(opened:count_done(done.record) == done.count, "another number of documents")
  end
  for _, record in pairs(model.last) do
    local found, err = opened:find(record)
    assert(not err and is_same(found, record), "another line about a file")
  end
  opened:close()
end

-- The end of an upload that an earlier run has begun.
local function end_pending(opened)
  local pending = opened.pending[1]
  if not pending then return end
  assert(opened:set_unknown(pending.attempt))
  assert(opened:set_done(pending.attempt, pending, "d"))
end

local function try(content)
  if not is_countable(content) then return nil end
  write_file(content)
  local before, err = with_journal(function(it) return it:count_done(FILE) end)
  if not before then
    assert(errors.is(err) and err.reason == "other_service", tostring(err))
    assert(read_file() == content, "a journal of another service was changed")
    return "refused"
  end
  local pending = pending_count()
  check_model()
  local whole = content:match "^.*\n" or ""
  local attempt = with_journal(function(it)
    local number = assert(it:begin(FILE, { known = {} }))
    for _, other in ipairs(it.pending) do
      assert(other.attempt ~= number or other.sha256 == FILE.sha256, "a number that was used")
    end
    return number
  end)
  assert(read_file():sub(1, #whole) == whole, "lines were changed")
  assert(pending_count() == pending + 1, "an upload that was begun is not pending")
  local begun = read_file()
  with_journal(function(it) return assert(it:set_done(attempt, FILE, "d")) and assert(it:flush()) end)
  local all = read_file()
  assert(all:sub(1, #begun) == begun, "lines were changed")
  assert(done_count() == before + 1 and pending_count() == pending, "not done")
  local found = with_journal(function(it) return assert(it:find(FILE)) end)
  assert(found.sha256 == FILE.sha256 and found.version == FILE.version, "another line")
  check_model()
  for cut = 1 + #all % 40, #all - #begun, 40 do -- a kill, or a power cut
    write_file(all:sub(1, -1 - cut))
    assert(done_count() == before and pending_count() == pending + 1, "an incomplete line counts")
    check_model()
  end
  with_journal(function(it)
    end_pending(it)
    return assert(it:add_hashed(FILE)) and assert(it:set_ended(it.last))
  end)
  check_model()
  assert(core.object_count() == 0 and guard, "objects are alive")
  return before > 0 and "with documents" or pending > 0 and "with pending uploads" or "accepted"
end

return { try = try, reached = { "accepted", "with documents", "with pending uploads", "refused" } }
