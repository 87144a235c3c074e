-- SPDX-License-Identifier: MIT
-- A browser's form with one file (multipart/form-data: RFC 7578 and RFC 2046), read while it
-- arrives. Text fields come first, the file is the last part, and nothing follows it: so its
-- size is known before its first byte. Anything else is malformed. In memory are the fields, and
-- of the file one piece.

local form = {}

-- Maximum bytes of a part's head, and of a field's value.
local MAX_HEAD, MAX_VALUE = 4096, 4096

-- Browsers encode only these in names (WHATWG HTML, "multipart/form-data encoding algorithm").
local UNESCAPED = { ["%0D"] = "\r", ["%0A"] = "\n", ["%22"] = '"' }

--- The boundary in a header Content-Type, or nil if it is not a form's.
function form.boundary(content_type)
  local lower = content_type:lower()
  if not lower:find "^multipart/form%-data[ \t]*;" then return nil end
  local _, last = lower:find ";[ \t]*boundary="
  local rest = last and content_type:sub(last + 1) or ""
  local boundary = rest:match '^"([^"]+)"[ \t]*$' or rest:match '^([^%s;"]+)[ \t]*$'
    or rest:match '^"([^"]+)"[ \t]*;' or rest:match '^([^%s;"]+)[ \t]*;'
  -- RFC 2046, section 5.1.1
  if boundary and #boundary <= 70 and boundary:find "^[%w'()+_,./:=? -]*[%w'()+_,./:=?-]$" then return boundary end
end

-- Parse the head of a part. Returns the field's name, and the file's if it is one; or nil.
local function parse_head(text)
  local name, file_name
  for line in (text .. "\r\n"):gmatch "(.-)\r\n" do
    local header, value = line:match "^([%w-]+):[ \t]*([^%z\1-\31\127]-)[ \t]*$"
    header = header and header:lower()
    if not header or (header == "content-transfer-encoding" and value ~= "binary") then return nil end
    if header == "content-disposition" then
      if name then return nil end
      local rest
      name, rest = value:match '^form%-data;[ \t]*name="([^"]+)"(.*)$'
      file_name = rest and rest:match '^;[ \t]*filename="([^"]+)"$'
      if not name or (rest ~= "" and not file_name) then return nil end
    end
  end
  return name, file_name and file_name:gsub("%%%x%x", UNESCAPED)
end

-- A reader of the body. `read()` returns the next bytes; nil at the end; or nil and a problem.
local reader = {}
reader.__index = reader

function reader:fill()
  local bytes, problem = self.read()
  if not bytes then return nil, problem or "malformed" end -- it has ended too early
  self.buffer = self.buffer .. bytes
  return true
end

function reader:take(count)
  local bytes = self.buffer:sub(1, count)
  self.buffer = self.buffer:sub(count + 1)
  self.taken = self.taken + count
  return bytes
end

-- Take exactly this text. Returns true, or nil and the problem.
function reader:expect(text)
  while #self.buffer < #text do
    local filled, problem = self:fill()
    if not filled then return nil, problem end
  end
  if self:take(#text) ~= text then return nil, "malformed" end
  return true
end

-- Take the bytes up to a mark, of which there are at most `limit`, and the mark. Returns the
-- bytes, or nil and the problem.
function reader:take_until(mark, limit)
  while true do
    local at = self.buffer:find(mark, 1, true)
    if at and at <= limit + 1 then
      local bytes = self:take(at - 1)
      self:take(#mark)
      return bytes
    end
    if at or #self.buffer >= limit + #mark then return nil, "malformed" end
    local filled, problem = self:fill()
    if not filled then return nil, problem end
  end
end

-- The next bytes of the file; nil at the end of the form; or nil and the problem.
function reader:next_piece(delimiter)
  while true do
    local at = self.buffer:find(delimiter, 1, true)
    if at == 1 then
      local ended, problem = self:expect(delimiter .. "--\r\n")
      if not ended then return nil, problem end
      local more, fault = self.read()
      if more or fault or self.buffer ~= "" then return nil, fault or "malformed" end
      return nil
    end
    -- the last bytes may be the beginning of a delimiter
    local kept = at or self.buffer:find("\r", math.max(1, #self.buffer - #delimiter + 2), true)
    local count = kept and kept - 1 or #self.buffer
    if count > 0 then return self:take(count) end
    local filled, problem = self:fill()
    if not filled then return nil, problem end
  end
end

--- Read a form up to its file.
-- @param read a function that returns the next bytes of the body; nil at its end; or nil and a
--   problem
-- @param length bytes of the body
-- @param boundary as `form.boundary` returns it
-- @param names the names of the text fields that the form may have, as keys; that of the file is
--   "file"
-- @return[1] the text fields by name
-- @return[1] the file: `name`, `size`, and `read()`, which returns the next bytes; nil once the
--   whole form has been read; or nil and the problem
-- @return[2] nil
-- @return[2] the problem: "malformed", or that of `read`
function form.open(read, length, boundary, names)
  local self = setmetatable({ read = read, buffer = "", taken = 0 }, reader)
  local delimiter = "\r\n--" .. boundary
  local fields = {}
  local fine, problem = self:expect("--" .. boundary .. "\r\n")
  while fine do
    local head
    head, problem = self:take_until("\r\n\r\n", MAX_HEAD)
    if not head then break end
    local name, file_name = parse_head(head)
    if file_name then
      local size = length - self.taken - #delimiter - #"--\r\n"
      if name ~= "file" or size < 0 then return nil, "malformed" end
      local left = size
      local function read_file()
        local piece, fault = self:next_piece(delimiter)
        left = left - #(piece or "")
        if left < 0 then return nil, "malformed" end
        return piece, fault
      end
      return fields, { name = file_name, size = size, read = read_file }
    end
    if not name or not names[name] or fields[name] then return nil, "malformed" end
    fields[name], problem = self:take_until(delimiter, MAX_VALUE)
    fine = fields[name]
    if fine then fine, problem = self:expect "\r\n" end
  end
  return nil, problem
end

return form
