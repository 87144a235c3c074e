-- SPDX-License-Identifier: MIT
-- Upload a folder for a patient: lua overnight.lua PATIENT FOLDER [DOCUMENT_TYPE]
--
-- The script can be run again at any time, even after it was killed, until all files are
-- uploaded. It sends no file twice. Run it from cron, for example every night at ten, and
-- never two at once:
--
--   0 22 * * * . ~/nymbl.env; flock -n ~/overnight.lock lua overnight.lua 12345 ~/outbox
--
-- ~/nymbl.env exports NYMBL_BASE_URL and the other settings; only you can read it.
-- Exit status: 0 if all files are uploaded; 75 to run it again (with the time, if known);
-- 1 if you must look at a problem. A "started" line without a "done" line in the journal
-- names a file whose upload is not confirmed.
--
-- The journal, FOLDER.nymbl-journal, gets one line before a file is sent and one after.
-- A file that was started but not finished may have been stored anyway. So the script first
-- searches for it, by name and size, among the documents that did not exist before.
-- The journal contains file names: only you can read it. Keep it as long as the folder.
-- NYMBL_STORE (default ~/.nymbl-store) keeps the rate limits and the quota, in one file for
-- all your scripts.
local nymbl = require "nymbl"

local ACCEPTED = { "pdf", "png", "jpg", "jpeg", "tif", "tiff", "docx" }
-- Failures of a single file; the other files can still be uploaded.
local FILE_ERRORS = { too_large = true, unsupported_type = true, bad_request = true, io = true }

local function stop(status, ...)
  io.stderr:write(table.concat({ ... }), "\n")
  os.exit(status)
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function run(command)
  local status = os.execute(command)
  return status == true or status == 0 -- Lua 5.2 and later, or LuaJIT
end

local patient_id, folder, document_type = arg[1], arg[2], arg[3]
if not folder then stop(1, "usage: lua overnight.lua PATIENT FOLDER [DOCUMENT_TYPE]") end
folder = folder:gsub("(.)/+$", "%1"):gsub("^%-", "./-")

-- The journal: a line is WORD, patient, size, name and a number or id. A complete line ends
-- with a dot, so that one that was cut short is ignored.
local journal_path = folder .. ".nymbl-journal"

local function escape(text)
  return (text:gsub("[^%w._-]", function(char) return ("%%%02X"):format(char:byte()) end))
end

local function key_of(name, size)
  return ("%s\t%.0f\t%s"):format(escape(patient_id), size, escape(name))
end

-- By key: the files that are done; and for a file that was started, the number of documents
-- with its name and size before.
local done, started = {}, {}
local journal

local function journal_open()
  if not run("umask 077; : >>" .. quote(journal_path)) then stop(1, "no journal can be written") end
  local text = assert(io.open(journal_path, "rb")):read("*a")
  for word, key, last in text:gmatch("(%l+)\t(%S+\t%d+\t%S+)\t(%S+)\t%.\n") do
    if word == "done" then
      done[key] = true
    elseif word == "started" and not started[key] then
      started[key] = tonumber(last)
    end
  end
  journal = assert(io.open(journal_path, "ab"))
  if text:match("[^\n]$") then journal:write("\n") end -- complete a line that was cut short
end

local function journal_write(word, key, last)
  -- synced to disk, so that the line survives a power cut
  if not (journal:write(word, "\t", key, "\t", last, "\t.\n") and journal:flush()
    and run("sync " .. quote(journal_path))) then
    stop(1, "no journal can be written")
  end
end

-- Returns the accepted files, sorted by name, and the number of files that cannot be sent.
-- Hidden files are skipped: other programs may still be writing them.
local function files()
  local tests = {}
  for i, extension in ipairs(ACCEPTED) do tests[i] = "-iname '*." .. extension .. "'" end
  local pipe = io.popen(("find %s/ -maxdepth 1 -type f ! -name '.*' \\( %s \\) -print0 | sort -z"):format(
    quote(folder), table.concat(tests, " -o ")))
  local found, unusable = {}, 0
  for path in pipe:read("*a"):gmatch("%Z+") do
    local file, name = io.open(path, "rb"), path:match("[^/]+$")
    if not file or name:find("%c") then
      unusable = unusable + 1
    else
      found[#found + 1] = { path = path, name = name, key = key_of(name, file:seek("end")) }
    end
    if file then file:close() end
  end
  pipe:close()
  return found, unusable
end

if not io.open(folder .. "/.") then stop(1, "there is no such folder") end
journal_open()
local all, unusable = files()
local todo = {}
for _, file in ipairs(all) do
  if not done[file.key] then todo[#todo + 1] = file end
end
if unusable > 0 then io.stderr:write(unusable, " files cannot be read, or have control characters in their names\n") end
if #todo == 0 then os.exit(unusable > 0 and 1 or 0) end

local client = assert(nymbl.client(assert(nymbl.from_env {
  store = nymbl.store.file(os.getenv "NYMBL_STORE" or os.getenv "HOME" .. "/.nymbl-store"),
})))
local patient = client:patient(patient_id)

local uploaded, found, refused, unknown = 0, 0, 0, 0

local function remaining()
  return #todo - uploaded - found
end

local function summary()
  print(("%d uploaded, %d found there, %d refused, %d not known, %d left in all"):format(
    uploaded, found, refused, unknown, remaining()))
end

-- A failure that is not specific to one file ends the run.
local function give_up(err)
  summary()
  if err.kind == "quota" or err.kind == "throttled" then
    local time = os.time() + math.ceil(err.retry_after or 60)
    stop(75, tostring(err), "; run this again after ", os.date("%Y-%m-%d %H:%M", time))
  end
  stop(1, tostring(err))
end

-- The number of the service's documents by key.
local existing = {}
local listed, problem = pcall(function()
  for document in patient:documents { select = { "file_name", "file_size_bytes" } } do
    if document.file_name and document.file_size_bytes then
      local key = key_of(document.file_name, document.file_size_bytes)
      existing[key] = (existing[key] or 0) + 1
    end
  end
end)
if not listed then
  if type(problem) ~= "table" then error(problem, 0) end
  give_up(problem)
end

for _, file in ipairs(todo) do
  local key = file.key
  local before = existing[key] or 0
  if started[key] and before > started[key] then
    journal_write("done", key, "found")
    found = found + 1
  else
    journal_write("started", key, ("%d"):format(started[key] or before))
    local document, err = patient:upload(file.path, {
      file_name = file.name, document_type = document_type, reconcile = true, timeout = 600,
    })
    if document then
      journal_write("done", key, escape(document.id))
      existing[key] = before + 1
      uploaded = uploaded + 1
    elseif err.outcome_unknown then
      unknown = unknown + 1 -- the next run searches for it
    elseif FILE_ERRORS[err.kind] then
      refused = refused + 1
      io.stderr:write("a file was not uploaded: ", tostring(err), "\n")
    else
      give_up(err)
    end
  end
end
summary()
os.exit(refused + unusable > 0 and 1 or unknown > 0 and 75 or 0)
