-- SPDX-License-Identifier: MIT

--- A stream: a document's content as it arrives, readable like a file. Made by
-- @{document:open}.
--
-- A transfer that breaks off is always an error: the bytes before it are not the whole
-- document. A stream closes at the end of a scope in Lua 5.4 (`local stream <close>`), and
-- when it is collected.
-- @classmod stream

--- Fields, read-only.
-- @table fields
-- @tfield ?integer size bytes of the document, or of the range; if the response or the metadata
--   states them
-- @tfield ?string content_type media type of the response
-- @tfield ?string etag the document's entity-tag, if it is a strong one
-- @tfield ?string last_modified when the document was changed, as an HTTP-date

local core = require "nymbl.core"
local call = require "nymbl.call"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local events = require "nymbl.events"
local wait = require "nymbl.wait"

local FIELDS = core.FIELDS

local CLASS = "nymbl.stream"
local methods, metamethods = core.class(CLASS)

-- The state of a stream (see lua/object.h):
--   transfer    nil once the stream is closed
--   chunk       bytes that were received but not all read yet
--   position    of the first unread byte in `chunk`
--   at_end      true once the end of the content is verified
--   failure     the error that ended the stream, or false
--   progress    the progress function, or false
--   received    bytes that were received
--   bytes_read  bytes that reads have returned
--   pending     the event of the request (events.lua), or nil
--   attempts    requests sent to open the stream

local stream = {}

-- Wait until the response begins: the `run` function for `call.perform`. Returns true and the
-- transfer; or nil and error fields.
function stream.wait_for_response(transfer, deadline)
  while true do
    local status, err = transfer:response()
    if status then return true, transfer end
    if status == nil then return nil, err end
    call.wait_for(transfer, deadline)
  end
end

-- Create a stream from a transfer whose response has begun.
-- @tparam ?table pending the event of its request (events.lua)
function stream.new(env, transfer, attempts, size, progress, pending)
  local _, length, content_type, etag, last_modified = transfer:response()
  return core.object(metamethods, {
    { size = length or size, content_type = content_type, etag = etag, last_modified = last_modified },
    env = env, transfer = transfer, chunk = "", position = 1, at_end = false, failure = false,
    progress = progress or false, received = 0, bytes_read = 0, attempts = attempts,
    pending = pending,
  })
end

local function close(state)
  local transfer, pending = state.transfer, state.pending
  state.closed = true -- first: a hook may raise at any point, and then another close completes this one
  state.transfer, state.pending, state.chunk = nil, nil, ""
  if not transfer then return end
  local ran, raised = true, nil
  if pending then ran, raised = pcall(events.abandon, pending, state.failure or nil) end
  wait.close(transfer)
  if not ran then error(raised, 0) end
end

local function canceled(state, reason)
  return errors.new {
    kind = "canceled", reason = reason, attempts = state.attempts, operation = "download",
    request_id = state.transfer and state.transfer:request_id(),
  }
end

-- Receive a chunk, unless the current one has unread bytes. Returns true; false at the end; or
-- nil and the error.
local function fill(state, deadline)
  if state.position <= #state.chunk then return true end
  if state.failure then return nil, state.failure end
  local transfer = state.transfer
  while not state.at_end do
    local chunk, err = transfer:read()
    if chunk then
      state.chunk, state.position = chunk, 1
      state.received = state.received + #chunk
      if state.progress then
        if state.progress(state.received, state[FIELDS].size) == false then
          transfer:cancel("canceled", "progress")
          state.chunk = ""
          state.failure = canceled(state, "progress")
          return nil, state.failure
        end
        if state.closed then return nil, canceled(state, "closed") end -- by the progress function
      end
      return true
    elseif chunk == false then
      local is_ready, wait_err = wait.wait(transfer, deadline)
      if state.closed then -- another coroutine has closed the stream meanwhile
        return nil, canceled(state, "closed")
      end
      if wait_err then return nil, errors.new(wait_err, "download") end
      if not is_ready then return nil, { kind = "timeout", reason = "deadline" } end
    elseif err then
      err.attempts, err.request_id = state.attempts, transfer:request_id()
      state.failure = errors.new(err, "download")
      events.finish(state.pending, state.failure)
      return nil, state.failure
    else
      state.at_end = true
      events.finish(state.pending)
    end
  end
  return false
end

-- Consume the current chunk up to position `last`, by default to its end. Returns the bytes.
local function take(state, last)
  local piece = state.chunk:sub(state.position, last)
  state.position = state.position + #piece
  state.bytes_read = state.bytes_read + #piece
  return piece
end

-- Make a read fail: returns nil and the error. If the stream itself has not failed (the read
-- was only not allowed to wait), first put back the bytes that this read has taken.
local function fail_read(state, pieces, err)
  if pieces and not state.failure and not state.closed then
    local text = table.concat(pieces)
    state.chunk, state.position, state.bytes_read = text, 1, state.bytes_read - #text
  end
  return nil, err
end

local function read_all(state)
  local pieces = {}
  while true do
    local more, err = fill(state)
    if more == nil then return fail_read(state, pieces, err) end
    if not more then return table.concat(pieces) end
    pieces[#pieces + 1] = take(state)
  end
end

local function read_line(state, keep_newline)
  local pieces
  while true do
    local more, err = fill(state)
    if more == nil then return fail_read(state, pieces, err) end
    if not more then return pieces and table.concat(pieces) or nil end
    local last = state.chunk:find("\n", state.position, true)
    local piece = take(state, last)
    if last and not keep_newline then piece = piece:sub(1, -2) end
    if last and not pieces then return piece end
    pieces = pieces or {}
    pieces[#pieces + 1] = piece
    if last then return table.concat(pieces) end
  end
end

local function read_bytes(state, count)
  local pieces, left = nil, count
  repeat
    local more, err = fill(state)
    if more == nil then return fail_read(state, pieces, err) end
    if not more then return pieces and table.concat(pieces) or nil end
    if left == 0 then return "" end
    local piece = take(state, math.min(state.position + left - 1, #state.chunk)) -- LuaJIT's sub() takes 32 bits
    left = left - #piece
    if left == 0 and not pieces then return piece end
    pieces = pieces or {}
    pieces[#pieces + 1] = piece
  until left == 0
  return table.concat(pieces)
end

-- The reader for a format of `io`, with or without "*", or nil if the format is invalid.
local function reader(format)
  if type(format) == "number" then
    if format % 1 ~= 0 or format < 0 or format > 2^53 then return nil end
    return function(state) return read_bytes(state, format) end
  elseif type(format) ~= "string" then
    return nil
  end
  local letter = format:match("^%*?([lLa])")
  if letter == "l" then return function(state) return read_line(state, false) end end
  if letter == "L" then return function(state) return read_line(state, true) end end
  if letter == "a" then return read_all end
end

local DEFAULT_READERS = { reader "l" }

-- Returns an array of readers for formats, and their number. `name` is that of the method.
local function readers(name, ...)
  local count = select("#", ...)
  if count == 0 then return DEFAULT_READERS, 1 end
  local list = {}
  for i = 1, count do
    list[i] = reader((select(i, ...)))
    if not list[i] then check.raise_argument(i, name, "invalid format") end
  end
  return list, count
end

-- The failure of a stream after an error was raised within a read (out of memory, or by the
-- progress function). The bytes that the read has taken are lost. So later reads fail, too:
-- the rest must not look like the whole document.
local INTERRUPTED = errors.new { kind = "canceled", reason = "raised", operation = "download" }

-- Return the results of a read that was called by pcall, or raise its error again.
local function finish_read(state, ran, ...)
  if ran then return ... end
  state.chunk, state.failure = "", state.failure or INTERRUPTED
  error((...), 0)
end

-- Call the readers in order, up to the first that returns nil. Returns their results, and the
-- error after a nil if the transfer failed.
local function read_all_formats(state, list, i, count)
  local value, err = list[i](state)
  if value == nil then
    if err then return nil, err end
    return nil
  end
  if i == count then return value end
  return value, read_all_formats(state, list, i + 1, count)
end

--- Read, in the formats of `io`. Waits for bytes.
-- @function read
-- @param ... formats: `"l"` a line (the default), `"L"` a line with its end, `"a"` the rest, or a
--   number of bytes
-- @return[1] a result for each format; at the end nil, or an empty string for `"a"`
-- @treturn[2] nil the transfer failed: the bytes read so far are not the whole document
-- @treturn[2] table the error
-- @raise on an invalid format or a closed stream; and what `progress` raised
-- @usage
-- local total = 0
-- while true do
--   local chunk, err = stream:read(65536)
--   if err then error(err) end
--   if not chunk then break end
--   total = total + #chunk
-- end
-- print(total)
function methods.read(self, ...)
  local state = check.object(self, CLASS, "read")
  local list, count = readers("read", ...)
  return finish_read(state, pcall(read_all_formats, state, list, 1, count))
end

--- Iterate over lines, or over the results of other formats.
-- @function lines
-- @param ... formats as for @{stream:read}
-- @treturn function an iterator. It waits for bytes, and raises the error if the transfer fails
-- @raise on an invalid format or a closed stream
-- @usage
-- local count = 0
-- for line in stream:lines() do
--   count = count + 1
-- end
-- print(count)
function methods.lines(self, ...)
  check.object(self, CLASS, "lines")
  local list, count = readers("lines", ...)
  local function step(first, ...)
    if first == nil and (...) ~= nil then error((...), 0) end
    for i = 2, count do
      local value, err = select(i - 1, ...)
      if value == nil and err ~= nil then error(err, 0) end
    end
    return first, ...
  end
  return function()
    local state = check.object(self, CLASS, "lines")
    return step(finish_read(state, pcall(read_all_formats, state, list, 1, count)))
  end
end

--- Close the stream. If its transfer is still running, it is canceled. A second close does
-- nothing. Does not wait.
-- @function close
-- @treturn boolean true
-- @usage
-- stream:close()
function methods.close(self)
  local state = core.state(self, CLASS)
  if not state then check.object(self, CLASS, "close") end
  close(state)
  return true
end

local function read_chunk(state, deadline)
  local more, err = fill(state, deadline)
  if more then return take(state) end
  return nil, err
end

-- Read the next chunk of a stream that is uploaded, until a deadline.
function stream.next_chunk(state, deadline)
  if state.closed then return nil, { kind = "io", reason = "closed" } end
  return finish_read(state, pcall(read_chunk, state, deadline))
end

--- `stream()`: read the next chunk, as an LTN12 source. Waits for bytes.
-- @function __call
-- @treturn[1] string
-- @treturn[2] nil at the verified end
-- @treturn[3] nil the transfer failed
-- @treturn[3] table the error
-- @raise on a closed stream; and what `progress` raised
-- @usage
-- local total = 0
-- for chunk in stream do
--   total = total + #chunk
-- end
-- print(total)
function metamethods.__call(self)
  local state = check.object(self, CLASS, "stream")
  return finish_read(state, pcall(read_chunk, state))
end

function metamethods.__close(self)
  local state = core.state(self, CLASS)
  if not state then check.raise_argument(1, "close", check.expected(CLASS, self)) end
  close(state)
end

return stream
