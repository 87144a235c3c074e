-- SPDX-License-Identifier: MIT
-- One request: its head as it was received, and its body piece by piece.

local errno = require "cqueues.errno"

local request = {}
request.__index = request

local HEAD_SECONDS, BODY_SECONDS = 30, 300
local MAX_HEAD_BYTES = 65536
local PIECE = 65536

local function headers_read(self, connection)
  local total = 0
  repeat
    local name, value = connection.http:read_header(HEAD_SECONDS)
    if name then
      total = total + #name + #value
      if total > MAX_HEAD_BYTES then
        return nil, "the head is too long"
      end
      table.insert(self.headers, { name, value })
      local key = name:lower()
      local before = self.values[key]
      self.values[key] = before and before .. ", " .. value or value
    elseif value then
      return nil, value
    end
  until not name
  return connection.http:read_headers_done(HEAD_SECONDS)
end

-- The framing of the body: its length, "chunked", or nil and a problem.
local function framing(self)
  local length, coding = self:header "content-length", self:header "transfer-encoding"
  if coding then
    if length or coding:lower() ~= "chunked" then
      return nil, "unusable Transfer-Encoding"
    end
    return "chunked"
  elseif not length then
    return 0
  elseif not length:find "^%d+$" or #length > 15 then
    return nil, "unusable Content-Length"
  end
  return tonumber(length)
end

--- Read the head of the next request: nil at the end of the connection, nil and a reason if it is malformed.
-- If a head ends after its first line, the request is returned with `broken` set.
function request.read(connection)
  local http = connection.http
  local method, target, version = http:read_request_line(HEAD_SECONDS)
  if not method then
    return nil, version == errno.EILSEQ and "malformed request line" or nil
  end
  local self = setmetatable({
    connection = connection, method = method, target = target, version = version,
    headers = {}, values = {}, body_bytes = 0, complete = false,
  }, request)
  local ok, problem = headers_read(self, connection)
  if not ok then
    self.broken = problem or "the head is not complete"
    return self
  end
  local frame
  frame, problem = framing(self)
  if version == 1.1 and not self.values.host or (self.values.host or ""):find ", " then
    problem = "there must be one Host header"
  end
  self.malformed = problem
  if frame == "chunked" then
    self.chunked, self.left = true, 0
  else
    self.left = frame or 0
    self.length = frame
  end
  local connection_option = (self:header "connection" or ""):lower()
  self.keep_alive = not problem and (version == 1.1 and not connection_option:find "close"
    or version == 1.0 and connection_option:find "keep%-alive" ~= nil)
  self.expects_continue = version == 1.1 and (self:header "expect" or ""):lower() == "100-continue"
    and frame ~= 0
  return self
end

--- The value of a header, several joined by commas, or nil.
function request:header(name)
  return self.values[name]
end

local function chunk_begin(self, socket)
  if self.chunk_open then
    if socket:xread(2, "b", BODY_SECONDS) ~= "\r\n" then
      return nil
    end
    self.chunk_open = false
  end
  local line = socket:xread("*L", "b", BODY_SECONDS)
  local digits = line and line:match "^(%x+)\r\n$"
  if not digits or #digits > 8 then
    return nil
  end
  return tonumber(digits, 16)
end

local function trailers_end(socket)
  for _ = 1, 100 do
    local line = socket:xread("*L", "b", BODY_SECONDS)
    if line == "\r\n" then
      return true
    elseif not line then
      return nil
    end
  end
end

--- Read the next bytes of the body, at most `max_bytes`. Returns nil at the end of the body (then `complete` is
-- true) and if the connection broke.
function request:next_piece(max_bytes)
  local socket = self.connection.socket
  if self.complete or self.is_cut_off then
    return nil
  end
  if self.left == 0 and self.chunked then
    local size = chunk_begin(self, socket)
    if size == 0 then
      self.complete = trailers_end(socket) or false
    end
    if not size or size == 0 then
      self.is_cut_off = not self.complete
      return nil
    end
    self.left, self.chunk_open = size, true
  elseif self.left == 0 then
    self.complete = true
    return nil
  end
  local piece = socket:xread(-math.min(self.left, max_bytes or PIECE), "b", BODY_SECONDS)
  if not piece then
    self.is_cut_off = true
    return nil
  end
  self.left = self.left - #piece
  self.body_bytes = self.body_bytes + #piece
  return piece
end

--- Read the whole body. Returns nil if it is longer than `max_bytes` or incomplete.
function request:text(max_bytes)
  local pieces = {}
  while true do
    local piece = self:next_piece()
    if not piece then
      break
    end
    if self.body_bytes > max_bytes then
      return nil
    end
    pieces[#pieces + 1] = piece
  end
  return self.complete and table.concat(pieces) or nil
end

return request
