-- SPDX-License-Identifier: MIT
-- Targets of downloads: a path, a file handle or an LTN12 sink.

local call = require "nymbl.call"
local check = require "nymbl.check"
local errors = require "nymbl.errors"

local target = {}

-- Call the progress function. If it returns false, cancel the transfer and return error
-- fields.
local function report(progress, transfer)
  local status, length = transfer:response()
  local received, resumed_from = transfer:bytes_received(), transfer:resumed_from()
  if progress(resumed_from + received, status and length or nil) == false then
    transfer:cancel("canceled", "progress")
    return { kind = "canceled", reason = "progress" }
  end
end

-- The results of a successful download: true, the number of bytes and the content type.
local function results(transfer)
  local _, _, content_type = transfer:response()
  local received, resumed_from = transfer:bytes_received(), transfer:resumed_from()
  return true, resumed_from + received, content_type
end

-- A path as the target. The core writes the file; Lua only waits and reports progress.
local function path_receiver(progress)
  return function(transfer, deadline)
    local reported = -1
    while true do
      local done, err = transfer:result()
      if done == nil then return nil, err end
      if done then return results(transfer) end
      local received = transfer:bytes_received()
      if progress and received ~= reported and transfer:response() then
        reported = received
        report(progress, transfer) -- after a cancellation, result() returns the error
        transfer:confirm(received) -- the core renames the file once all bytes are confirmed
      end
      call.wait_for(transfer, deadline)
    end
  end
end

-- A file handle as the target. Between waits, transfer:read_to() copies the received bytes to
-- the FILE, in C.
local function open_handle(handle)
  local self = {}
  local position = handle:seek("cur")
  local longest = 0 -- bytes that the longest attempt has written
  function self.rewind() -- the next attempt overwrites the bytes of this one
    return longest == 0 or (position ~= nil and io.type(handle) == "file" and handle:seek("set", position) ~= nil)
  end
  function self.receiver(progress)
    return function(transfer, deadline)
      local written = 0
      while true do
        local more, err = transfer:read_to(handle)
        if err then
          if err.kind == "io" then transfer:cancel("io", "sink") end
          return nil, err
        elseif more == nil then
          -- behind a shorter document, bytes of another version remain
          if written < longest then return nil, { kind = "corrupt", reason = "changed" } end
          return results(transfer)
        elseif more == false then
          call.wait_for(transfer, deadline)
        else
          written = written + more
          longest = math.max(longest, written)
          -- the error is returned here, because a cancellation has no effect after the last byte
          err = progress and report(progress, transfer)
          if err then return nil, err end
        end
      end
    end
  end
  return self
end

-- An LTN12 sink as the target. The sink is called with each chunk; then with nil, and also with
-- the error if the download failed.
local function open_sink(sink)
  local self = {}
  local was_called = false
  function self.rewind() return not was_called end -- a sink cannot undo a chunk
  function self.report_failure(err) sink(nil, err) end
  function self.receiver(progress)
    return function(transfer, deadline)
      while true do
        local chunk, err = transfer:read()
        if err then return nil, err end
        if chunk == false then
          call.wait_for(transfer, deadline)
        else
          was_called = true
          local accepted, sink_err = sink(chunk)
          if not accepted and (chunk or sink_err) then
            transfer:cancel("io", "sink")
            if errors.is(sink_err) then return nil, { user_error = sink_err } end
            return nil, { kind = "io", reason = "sink" }
          end
          if not chunk then return results(transfer) end
          err = progress and report(progress, transfer)
          if err then return nil, err end
        end
      end
    end
  end
  return self
end

-- A target is a table with
--   receiver(progress)   returns the function for `call.perform` that receives the document
--   path                 the path, if the target is one
--   directory            the descriptor of the directory, if the path is a name in it
--   rewind()             prepares a handle or a sink for another attempt. Returns false if the
--                        target already has bytes that cannot be overwritten
--   report_failure(err)  reports to a sink that the download failed

-- A file in a directory, given by its descriptor, as the target.
function target.in_directory(directory, name)
  return { path = name, directory = directory, receiver = path_receiver }
end

-- Open a target.
-- @param value the argument of the script
-- @treturn[1] table the target
-- @treturn[2] nil the argument is wrong
-- @treturn[2] string the problem
function target.open(value)
  local kind = type(value)
  if kind == "string" then
    local problem = check.nonempty(value)
    if problem then return nil, problem end
    return { path = value, receiver = path_receiver }
  elseif kind == "function" then
    return open_sink(value)
  elseif io.type(value) == "file" then
    return open_handle(value)
  elseif io.type(value) == "closed file" then
    return nil, "closed file"
  elseif kind == "table" and getmetatable(value) and getmetatable(value).__call then
    return open_sink(value)
  end
  return nil, check.expected("path, file or sink", value)
end

return target
