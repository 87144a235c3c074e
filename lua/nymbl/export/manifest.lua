-- SPDX-License-Identifier: MIT
-- The manifest of an export (jsonl.lua): one object per document. A document's last line counts.
--
-- The manifest may have many more documents than fit into memory as objects. So the index has 8
-- bytes for each: 3 of a hash, and the offset of the line. They are kept in strings, between which
-- other bits of the hash choose. A hash only says where to look: the line says which document it is
-- about. (upload_all/index.lua has no such line, and keeps more of each hash instead.)

local core = require "nymbl.core"
local jsonl = require "nymbl.jsonl"
local records = require "nymbl.export.records"

local NAME = "manifest.jsonl"

local BUCKETS = 1024
local ENTRY = 8 -- bytes

-- State:
--   log      the file, or nil if a dry run has found none
--   index    the buckets: entries, one behind the other
--   counts   by patient id: how many documents the manifest has
local manifest = {}
manifest.__index = manifest

local function byte_of(digits)
  return string.char(tonumber(digits, 16))
end

local function bytes_of(hex)
  return (hex:gsub("[0-9a-f][0-9a-f]", byte_of))
end

-- The bucket in the index, and the hash in the entry.
local function hash_of(patient_id, id)
  local hex = core.sha256(patient_id .. "\0" .. id)
  return tonumber(hex:sub(1, 3), 16) % BUCKETS + 1, bytes_of(hex:sub(4, 9))
end

local function encode_offset(offset)
  return bytes_of(("%010x"):format(offset))
end

local function decode_offset(entries, at)
  local a, b, c, d, e = entries:byte(at, at + 4)
  return (((a * 256 + b) * 256 + c) * 256 + d) * 256 + e
end

-- Call `visit(at, offset)` for each entry with a hash, until it returns true.
local function each_entry(entries, hash, visit)
  local from = 1
  while true do
    local at = entries:find(hash, from, true)
    if not at then return end
    if (at - 1) % ENTRY == 0 and visit(at, decode_offset(entries, at + #hash)) then return end
    from = at + 1
  end
end

local function new_index()
  local index = {}
  for i = 1, BUCKETS do index[i] = "" end
  return index
end

local function add_entry(index, key, hash, offset)
  index[key] = index[key] .. hash .. encode_offset(offset)
end

-- Find a document's record, by its hash or by its ids.
-- @treturn[1] ?table the record
-- @treturn[1] ?integer where its entry is
-- @treturn[2] nil
-- @treturn[2] table the error
local function find(self, patient_id, id, key, hash)
  local found, found_at, failure
  each_entry(self.index[key], hash, function(at, offset)
    local record, err = self.log:read(offset)
    if err then failure = err end
    if record and record.patient_id == patient_id and record.id == id then found, found_at = record, at end
    return found or failure
  end)
  if failure then return nil, failure end
  return found, found_at
end

-- Add a record to the index.
-- @treturn[1] boolean whether it supersedes another one
-- @treturn[2] nil
-- @treturn[2] table the error
local function register(self, record, offset)
  local patient_id = record.patient_id
  local key, hash = hash_of(patient_id, record.id)
  local earlier, at = find(self, patient_id, record.id, key, hash)
  if earlier then
    local entries = self.index[key]
    self.index[key] = entries:sub(1, at - 1) .. hash .. encode_offset(offset) .. entries:sub(at + ENTRY)
    return true
  elseif at then
    return nil, at
  end
  add_entry(self.index, key, hash, offset)
  self.counts[patient_id] = (self.counts[patient_id] or 0) + 1
  return false
end

-- Read all records. Returns how many lines are superseded or do not count.
local function load(self)
  local useless, failure = 0, nil
  local ignored, err = self.log:scan(function(record, offset)
    if failure then return end
    local is_superseding = true
    if records.is_complete(record) then is_superseding, failure = register(self, record, offset) end
    if is_superseding then useless = useless + 1 end
  end)
  if failure or not ignored then return nil, failure or err end
  return ignored + useless
end

-- Write the file again, with only the lines that count.
local function compact(self)
  local index = new_index()
  local replaced, err = self.log:replace(function(emit)
    return self.log:scan(function(record, offset, line)
      if not records.is_complete(record) then return end
      local key, hash = hash_of(record.patient_id, record.id)
      each_entry(self.index[key], hash, function(_, current)
        if current ~= offset then return false end
        add_entry(index, key, hash, emit(line .. "\n"))
        return true
      end)
    end)
  end)
  if replaced then
    self.index = index
  elseif err.reason ~= "no_space" then -- without it, the run ends when it has something to write
    return nil, err
  end
  return true
end

-- Open the manifest of a folder, and compact it unless it is opened read-only.
-- @param dir descriptor of the folder
-- @tparam boolean read_only it need not exist then
-- @treturn[1] table the manifest
-- @treturn[2] nil
-- @treturn[2] table the error
function manifest.open(dir, read_only)
  local self = setmetatable({ index = new_index(), counts = {} }, manifest)
  local err, useless
  self.log, err = jsonl.open(dir, NAME, { keys = records.KEYS, read_only = read_only })
  if not self.log then
    if read_only and err.reason == "not_found" then return self end
    return nil, err
  end
  useless, err = load(self)
  local ready = useless
  if useless and useless > 0 and not read_only then ready, err = compact(self) end
  if not ready then
    self:close()
    return nil, err
  end
  return self
end

-- The record of a document.
-- @treturn[1] ?table the record, or nil
-- @treturn[2] nil
-- @treturn[2] table the error
function manifest:find(patient_id, id)
  local key, hash = hash_of(patient_id, id)
  local record, err = find(self, patient_id, id, key, hash)
  if not record then return nil, err end
  return record
end

-- Append a record, which is complete (records.lua), without other fields that it may have.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function manifest:append(record)
  local line = {}
  for _, key in ipairs(records.KEYS) do line[key] = record[key] end
  local offset, err = self.log:append(line)
  if not offset then return nil, err end
  local superseding
  superseding, err = register(self, record, offset)
  if superseding == nil then return nil, err end
  return true
end

-- Wait until all that was appended is on the disk.
function manifest:flush()
  return self.log:flush()
end

function manifest:close()
  if self.log then self.log:close() end
end

return manifest
