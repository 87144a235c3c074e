-- SPDX-License-Identifier: MIT
-- nymbl download

local function nymbl() return require "nymbl" end
local function operands() return require "nymbl.command.operands" end
local options = require "nymbl.command.options"
local function signals() return require "nymbl.command.signals" end

-- The message of a wrong combination of options, or nil.
local function misuse(given)
  local path = given.output
  if path and given.directory then return "-o and -O exclude each other" end
  if path and (#given.document > 1 or given.document[1] == "-") then return "-o takes one DOCUMENT" end
  if path == "-" and given.json then return "-o - and --json exclude each other" end
  if path == "-" and given.resume then return "-o - and --resume exclude each other" end
end

-- The path for a document. The name is safe, as the service chose it.
local function path_for(given, document)
  if given.output then return given.output end
  local name = document:safe_name()
  if not given.directory then return name end
  return given.directory .. (given.directory:sub(-1) == "/" and "" or "/") .. name
end

-- After a signal: remember how much is kept of what was interrupted. The file tells it, the progress does
-- not: before the first bytes of a resumed download it is 0.
local function count_kept(session, given, path)
  if not (given.resume and signals().caught()) then return end
  local part = require("nymbl.core").system.lstat(path .. ".nymbl-part")
  session.kept = (session.kept or 0) + (part and part.size or 0)
end

local function download(session, given, patient, paths, id)
  local document, err = patient:get(id)
  if not document then return nil, err end
  local path = path_for(given, document)
  if paths[path] then -- two documents of one name: neither replaces the other
    return nil, nymbl().error { kind = "io", reason = "exists", operation = "download" }
  end
  paths[path] = true
  local report, finish = session.progress:transfer(document.file_name or id, document.file_size_bytes)
  local bytes, content_type = document:download(path == "-" and io.stdout or path, {
    overwrite = given.force or false, resume = path ~= "-" and given.resume or nil,
    progress = report,
  })
  finish()
  if not bytes then
    paths[path] = nil -- another document of that name may have it
    count_kept(session, given, path)
    return nil, content_type
  end
  return { path, ("%.0f"):format(bytes) }, {
    id = document.id, patient_id = document.patient_id, path = path, bytes = bytes, content_type = content_type,
  }
end

local function run(session, given)
  local problem = misuse(given)
  if problem then return session:misuse(problem) end
  local ids = operands().expand(given.document, given.is_nul)
  local client, err = session:open()
  if not client then return session:fail(err) end
  local patient, paths = client:patient(given.patient), {}
  session.is_silent = given.output == "-"
  return operands().run(session, ids, 4, function(id) return download(session, given, patient, paths, id) end)
end

return {
  summary = "Download documents",
  text = {
    "For each DOCUMENT a line has its id, the path and the number of bytes, separated by tabs. A file appears only "
      .. "when it is complete and verified. Without -o its name is the document's, with '_' for what cannot be in "
      .. "a file name. Of several documents with one name, only one is downloaded: 'nymbl export PATIENT --to DIR' "
      .. "gives each a name of its own. Each document costs two requests: for its metadata, and for its bytes.",
  },
  operands = {
    { name = "PATIENT", help = "The patient's id." },
    { name = "DOCUMENT", args = "+", help = "A document's id. '-' reads ids from standard input." },
  },
  options = {
    { flags = "-o", name = "PATH", target = "output", convert = options.nonempty,
      help = "The file; '-' is standard output." },
    { flags = "-O", name = "DIR", target = "directory", convert = options.nonempty,
      help = "The directory of the files." },
    { flags = "--resume", help = "Keep an interrupted download, and continue it the next time." },
    { flags = "--force", help = "Replace existing files." },
    options.NUL,
  },
  example = {
    "nymbl download 12345 doc-abc123 -o referral.pdf",
    "nymbl download 12345 doc-abc123 doc-def456 -O documents",
  },
  run = run,
}
