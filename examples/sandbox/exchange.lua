-- SPDX-License-Identifier: MIT
-- One request, from its head to the end of its response, with the faults planned for it.

local cqueues = require "cqueues"
local faults = require "faults"
local journal = require "journal"
local responses = require "responses"
local upload = require "upload"
local url = require "url"
local wire = require "wire"

local exchange = {}

local MAX_FORM_BYTES = 65536
local BODY_ALLOWANCE = 64 * 1048576 -- extra bytes read beyond the upload limit, so that most clients see the 413

-- End the connection without a response. `how` is the fault's word: "reset" or "close".
local function hang_up(connection, how)
  wire.close(connection, how == "close" and "clean" or how)
  return false
end

local function refuse(request, response)
  response.close = true
  wire.send(request.connection, request, response, {})
  wire.close(request.connection, "drain")
  return false
end

local function interrupt(request, during)
  if during.how == "stall" then
    wire.hold(request.connection)
  end
  return hang_up(request.connection, during.how == "reset" and "reset" or "close")
end

-- Receive the body, as the operation needs it: an upload, or a form's fields. The fault `during`
-- may interrupt it.
local function receive_body(state, request, during)
  local received = {}
  local pieces = {}
  local max_bytes = request.operation == "upload" and state.settings.max_upload + BODY_ALLOWANCE or MAX_FORM_BYTES
  if request.operation == "upload" then
    received.upload = upload.new(state.folder, request:header "content-type", state.settings.max_upload)
  end
  while true do
    local room = during and math.min(65536, during.bytes - request.body_bytes)
    if room and room <= 0 then
      received.interrupted = true
      break
    end
    local piece = request:next_piece(room)
    if not piece then
      break
    elseif request.body_bytes > max_bytes then
      received.too_long = true
      break
    elseif received.upload then
      received.upload:push(piece)
    elseif request.operation == "token" then
      pieces[#pieces + 1] = piece
    end
  end
  if request.complete and received.upload then
    received.upload:finish()
  elseif request.complete and request.operation == "token" then
    received.form = url.parameters(table.concat(pieces))
  end
  return received
end

-- Send 100 Continue if the client waits for it. Returns false if the request is refused instead, so that the
-- client need not send the body.
local function send_continue(request, refusal)
  if not request.expects_continue then
    return true
  elseif refusal and refusal.status < 500 then
    return false
  end
  wire.write(request.connection, "HTTP/1.1 100 Continue\r\n\r\n")
  return true
end

-- Carry out a completely received request, unless a fault substitutes the response. Returns the response.
local function perform(state, request, received, entry, refusal, substitute)
  local action = request.action
  if substitute and not action.effect then
    return substitute
  end
  local response, stored = refusal, nil
  if not response then
    response, stored = state.api:perform(request, received)
  end
  entry.stored = stored or entry.stored
  return substitute or response
end

-- Send the response, changed by the faults. Returns whether the connection may serve another request.
local function respond(state, request, entry, response)
  local connection, action = request.connection, request.action
  if action.delay then
    cqueues.sleep(action.delay)
  end
  if action.raw then
    wire.write(connection, action.raw)
    return hang_up(connection, action.unclean and "cut" or "close")
  end
  state.faults:apply(response, action)
  entry.status = response.status
  connection.reset_next = action.reset_idle
  connection.idle_seconds = action.close_idle
  return wire.send(connection, request, response, action, entry)
end

-- Finish a request whose body was received, completely or not. Returns whether the connection may serve another one.
local function finish(state, request, received, entry, refusal, substitute)
  local connection, action = request.connection, request.action
  if received.interrupted then
    return interrupt(request, action.during)
  elseif received.too_long then
    entry.status = 413
    return refuse(request, responses.gateway(413, "Request Too Long"))
  elseif not request.complete then
    return hang_up(connection, "close")
  elseif action.after then
    return hang_up(connection, action.after)
  end
  if action.delay_effect then
    cqueues.sleep(action.delay_effect)
  end
  local response = perform(state, request, received, entry, refusal, substitute)
  if action.lost_reply then
    return hang_up(connection, action.lost_reply)
  end
  return respond(state, request, entry, response)
end

--- Serve one request of the documented API: true if the connection may serve another.
function exchange.serve(state, request)
  local connection = request.connection
  local entry = state.journal:add(request)
  request.request_id = entry.request_id
  if request.broken or request.malformed then
    entry.status = 400
    return refuse(request, responses.gateway(400, "Bad Request"))
  elseif connection.reset_next then
    entry.fault = "reset_idle"
    return hang_up(connection, "reset")
  end
  local plan = state.faults:take(request)
  local action = plan and plan.action or {}
  request.action = action
  entry.fault = plan and plan.name or entry.fault
  if action.before then
    return hang_up(connection, action.before)
  end
  local substitute = faults.substitute(action)
  if action.early_status then
    local response = faults.substitute { status = action.early_status, body = action.body,
      body_kind = action.body_kind, message = action.message }
    response.close = true
    entry.status = response.status
    wire.send(connection, request, response, { headers = action.headers, remove_headers = action.remove_headers })
    wire.close(connection, action.drain and "drain" or "clean")
    return false
  end
  local refusal = (not substitute or action.effect) and state.api:refusal(request) or nil
  if not send_continue(request, refusal or not action.effect and substitute) then
    local response = refusal or substitute
    entry.status = response.status
    return refuse(request, response)
  end
  local received = receive_body(state, request, action.during)
  journal.record_body(entry, request, received)
  local keep_alive = finish(state, request, received, entry, refusal, substitute)
  if received.upload then
    received.upload:discard()
  end
  return keep_alive
end

return exchange
