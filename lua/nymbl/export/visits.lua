-- SPDX-License-Identifier: MIT
-- The file ".nymbl-export" in the folder of an export (jsonl.lua): its lock, the service, the order
-- in which patients were visited, and what the last run was about to do. Its lines are
--   {"version":1,"service":…}     the first one
--   {"patient_id":…}              a patient is visited; of several lines the last one counts
--   {"patient_id":…,"id":…,…}     a document of the patient is about to be downloaded: its record in
--                                 the manifest, as far as it is known. These lines are the queue of
--                                 the patient's downloads, too, so that it need not fit into memory
--   {"ended":true}                a run has ended, and has left nothing half-done

local batch = require "nymbl.batch"
local errors = require "nymbl.errors"
local jsonl = require "nymbl.jsonl"

local NAME = ".nymbl-export"
local VERSION = 1

-- The file is compacted when it has more lines than this for every patient.
local LINES_PER_PATIENT = 3

-- State:
--   log       the file, or nil if a dry run has found none
--   service   the client's (batch.service)
--   numbers   by patient id: the greater, the later the patient was visited
--   lines     how many there are
--   is_clean  whether the last run has ended
--   begun     offsets of the documents that the last run was about to download, if it has not ended
local visits = {}
visits.__index = visits

local function load(self)
  local patients, header = 0, nil
  local ignored, err = self.log:scan(function(record, offset)
    self.lines = self.lines + 1
    if record.service and not header then header = record end
    self.is_clean = record.ended == true
    if self.is_clean then
      self.begun = {}
    elseif type(record.patient_id) ~= "string" then
      return
    elseif type(record.id) == "string" then
      self.begun[#self.begun + 1] = offset
    else
      patients = patients + 1
      self.numbers[record.patient_id] = patients
    end
  end)
  if not ignored then return nil, err end
  self.has_header = header ~= nil
  if header and header.service ~= self.service then return batch.other_service() end
  return true
end

-- Sort ids by the time of their last visit. Those that were never visited come first, and keep
-- their order.
-- @tparam table ids an array
-- @treturn table another one
function visits:sort(ids)
  local numbers = self.numbers
  local never, visited = {}, {}
  for _, id in ipairs(ids) do
    local list = numbers[id] and visited or never
    list[#list + 1] = id
  end
  table.sort(visited, function(a, b) return numbers[a] < numbers[b] end)
  for _, id in ipairs(visited) do never[#never + 1] = id end
  return never
end

-- Open and lock the file.
-- @param dir descriptor of the folder
-- @tparam string service the client's (batch.service)
-- @tparam boolean read_only it need not exist then
-- @treturn[1] table the visits
-- @treturn[2] nil
-- @treturn[2] table the error; reason "in_use" or "other_service"
function visits.open(dir, service, read_only)
  local self = setmetatable({
    service = service, numbers = {}, lines = 0, is_clean = true, begun = {}, has_header = false,
  }, visits)
  local err, loaded
  self.log, err = jsonl.open(dir, NAME, { keys = {}, lock = true, read_only = read_only })
  if not self.log then
    if read_only and err.reason == "not_found" then return self end
    return nil, err
  end
  loaded, err = load(self)
  if loaded then return self end
  self:close()
  return nil, err
end

-- The documents that the last run was about to download, if it has not ended: calls `visit(record)`
-- for each of them until it returns nil and an error.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function visits:each_begun(visit)
  for _, offset in ipairs(self.begun) do
    local record, err = self.log:read(offset)
    local done = not err
    if record then done, err = visit(record) end
    if not done then return nil, err end
  end
  return true
end

-- Begin a run: nothing of what the last one was about to do is needed any more.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function visits:begin()
  local all, header = {}, { version = VERSION, service = self.service }
  for id in pairs(self.numbers) do all[#all + 1] = id end
  if not self.has_header then
    local added, problem = self.log:append(header)
    if not added then return nil, problem end
    return self.log:flush() -- before any document is there: a power cut must not let another service in
  end
  if self.is_clean and self.lines <= LINES_PER_PATIENT * (#all + 1) then return true end
  local replaced, err = self.log:replace(function(emit)
    emit(jsonl.line(header))
    for _, id in ipairs(self:sort(all)) do emit(jsonl.line { patient_id = id }) end
    return true
  end)
  if replaced or err.reason == "no_space" then return true end -- without space, the run ends later
  return nil, err
end

-- Record that a patient is visited.
-- @treturn[1] integer the offset of the first document of its queue
-- @treturn[2] nil
-- @treturn[2] table the error
function visits:add(patient_id)
  local added, err = self.log:append { patient_id = patient_id }
  if not added then return nil, err end
  return self.log.size
end

-- Record that a document is about to be downloaded.
function visits:queue(record)
  return self.log:append(record)
end

-- End the queue of a patient.
-- @tparam boolean is_replacing whether any of its documents has a file already: the record must be on
--   the disk before another file takes its place
-- @treturn[1] integer the offset behind the last document
-- @treturn[2] nil
-- @treturn[2] table the error
function visits:end_queue(is_replacing)
  local flushed, err = true, nil
  if is_replacing then flushed, err = self.log:flush() end
  if not flushed then return nil, err end
  return self.log.size
end

-- Read a document of a queue.
-- @treturn[1] table the record
-- @treturn[1] integer the offset of the next one
-- @treturn[2] nil
-- @treturn[2] table the error
function visits:read(offset)
  local record, err, following = self.log:read(offset)
  if record then return record, following end
  return nil, err or errors.new { kind = "io", reason = "changed" }
end

-- Record that the run has ended.
function visits:finish()
  local added, err = self.log:append { ended = true }
  if not added then return nil, err end
  return self.log:flush()
end

function visits:close()
  if self.log then self.log:close() end
end

return visits
