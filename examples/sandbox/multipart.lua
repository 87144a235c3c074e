-- SPDX-License-Identifier: MIT
-- A strict reader of multipart/form-data (RFC 7578, RFC 2046), fed piece by piece.

local multipart = {}

local parser = {}
parser.__index = parser

local MAX_HEADER_BYTES = 16384

--- The boundary in a Content-Type value, or nil if the value is invalid.
function multipart.boundary(content_type)
  local kind, parameters = content_type:match "^([^;]*)(.*)$"
  if kind:lower():match "^%s*(.-)%s*$" ~= "multipart/form-data" then
    return nil
  end
  local boundary = parameters:match '^; *[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]="([^"]*)"$'
    or parameters:match "^; *[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]=([%w'+_.!#$%%&*^`|~-]+)$"
  if not boundary or #boundary < 1 or #boundary > 70 or boundary:find "[^%w'()+_,%-./:=? ]"
    or boundary:sub(-1) == " " then
    return nil
  end
  return boundary
end

--- A parser that calls `events.part(part)`, `events.data(part, bytes)` and `events.done(part)`.
-- A part is `{ name =, filename =, content_type = }`.
function multipart.new(boundary, events)
  return setmetatable({
    events = events, state = "preamble", buffer = "", delimiter = "\r\n--" .. boundary,
  }, parser)
end

-- Read one quoted string at `at`: its value and the position after it.
-- Only `\"` and `\\` are escapes; nothing else is decoded, as browsers and curl disagree about the rest.
local function quoted_string(text, at)
  if text:sub(at, at) ~= '"' then
    return nil
  end
  local out = {}
  at = at + 1
  while true do
    local plain, stop = text:match('^([^"\\]*)()', at)
    out[#out + 1] = plain
    local c, following = text:sub(stop, stop), text:sub(stop + 1, stop + 1)
    if c == '"' then
      return table.concat(out), stop + 1
    elseif c == "" then
      return nil
    elseif following == '"' or following == "\\" then
      out[#out + 1] = following
      at = stop + 2
    else
      out[#out + 1] = "\\"
      at = stop + 1
    end
  end
end

local function disposition_parse(value)
  local at = value:match "^[Ff][Oo][Rr][Mm]%-[Dd][Aa][Tt][Aa]()"
  if not at then
    return nil, "Content-Disposition is not form-data"
  end
  local found = {}
  while at <= #value do
    local name, start = value:match("^; *([%w*]+)=()", at)
    local text, stop
    if name then
      text, stop = quoted_string(value, start)
    end
    if not text then
      return nil, "a parameter of Content-Disposition is not a quoted string"
    end
    name = name:lower()
    if name ~= "name" and name ~= "filename" then
      return nil, "unknown parameter of Content-Disposition"
    elseif found[name] then
      return nil, "repeated parameter of Content-Disposition"
    end
    found[name], at = text, stop
  end
  if not found.name then
    return nil, "a part has no name"
  end
  return found
end

local function headers_parse(block)
  local part = {}
  local seen = {}
  for line in block:gmatch "(.-)\r\n" do
    if line:find "[%z\1-\8\10-\31\127]" then
      return nil, "control character in a part header"
    end
    local name, value = line:match "^([%w-]+):[ \t]*(.-)[ \t]*$"
    name = name and name:lower()
    if not name or seen[name] then
      return nil, "malformed or repeated part header"
    end
    seen[name] = true
    if name == "content-disposition" then
      local found, problem = disposition_parse(value)
      if not found then
        return nil, problem
      end
      part.name, part.filename = found.name, found.filename
    elseif name == "content-type" then
      part.content_type = value
    else
      return nil, "unexpected part header"
    end
  end
  if not part.name then
    return nil, "a part has no Content-Disposition"
  end
  return part
end

-- Each state's function consumes from the buffer: true to continue, false to wait for more, or nil and the problem.
local states = {}

function states.preamble(self)
  local opening = self.delimiter:sub(3) .. "\r\n"
  if #self.buffer < #opening then
    return false
  elseif self.buffer:sub(1, #opening) ~= opening then
    return nil, "the body does not begin with its boundary"
  end
  self.buffer = self.buffer:sub(#opening + 1)
  self.state = "headers"
  return true
end

function states.headers(self)
  local stop = self.buffer:find("\r\n\r\n", 1, true)
  if not stop then
    if #self.buffer > MAX_HEADER_BYTES then
      return nil, "part headers are too long"
    end
    return false
  end
  local part, problem = headers_parse(self.buffer:sub(1, stop + 1))
  if part then
    part, problem = self.events.part(part)
  end
  if not part then
    return nil, problem
  end
  self.part = part
  self.buffer = self.buffer:sub(stop + 4)
  self.state = "data"
  return true
end

function states.data(self)
  local start = self.buffer:find(self.delimiter, 1, true)
  -- Bytes that may begin a delimiter wait for the next piece.
  local safe = start and start - 1 or #self.buffer - #self.delimiter + 1
  if safe > 0 then
    self.events.data(self.part, self.buffer:sub(1, safe))
    self.buffer = self.buffer:sub(safe + 1)
  end
  if not start then
    return false
  end
  self.buffer = self.buffer:sub(#self.delimiter + 1)
  self.state = "delimiter"
  return true
end

function states.delimiter(self)
  local ending = self.buffer:sub(1, 2)
  if #ending < 2 then
    return false
  elseif ending ~= "\r\n" and ending ~= "--" then
    return nil, "bytes after a boundary"
  end
  local ok, problem = self.events.done(self.part)
  if not ok then
    return nil, problem
  end
  self.buffer = self.buffer:sub(3)
  self.state = ending == "--" and "epilogue" or "headers"
  return true
end

function states.epilogue(self)
  if self.buffer ~= "" and self.buffer ~= "\r" and self.buffer ~= "\r\n" then
    return nil, "bytes after the last boundary"
  end
  return false
end

--- Parse the next bytes of the body. Returns true, or nil and a problem.
function parser:push(bytes)
  self.buffer = self.buffer .. bytes
  local more, problem
  repeat
    more, problem = states[self.state](self)
  until not more
  if more == nil then
    return nil, problem
  end
  return true
end

--- End of the body: true if it ended with the last boundary.
function parser:finish()
  if self.state ~= "epilogue" or self.buffer == "\r" then
    return nil, "the last boundary is missing"
  end
  return true
end

return multipart
