-- SPDX-License-Identifier: MIT
-- The paths under /_sandbox, with which tests inspect and change the server.

local content = require "content"
local documents = require "documents"
local json = require "json"
local responses = require "responses"
local wire = require "wire"
local body = require "body"

local admin = {}

local MAX_BODY_BYTES = 256 * 1048576

local handlers = {}

-- A member of a JSON object, or nil if it is null.
local function value_of(value)
  if value == json.null then
    return nil
  end
  return value
end

local function succeeded()
  return responses.json(200, json.object { { "ok", true } })
end

local function refused(message)
  return responses.gateway(400, tostring(message))
end

handlers["GET journal"] = function(state)
  return responses.json(200, json.object { { "requests", state.journal.entries } })
end

handlers["DELETE journal"] = function(state)
  state.journal:clear()
  return succeeded()
end

handlers["GET faults"] = function(state)
  return responses.json(200, state.faults:list())
end

handlers["POST faults"] = function(state, plans)
  local ok, problem = state.faults:set(plans)
  return ok and succeeded() or refused(problem)
end

handlers["DELETE faults"] = function(state)
  state.faults:clear()
  return succeeded()
end

-- The bytes of a document that a test describes.
local function content_of(state, input, media_type)
  if value_of(input.size) then
    return content.generate(state.folder, input.size, media_type)
  elseif value_of(input.content_base64) then
    return content.filter(state.folder, "base64 -d", body.new(input.content_base64))
  end
  return content.bytes(value_of(input.content) or "")
end

local not_metadata = {
  patient = true, size = true, content = true, content_base64 = true, raw_metadata = true,
}

handlers["POST documents"] = function(state, input)
  if type(input) ~= "table" or not value_of(input.patient) then
    return refused "a patient is expected"
  end
  local fields = { file_name = "document.pdf", content_type = "application/pdf" }
  for name, value in pairs(input) do
    if not not_metadata[name] then
      fields[name] = value
    end
  end
  fields.id = value_of(input.id)
  local media_type = fields.content_type
  local document = state.documents:add(json.id(input.patient), content_of(state, input, media_type), fields)
  local verbatim = value_of(input.raw_metadata)
  if verbatim then
    document.verbatim = type(verbatim) == "string" and verbatim or json.encode(verbatim)
    for name, value in pairs(json.decode(document.verbatim) or {}) do
      document.fields[name] = value
    end
  end
  return responses.json(201, json.object {
    { "id", document.id }, { "sha256", document.content.sha256 }, { "size", document.content.size },
  })
end

handlers["POST seed"] = function(state, input)
  if type(input) ~= "table" or not value_of(input.patient) or type(input.count) ~= "number" then
    return refused "a patient and a count are expected"
  end
  local prefix = value_of(input.prefix) or "doc-seed-"
  local kinds = value_of(input.types) or { "Referral", "Insurance", "Scan" }
  local first = os.time { year = 2026, month = 1, day = 1, hour = 12 }
  for i = 1, input.count do
    local id = ("%s%05d"):format(prefix, i)
    state.documents:add(json.id(input.patient), content.bytes("%PDF-1.4\n" .. id .. "\n"), {
      id = id, file_name = ("file %05d.pdf"):format(i), content_type = "application/pdf",
      document_type = kinds[(i - 1) % #kinds + 1], uploaded_at = documents.timestamp(first + i * 60),
    })
  end
  return responses.json(201, json.object { { "count", input.count } })
end

handlers["GET documents"] = function(state, _, parameters)
  local rows = json.array {}
  for _, document in ipairs(state.documents:list(parameters.patient or "")) do
    rows[#rows + 1] = json.object {
      { "id", document.id }, { "sha256", document.content.sha256 }, { "size", document.content.size },
      { "etag", document.etag }, { "metadata", state.documents:object(document, {}) },
    }
  end
  return responses.json(200, rows)
end

handlers["DELETE documents"] = function(state, _, parameters)
  local found = state.documents:remove(parameters.patient or "", parameters.id or "")
  return found and succeeded() or responses.gateway(404, "no such document")
end

-- The settings that can be changed, and their types.
local setting_types = {
  limits = "boolean", token_life = "number", max_upload = "number", page_max = "number",
  next_link = "boolean", numeric_ids = "boolean", count = "boolean", ranges = "boolean",
  created_status = "number", delete_status = "number", rate = "table", quota = "number",
  patient_key = "string", quota_used = "number", list_delay = "number", keep_alive = "number",
}

handlers["GET settings"] = function(state)
  return responses.json(200, state.settings)
end

local function settings_problem(input)
  if type(input) ~= "table" then
    return "an object is expected"
  end
  for name, value in pairs(input) do
    if name ~= "expire_tokens" and type(value) ~= setting_types[name] then
      return ("unknown setting or wrong type: %s"):format(name)
    end
  end
end

local function settings_apply(state, input)
  for name, value in pairs(input) do
    if name == "rate" then
      for bucket, rate in pairs(value) do
        state.settings.rate[bucket] = rate
      end
      state.limits:refill_buckets()
    elseif name == "expire_tokens" then
      if value == true then
        state.credentials:expire_tokens()
      end
    else
      state.settings[name] = value
    end
  end
end

handlers["POST settings"] = function(state, input)
  local problem = settings_problem(input)
  if problem then
    return refused(problem)
  end
  settings_apply(state, input)
  return responses.json(200, state.settings)
end

handlers["POST reset"] = function(state, input)
  local problem = input ~= nil and settings_problem(input)
  if problem then
    return refused(problem)
  end
  state:reset()
  settings_apply(state, input or {})
  return succeeded()
end

handlers["POST listen"] = function(state, input)
  input = type(input) == "table" and input or {}
  local kind = value_of(input.tls) or "good"
  local listener, problem = state.server:listen(kind, value_of(input.name) or kind)
  if not listener then
    return refused(problem)
  end
  return responses.json(201, json.object {
    { "name", listener.name }, { "port", listener.port }, { "url", listener.url },
  })
end

handlers["DELETE listen"] = function(state, _, parameters)
  return state.server:unlisten(parameters.name) and succeeded() or responses.gateway(404, "no such listener")
end

handlers["GET state"] = function(state)
  return responses.json(200, json.object {
    { "connections", state.server.connections }, { "memory", math.floor(collectgarbage "count" * 1024) },
  })
end

local function handle(state, request)
  if request:header "x-sandbox-key" ~= state.credentials.admin_key then
    return responses.gateway(403, "Forbidden")
  end
  local text = request:text(MAX_BODY_BYTES)
  if not text then
    return nil
  end
  local name = (request.path or ""):match "^/_sandbox/?(.*)$"
  local handler = name and handlers[request.method .. " " .. name]
  if not handler then
    return responses.gateway(404, "no such admin path")
  end
  local input, problem
  if text ~= "" then
    input, problem = json.decode(text)
    if input == nil then
      return refused(problem)
    end
  end
  return handler(state, input, request.parameters)
end

--- Serve one admin request: true if the connection may serve another.
function admin.serve(state, request)
  if request.malformed or request.broken then
    wire.close(request.connection, "clean")
    return false
  end
  if request.expects_continue then
    wire.write(request.connection, "HTTP/1.1 100 Continue\r\n\r\n")
  end
  local response = handle(state, request)
  if not response or not request.complete then
    response = response or refused "the body is too long or not complete"
    response.close = true
  end
  return wire.send(request.connection, request, response)
end

return admin
