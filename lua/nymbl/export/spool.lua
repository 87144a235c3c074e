-- SPDX-License-Identifier: MIT
-- A queue of tables that need not fit into memory: what is more than a block goes to a file without
-- a name. First all tables are added, then all are taken.

local errors = require "nymbl.errors"
local json = require "nymbl.json"

local NAME = ".nymbl-spool" -- of the file, for a moment

local BLOCK = 65536

-- State:
--   dir       descriptor of the directory for the file
--   file      its descriptor, once there is one
--   written   bytes in it
--   at        where the next line begins
--   lines     an array of the lines in memory, and their `size`
local spool = {}
spool.__index = spool

function spool.new(dir)
  return setmetatable({ dir = dir, file = nil, written = 0, at = 0, lines = {}, size = 0, next = 1 }, spool)
end

-- Remove a file that a killed process has left.
function spool.clean(dir)
  dir:unlink(NAME)
end

local function open_file(self)
  spool.clean(self.dir)
  local file, err = self.dir:open_file(NAME, "create")
  if not file then return nil, err end
  self.file = file
  return self.dir:unlink(NAME)
end

local function write(self)
  local ready, err = true, nil
  if not self.file then ready, err = open_file(self) end
  if not ready then return nil, errors.new(err) end
  local bytes = table.concat(self.lines)
  ready, err = self.file:write(bytes)
  if not ready then return nil, errors.new(err) end
  self.written, self.lines, self.size = self.written + #bytes, {}, 0
  return true
end

-- Add a table.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function spool:add(value)
  local line = assert(json.encode(value)) .. "\n"
  self.lines[#self.lines + 1], self.size = line, self.size + #line
  if self.size < BLOCK then return true end
  return write(self)
end

-- Read the next lines of the file into memory. What follows the last of them is read again.
local function read(self)
  local parts, length = {}, 0
  repeat
    local bytes, err = self.file:read(BLOCK, self.at + length)
    if not bytes then return nil, errors.new(err or { kind = "io", reason = "changed" }) end
    parts[#parts + 1], length = bytes, length + #bytes
  until bytes:find("\n", 1, true)
  local lines = {}
  for line in table.concat(parts):gmatch("([^\n]*\n)") do
    lines[#lines + 1], self.at = line, self.at + #line
  end
  return lines
end

-- Take the table that was added first.
-- @treturn[1] ?table nil if there are no more
-- @treturn[2] nil
-- @treturn[2] table the error
function spool:take()
  if self.file and not self.taken then
    -- the lines in memory are the last ones
    local written, err = write(self)
    if not written then return nil, err end
  end
  self.taken = true
  local line = self.lines[self.next]
  if not line and self.file and self.at < self.written then
    local lines, err = read(self)
    if not lines then return nil, err end
    self.lines, self.next = lines, 1
    line = lines[1]
  end
  if not line then return nil end
  self.lines[self.next], self.next = false, self.next + 1
  return json.decode(line)
end

function spool:close()
  if self.file then self.file:close() end
end

return spool
