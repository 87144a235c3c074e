-- SPDX-License-Identifier: MIT
-- The patient's documents, as patient:upload_all needs them: a list with little memory, in which the
-- document of an upload is looked for by name and size, and then by its content.

local index = require "nymbl.upload_all.index"
local journal = require "nymbl.upload_all.journal"
local listing = require "nymbl.listing"
local query = require "nymbl.query"

-- State:
--   collection, options
--   ids      index by name and size, or nil as long as they are not listed
--   moment   when they were listed (journal.now)
local documents = {}
documents.__index = documents

-- @tparam table collection the patient's documents (see page.lua)
-- @tparam table options of the run
function documents.new(collection, options)
  return setmetatable({ collection = collection, options = options }, documents)
end

-- The options of a request, besides those of `others`.
local function call_options(self, others)
  others.timeout, others.headers, others.tag = self.options.timeout, self.options.headers, self.options.tag
  return others
end

-- The size is "" if the service has not stated it.
local function key_of(file_name, size)
  return { file_name, type(size) == "number" and ("%.0f"):format(size) or "" }
end

-- List the documents; if they were listed before, once more.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function documents:list()
  local ids, moment = index.new(), journal.now()
  local plan = query.plan(call_options(self, { select = { "file_name", "file_size_bytes" } }), "upload_all", "id")
  local ok, err = listing.visit(self.collection, plan, nil, function(document)
    if type(document.file_name) == "string" then
      ids:add(key_of(document.file_name, document.file_size_bytes), document.id)
    end
  end)
  if not ok then return nil, err end
  self.ids, self.moment = ids, moment
  return true
end

-- Add a document that was uploaded since then.
function documents:add(file, id)
  self.ids:add(key_of(file.file_name, file.size), id)
end

-- The documents that may have a file's content.
-- @treturn table an array of their ids
-- @treturn table a set of those whose size is unknown
function documents:candidates(file)
  local ids, unsized = self.ids:values(key_of(file.file_name, file.size)), {}
  for _, id in ipairs(self.ids:values(key_of(file.file_name))) do ids[#ids + 1], unsized[id] = id, true end
  return ids, unsized
end

-- The digest of a document, whose size may be unknown. Returns it; false if there is no such document; or
-- nil and the error.
local function digest_of(self, id, size)
  local document = self.collection.adopt { id = id, file_size_bytes = size }
  local bytes, err, digest = document:download(function() return true end, call_options(self, { sha256 = true }))
  if bytes then return digest end
  if err.kind == "not_found" then return false end
  return nil, err
end

-- Look for the document of an upload.
-- @tparam table pending the upload (journal.lua)
-- @tparam table claimed a set: the ids of documents of other uploads
-- @tparam table digests by id: the digests that are known; gets those that are determined
-- @treturn[1] ?string its id; false if it is certainly not there
-- @treturn[2] nil
-- @treturn[2] table the error
function documents:find(pending, claimed, digests)
  local known = {}
  for _, id in ipairs(pending.known) do known[id] = true end
  local ids, unsized = self:candidates(pending)
  for _, id in ipairs(ids) do
    if not known[id] and not claimed[id] then
      local size, err = not unsized[id] and pending.size or nil, nil
      if digests[id] == nil then digests[id], err = digest_of(self, id, size) end
      if digests[id] == nil then return nil, err end
      if digests[id] == pending.sha256 then return id end
    end
  end
  return false
end

-- A script's document for one that an earlier upload has created.
function documents:adopt(file, id)
  return self.collection.adopt {
    id = id, patient_id = self.collection.path[2], file_name = file.file_name, file_size_bytes = file.size,
  }
end

return documents
