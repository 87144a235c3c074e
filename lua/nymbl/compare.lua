-- SPDX-License-Identifier: MIT
-- Comparing a folder with a patient's documents.

local call = require "nymbl.call"
local job = require "nymbl.job"
local listing = require "nymbl.listing"
local query = require "nymbl.query"

local compare = {}

-- The largest number of entries that the core reads from a directory.
local MAX_ENTRIES = 1000000

-- Whether the library itself has put a file there: it is incomplete, or describes others.
local function is_own(name)
  return name:find("^%.nymbl%-") or name:find("%.nymbl%-part$") or name:find("%.nymbl%-meta$")
end

-- State:
--   folder, options, deadline
--   files     by name: the files, tables of `name`, `size` and, once they are known, `sha256` and
--             `row`, the document that a file belongs to
--   rows      of the documents: tables of `document`, `size`, `candidates` (the files whose name is
--             one of the document's) and, once they are known, `sha256` and `file`
local comparison = {}
comparison.__index = comparison

-- Read the folder. Returns true, or nil and the error.
function comparison:read_files()
  local entries, err = job.read_directory(self.folder, MAX_ENTRIES, self.deadline)
  if not entries then return nil, err end
  for _, entry in ipairs(entries) do
    if entry.kind == "file" and not is_own(entry.name) then
      self.files[entry.name] = { name = entry.name, size = entry.size }
    end
  end
  return true
end

function comparison:add(document)
  local row = { document = document, size = document.file_size_bytes, candidates = {} }
  self.rows[#self.rows + 1] = row
  local unique, safe = self.files[document:safe_name { unique = true }], document:safe_name()
  local name = type(document.file_name) == "string" and document.file_name or safe
  if unique then -- no other document has that name
    row.candidates[1] = unique
    return
  end
  row.candidates[1] = self.files[name]
  if safe ~= name then row.candidates[#row.candidates + 1] = self.files[safe] end
end

-- Returns whether a file and a document have the same size, and with `verify` the same digest; or
-- nil and the error.
function comparison:are_same(file, row)
  if row.size and file.size ~= row.size then return false end
  if not self.options.verify then return row.size ~= nil end
  local err
  if not file.sha256 then
    file.sha256, err = job.digest(self.folder .. "/" .. file.name, self.deadline)
    if not file.sha256 then return nil, err end
  end
  if not row.sha256 then
    local bytes, problem, digest = row.document:download(function() return true end, {
      sha256 = true, timeout = call.time_left(self.deadline), headers = self.options.headers, tag = self.options.tag,
    })
    if not bytes then return nil, problem end
    row.sha256 = digest
  end
  return file.sha256 == row.sha256
end

-- Let each document that has no file yet take the first of its candidates that has no document and
-- is acceptable. Returns true, or nil and the error.
function comparison:pair(is_acceptable)
  for _, row in ipairs(self.rows) do
    for _, file in ipairs(row.candidates) do
      if not row.file and not file.row then
        local accepted, err = is_acceptable(self, file, row)
        if accepted == nil then return nil, err end
        if accepted then row.file, file.row = file, row end
      end
    end
  end
  return true
end

local function by_name(a, b)
  if a.name ~= b.name then return a.name < b.name end
  return a.document and a.document.id < b.document.id
end

-- Returns the four lists.
function comparison:result(same)
  local result = { same = {}, missing_here = {}, missing_there = {}, different = {} }
  local function add(list, name, size, document)
    list[#list + 1] = { name = name, size = size, document = document }
  end
  for _, row in ipairs(self.rows) do
    local file, document = row.file, row.document
    if file then
      add(same[row] and result.same or result.different, file.name, file.size, document)
    else
      add(result.missing_here, document:safe_name(), row.size, document)
    end
  end
  for _, file in pairs(self.files) do
    if not file.row then add(result.missing_there, file.name, file.size) end
  end
  for _, list in pairs(result) do table.sort(list, by_name) end
  return result
end

-- `patient:compare(folder, options)`.
-- @tparam table collection the patient's documents (see page.lua)
-- @tparam string folder
-- @tparam table options `verify`, and those of a call
-- @tparam ?number deadline
-- @treturn[1] table the lists
-- @treturn[2] nil
-- @treturn[2] table the error
function compare.run(collection, folder, options, deadline)
  local self = setmetatable({
    folder = folder, options = options, deadline = deadline, files = {}, rows = {},
  }, comparison)
  local ok, err = self:read_files()
  if not ok then return nil, err end
  local plan = query.plan({ headers = options.headers, tag = options.tag }, "compare", "id")
  ok, err = listing.visit(collection, plan, deadline, function(document) self:add(document) end)
  if not ok then return nil, err end
  ok, err = self:pair(self.are_same)
  if not ok then return nil, err end
  local same = {}
  for _, row in ipairs(self.rows) do same[row] = row.file ~= nil end
  self:pair(function() return true end)
  return self:result(same)
end

return compare
