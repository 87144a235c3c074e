-- SPDX-License-Identifier: MIT
-- Sources of uploads: a path, a file handle, bytes, an LTN12 source, a stream or a document.

local core = require "nymbl.core"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local media_type = require "nymbl.media_type"
local stream_next = require "nymbl.stream".next_chunk

local source = {}

local STREAM = "nymbl.stream"

-- Determine the media type as which a source is sent: the declared one, or else that of its
-- first bytes.
-- @tparam table opened the source, as `open` returns it
-- @tparam ?string declared the type by option or file name
-- @tparam boolean must_match whether the first bytes must be of the declared type
-- @treturn[1] string media type
-- @treturn[2] nil the source must not be sent
-- @treturn[2] table error fields
function source.determine_type(opened, declared, must_match)
  local body = opened.body
  if declared and not media_type.is_accepted(declared) then
    return nil, { kind = "unsupported_type" }
  end
  local content_type = declared or body:type() or ""
  if content_type == "" or (must_match and not body:is_type(content_type)) then
    local reason = must_match and body:size() == 0 and "empty" or "signature"
    return nil, { kind = "unsupported_type", reason = reason }
  end
  return content_type
end

-- A source is a table with
--   body             the core's request body
--   is_rewindable    whether the source can be sent again from its first byte
--   name             the file name, if the source is a path or a document
--   content_type, document_type, description
--                    if the source is a document that has them
--   err              error fields, if the source cannot be opened; it has no other field then
-- The core itself reads paths and bytes. The others are read by this module while the transfer
-- runs, so their sources also have
--   fill(deadline)   copies bytes into the body. Returns "more" when the body is full, "end"
--                    at the end of the source, or nil and the error that ends the upload
--   rewind()         prepares the source for being sent again from its first byte. Returns
--                    false if that is impossible
--   prepare(deadline)  is called by upload.lua instead of `fill` before each attempt, if it is set
--   stream           the stream from which a document is read, once it is open

local function from_path(path)
  local body, err = core.body_from_path(path)
  if not body then return { err = err } end
  return { body = body, name = path:match("[^/]+$"), is_rewindable = true }
end

local function from_bytes(bytes)
  local body, err = core.body_from_bytes(bytes)
  if not body then return { err = err } end
  return { body = body, is_rewindable = true }
end

-- Returns the number of bytes from a handle's position to its end, or nil if that is unknown;
-- and the position, or nil if the handle cannot seek.
local function remaining_bytes(handle)
  local position = handle:seek("cur")
  local last = position and handle:seek("end")
  if not last then return nil end
  if not handle:seek("set", position) then return nil end
  -- devices, directories and files of /proc report false sizes
  return last > position and last < 2^53 and last - position or nil, position
end

local function from_handle(handle, size, max_bytes)
  local remaining, position = remaining_bytes(handle)
  local self = { is_rewindable = position ~= nil }
  local ended
  local function new_body()
    self.body, ended = core.body_stream { size = size or remaining, limit = max_bytes }, false
    self.body:watch(handle)
  end
  new_body()
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
  function self.rewind()
    if not position or io.type(handle) ~= "file" or not handle:seek("set", position) then
      return self.body:can_rewind()
    end
    new_body()
    return true
  end
  return self
end

-- After so many bytes of chunks, the garbage collector makes a step. On its own, it waits until
-- the heap has doubled, while up to 25 MB of chunks become garbage.
local GC_INTERVAL = 262144

-- `pull` is an LTN12 source. With `is_stream` it reads a stream, until the deadline that is its
-- argument. `reopen`, if given, makes `pull` begin again.
local function from_function(pull, size, max_bytes, is_stream, reopen)
  local self = { is_rewindable = false }
  local chunk, position, ended -- `ended`: an LTN12 source must not be called after its end
  local bytes_since_gc = 0
  function self.set_size(bytes)
    if self.body then self.body:close() end
    self.body = core.body_stream { size = bytes, limit = max_bytes }
  end
  local function begin()
    self.set_size(size)
    chunk, position, ended = "", 1, false
  end
  begin()
  local function next_chunk(deadline)
    local value, err
    if is_stream then value, err = pull(deadline) else value, err = pull() end
    if value == nil then
      if err == nil then return nil end
      if errors.is(err) then return nil, { user_error = err } end
      if is_stream then return nil, err end
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
        bytes_since_gc = bytes_since_gc + #value
        if bytes_since_gc >= GC_INTERVAL then
          collectgarbage("step", 200)
          bytes_since_gc = 0
        end
      end
      local stopped
      position, stopped = self.body:write(chunk, position)
      if stopped ~= nil then return "more" end
    end
  end
  function self.rewind()
    if self.body:can_rewind() then return true end
    if not reopen then return false end
    reopen()
    begin()
    return true
  end
  return self
end

-- Open a document as a source. Its content is requested when the source is read, and once more if
-- the upload must be repeated. So the source can be rewound, but that is expensive.
-- @tparam ?integer size bytes of the document, if known
-- @tparam integer max_bytes the largest upload
-- @tparam function open returns a stream, or nil and the error; its argument is a deadline
function source.from_document(size, max_bytes, open)
  local self
  local function pull(deadline)
    if not self.stream then
      local stream, err = open(deadline)
      if not stream then return nil, err end
      self.stream = stream
      if not size and stream.size then self.set_size(stream.size) end
    end
    return stream_next(core.state(self.stream, STREAM), deadline)
  end
  local function reopen()
    if self.stream then self.stream:close() end
    self.stream = nil
  end
  self = from_function(pull, size, max_bytes, true, reopen)
  return self
end

-- Close a source. The script's own handle or stream stays open.
function source.close(opened)
  opened.body:close()
  if opened.stream then opened.stream:close() end
end

-- Open a source.
-- @param value the argument of the script
-- @tparam ?integer size the number of bytes that the source will produce, if known
-- @tparam integer max_bytes the largest upload; handles and functions are not read beyond it
-- @treturn[1] table the source, as described above
-- @treturn[2] nil the argument is wrong
-- @treturn[2] string the problem
function source.open(value, size, max_bytes)
  local kind = type(value)
  if kind == "string" then
    local problem = check.nonempty(value)
    if problem then return nil, problem end
    return from_path(value)
  elseif kind == "function" then
    return from_function(value, size, max_bytes)
  elseif io.type(value) == "file" then
    return from_handle(value, size, max_bytes)
  elseif io.type(value) == "closed file" then
    return nil, "closed file"
  end
  local stream = core.state(value, STREAM)
  if stream then
    if stream.closed then return nil, "closed stream" end
    local unread = stream[core.FIELDS].size and stream[core.FIELDS].size - stream.bytes_read
    return from_function(function(deadline) return stream_next(stream, deadline) end, size or unread, max_bytes, true)
  elseif kind == "table" then
    if type(value.data) == "string" then return from_bytes(value.data) end
    if value.data ~= nil then return nil, "field 'data': " .. check.expected("string", value.data) end
    local meta = getmetatable(value)
    if meta and meta.__call then return from_function(value, size, max_bytes) end
  end
  return nil, check.expected("path, file, { data = }, source, stream or document", value)
end

return source
