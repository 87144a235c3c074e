-- SPDX-License-Identifier: MIT
-- The documented API: its paths, its access checks, and its operations.

local body = require "body"
local documents = require "documents"
local json = require "json"
local odata = require "odata"
local responses = require "responses"
local url = require "url"

local api = {}
api.__index = api

--- `state` has settings, documents, credentials and limits.
function api.new(state)
  return setmetatable({ state = state }, api)
end

local function segments_of(path)
  local segments = {}
  for segment in path:gmatch "/([^/]*)" do
    segments[#segments + 1] = segment
  end
  return segments
end

-- Determine the operation of a request from its method and path. Returns it, and the ids in the path.
local function route(method, path)
  local segments = segments_of(path)
  local first, second, third = segments[1], segments[2], segments[3]
  if first == "_sandbox" then
    return "admin"
  elseif path == "/oauth2/token" and method == "POST" then
    return "token"
  elseif first == "blob" and #segments == 2 and method == "GET" then
    return "blob", nil, url.key("blob(" .. second .. ")", "blob")
  end
  if path == "/Patients" then
    return method == "GET" and "patients" or "other"
  end
  local patient = first and url.key(first, "Patients")
  if not patient or not second or #segments > 3 then
    return "other"
  elseif second == "Documents" and #segments == 2 then
    return method == "POST" and "upload" or method == "GET" and "list" or "other", patient
  end
  local id = url.key(second, "Documents")
  if id and #segments == 2 then
    return method == "GET" and "get" or method == "DELETE" and "delete" or "other", patient, id
  elseif id and (third == "$value" or third == "%24value") and method == "GET" then
    return "download", patient, id
  end
  return "other"
end

--- Set the request's operation and the ids in its path.
function api.classify(_, request)
  local path, parameters = url.target(request.target)
  if not path then
    request.operation = "other"
    request.malformed = request.malformed or "unusable request target"
    return
  end
  request.path, request.parameters = path, parameters
  request.operation, request.patient, request.id = route(request.method, path)
end

--- The gateway's or service's refusal of a request, decided before its body is read, or nil.
function api:refusal(request)
  local operation = request.operation
  if operation == "other" then
    return responses.gateway(403, "Missing Authentication Token")
  elseif operation == "token" or operation == "blob" then
    return nil
  end
  local refusal = self.state.credentials:refusal(request)
  if refusal then
    return refusal
  end
  local exceeded = self.state.limits:count_request(operation)
  if exceeded == "rate" then
    return responses.gateway(429, "Too Many Requests")
  elseif exceeded == "quota" then
    local response = responses.gateway(429, "Limit Exceeded")
    table.insert(response.headers, { "x-amzn-ErrorType", "LimitExceededException" })
    return response
  elseif operation ~= "patients" and not documents.patient_exists(request.patient) then
    return responses.service(404, "NotFound", "The patient was not found", "No such patient")
  end
end

local operations = {}

function operations.token(state, request, received)
  local kind = (request:header "content-type" or ""):match "^[^;]*":lower()
  return state.credentials:grant(kind == "application/x-www-form-urlencoded" and received.form or nil)
end

local function context(request, name)
  return request.connection.listener.url .. "/$metadata#" .. name
end

local function find(state, request)
  local document = state.documents:find(request.patient, request.id)
  if document then
    return document
  end
  return nil, responses.service(404, "NotFound", "The document was not found", "No such document")
end

function operations.upload(state, _, received)
  local upload = received.upload
  local refusal = upload:refusal()
  if refusal then
    return refusal
  end
  local fields = {
    file_name = upload.file_name, content_type = upload.content_type,
    document_type = upload.values.document_type, description = upload.values.description,
  }
  local document = state.documents:add(received.patient, upload:take(), fields)
  document.visible_at = state.now() + state.settings.list_delay
  return responses.json(state.settings.created_status, state.documents:object(document, {})), document.id
end

-- The URL of the next page, if the server pages by links.
local function next_link(state, request, skip, returned, total)
  if not state.settings.next_link or skip + returned >= total or returned == 0 then
    return nil
  end
  local query = {}
  for pair in (request.target:match "%?(.*)" or ""):gmatch "[^&]+" do
    if not pair:find "^%$skip=" and not pair:find "^%%24skip=" then
      query[#query + 1] = pair
    end
  end
  query[#query + 1] = "$skip=" .. skip + returned
  return request.connection.listener.url .. request.path .. "?" .. table.concat(query, "&")
end

local function visible(state, list)
  local now, rows = state.now(), {}
  for _, document in ipairs(list) do
    if not document.visible_at or document.visible_at <= now then
      rows[#rows + 1] = document
    end
  end
  return rows
end

-- A page of a collection: `object(row, select)` returns the JSON object of a row.
local function page_response(state, request, collection, rows, object)
  local settings = state.settings
  local query, details = odata.query(request.parameters, collection.entity, settings.numeric_ids)
  if not query then
    return responses.service(400, "InvalidFilter", "The query is not valid", details)
  end
  rows = odata.apply(query, rows)
  local page = json.array {}
  for i = query.skip + 1, math.min(#rows, query.skip + math.min(query.top or settings.page_max, settings.page_max)) do
    page[#page + 1] = object(rows[i], query.select)
  end
  local members = json.object { { "@odata.context", context(request, collection.name) } }
  if query.count and settings.count then
    members[#members + 1] = { "@odata.count", #rows }
  end
  members[#members + 1] = { "value", page }
  local link = next_link(state, request, query.skip, #page, #rows)
  if link then
    members[#members + 1] = { "@odata.nextLink", link }
  end
  return responses.json(200, members)
end

function operations.list(state, request)
  local rows = visible(state, state.documents:list(request.patient))
  return page_response(state, request, { name = "Documents", entity = odata.DOCUMENT }, rows, function(row, select)
    return state.documents:object(row, { list = true, select = select })
  end)
end

--- The patients who have documents. The setting patient_key is the name of their key.
function operations.patients(state, request)
  local key = state.settings.patient_key
  local entity = key == "id" and odata.PATIENT or odata.PATIENT_BY_PATIENT_ID
  return page_response(state, request, { name = "Patients", entity = entity }, state.documents:patients_list(key),
    function(row, select)
      return state.documents:patient_object(row, key, select)
    end)
end

function operations.get(state, request)
  local document, missing = find(state, request)
  if missing then
    return missing
  end
  local object = state.documents:object(document, { context = context(request, "Documents/$entity") })
  return responses.json(200, object)
end

-- The part that a Range header requests: its start and size; false if unsatisfiable; nil if the header is ignored.
local function range_of(header, total)
  local first, last = (header or ""):match "^bytes=(%d*)%-(%d*)$"
  if not first or (first == "" and last == "") then
    return nil
  elseif first == "" then
    local size = math.min(last + 0, total)
    return size > 0 and total - size, size
  end
  first, last = first + 0, math.min(last == "" and total - 1 or last + 0, total - 1)
  if first >= total then
    return false
  elseif last < first then
    return nil
  end
  return first, last - first + 1
end

-- A response with status 206, which the fault `bad_range` may falsify.
local function partial(response, document, from, size, action)
  local total = document.content.size
  local fault = action.bad_range
  if fault == "wrong_start" then
    from, size = from + 1, size - 1
  elseif fault == "short" then
    size = size - 1
  end
  response.status = 206
  response.body = body.of(document.content, from, size)
  local stated = fault == "wrong_total" and total + 1 or fault == "unknown_total" and "*" or total
  table.insert(response.headers, { "Content-Range", ("bytes %d-%d/%s"):format(from, from + size - 1, stated) })
  return response
end

-- Whether a document meets the condition If-Match (RFC 9110, section 13.1.1).
local function matches(condition, etag)
  if not condition or condition == "*" then
    return true
  end
  for item in condition:gmatch '"[^"]*"' do
    if item == etag then
      return true
    end
  end
  return false
end

local function bytes_response(state, request, document)
  local action = request.action
  local etag = action.etag or document.etag
  local modified = os.date("!%a, %d %b %Y %H:%M:%S GMT", document.modified)
  local media_type = document.fields.content_type
  if action.bad_range == "multipart" then
    media_type = "multipart/byteranges; boundary=b"
  end
  local response = responses.new(200, type(media_type) == "string" and media_type or nil)
  if not action.no_validators then
    table.insert(response.headers, { "ETag", etag })
    table.insert(response.headers, { "Last-Modified", modified })
  end
  if not action.ignore_if_match and not matches(request:header "if-match", etag) then
    return responses.service(412, "PreconditionFailed", "The document has changed")
  end
  local condition = request:header "if-range"
  local from, size
  if state.settings.ranges then
    table.insert(response.headers, { "Accept-Ranges", "bytes" })
    local is_current = not condition or (not action.no_validators and (condition == modified
      or (condition == etag and etag:sub(1, 1) == '"')))
    if is_current and not action.ignore_range then
      from, size = range_of(request:header "range", document.content.size)
    end
  end
  if from then
    return partial(response, document, from, size, action)
  elseif from == false then
    local refusal = responses.service(416, "InvalidRange", "The range is not satisfiable")
    if not action.no_validators then
      table.insert(refusal.headers, { "ETag", etag })
    end
    if action.bad_range ~= "unknown_total" then
      table.insert(refusal.headers, { "Content-Range", ("bytes */%d"):format(document.content.size) })
    end
    return refusal
  end
  response.body = body.of(document.content)
  return response
end

function operations.download(state, request)
  local document, missing = find(state, request)
  return missing or bytes_response(state, request, document)
end

--- A stand-in for the object storage that a service may redirect to: the same bytes, without any credentials.
function operations.blob(state, request)
  local document = state.documents.by_id[request.id]
  if not document then
    return responses.html(404, "Not Found")
  end
  return bytes_response(state, request, document)
end

function operations.delete(state, request)
  local document, missing = find(state, request)
  if missing then
    return missing
  end
  state.documents:remove(request.patient, document.id)
  return responses.empty(state.settings.delete_status), document.id
end

--- Carry out a request. Returns the response, and the id of the document that was created or deleted.
function api:perform(request, received)
  received.patient = request.patient
  return operations[request.operation](self.state, request, received)
end

return api
