-- SPDX-License-Identifier: MIT
-- The body of a response: strings and parts of open files, read piece by piece.

local body = {}
body.__index = body

--- A body of `segments`: each a string or `{ file =, from =, size = }`.
function body.new(...)
  local self = setmetatable({ segments = { ... }, size = 0 }, body)
  for _, segment in ipairs(self.segments) do
    self.size = self.size + (type(segment) == "string" and #segment or segment.size)
  end
  return self
end

--- The content of a document, or the part of it that begins at `from`.
-- The file is opened now: it may be deleted before the response is sent.
function body.of(content, from, size)
  from = from or 0
  size = size or content.size - from
  if content.bytes then
    return body.new(content.bytes:sub(from + 1, from + size))
  end
  return body.new { file = assert(io.open(content.path, "rb")), from = from, size = size }
end

--- A body of `size` zero bytes. If `size` is huge, the body never ends for practical purposes.
function body.zeros(size)
  local self = body.new ""
  self.size = size
  self.is_zeros = true
  return self
end

function body:append(text)
  self.segments[#self.segments + 1] = text
  self.size = self.size + #text
end

--- Remove all but the first `n` bytes.
function body:truncate(n)
  local kept = {}
  self.size = math.min(self.size, n)
  for _, segment in ipairs(self.segments) do
    if type(segment) == "string" then
      segment = segment:sub(1, n)
      n = n - #segment
    else
      segment.size = math.min(segment.size, n)
      n = n - segment.size
    end
    kept[#kept + 1] = segment
  end
  self.segments = kept
end

local function segment_read(segment, at, n)
  if type(segment) == "string" then
    return segment:sub(at + 1, at + n)
  end
  segment.file:seek("set", segment.from + at)
  return segment.file:read(math.min(n, segment.size - at)) or ""
end

--- Iterate over the first `limit` bytes (default: all) in pieces of at most `piece_size` bytes.
function body:pieces(piece_size, limit)
  local left = math.min(self.size, limit or self.size)
  local index, at = 1, 0
  return function()
    if self.is_zeros and left > 0 then
      local n = math.min(piece_size, left)
      left = left - n
      return ("\0"):rep(n)
    end
    while left > 0 and self.segments[index] do
      local piece = segment_read(self.segments[index], at, math.min(piece_size, left))
      if #piece > 0 then
        at = at + #piece
        left = left - #piece
        return piece
      end
      index, at = index + 1, 0
    end
  end
end

--- The whole body as one string, for small bodies only.
function body:text()
  local pieces = {}
  for piece in self:pieces(65536) do
    pieces[#pieces + 1] = piece
  end
  return table.concat(pieces)
end

function body:close()
  for _, segment in ipairs(self.segments) do
    if type(segment) == "table" then
      segment.file:close()
    end
  end
  self.segments = {}
end

return body
