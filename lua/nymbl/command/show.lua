-- SPDX-License-Identifier: MIT
-- nymbl show

local FIRST = { "id", "patient_id", "file_name", "content_type", "file_size_bytes", "document_type", "description",
                "uploaded_by_id", "uploaded_at" }

-- The names of the fields: the documented ones first.
local function names(fields)
  local ordered, others, is_known = {}, {}, {}
  for _, name in ipairs(FIRST) do
    is_known[name] = true
    if fields[name] ~= nil then ordered[#ordered + 1] = name end
  end
  for name in pairs(fields) do
    if not is_known[name] then others[#others + 1] = name end
  end
  table.sort(others)
  for _, name in ipairs(others) do ordered[#ordered + 1] = name end
  return ordered
end

local function run(session, given)
  local client, err = session:open()
  if not client then return session:fail(err) end
  local document
  document, err = client:patient(given.patient):get(given.document)
  if not document then
    session:print_failure(given.document, err, true)
    return require("nymbl.command.status").of(err)
  end
  local fields = session.metadata(document)
  if given.json then
    session.out:json(fields)
    return 0
  end
  local encode = require("nymbl.command.output").encode
  for _, name in ipairs(names(fields)) do
    local value = fields[name]
    session.out:row(name, type(value) == "string" and value or encode(value))
  end
  return 0
end

return {
  summary = "Show a document's metadata",
  text = { "Each line has the name of a field and its value, separated by a tab." },
  operands = { { name = "PATIENT", help = "The patient's id." }, { name = "DOCUMENT", help = "The document's id." } },
  example = "nymbl show 12345 doc-abc123",
  run = run,
}
