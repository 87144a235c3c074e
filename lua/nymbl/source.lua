-- SPDX-License-Identifier: MIT
-- What an upload sends: a path, a file handle, bytes, an LTN12 source or stream.

local core = require "nymbl.core"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local stream_next = require "nymbl.stream".next

local source = {}

-- The accepted types (the guide, "Supported File Types").
local DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
local BY_EXTENSION = {
  pdf = "application/pdf",
  png = "image/png",
  jpg = "image/jpeg",
  jpeg = "image/jpeg",
  tif = "image/tiff",
  tiff = "image/tiff",
  docx = DOCX,
}
local ACCEPTED = {}
for _, content_type in pairs(BY_EXTENSION) do ACCEPTED[content_type] = true end

--- Whether the service takes a media type; parameters do not count.
function source.is_accepted(content_type)
  return ACCEPTED[core.lower(content_type:match("^[^; \t]*"))] == true
end

--- The media type by a file name's extension; nil if the extension says nothing.
function source.type_by_name(name)
  local extension = name:match("%.([^./\\]+)$")
  return extension and BY_EXTENSION[core.lower(extension)]
end

--- The media type to send a source as, from what can be seen of its bytes.
-- @tparam table from the source
-- @tparam ?string declared the type by option or file name
-- @tparam boolean checked whether the bytes must be of that type
-- @treturn[1] string media type
-- @treturn[2] nil
-- @treturn[2] table error fields: nothing may be sent
function source.type_of(from, declared, checked)
  local body = from.body
  if declared and not source.is_accepted(declared) then
    return nil, { kind = "unsupported_type" }
  end
  local content_type = declared or body:type() or ""
  if content_type == "" or (checked and not body:is_type(content_type)) then
    local reason = checked and body:size() == 0 and "empty" or "signature"
    return nil, { kind = "unsupported_type", reason = reason }
  end
  return content_type
end

-- Sources that must be pushed have
--   fill(deadline) moves what is there into the body: "more" where the body is full,
--             "end", or nil and the error that ends the upload
--   replay()  whether it can be sent from its start once more, which it then is

local function from_path(path)
  local body, err = core.body_from_path(path)
  if not body then return { err = err } end
  return { body = body, name = path:match("[^/]+$"), replays = true }
end

local function from_bytes(bytes)
  local body, err = core.body_from_bytes(bytes)
  if not body then return { err = err } end
  return { body = body, replays = true }
end

-- Bytes from a handle's position to its end, or nil where that is not known.
local function handle_rest(handle)
  local position = handle:seek("cur")
  local last = position and handle:seek("end")
  if not last then return nil end
  if not handle:seek("set", position) then return nil end
  -- a device, a directory or a file of /proc has no size that could be believed
  return last > position and last < 2^53 and last - position or nil, position
end

local function from_handle(handle, size, most)
  local rest, position = handle_rest(handle)
  local self = { replays = position ~= nil }
  local ended
  local function begin()
    self.body, ended = core.body_pushed(size or rest or -1, most), false
    self.body:watch(handle)
  end
  begin()
  function self.fill()
    if ended then return "end" end
    while true do
      if io.type(handle) ~= "file" then
        return nil, { kind = "io", reason = "closed" }
      end
      local count, err = self.body:write_from(handle)
      if err then return nil, err end
      if not count then return "more" end
      if count == 0 then
        ended = true
        self.body:finish()
        return "end"
      end
    end
  end
  function self.replay()
    if not position or io.type(handle) ~= "file" or not handle:seek("set", position) then
      return self.body:can_rewind()
    end
    begin()
    return true
  end
  return self
end

-- Bytes that pass through Lua before the collector is asked for a step: left to
-- itself it waits until the heap has doubled.
local STEP = 262144

local function from_function(pull, size, most, takes_deadline)
  local self = { body = core.body_pushed(size or -1, most), replays = false }
  local chunk, position = "", 1
  local passed = 0
  local ended = false -- a source is not asked again after its end
  local function next_chunk(deadline)
    local value, why
    if takes_deadline then value, why = pull(deadline) else value, why = pull() end
    if value == nil then
      if why == nil then return nil end
      if takes_deadline or errors.is(why) then return nil, why end -- ours, or a stream's
      return nil, { kind = "io", reason = "source" }
    elseif type(value) ~= "string" then
      return nil, { kind = "io", reason = "source" }
    end
    return value
  end
  function self.fill(deadline)
    if ended then return "end" end
    while true do
      if position > #chunk then
        local value, err = next_chunk(deadline)
        if err then return nil, err end
        if not value then
          ended = true
          self.body:finish()
          return "end"
        end
        chunk, position = value, 1
        passed = passed + #value
        if passed >= STEP then -- chunks are garbage at once, and 25 MB of it
          collectgarbage("step", 200)
          passed = 0
        end
      end
      local stopped
      position, stopped = self.body:write(chunk, position)
      if stopped ~= nil then return "more" end
    end
  end
  function self.replay()
    return self.body:can_rewind()
  end
  return self
end

--- Look at a source.
-- @param value what the script gave
-- @tparam ?integer size how many bytes it will give, where that is known
-- @tparam integer most how many bytes may be sent: it is read no further
-- @return a table with `body`, `replays` and, by kind, `name`, `fill`, `replay`;
--   with `err` where it cannot be read; or nil and what is wrong with the argument
function source.open(value, size, most)
  local kind = type(value)
  if kind == "string" then
    local problem = check.nonempty(value)
    if problem then return nil, problem end
    return from_path(value)
  elseif kind == "function" then
    return from_function(value, size, most)
  elseif io.type(value) == "file" then
    return from_handle(value, size, most)
  elseif io.type(value) == "closed file" then
    return nil, "closed file"
  end
  local stream = core.state(value, "nymbl.stream")
  if stream then
    if stream[0] then return nil, "closed stream" end
    -- the bytes that nobody has read yet
    local left = stream[2].size and stream[2].size - stream[9]
    return from_function(function(deadline) return stream_next(stream, deadline) end, size or left, most, true)
  elseif kind == "table" then
    if type(value.data) == "string" then return from_bytes(value.data) end
    if value.data ~= nil then return nil, "field 'data': " .. check.expected("string", value.data) end
    local meta = getmetatable(value)
    if meta and meta.__call then return from_function(value, size, most) end
  end
  return nil, check.expected("path, file, { data = }, source or stream", value)
end

return source
