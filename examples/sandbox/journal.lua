-- SPDX-License-Identifier: MIT
-- The received requests, one entry each, for tests.

local cqueues = require "cqueues"
local json = require "json"

local journal = {}
journal.__index = journal

local MAX_ENTRIES = 20000

function journal.new()
  return setmetatable({ entries = json.array {}, n = 0 }, journal)
end

--- Add an entry for a request whose head was received. It is completed while the request is served.
function journal:add(request)
  local headers = json.array {}
  for i, header in ipairs(request.headers) do
    headers[i] = json.array { header[1], header[2] }
  end
  self.n = self.n + 1
  local entry = {
    n = self.n, time = cqueues.monotime(), listener = request.connection.listener.name,
    connection = request.connection.number, method = request.method, path = request.target,
    headers = headers, operation = request.operation, complete = false, body_bytes = 0, response_bytes = 0,
    request_id = ("sandbox-%d"):format(self.n), status = json.null, fault = json.null, stored = json.null,
  }
  table.insert(self.entries, entry)
  if #self.entries > MAX_ENTRIES then
    table.remove(self.entries, 1)
  end
  return entry
end

-- The fields of a token request. Each secret value is replaced by true.
local function form_fields(form)
  local fields = json.object {}
  for name, value in pairs(form) do
    local is_public = name == "grant_type" or name == "scope"
    fields[#fields + 1] = { name, is_public and value or true }
  end
  return fields
end

--- Record how much of the body arrived, and its fields.
function journal.record_body(entry, request, received)
  entry.body_bytes = request.body_bytes
  entry.complete = request.complete
  if received.upload then
    entry.fields = received.upload.fields
  elseif received.form then
    entry.form = form_fields(received.form)
  end
end

function journal:clear()
  self.entries = json.array {}
end

return journal
