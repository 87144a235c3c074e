-- SPDX-License-Identifier: MIT
-- Upload a document: lua upload.lua PATIENT FILE [DOCUMENT_TYPE]
local nymbl = require "nymbl"

local client = assert(nymbl.client(assert(nymbl.from_env())))

-- Print a line. The service's text may contain characters that control a terminal or change
-- the direction of text (ASCII and C1 controls, bidi overrides): they are printed as "?".
local function show(...)
  local words = {}
  for i = 1, select("#", ...) do
    words[i] = tostring((select(i, ...))):gsub("%c", "?"):gsub("\194[\128-\159]", "?")
      :gsub("\226\128[\168-\174]", "?"):gsub("\226\129[\166-\169]", "?")
  end
  print(table.concat(words, "\t"))
end

local patient, path, document_type = assert(arg[1], "which patient?"), assert(arg[2], "which file?"), arg[3]
local doc, err = client:patient(patient):upload(path, { document_type = document_type, timeout = 300 })
if not doc then
  -- One line of fixed words, safe to log. If it says that the outcome is unknown
  -- (err.outcome_unknown), list the documents before you repeat the upload.
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
show(doc.id, doc.file_name, doc.file_size_bytes)
