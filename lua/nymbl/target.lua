-- SPDX-License-Identifier: MIT
-- Where a download goes: a path, a file handle or an LTN12 sink.

local call = require "nymbl.call"
local check = require "nymbl.check"
local errors = require "nymbl.errors"

local target = {}

-- Tell how far it is; false from the function ends the transfer. Gives what is
-- then known of the failure.
local function report(progress, transfer)
  local status, length = transfer:head()
  local _, _, received, before = transfer:counts()
  if progress(before + received, status and length or nil) == false then
    transfer:cancel("canceled", "progress")
    return { kind = "canceled", reason = "progress" }
  end
end

-- What a download that went well gives.
local function finished(transfer)
  local _, _, content_type = transfer:head()
  local _, _, received, before = transfer:counts()
  return true, before + received, content_type
end

-- Into a path: the core does it all.
local function to_path(progress)
  return function(transfer, deadline)
    local told = -1
    while true do
      local done, err = transfer:result()
      if done == nil then return nil, err end
      if done then return finished(transfer) end
      local _, _, received = transfer:counts()
      if progress and received ~= told and transfer:head() then
        told = received
        report(progress, transfer)
        transfer:confirm(received) -- the file gets its name after the last
      end
      call.wait_for(transfer, deadline)
    end
  end
end

-- Into a handle: C copies between window and FILE, between waits.
local function to_handle(handle, self)
  local position = handle:seek("cur")
  local wrote = false
  -- for another attempt: over what this one has written
  function self.replay()
    return not wrote or (position ~= nil and io.type(handle) == "file" and handle:seek("set", position) ~= nil)
  end
  return function(progress)
    return function(transfer, deadline)
      while true do
        local more, err = transfer:read_to(handle)
        if err then
          if err.kind == "io" then transfer:cancel("io", "sink") end
          return nil, err
        elseif more == nil then
          return finished(transfer)
        elseif more == false then
          call.wait_for(transfer, deadline)
        else
          wrote = true
          -- its last bytes may have come already
          err = progress and report(progress, transfer)
          if err then return nil, err end
        end
      end
    end
  end
end

-- Into an LTN12 sink: called with each chunk, then with nil; with nil and the
-- error where the download failed.
local function to_sink(sink, self)
  local given = false
  function self.replay() return not given end -- a sink cannot take back
  function self.failed(err) sink(nil, err) end
  return function(progress)
    return function(transfer, deadline)
      while true do
        local chunk, err = transfer:read()
        if err then return nil, err end
        if chunk == false then
          call.wait_for(transfer, deadline)
        else
          given = true
          local taken, why = sink(chunk)
          if not taken and (chunk or why) then
            transfer:cancel("io", "sink")
            if errors.is(why) then return nil, why end
            return nil, { kind = "io", reason = "sink" }
          end
          if not chunk then return finished(transfer) end
          err = progress and report(progress, transfer)
          if err then return nil, err end
        end
      end
    end
  end
end

--- Look at a target.
-- @return a table of `drive` (a function of the progress function) and, by kind,
--   `path`, `failed` or `replay`; or nil and what is wrong with the argument
function target.open(value)
  local kind = type(value)
  if kind == "string" then
    local problem = check.nonempty(value)
    if problem then return nil, problem end
    return { path = value, drive = to_path }
  elseif kind == "function" then
    local self = {}
    self.drive = to_sink(value, self)
    return self
  elseif io.type(value) == "file" then
    local self = {}
    self.drive = to_handle(value, self)
    return self
  elseif io.type(value) == "closed file" then
    return nil, "closed file"
  elseif kind == "table" and getmetatable(value) and getmetatable(value).__call then
    local self = {}
    self.drive = to_sink(value, self)
    return self
  end
  return nil, check.expected("path, file or sink", value)
end

return target
