-- SPDX-License-Identifier: MIT
-- The file ".nymbl-export" in the folder of an export (jsonl.lua): its lock, the service, and the
-- order in which patients were visited. Its lines are
--   {"version":1,"service":…}   the first one
--   {"patient_id":…}            a patient was visited; of several lines the last one counts
--   {"ended":true}              a run has ended, and has left nothing half-written. Any later line
--                               is of another run

local batch = require "nymbl.batch"
local jsonl = require "nymbl.jsonl"

local NAME = ".nymbl-export"
local VERSION = 1

-- State:
--   log       the file, or nil if a dry run has found none
--   numbers   by patient id: the greater, the later the patient was visited
--   is_clean  whether the last run has ended
local visits = {}
visits.__index = visits

local function load(self, service)
  local number, header = 0, nil
  local ignored, err = self.log:scan(function(record)
    self.is_clean = record.ended == true
    if record.service and not header then header = record end
    if type(record.patient_id) == "string" then
      number = number + 1
      self.numbers[record.patient_id] = number
    end
  end)
  if not ignored then return nil, err end
  if header and header.service ~= service then return batch.other_service() end
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

-- Write the file again, with one line for each patient.
local function compact(self, service)
  local all = {}
  for id in pairs(self.numbers) do all[#all + 1] = id end
  return self.log:replace(function(emit)
    emit(jsonl.line { version = VERSION, service = service })
    for _, id in ipairs(self:sort(all)) do emit(jsonl.line { patient_id = id }) end
    return true
  end)
end

-- Open and lock the file.
-- @param dir descriptor of the folder
-- @tparam string service the client's (batch.service)
-- @tparam boolean read_only it need not exist then
-- @treturn[1] table the visits
-- @treturn[2] nil
-- @treturn[2] table the error; reason "in_use" or "other_service"
function visits.open(dir, service, read_only)
  local self = setmetatable({ numbers = {}, is_clean = true }, visits)
  local err, ready
  self.log, err = jsonl.open(dir, NAME, { keys = {}, lock = true, read_only = read_only })
  if not self.log then
    if read_only and err.reason == "not_found" then return self end
    return nil, err
  end
  ready, err = load(self, service)
  if ready and not read_only then ready, err = compact(self, service) end
  if not ready then
    self:close()
    return nil, err
  end
  return self
end

-- Record that a patient is visited.
function visits:add(patient_id)
  return self.log:append { patient_id = patient_id }
end

-- Record that the run has ended.
-- @tparam boolean is_clean whether it has left nothing half-written
function visits:finish(is_clean)
  if is_clean then
    local added, err = self.log:append { ended = true }
    if not added then return nil, err end
  end
  return self.log:flush()
end

function visits:close()
  if self.log then self.log:close() end
end

return visits
