-- SPDX-License-Identifier: MIT
-- The files of an export: whatever is in them, a run begins, or fails without a change. The records that
-- count are those of whole lines, the last one of each document; they are kept, and only a file that
-- is in the folder adds another one. The input is the manifest, and behind a line "----" the file of the
-- visits. "@" is the service.
local is_same = require "is_same"
local core = require "nymbl.core"
local job = require "nymbl.job"
local json = require "nymbl.json"
local manifest = require "nymbl.export.manifest"
local nymbl = require "nymbl"
local visits = require "nymbl.export.visits"

local NO_PATIENTS = { patients = {} } -- such a run sends no request
local NAMES = { ["manifest.jsonl"] = "file", [".nymbl-export"] = "file", p = "directory", q = "directory", l = "link" }
local PDF, OUTSIDE = "%PDF-1.4 a", "outside"
local NEW = {
  patient_id = "new", id = "new", path = "p/new.pdf", size = 1, sha256 = ("0"):rep(64), content_type = "a/b",
  document_type = core.null, file_name = "new.pdf", description = core.null, uploaded_at = core.null,
}

-- In memory, which is faster than a disk.
local unique = os.tmpname()
local where = os.getenv "TMPDIR" or (core.system.lstat "/dev/shm" and "/dev/shm" or "/tmp")
local base = where .. "/nymbl-fuzz-" .. unique:match "[^/]*$"
local folder = base .. "/folder"
local client, service
local guard = setmetatable({}, { __gc = function() os.execute(("rm -rf '%s' '%s'"):format(unique, base)) end })

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local content = file:read "*a"
  file:close()
  return content
end

local function write_file(path, content)
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
end

-- A folder with a document, and links that lead out of it.
local function set_up()
  for _, path in ipairs { base, folder, folder .. "/p", folder .. "/q" } do
    assert(core.system.make_directory(path))
  end
  write_file(folder .. "/p/a.pdf", PDF)
  write_file(base .. "/outside", OUTSIDE)
  assert(os.execute(("ln -s .. '%s/l'; ln -s ../../outside '%s/p/l.pdf'"):format(folder, folder)))
  client = assert(nymbl.client { base_url = "https://127.0.0.1:1", api_key = "k", token = "t" })
  assert(client:export(folder, NO_PATIENTS))
  service = read_file(folder .. "/.nymbl-export"):match '"service":"(%x+)"'
end

local function is_text_or_null(value) return type(value) == "string" or value == core.null end

local function key_of(record) return ("%d:%s:%s"):format(#record.patient_id, record.patient_id, record.id) end

-- What a manifest says: records by patient and document, and how many there are.
local function records_of(content)
  local records, count = {}, 0
  for line in content:gmatch "([^\n]*)\n" do
    local record = line:sub(1, 1) == "{" and json.decode(line)
    if record and type(record.patient_id) == "string" and type(record.id) == "string" and type(record.sha256) == "string"
      and type(record.size) == "number" and record.size >= 0 and record.size == math.floor(record.size)
      and record.size < 2^53 and is_text_or_null(record.content_type) and is_text_or_null(record.document_type)
      and is_text_or_null(record.file_name) and is_text_or_null(record.description)
      and is_text_or_null(record.uploaded_at) and type(record.path) == "string" then
      local parts = {}
      for part in (record.path .. "/"):gmatch "([^/]*)/" do parts[#parts + 1] = part end
      local is_inside = #parts == 2 and not record.path:find("\0", 1, true)
      for _, part in ipairs(parts) do is_inside = is_inside and part ~= "" and part ~= "." and part ~= ".." end
      if is_inside then
        local key = key_of(record)
        count = count + (records[key] and 0 or 1)
        records[key] = record
      end
    end
  end
  return records, count
end

-- The patients in the order of their last visits, apart from those without any.
local function visited_of(content)
  local last, ids, at = {}, {}, 0
  for line in content:gmatch "([^\n]*)\n" do
    local record = line:sub(1, 1) == "{" and json.decode(line)
    at = at + 1
    if record and record.ended ~= true and type(record.patient_id) == "string" and type(record.id) ~= "string" then
      if not last[record.patient_id] then ids[#ids + 1] = record.patient_id end
      last[record.patient_id] = at
    end
  end
  table.sort(ids, function(a, b) return last[a] < last[b] end)
  return ids
end

local function with_folder(fn)
  local dir = assert(core.system.open_directory(folder))
  local result = fn(dir)
  dir:close()
  return result
end

-- Require that a manifest has exactly these records.
local function check_manifest(records, count)
  with_folder(function(dir)
    local opened = assert(manifest.open(dir, true))
    local counted = 0
    for _, number in pairs(opened.counts) do counted = counted + number end
    assert(counted == count, "another number of records")
    for _, record in pairs(records) do
      assert(is_same(opened:find(record.patient_id, record.id), record), "another record")
    end
    assert(opened:find("none", "none") == nil, "a record of no line")
    opened:close()
  end)
end

-- Require that a run has ended, and that the patients have this order.
local function check_visits(ids)
  with_folder(function(dir)
    local opened = assert(visits.open(dir, service, true))
    assert(opened.is_clean, "a run has not ended")
    local reversed = {}
    for i, id in ipairs(ids) do reversed[#ids + 1 - i] = id end
    assert(is_same(opened:sort(reversed), ids), "another order")
    opened:close()
  end)
end

-- Nothing was created, changed or removed besides the two files.
local function check_folder()
  local count = 0
  for _, entry in ipairs(assert(job.read_directory(folder, 100))) do
    count = count + 1
    assert(NAMES[entry.name] == entry.kind, entry.name)
  end
  assert(count == 5 and #assert(job.read_directory(folder .. "/p", 100)) == 2, "a file more or less")
  assert(read_file(folder .. "/p/a.pdf") == PDF and read_file(base .. "/outside") == OUTSIDE, "a file has changed")
end

-- Require that the records are those of before, and those of files that are in the folder.
local function check_added(before, after)
  local added = 0
  for key in pairs(before) do assert(after[key], "a record was lost") end
  for key, record in pairs(after) do
    if not is_same(before[key], record) then
      assert(record.path == "p/a.pdf" and record.size == #PDF, "a record without a file")
      assert(record.sha256 == core.sha256(PDF), "another digest")
      added = added + 1
    end
  end
  return added
end

-- A record is appended, and is there as a whole or not at all if the file is cut off.
local function check_append()
  with_folder(function(dir)
    local opened = assert(manifest.open(dir))
    assert(opened:append(NEW) and opened:flush())
    opened:close()
  end)
  local all = read_file(folder .. "/manifest.jsonl")
  local extended, extended_count = records_of(all)
  assert(is_same(extended[key_of(NEW)], NEW), "not appended")
  check_manifest(extended, extended_count)
  local last = all:match "([^\n]*\n)$"
  local records, count = records_of(all:sub(1, -1 - #last))
  for cut = 1 + #all % 40, #last, 40 do -- a kill, or a power cut
    write_file(folder .. "/manifest.jsonl", all:sub(1, -1 - cut))
    check_manifest(records, count)
  end
end

local function try(input)
  if not client then set_up() end
  input = input:gsub("@", service)
  local first, last = input:find("----\n", 1, true)
  local content, visited = input:sub(1, (first or 0) - 1), first and input:sub(last + 1)
  write_file(folder .. "/manifest.jsonl", content)
  os.remove(folder .. "/.nymbl-export")
  if visited then write_file(folder .. "/.nymbl-export", visited) end
  local before, count = records_of(content)
  check_manifest(before, count)
  local report, err = client:export(folder, NO_PATIENTS)
  if not report then
    assert(err.kind == "io" and err.reason == "other_service", tostring(err))
    assert(read_file(folder .. "/.nymbl-export") == visited, "the file of another service was changed")
    assert(read_file(folder .. "/manifest.jsonl") == content, "the manifest of another service was changed")
    return "refused"
  end
  assert(report.complete and report.requests == 0, "not complete")
  check_folder()
  check_visits(visited_of(visited or ""))
  local all = read_file(folder .. "/manifest.jsonl")
  assert(all == "" or all:sub(-1) == "\n", "an incomplete line")
  local after, after_count = records_of(all)
  local added = check_added(before, after)
  check_manifest(after, after_count)
  assert(assert(client:export(folder, NO_PATIENTS)).complete, "the next run")
  assert(check_added(after, (records_of(read_file(folder .. "/manifest.jsonl")))) == 0, "the next run adds a record")
  check_visits(visited_of(visited or ""))
  check_append()
  assert(guard and core.object_count() == 1, "objects are alive") -- the client is
  return added > 0 and "recovered" or after_count > 0 and "with records" or "accepted"
end

return { try = try, reached = { "accepted", "with records", "recovered", "refused" } }
