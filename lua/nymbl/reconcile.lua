-- SPDX-License-Identifier: MIT
-- The search for a document whose upload has an unknown outcome: the patient's documents of its
-- name are listed before the upload and after it.

local core = require "nymbl.core"
local check = require "nymbl.check"
local events = require "nymbl.events"
local filter = require "nymbl.filter"
local listing = require "nymbl.listing"
local query = require "nymbl.query"
local wait = require "nymbl.wait"

-- Seconds before each search for a document whose upload may have succeeded. There are
-- several, because a listing may lag behind.
local SEARCH_DELAYS = { 0, 2, 5 }

local DOCUMENT = "nymbl.document"

-- State:
--   collection  the patient's documents (page.lua)
--   name        of the uploaded document
--   deadline    of the whole call, or nil
--   options     of the call
--   filter      the filter of the listings; nil if the service has refused it
--   known       a set of the ids that existed before the upload
--   is_given    whether the caller has listed them
local reconciliation = {}
reconciliation.__index = reconciliation

local reconcile = {}

-- A checker (see check.lua) of the option `reconcile`: a boolean or an array of documents.
function reconcile.check(value)
  if type(value) == "boolean" then return nil end
  if type(value) ~= "table" then return check.expected("boolean or array of documents", value) end
  for i, item in ipairs(value) do
    if not core.state(item, DOCUMENT) then
      return ("item %d: %s"):format(i, check.expected(DOCUMENT, item))
    end
  end
end

-- The ids of documents that the caller has listed, or nil if its listing has more pages.
local function ids_of(documents, patient_id)
  local ids = {}
  if documents.has_more then return nil end
  for i, item in ipairs(documents) do
    local state = core.state(item, DOCUMENT)
    if state.patient_id ~= patient_id then
      check.raise_argument(2, "upload", ("option 'reconcile': item %d: document of another patient"):format(i))
    end
    ids[state.id] = true
  end
  return ids
end

-- List the patient's documents. Returns a table by id, or nil and an error.
function reconciliation:list(fields)
  local plan = query.plan({ filter = self.filter, select = fields, headers = self.options.headers,
    tag = self.options.tag }, "upload", "id")
  local found = {}
  local ok, err = listing.visit(self.collection, plan, self.deadline, function(item) found[item.id] = item end)
  if ok then return found end
  return nil, err
end

-- Whether a listing failed because of its filter: the service does not accept it, or the URL
-- with a long name is too long.
local function is_filter_refused(err)
  return err.kind == "bad_request" or err.reason == "url_too_long"
end

-- List the ids that exist before the upload, unless the caller has listed them. Returns true,
-- or nil and an error.
function reconciliation:list_before()
  if self.known then return true end
  local known, err = self:list("id")
  -- The later searches then use no filter either. With another filter they could find documents
  -- that existed before.
  if not known and self.filter and is_filter_refused(err) then
    self.filter = nil
    known, err = self:list("id")
  end
  if not known then return nil, err end
  self.known = known
  return true
end

-- The new document of that name and size; nil if there is none, or more than one.
function reconciliation:find_new(documents, size)
  local found
  for id, item in pairs(documents) do
    if not self.known[id] and item.file_name == self.name and item.file_size_bytes == size then
      if found then return nil end
      found = item
    end
  end
  return found
end

-- Wait before another search. No call is registered for events between two searches.
function reconciliation:pause(seconds)
  events.report_wait(self.collection.env, "upload", "retry", seconds, self.options.tag)
  wait.wait(nil, wait.now() + seconds)
end

-- Search for the uploaded document, several times. Returns it, or nil if it is not found in
-- time.
function reconciliation:search(size)
  for _, seconds in ipairs(SEARCH_DELAYS) do
    if self.collection.env.closed or (self.deadline and wait.now() + seconds >= self.deadline) then return nil end
    if seconds > 0 then self:pause(seconds) end
    local documents, err = self:list()
    -- the caller's listing has not shown whether the service accepts the filter
    if not documents and self.is_given and self.filter and is_filter_refused(err) then
      self.filter = nil
      documents = self:list()
    end
    local found = documents and self:find_new(documents, size)
    if found then return found end
  end
end

-- Prepare a search: list the documents of that name, before the upload.
-- @tparam table collection the patient's documents (see page.lua)
-- @tparam string name the file name
-- @tparam ?number deadline of the whole call
-- @tparam table options of the upload
-- @treturn[1] table with the method `search(size)`
-- @treturn[2] nil
-- @treturn[2] table the error; nothing was uploaded
function reconcile.prepare(collection, name, deadline, options)
  local listed = options.reconcile
  local self = setmetatable({
    collection = collection, name = name, deadline = deadline, options = options,
    filter = filter.filter("file_name eq ?", name),
    known = type(listed) == "table" and ids_of(listed, collection.path[2]) or nil,
  }, reconciliation)
  self.is_given = self.known ~= nil
  local ok, err = self:list_before()
  if ok then return self end
  err.attempts = 0
  return nil, err
end

return reconcile
