-- SPDX-License-Identifier: MIT
-- The journal of upload_all: whatever its lines are, what is written after them is read again, and
-- an incomplete line has no effect. The input is the file.
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local journal = require "nymbl.upload_all.journal"
local json = require "nymbl.json"

local SERVICE = "s"
local FILE = { patient_id = "p", file_name = "a.pdf", path = "/a.pdf", size = 9, sha256 = ("0"):rep(64), version = "v" }

local path = os.tmpname()
local guard = setmetatable({}, { __gc = function() os.remove(path) end })

local function read_file()
  local file = assert(io.open(path, "rb"))
  local content = file:read "*a"
  file:close()
  return content
end

local function write_file(content)
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
end

-- Run a function with the journal. Returns what it returned, or nil and the error.
local function with_journal(fn)
  local opened, err = journal.open(path, SERVICE)
  if not opened then return nil, err end
  local result = fn(opened)
  opened:close()
  return result
end

local function done_count() return assert(with_journal(function(it) return it:count_done(FILE) end)) end
local function pending_count() return assert(with_journal(function(it) return #it:pending_of "p" end)) end

-- No run has written numbers that cannot be counted up.
local function is_countable(content)
  for line in content:gmatch "[^\n]+" do
    local record = json.decode(line)
    local attempt = record and record.attempt
    if type(attempt) == "number" and not (attempt >= 0 and attempt < 2^52 and attempt % 1 == 0) then return false end
  end
  return true
end

local function try(content)
  if not is_countable(content) then return nil end
  write_file(content)
  local before, err = with_journal(function(it) return it:count_done(FILE) end)
  if not before then
    assert(errors.is(err) and err.reason == "other_service", tostring(err))
    assert(read_file() == content, "a journal of another service was changed")
    return "refused"
  end
  local pending = pending_count()
  local whole = content:match "^.*\n" or ""
  local attempt = with_journal(function(it)
    local number = assert(it:begin(FILE, { known = {} }))
    for _, other in ipairs(it.pending) do
      assert(other.attempt ~= number or other.sha256 == FILE.sha256, "a number that was used")
    end
    return number
  end)
  assert(read_file():sub(1, #whole) == whole, "lines were changed")
  assert(pending_count() == pending + 1, "an upload that was begun is not pending")
  local begun = read_file()
  with_journal(function(it) return assert(it:set_done(attempt, FILE, "d")) and assert(it:flush()) end)
  local all = read_file()
  assert(all:sub(1, #begun) == begun, "lines were changed")
  assert(done_count() == before + 1 and pending_count() == pending, "not done")
  local found = with_journal(function(it) return assert(it:find(FILE)) end)
  assert(found.sha256 == FILE.sha256 and found.version == FILE.version, "another line")
  for _, cut in ipairs { 1, 2, math.floor((#all - #begun) / 2) } do -- a kill, or a power cut
    write_file(all:sub(1, -1 - cut))
    assert(done_count() == before and pending_count() == pending + 1, "an incomplete line counts")
  end
  assert(core.object_count() == 0 and guard, "objects are alive")
  return before > 0 and "with documents" or pending > 0 and "with pending uploads" or "accepted"
end

return { try = try, reached = { "accepted", "with documents", "with pending uploads", "refused" } }
