-- SPDX-License-Identifier: MIT
-- List documents: lua list.lua PATIENT [DOCUMENT_TYPE]
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

local patient = client:patient(assert(arg[1], "which patient?"))
local query = { orderby = "uploaded_at desc" }
-- nymbl.filter quotes the value; with ".." the value could change the query
if arg[2] then query.filter = nymbl.filter("document_type eq ?", arg[2]) end
-- The iterator fetches page after page. It raises a failure, like io.lines.
local ok, err = pcall(function()
  for doc in patient:documents(query) do
    show(doc.id, doc.file_name, doc.file_size_bytes)
  end
end)
if not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
