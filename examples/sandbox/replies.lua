-- SPDX-License-Identifier: MIT
-- Replies before they go out: a status, headers, and a body; with the error shapes of each layer.

local body = require "body"
local json = require "json"

local replies = {}

--- A reply of any kind. `content` is a string or a body, or nil for none.
function replies.new(status, content_type, content)
  local reply = { status = status, headers = {} }
  if content_type then
    reply.headers[1] = { "Content-Type", content_type }
  end
  reply.body = type(content) == "table" and content or body.new(content or "")
  return reply
end

--- A JSON reply. Ordered objects stay at hand, so that a fault can change single members.
function replies.json(status, value)
  local reply = replies.new(status, "application/json", json.encode(value))
  reply.object = json.is_object(value) and value or nil
  return reply
end

--- The gateway's own errors are flat.
function replies.gateway(status, message)
  return replies.json(status, json.object { { "message", message } })
end

--- Errors of the service behind the gateway; `details` is a string, as in its documentation.
function replies.service(status, code, message, details)
  local members = json.object { { "code", code }, { "message", message } }
  if details then
    members[3] = { "details", details }
  end
  return replies.json(status, json.object { { "error", members } })
end

--- Errors of the token endpoint are flat, too, and hold one word.
function replies.token(status, word)
  return replies.json(status, json.object { { "error", word } })
end

function replies.html(status, message)
  local page = "<html><head><title>%s</title></head><body><center><h1>%d %s</h1></center></body></html>\r\n"
  return replies.new(status, "text/html", page:format(message, status, message))
end

function replies.empty(status)
  return replies.new(status)
end

return replies
