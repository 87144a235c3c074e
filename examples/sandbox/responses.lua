-- SPDX-License-Identifier: MIT
-- Responses before they are sent: a status, headers, and a body; with the error formats of each layer.

local body = require "body"
local json = require "json"

local responses = {}

--- A response of any kind. `content` is a string, a body, or nil for an empty body.
function responses.new(status, content_type, content)
  local response = { status = status, headers = {} }
  if content_type then
    response.headers[1] = { "Content-Type", content_type }
  end
  response.body = type(content) == "table" and content or body.new(content or "")
  return response
end

--- A JSON response. It keeps an ordered object, so that a fault can change single members.
function responses.json(status, value)
  local response = responses.new(status, "application/json", json.encode(value))
  response.object = json.is_object(value) and value or nil
  return response
end

--- The gateway's own errors are flat objects.
function responses.gateway(status, message)
  return responses.json(status, json.object { { "message", message } })
end

--- Errors of the service behind the gateway; `details` is a string, as in its documentation.
function responses.service(status, code, message, details)
  local members = json.object { { "code", code }, { "message", message } }
  if details then
    members[3] = { "details", details }
  end
  return responses.json(status, json.object { { "error", members } })
end

--- Errors of the token endpoint are flat objects too and contain one word.
function responses.token(status, word)
  return responses.json(status, json.object { { "error", word } })
end

function responses.html(status, message)
  local page = "<html><head><title>%s</title></head><body><center><h1>%d %s</h1></center></body></html>\r\n"
  return responses.new(status, "text/html", page:format(message, status, message))
end

function responses.empty(status)
  return responses.new(status)
end

return responses
