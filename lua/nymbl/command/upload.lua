-- SPDX-License-Identifier: MIT
-- nymbl upload

local function nymbl() return require "nymbl" end
local function operands() return require "nymbl.command.operands" end
local function signals() return require "nymbl.command.signals" end
local options = require "nymbl.command.options"
local status = require "nymbl.command.status"
local function system() return require("nymbl.core").system end

-- The message of a wrong combination of options, or nil.
local function misuse(given)
  if given.stdin then
    if #given.file > 0 then return "--stdin takes no FILE" end
    if not given.name then return "--stdin needs --name" end
    if given.once then return "--once needs a FILE, and takes no --stdin" end
  elseif #given.file == 0 then
    return "a FILE, '-' or --stdin is required"
  elseif given.name and (#given.file > 1 or given.file[1] == "-") then
    return "--name takes one FILE"
  end
end

-- The status of the file that would be uploaded; or nil and the error of the upload.
local function file_status(path)
  local real, err = system().realpath(path)
  local found
  if real then found, err = system().lstat(real) end
  if found and found.kind == "file" then return found end
  local reason = not found and err.reason or found.kind == "directory" and "directory" or "not_a_file"
  return nil, nymbl().error { kind = "io", reason = reason, operation = "upload" }
end

-- The error if a name cannot be sent: it becomes part of a header.
local function name_error(given, path)
  if not (given.name or path:match "[^/]*$"):find "[%z\1-\31\127]" then return nil end
  return nymbl().error { kind = "io", reason = "bad_metadata", operation = "upload" }
end

-- What is printed of a file that would be uploaded: the columns and the object. Or nil and the error.
local function planned(given, path)
  local found, err = file_status(path)
  err = err or name_error(given, path)
  if err then return nil, err end
  return { ("would be uploaded, %.0f bytes"):format(found.size), "1 request" },
    { would = { requests = 1, bytes = found.size } }
end

local function dry_run(session, given, files)
  if given.stdin then
    session:print_result("-", { "would be uploaded as " .. given.name, "1 request" }, { would = { requests = 1 } })
    return 0
  end
  return operands().run(session, files, 1, function(path) return planned(given, path) end)
end

-- Print what became of a file, with its document, or its error; with neither it would be uploaded.
local function print_outcome(session, path, document, err)
  local columns, fields = nil, err
  if document then
    columns, fields = { document.id }, session.metadata(document)
  elseif not err then
    columns, fields = planned(session.given, path)
  end
  if columns then return session:print_result(path, columns, fields) end
  session:print_failure(path, fields, false) -- the report explains it
end

-- Print the failure of the files that were not tried, because another one's failure is that of all.
local function print_untried(session, files, is_printed, stopped)
  if not stopped or signals().caught() then return end -- after a signal they are left
  local fields = stopped == "no_space" and { kind = "io", reason = stopped } or { kind = stopped }
  fields.operation = "upload"
  local err = nymbl().error(fields)
  for _, path in ipairs(files) do
    if not is_printed[path] then session:print_failure(path, err, false) end
  end
end

-- Each file once, by a journal.
local function upload_once(session, given, files)
  local client, err = session:open()
  if not client then return session:fail(err) end
  session.progress.operands = #files
  local items, is_printed = {}, {}
  for i, path in ipairs(files) do items[i] = { path = path, file_name = given.name } end
  local report
  report, err = client:patient(given.patient):upload_all(items, {
    journal = given.once, concurrency = given.jobs, dry_run = given.dry_run,
    document_type = given.type, description = given.description,
    progress = function(current) return session.progress:report(current) end,
    on_file = function(path, document, problem)
      is_printed[path] = true
      print_outcome(session, path, document, problem)
    end,
  })
  if not report then return session:fail(err) end
  print_untried(session, files, is_printed, report.stopped)
  session:print_report(report, { "uploaded", "unchanged", "failed", "unknown" })
  return status.of_report(report, report.uploaded + report.unchanged)
end

-- Upload one file, or standard input.
local function upload(session, given, patient, path)
  local problem = name_error(given, path)
  if problem then return nil, problem end
  local found = path and file_status(path)
  local report, finish = session.progress:transfer(given.name or path, found and found.size)
  local document, err = patient:upload(path or io.stdin, {
    file_name = given.name, document_type = given.type, description = given.description, progress = report,
  })
  finish()
  if not document then return nil, err end
  return { document.id }, session.metadata(document)
end

local function run(session, given)
  local problem = misuse(given)
  if problem then return session:misuse(problem) end
  local files = given.stdin and { "-" } or operands().expand(given.file, given.is_nul)
  if given.once then return upload_once(session, given, files) end
  if given.dry_run then return dry_run(session, given, files) end
  local client, err = session:open()
  if not client then return session:fail(err) end
  local patient = client:patient(given.patient)
  session.out.is_flushed = true -- an id that is lost cannot be found again
  return operands().run(session, files, 2, function(path)
    return upload(session, given, patient, not given.stdin and path or nil)
  end)
end

return {
  summary = "Upload files as new documents",
  text = {
    "For each FILE a line has its path and the id of the new document, separated by a tab. The service accepts "
      .. "PDF, PNG, JPEG, TIFF and DOCX, up to 25 MB. A FILE that is named again is uploaded again, unless --once "
      .. "remembers it.",
    "With --once, the line of an unchanged FILE has the id of its document, and lines with numbers follow: how many "
      .. "files were uploaded, for example.",
    "If the exit status is 7, the service may have the document, although no answer arrived: list the patient's "
      .. "documents before you repeat the upload, or use --once, which does so itself.",
  },
  operands = {
    { name = "PATIENT", help = "The patient's id." },
    { name = "FILE", args = "*", help = "A path. '-' reads paths from standard input." },
  },
  options = {
    { flags = "--stdin", help = "Upload standard input as a document; --name is required." },
    { flags = "--type", name = "T", help = "The document_type." },
    { flags = "--description", name = "D", help = "The description." },
    { flags = "--name", name = "N", convert = options.nonempty,
      help = "The document's file name, if not that of the path." },
    { flags = "--once", name = "JOURNAL", convert = options.nonempty,
      help = "Upload each file once, whatever happens. The file JOURNAL remembers what was uploaded." },
    options.NUL,
  },
  example = {
    "nymbl upload 12345 referral.pdf --type Referral",
    "find scans -name '*.pdf' -print0 | nymbl upload 12345 - -0 --once journal",
  },
  can_dry_run = true,
  run = run,
}
