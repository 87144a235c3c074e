-- SPDX-License-Identifier: MIT
-- Sending responses and ending connections, orderly or as a fault says.

local body = require "body"
local cqueues = require "cqueues"
local reason_phrases = require "http.h1_reason_phrases"
local system = require "system"

local wire = {}

local WRITE_SECONDS = 600
local HOLD_SECONDS = 120
local PIECE = 65536

--- Send bytes and wait until the system has accepted them: true, or nil if the client is gone.
function wire.write(connection, bytes)
  if connection.closed then
    return nil
  end
  return connection.socket:xwrite(bytes, "n", WRITE_SECONDS) and true
end

-- Read and discard incoming data for a moment: closing with unread bytes would send a reset.
local function drain(connection)
  connection.socket:shutdown "w"
  local deadline = cqueues.monotime() + 2
  while cqueues.monotime() < deadline and connection.socket:xread(-PIECE, "b", 0.5) do end
end

--- End the connection. `how`: "clean" sends close_notify, "drain" also reads remaining data, "cut" sends no
-- close_notify, "reset" resets the connection.
function wire.close(connection, how)
  if connection.closed then
    return
  end
  connection.closed = true
  local socket = connection.socket
  if how == "reset" then
    cqueues.sleep(0.05) -- let the data sent before arrive first
    system.reset_on_close(socket:pollfd())
  elseif how ~= "cut" and connection.tls then
    system.close_notify(connection.tls)
  end
  if how == "drain" then
    drain(connection)
  end
  socket:close()
end

--- Stay silent until the client closes, or for a limited time.
function wire.hold(connection)
  local deadline = cqueues.monotime() + HOLD_SECONDS
  local fd = connection.socket:pollfd()
  while cqueues.monotime() < deadline and not system.peer_gone(fd) do
    cqueues.sleep(0.1)
  end
end

local function status_line(status)
  return ("HTTP/1.1 %d %s\r\n"):format(status, reason_phrases[tostring(status)] or "Unknown")
end

local function header_remove(headers, name)
  for i = #headers, 1, -1 do
    if headers[i][1]:lower() == name:lower() then
      table.remove(headers, i)
    end
  end
end

-- The fault's headers replace existing ones with the same names.
local function headers_change(headers, action)
  for _, header in ipairs(action.headers or {}) do
    header_remove(headers, header[1])
  end
  for _, header in ipairs(action.headers or {}) do
    headers[#headers + 1] = header
  end
  for _, name in ipairs(action.remove_headers or {}) do
    header_remove(headers, name)
  end
end

local function headers_flood(headers, total)
  local line = ("f"):rep(1000)
  for i = 1, math.ceil(total / 1014) do
    headers[#headers + 1] = { ("x-flood-%04d"):format(i), line }
  end
end

-- How the body is delimited: "length", "chunked", "close", or "none" if a body is not allowed.
local function framing_of(request, response, action)
  if response.status == 204 or response.status == 304 or response.status < 200 then
    return "none"
  elseif action.length == "none" then
    return "close"
  elseif action.length == "chunked" or action.endless or action.chunk_cut or action.remapped_length then
    return "chunked"
  end
  return request.method == "HEAD" and "none" or "length"
end

local function head_text(request, response, framing, action, keep)
  local headers = { { "Date", os.date "!%a, %d %b %Y %H:%M:%S GMT" } }
  for _, header in ipairs(response.headers) do
    headers[#headers + 1] = header
  end
  if request.request_id then
    headers[#headers + 1] = { "x-amzn-RequestId", request.request_id }
  end
  if framing == "length" then
    local announced = response.body.size + (action.length_delta or 0)
    headers[#headers + 1] = { "Content-Length", ("%d"):format(announced) }
  elseif framing == "chunked" then
    headers[#headers + 1] = { "Transfer-Encoding", "chunked" }
    if action.remapped_length then
      headers[#headers + 1] = { "x-amzn-Remapped-Content-Length", ("%d"):format(response.body.size) }
    end
  end
  if not keep then
    headers[#headers + 1] = { "Connection", "close" }
  end
  if action.header_flood then
    headers_flood(headers, action.header_flood)
  end
  headers_change(headers, action)
  local lines = { status_line(response.status) }
  for _, header in ipairs(headers) do
    lines[#lines + 1] = header[1] .. ": " .. tostring(header[2]) .. "\r\n"
  end
  lines[#lines + 1] = "\r\n"
  return table.concat(lines)
end

local function write_slowly(connection, bytes, rate)
  local step = math.max(1, math.floor(rate / 10))
  for at = 1, #bytes, step do
    local piece = bytes:sub(at, at + step - 1)
    if not wire.write(connection, piece) then
      return nil
    end
    cqueues.sleep(#piece / rate)
  end
  return true
end

local function write_informational(connection, action)
  for _ = 1, action.informational or 0 do
    local ok = wire.write(connection, status_line(103) .. "Link: </style.css>; rel=preload\r\n\r\n")
    if not ok then
      return nil
    elseif action.informational_every then
      cqueues.sleep(action.informational_every)
    end
  end
  return true
end

local function write_head(connection, text, action)
  if action.head_cut then
    text = text:sub(1, action.head_cut)
  end
  if action.head_drip then
    return write_slowly(connection, text, action.head_drip)
  end
  return wire.write(connection, text)
end

local function write_body(connection, content, framing, action, limit, entry)
  local deadline = action.endless and cqueues.monotime() + HOLD_SECONDS
  for piece in content:pieces(PIECE, limit) do
    entry.response_bytes = (entry.response_bytes or 0) + #piece
    if framing == "chunked" then
      piece = ("%x\r\n%s\r\n"):format(#piece, piece)
    end
    local ok
    if action.drip then
      ok = write_slowly(connection, piece, action.drip)
    else
      ok = wire.write(connection, piece)
    end
    if not ok or (deadline and cqueues.monotime() > deadline) then
      return nil
    end
  end
  return true
end

-- The number of body bytes after which a fault ends the response, and how it closes the connection; or nil.
local function early_end(action)
  if action.cut then
    return action.cut, "cut"
  elseif action.close_notify then
    return action.close_notify, "clean"
  elseif action.reset then
    return action.reset, "reset"
  elseif action.stall then
    return action.stall, "hold"
  elseif action.chunk_cut then
    return action.chunk_cut, action.unclean and "cut" or "clean"
  end
end

local function finish(connection, how)
  if how == "hold" then
    wire.hold(connection)
    how = "clean"
  end
  wire.close(connection, how)
end

--- Send a response, changed by a fault's action if one is given. The bytes of the body are counted in the journal's
-- entry, if one is given. True if the connection may serve another request.
function wire.send(connection, request, response, action, entry)
  action = action or {}
  local framing = framing_of(request, response, action)
  local content = action.endless and body.zeros(2 ^ 30) or response.body
  local limit, ending = early_end(action)
  if action.length_delta and not ending then
    ending = action.hold and "hold" or "clean"
  elseif framing == "close" and not ending then
    ending = action.unclean and "cut" or "clean"
  end
  local keep = framing ~= "close" and request.keep_alive and not response.close
  local ok = write_informational(connection, action)
    and write_head(connection, head_text(request, response, framing, action, keep), action)
  if ok and action.head_cut then
    finish(connection, action.unclean and "cut" or "clean")
    return false
  end
  if ok and framing ~= "none" and request.method ~= "HEAD" then
    ok = write_body(connection, content, framing, action, limit, entry or {})
  end
  response.body:close()
  if ok and ending then
    finish(connection, ending)
    return false
  elseif ok and framing == "chunked" then
    ok = wire.write(connection, "0\r\n\r\n")
  end
  return ok and keep
end

return wire
