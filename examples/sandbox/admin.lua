-- SPDX-License-Identifier: MIT
-- The paths under /_sandbox, by which tests look at the server and change it.

local content = require "content"
local documents = require "documents"
local json = require "json"
local replies = require "replies"
local wire = require "wire"
local body = require "body"

local admin = {}

local MAX_BODY_BYTES = 256 * 1048576

local handlers = {}

local function given(value)
  if value == json.null then
    return nil
  end
  return value
end

local function done()
  return replies.json(200, json.object { { "ok", true } })
end

local function refused(message)
  return replies.gateway(400, tostring(message))
end

handlers["GET journal"] = function(state)
  return replies.json(200, json.object { { "requests", state.journal.entries } })
end

handlers["DELETE journal"] = function(state)
  state.journal:clear()
  return done()
end

handlers["GET faults"] = function(state)
  return replies.json(200, state.faults:list())
end

handlers["POST faults"] = function(state, plans)
  local ok, problem = state.faults:set(plans)
  return ok and done() or refused(problem)
end

handlers["DELETE faults"] = function(state)
  state.faults:clear()
  return done()
end

-- The bytes of a document that a test describes.
local function content_of(state, wish, media_type)
  if given(wish.size) then
    return content.generate(state.folder, wish.size, media_type)
  elseif given(wish.content_base64) then
    return content.filter(state.folder, "base64 -d", body.new(wish.content_base64))
  end
  return content.bytes(given(wish.content) or "")
end

local not_metadata = {
  patient = true, size = true, content = true, content_base64 = true, raw_metadata = true,
}

handlers["POST documents"] = function(state, wish)
  if type(wish) ~= "table" or not given(wish.patient) then
    return refused "a patient is expected"
  end
  local fields = { file_name = "document.pdf", content_type = "application/pdf" }
  for name, value in pairs(wish) do
    if not not_metadata[name] then
      fields[name] = value
    end
  end
  fields.id = given(wish.id)
  local media_type = fields.content_type
  local document = state.documents:add(json.id(wish.patient), content_of(state, wish, media_type), fields)
  local verbatim = given(wish.raw_metadata)
  if verbatim then
    document.verbatim = type(verbatim) == "string" and verbatim or json.encode(verbatim)
    for name, value in pairs(json.decode(document.verbatim) or {}) do
      document.fields[name] = value
    end
  end
  return replies.json(201, json.object {
    { "id", document.id }, { "sha256", document.content.sha256 }, { "size", document.content.size },
  })
end

handlers["POST seed"] = function(state, wish)
  if type(wish) ~= "table" or not given(wish.patient) or type(wish.count) ~= "number" then
    return refused "a patient and a count are expected"
  end
  local prefix = given(wish.prefix) or "doc-seed-"
  local kinds = given(wish.types) or { "Referral", "Insurance", "Scan" }
  local first = os.time { year = 2026, month = 1, day = 1, hour = 12 }
  for i = 1, wish.count do
    local id = ("%s%05d"):format(prefix, i)
    state.documents:add(json.id(wish.patient), content.bytes("%PDF-1.4\n" .. id .. "\n"), {
      id = id, file_name = ("file %05d.pdf"):format(i), content_type = "application/pdf",
      document_type = kinds[(i - 1) % #kinds + 1], uploaded_at = documents.timestamp(first + i * 60),
    })
  end
  return replies.json(201, json.object { { "count", wish.count } })
end

handlers["GET documents"] = function(state, _, parameters)
  local rows = json.array {}
  for _, document in ipairs(state.documents:list(parameters.patient or "")) do
    rows[#rows + 1] = json.object {
      { "id", document.id }, { "sha256", document.content.sha256 }, { "size", document.content.size },
      { "etag", document.etag }, { "metadata", state.documents:object(document, {}) },
    }
  end
  return replies.json(200, rows)
end

handlers["DELETE documents"] = function(state, _, parameters)
  local found = state.documents:remove(parameters.patient or "", parameters.id or "")
  return found and done() or replies.gateway(404, "no such document")
end

-- The settings that can be changed, and their types.
local setting_types = {
  limits = "boolean", token_life = "number", max_upload = "number", page_max = "number",
  next_link = "boolean", numeric_ids = "boolean", count = "boolean", ranges = "boolean",
  created_status = "number", delete_status = "number", rate = "table", quota = "number",
  quota_used = "number", list_delay = "number", keep_alive = "number",
}

handlers["GET settings"] = function(state)
  return replies.json(200, state.settings)
end

local function settings_problem(wish)
  if type(wish) ~= "table" then
    return "an object is expected"
  end
  for name, value in pairs(wish) do
    if name ~= "expire_tokens" and type(value) ~= setting_types[name] then
      return ("unknown setting or wrong type: %s"):format(name)
    end
  end
end

local function settings_apply(state, wish)
  for name, value in pairs(wish) do
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

handlers["POST settings"] = function(state, wish)
  local problem = settings_problem(wish)
  if problem then
    return refused(problem)
  end
  settings_apply(state, wish)
  return replies.json(200, state.settings)
end

handlers["POST reset"] = function(state, wish)
  local problem = wish ~= nil and settings_problem(wish)
  if problem then
    return refused(problem)
  end
  state:reset()
  settings_apply(state, wish or {})
  return done()
end

handlers["POST listen"] = function(state, wish)
  wish = type(wish) == "table" and wish or {}
  local kind = given(wish.tls) or "good"
  local listener, problem = state.server:listen(kind, given(wish.name) or kind)
  if not listener then
    return refused(problem)
  end
  return replies.json(201, json.object {
    { "name", listener.name }, { "port", listener.port }, { "url", listener.url },
  })
end

handlers["DELETE listen"] = function(state, _, parameters)
  return state.server:unlisten(parameters.name) and done() or replies.gateway(404, "no such listener")
end

handlers["GET state"] = function(state)
  return replies.json(200, json.object {
    { "connections", state.server.connections }, { "memory", math.floor(collectgarbage "count" * 1024) },
  })
end

local function handle(state, request)
  if request:header "x-sandbox-key" ~= state.credentials.admin_key then
    return replies.gateway(403, "Forbidden")
  end
  local text = request:text(MAX_BODY_BYTES)
  if not text then
    return nil
  end
  local name = (request.path or ""):match "^/_sandbox/?(.*)$"
  local handler = name and handlers[request.method .. " " .. name]
  if not handler then
    return replies.gateway(404, "no such admin path")
  end
  local wish, problem
  if text ~= "" then
    wish, problem = json.decode(text)
    if wish == nil then
      return refused(problem)
    end
  end
  return handler(state, wish, request.parameters)
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
  local reply = handle(state, request)
  if not reply or not request.complete then
    reply = reply or refused "the body is too long or not complete"
    reply.close = true
  end
  return wire.send(request.connection, request, reply)
end

return admin
