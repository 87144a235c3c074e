-- SPDX-License-Identifier: MIT
-- A document's content as it arrives, to be read like a file.

local core = require "nymbl.core"
local call = require "nymbl.call"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local wait = require "nymbl.wait"

local CLASS = "nymbl.stream"
local methods, metamethods = core.class(CLASS)

-- State: 0 closed, 1 the client's environment, 2 fields, 3 the transfer, 4 a chunk
-- that is being read, 5 the position in it, 6 true at the verified end, 7 the error
-- that ended it, 8 the progress function, 9 bytes given out, 10 requests
-- that went out for it.

local stream = {}

--- A `drive` that ends when the reply has begun.
function stream.begin(transfer, deadline)
  while true do
    local status, err = transfer:head()
    if status then return true, transfer end
    if status == nil then return nil, err end
    call.wait_for(transfer, deadline)
  end
end

--- A stream over a transfer whose reply has begun.
function stream.new(env, transfer, attempts, size, progress)
  local _, length, content_type = transfer:head()
  return core.object(metamethods, {
    env, { size = length or size, content_type = content_type }, transfer, "", 1, false, false,
    progress or false, 0, attempts,
  })
end

local function close(state)
  local transfer = state[3]
  state[0], state[3], state[4] = true, nil, ""
  if transfer then wait.close(transfer) end
end

-- Have at least a byte in the chunk at hand. Gives true, or false at the end, or
-- nil and the error.
local function fill(state, deadline)
  if state[5] <= #state[4] then return true end
  if state[7] then return nil, state[7] end
  local transfer = state[3]
  while not state[6] do
    local chunk, err = transfer:read()
    if chunk then
      state[4], state[5] = chunk, 1
      if state[8] then
        local _, _, received = transfer:counts()
        if state[8](received, state[2].size) == false then
          transfer:cancel("canceled", "progress")
          state[4] = ""
          state[7] = errors.new { kind = "canceled", reason = "progress", attempts = state[10], operation = "download" }
          return nil, state[7]
        end
      end
      return true
    elseif chunk == false then
      local news, problem = wait.wait(transfer, deadline)
      if state[0] then -- by another coroutine, meanwhile
        return nil, errors.new { kind = "canceled", reason = "closed", attempts = state[10], operation = "download" }
      end
      if problem then return nil, errors.new(problem, "download") end
      if not news then return nil, { kind = "timeout", reason = "deadline" } end
    elseif err then
      err.attempts = state[10]
      state[7] = errors.new(err, "download")
      return nil, state[7]
    else
      state[6] = true
    end
  end
  return false
end

-- The rest of the chunk at hand, up to a position.
local function take(state, last)
  local piece = state[4]:sub(state[5], last)
  state[5] = state[5] + #piece
  state[9] = state[9] + #piece
  return piece
end

-- A read that may not wait here takes nothing: what it has read is there for the next one.
local function give_back(state, pieces, err)
  if pieces and not state[7] and not state[0] then
    local text = table.concat(pieces)
    state[4], state[5], state[9] = text, 1, state[9] - #text
  end
  return nil, err
end

local function read_all(state)
  local pieces = {}
  while true do
    local more, err = fill(state)
    if more == nil then return give_back(state, pieces, err) end
    if not more then return table.concat(pieces) end
    pieces[#pieces + 1] = take(state)
  end
end

local function read_line(state, keep)
  local pieces
  while true do
    local more, err = fill(state)
    if more == nil then return give_back(state, pieces, err) end
    if not more then return pieces and table.concat(pieces) or nil end
    local last = state[4]:find("\n", state[5], true)
    local piece = take(state, last)
    if last and not keep then piece = piece:sub(1, -2) end
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
    if more == nil then return give_back(state, pieces, err) end
    if not more then return pieces and table.concat(pieces) or nil end
    if left == 0 then return "" end
    local piece = take(state, math.min(state[5] + left - 1, #state[4])) -- LuaJIT's sub() takes 32 bits
    left = left - #piece
    if left == 0 and not pieces then return piece end
    pieces = pieces or {}
    pieces[#pieces + 1] = piece
  until left == 0
  return table.concat(pieces)
end

-- A reader for a format, or nil where it is none (`io`'s, with or without `*`).
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

local default = { reader "l" }

local function readers(name, ...)
  local count = select("#", ...)
  if count == 0 then return default, 1 end
  local list = {}
  for i = 1, count do
    list[i] = reader((select(i, ...)))
    if not list[i] then check.argument(i, name, "invalid format") end
  end
  return list, count
end

-- What a read ends with after one in which an error was raised (no memory, the progress
-- function): bytes that it had taken are lost, and the rest must not look like the whole.
local LOST = errors.new { kind = "canceled", reason = "raised", operation = "download" }

local function guarded(state, ran, ...)
  if ran then return ... end
  state[4], state[7] = "", state[7] or LOST
  error((...), 0)
end

-- Results of readers in order, up to the first that gives none; behind it, where
-- the transfer broke, the error.
local function results(state, list, i, count)
  local value, err = list[i](state)
  if value == nil then
    if err then return nil, err end
    return nil
  end
  if i == count then return value end
  return value, results(state, list, i + 1, count)
end

--- Read, in the formats of `io`: "l", "L", "a" or a count of bytes.
-- @param ... formats; a line where there is none
-- @return a result for each format: nil at the end (`"a"`: an empty string)
-- @treturn[2] nil the transfer broke: what was read is not the whole document
-- @treturn[2] table the error
-- @raise on an invalid format or a closed stream
function methods.read(self, ...)
  local state = check.object(self, CLASS, "read")
  local list, count = readers("read", ...)
  return guarded(state, pcall(results, state, list, 1, count))
end

--- Iterate over lines, or over whatever the formats say.
-- @param ... formats as for `read`
-- @treturn function an iterator; it raises the error if the transfer breaks
-- @raise on an invalid format or a closed stream
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
    return step(guarded(state, pcall(results, state, list, 1, count)))
  end
end

--- Close the stream. A transfer under way is ended. A second close is harmless.
-- @treturn boolean true
function methods.close(self)
  local state = core.state(self, CLASS)
  if not state then check.object(self, CLASS, "close") end
  close(state)
  return true
end

local function chunk_next(state, deadline)
  local more, err = fill(state, deadline)
  if more then return take(state) end
  return nil, err
end

--- The next chunk, for an upload of the stream with a deadline.
function stream.next(state, deadline)
  if state[0] then return nil, { kind = "io", reason = "closed" } end
  return guarded(state, pcall(chunk_next, state, deadline))
end

--- The next chunk, as an LTN12 source gives it.
-- @treturn[1] string
-- @treturn[2] nil at the verified end
-- @treturn[3] nil
-- @treturn[3] table the error
function metamethods.__call(self)
  local state = check.object(self, CLASS, "stream")
  return guarded(state, pcall(chunk_next, state))
end

function metamethods.__close(self)
  close(core.state(self, CLASS))
end

return stream
