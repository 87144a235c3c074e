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

--- Begin the entry of a request whose head was read. It is completed while the request is served.
function journal:add(request)
  local headers = json.array {}
  for i, header in ipairs(request.headers) do
    headers[i] = json.array { header[1], header[2] }
  end
  self.n = self.n + 1
  local entry = {
    n = self.n, time = cqueues.monotime(), listener = request.connection.listener.name,
    connection = request.connection.number, method = request.method, path = request.target,
    headers = headers, operation = request.operation, complete = false, body_bytes = 0,
    status = json.null, fault = json.null, stored = json.null,
  }
  table.insert(self.entries, entry)
  if #self.entries > MAX_ENTRIES then
    table.remove(self.entries, 1)
  end
  return entry
end

--- Record how much of the body arrived, and its fields.
function journal.note_body(entry, request, received)
  entry.body_bytes = request.body_bytes
  entry.complete = request.complete
  if received.upload then
    entry.fields = received.upload.fields
  elseif received.form then
    entry.form = journal.form(received.form)
  end
end

-- The names of a token request's fields, with the values that are not secret.
function journal.form(form)
  local shown = json.object {}
  for name, value in pairs(form) do
    local open = name == "grant_type" or name == "scope"
    shown[#shown + 1] = { name, open and value or true }
  end
  return shown
end

function journal:clear()
  self.entries = json.array {}
end

return journal
