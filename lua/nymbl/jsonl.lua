-- SPDX-License-Identifier: MIT
-- Files of JSON objects, one per line, that only grow. A kill or a power cut at any moment leaves
-- whole lines and at most one incomplete one: an object counts only if its line ends with a
-- newline, is complete JSON and has all its keys. Whatever else is in the file is ignored.
--
-- A file is opened below the descriptor of a directory (lua/descriptor.c), and not if it is a
-- link. It must be scanned once before anything is appended: an incomplete line at the end is then
-- cut off. All functions return nil and an error if they fail. Offsets and sizes are bytes.

local errors = require "nymbl.errors"
local job = require "nymbl.job"
local json = require "nymbl.json"
local wait = require "nymbl.wait"

local jsonl = {}

local BLOCK = 65536

-- A longer line is ignored. No line that is written is longer, because it has fields of a response
-- (8 MB at most), of which JSON makes 6 bytes of each byte at most.
local MAX_LINE = 64 * 1048576

-- After so many seconds of reading in one go, other coroutines run.
local SLICE = 1 / 200

-- How often a file is opened again that was replaced before it was locked.
local MAX_REPLACED = 100

local function fail(err)
  return nil, errors.new(err)
end

-- State:
--   dir, name   where the file is
--   file        its descriptor
--   keys        the keys that every line must have
--   is_locked   whether it is locked
--   size        bytes of whole lines, once the file was scanned
--   flushed     bytes that are certainly on the disk
--   is_dirty    whether the file may have more bytes than `size`
--   failure     the error of a flush: what is on the disk is not known any more
local log = {}
log.__index = log

function log.__tostring()
  return "nymbl.jsonl"
end

-- Open a file and lock it. The lock belongs to the file, not to its name, so the name must still
-- be the file's when it is locked.
local function open_locked(dir, name, mode)
  for _ = 1, MAX_REPLACED do
    local file, err = dir:open_file(name, mode)
    if not file then return nil, err end
    local locked
    locked, err = file:lock()
    if not locked then
      file:close()
      return nil, err or { kind = "io", reason = "in_use" }
    end
    local named, own = dir:stat(name), file:stat()
    if named and own and named.identity == own.identity then return file end
    file:close()
  end
  return nil, { kind = "io", reason = "in_use" }
end

-- Open a file. It is created, with mode 0600, unless `read_only` is set.
-- @param dir descriptor of its directory
-- @tparam string name
-- @tparam table options `keys`: an array of the keys that every line must have; `lock`: whether to
--   lock the file, which fails with reason "in_use" if another program (or another coroutine of
--   this one) holds the lock; `read_only`
-- @treturn[1] table the file
-- @treturn[2] nil
-- @treturn[2] table the error; reason "not_found" if it does not exist and is opened read-only
function jsonl.open(dir, name, options)
  local mode = options.read_only and "read" or "append"
  local file, err
  if options.lock then
    file, err = open_locked(dir, name, mode)
    if not file and err.reason == "in_use" then
      -- A coroutine of this process that was abandoned may hold the lock.
      collectgarbage()
      collectgarbage()
      file, err = open_locked(dir, name, mode)
    end
  else
    file, err = dir:open_file(name, mode)
  end
  if not file then return fail(err) end
  return setmetatable({
    dir = dir, name = name, file = file, keys = options.keys, is_locked = options.lock or false,
    size = false, flushed = 0, is_dirty = true, failure = false,
  }, log)
end

-- The object of a line, or nil if the line does not count.
local function parse(self, line)
  local record = line:sub(1, 1) == "{" and json.decode(line)
  if not record then return nil end
  for _, key in ipairs(self.keys) do
    if record[key] == nil then return nil end
  end
  return record
end

-- Calls `on_line(line, offset)` for every line that ends with a newline, without it. Returns the
-- offset behind the last one, and whether anything follows. Holds one line and one block at a time.
local function each_line(file, on_line)
  local at, line_at = 0, 0         -- of the next block and of the line that is incomplete
  local parts, length = {}, 0      -- of that line
  local began = wait.now()
  while true do
    local block, err = file:read(BLOCK, at)
    if err then return nil, err end
    if not block then return line_at, at > line_at end
    local from = 1
    while true do
      local newline = block:find("\n", from, true)
      if not newline then break end
      if length <= MAX_LINE then
        parts[#parts + 1] = block:sub(from, newline - 1)
        on_line(table.concat(parts), line_at)
      end
      parts, length, from = {}, 0, newline + 1
      line_at = at + newline
    end
    length = length + #block - from + 1
    if length <= MAX_LINE then parts[#parts + 1] = block:sub(from) else parts = {} end
    at = at + #block
    if wait.now() - began > SLICE then
      wait.wait(nil, wait.now() + 1 / 1000)
      began = wait.now()
    end
  end
end

-- Read all lines that count, in their order.
-- @tparam function on_record called as `on_record(record, offset, line)`; it must not wait
-- @treturn[1] integer how many lines do not count, an incomplete one included
-- @treturn[2] nil
-- @treturn[2] table the error
function log:scan(on_record)
  local ignored = 0
  local size, rest = each_line(self.file, function(line, offset)
    local record = parse(self, line)
    if record then on_record(record, offset, line) else ignored = ignored + 1 end
  end)
  if not size then return fail(rest) end
  self.size = size
  return rest and ignored + 1 or ignored
end

-- The beginning of what follows the last whole line, at most so many bytes; nil if nothing does.
function log:rest(max)
  return self.file:read(max, assert(self.size, "not scanned"))
end

-- Read the object whose line begins at an offset.
-- @treturn[1] ?table the object; nil if the line does not count
-- @treturn[1] nil
-- @treturn[1] integer the offset behind the line
-- @treturn[2] nil
-- @treturn[2] table the error
function log:read(offset)
  local text, at = "", offset
  while #text <= MAX_LINE do
    local block, err = self.file:read(at == offset and 1024 or BLOCK, at)
    if err then return fail(err) end
    if not block then return nil end
    local newline = block:find("\n", 1, true)
    text, at = text .. block:sub(1, newline and newline - 1), at + #block
    if newline then return parse(self, text), nil, offset + #text + 1 end
  end
  return nil
end

-- The line of an object, with its newline.
function jsonl.line(record)
  return assert(json.encode(record), "not representable in JSON") .. "\n"
end

-- Append an object. It is not on the disk before `flush` has returned.
-- @treturn[1] integer the offset of its line
-- @treturn[2] nil nothing was appended
-- @treturn[2] table the error
function log:append(record)
  local size = assert(self.size, "not scanned")
  if self.failure then return nil, self.failure end
  local line = jsonl.line(record)
  if self.is_dirty then
    local cut, err = self.file:truncate(size)
    if not cut then return fail(err) end
  end
  self.is_dirty = true
  local written, err = self.file:write(line)
  if not written then return fail(err) end
  self.is_dirty, self.size = false, size + #line
  return size
end

-- Wait until all that was appended is on the disk.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error; nothing can be appended any more
function log:flush()
  local size = self.size
  if self.failure then return nil, self.failure end
  if self.flushed >= size then return true end
  local flushed, err = job.sync(self.file)
  if not flushed then
    -- the kernel reports a lost block once, and a second flush would succeed without it
    if err.kind == "io" then self.failure = err end
    return nil, err
  end
  if self.flushed == 0 then -- the file may be new
    flushed, err = job.sync(self.dir)
    if not flushed then return nil, err end
  end
  self.flushed = math.max(self.flushed, size)
  return true
end

-- Replace the file: write another one, flush it, and rename it.
-- @tparam function write called as `write(emit)`. For every line, it calls `emit(line)`, with the
--   newline, which returns the line's offset. It returns true, or nil and an error
-- @treturn[1] boolean true
-- @treturn[2] nil the file is unchanged
-- @treturn[2] table the error
function log:replace(write)
  local dir, temporary = self.dir, ".nymbl-new-" .. self.name
  dir:unlink(temporary) -- of a process that was killed
  local file, err = dir:open_file(temporary, "create")
  if not file then return fail(err) end
  local size, parts, length, failure = 0, {}, 0, nil
  local function put()
    local written, problem = file:write(table.concat(parts))
    if not written then failure = failure or problem end
    parts, length = {}, 0
  end
  local function emit(line)
    local offset = size
    parts[#parts + 1] = line
    length, size = length + #line, size + #line
    if length >= BLOCK and not failure then put() end
    return offset
  end
  local done
  done, err = write(emit)
  if done then put() end
  if done and failure then done, err = fail(failure) end
  if done and self.is_locked then done, err = file:lock() end
  if done then done, err = job.sync(file) end
  if done then done, err = dir:rename(temporary, self.name) end
  if not done then
    dir:unlink(temporary)
    file:close()
    return fail(err)
  end
  self.file:close()
  self.file, self.size, self.flushed, self.is_dirty = file, size, size, false
  return job.sync(dir)
end

-- Close the file, and release its lock.
function log:close()
  self.file:close()
end

return jsonl
