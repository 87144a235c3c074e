-- SPDX-License-Identifier: MIT
-- The documents of all patients: their metadata in memory, their bytes in files.

local content = require "content"
local json = require "json"
local rand = require "openssl.rand"

local documents = {}
documents.__index = documents

-- In the order of the sample response in the API's documentation.
local FIELDS = {
  "id", "patient_id", "file_name", "content_type", "file_size_bytes",
  "document_type", "description", "uploaded_by_id", "uploaded_at",
}

-- Lists contain these fields only if they have a value.
local OPTIONAL_IN_LISTS = { description = true, uploaded_by_id = true }

function documents.new(settings)
  return setmetatable({ settings = settings, patients = {}, by_id = {}, sequence = 0 }, documents)
end

function documents.timestamp(time)
  return os.date("!%Y-%m-%dT%H:%M:%SZ", time)
end

local function random_number(digits)
  local out = {}
  for i = 1, digits do
    out[i] = rand.uniform(9) + 1
  end
  return table.concat(out)
end

local function random_name(length)
  local letters = "abcdefghijklmnopqrstuvwxyz0123456789"
  local out = {}
  for i = 1, length do
    local at = rand.uniform(#letters) + 1
    out[i] = letters:sub(at, at)
  end
  return table.concat(out)
end

local function id_new(self)
  if self.settings.numeric_ids then
    return random_number(9)
  end
  return "doc-" .. random_name(12)
end

--- Whether a patient exists: all do whose id does not begin with "missing".
function documents.patient_exists(patient)
  return not patient:find "^missing"
end

--- Store a document. `fields` overrides metadata; `json.null` in it leaves a field empty.
function documents:add(patient, bytes, fields)
  local id = fields.id and json.id(fields.id) or id_new(self)
  self.sequence = self.sequence + 1
  local document = {
    id = id, patient = patient, content = bytes, sequence = self.sequence, modified = os.time(),
    etag = ('"%s"'):format(bytes.sha256:sub(1, 32)),
    fields = {
      id = id, patient_id = patient, file_size_bytes = bytes.size,
      uploaded_by_id = "user-456", uploaded_at = documents.timestamp(),
    },
  }
  for name, value in pairs(fields) do
    document.fields[name] = value
  end
  document.fields.id = id
  local patient_documents = self.patients[patient]
  if not patient_documents then
    patient_documents = { list = {}, by_id = {} }
    self.patients[patient] = patient_documents
  end
  self:remove(patient, id)
  table.insert(patient_documents.list, document)
  patient_documents.by_id[id] = document
  self.by_id[id] = document
  return document
end

function documents:find(patient, id)
  local patient_documents = self.patients[patient]
  return patient_documents and patient_documents.by_id[id]
end

--- All documents of a patient, oldest first: the table itself, not a copy.
function documents:list(patient)
  local patient_documents = self.patients[patient]
  return patient_documents and patient_documents.list or {}
end

--- The patients who have documents, sorted by id, each with its `fields`. `key` is the name of the field with the id.
function documents:patients_list(key)
  local rows = {}
  for id, patient_documents in pairs(self.patients) do
    if #patient_documents.list > 0 then
      rows[#rows + 1] = { id = id, fields = { [key] = id, active = true } }
    end
  end
  table.sort(rows, function(a, b) return a.id < b.id end)
  return rows
end

--- Delete a document. Returns true if it existed.
function documents:remove(patient, id)
  local document = self:find(patient, id)
  if not document then
    return false
  end
  local patient_documents = self.patients[patient]
  for i, other in ipairs(patient_documents.list) do
    if other == document then
      table.remove(patient_documents.list, i)
      break
    end
  end
  patient_documents.by_id[id] = nil
  if self.by_id[id] == document then
    self.by_id[id] = nil
  end
  content.discard(document.content)
  return true
end

function documents:clear()
  for _, patient_documents in pairs(self.patients) do
    for _, document in ipairs(patient_documents.list) do
      content.discard(document.content)
    end
  end
  self.patients, self.by_id = {}, {}
end

local function field_value(self, name, value)
  if value == nil then
    return json.null
  elseif self.settings.numeric_ids and (name == "id" or name == "patient_id")
    and type(value) == "string" and value:find "^[1-9]%d*$" then
    return json.raw(value)
  end
  return value
end

--- A document's metadata as an ordered object.
-- `options.select` is a set of fields; `options.list` omits the empty fields that lists omit;
-- `options.context` is the first member.
function documents:object(document, options)
  if document.verbatim then
    return json.raw(document.verbatim)
  end
  local members = json.object {}
  if options.context then
    members[1] = { "@odata.context", options.context }
  end
  local added = {}
  local function add(name)
    added[name] = true
    local value = field_value(self, name, document.fields[name])
    local is_omitted = options.list and OPTIONAL_IN_LISTS[name] and value == json.null
    if not is_omitted and (not options.select or options.select[name]) then
      members[#members + 1] = { name, value }
    end
  end
  for _, name in ipairs(FIELDS) do
    add(name)
  end
  for name in pairs(document.fields) do
    if not added[name] then
      add(name)
    end
  end
  return members
end

--- A patient of `patients_list` as an ordered object. `select` is a set of fields, or nil for all.
function documents:patient_object(row, key, select)
  local members = json.object {}
  for _, name in ipairs { key, "active", "first_name", "last_name" } do
    if not select or select[name] then
      local value = row.fields[name]
      if name == key and self.settings.numeric_ids and row.id:find "^[1-9]%d*$" then
        value = json.raw(row.id)
      end
      members[#members + 1] = { name, value == nil and json.null or value }
    end
  end
  return members
end

return documents
