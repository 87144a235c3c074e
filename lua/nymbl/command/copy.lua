-- SPDX-License-Identifier: MIT
-- nymbl copy

local function operands() return require "nymbl.command.operands" end

-- Requests of one copy: metadata, bytes, upload.
local REQUESTS = 3

local function run(session, given)
  if given.dry_run then
    return operands().run(session, { given.document }, 1, function()
      return { "would be copied", ("%d requests"):format(REQUESTS) }, { would = { requests = REQUESTS } }
    end)
  end
  local client, err = session:open()
  if not client then return session:fail(err) end
  session.out.is_flushed = true
  return operands().run(session, { given.document }, 1, function(id)
    local document, problem = client:patient(given.patient):get(id)
    if not document then return nil, problem end
    local report, finish = session.progress:transfer(document.file_name or id, document.file_size_bytes)
    local copy
    copy, problem = document:copy_to(client:patient(given.to_patient), { progress = report })
    finish()
    if not copy then return nil, problem end
    return { copy.id }, session.metadata(copy)
  end)
end

return {
  summary = "Copy a document to another patient",
  text = {
    "The line has the ids of the document and of its copy, separated by a tab. The bytes touch no disk here.",
  },
  operands = {
    { name = "PATIENT", help = "The patient's id." },
    { name = "DOCUMENT", help = "The document's id." },
    { name = "TO-PATIENT", help = "The id of the patient who gets the copy." },
  },
  example = "nymbl copy 12345 doc-abc123 67890",
  can_dry_run = true,
  run = run,
}
