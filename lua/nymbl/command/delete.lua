-- SPDX-License-Identifier: MIT
-- nymbl delete

local function operands() return require "nymbl.command.operands" end
local options = require "nymbl.command.options"
local output = require "nymbl.command.output"
local status = require "nymbl.command.status"
local function system() return require("nymbl.core").system end

-- Ask at the terminal whether to delete so many documents.
local function is_confirmed(patient, count)
  local what = count == 1 and "this document" or ("these %d documents"):format(count)
  io.stderr:write(("Delete %s of patient %s? [y/N] "):format(what, output.printable(patient)))
  local answer = io.stdin:read "*l"
  return answer ~= nil and (answer:find "^[Yy]$" or answer:find "^[Yy][Ee][Ss]$") ~= nil
end

local function dry_run(session, ids)
  return operands().run(session, ids, 1, function()
    return { "would be deleted", "1 request" }, { would = { requests = 1 } }
  end)
end

local function run(session, given)
  local ids, was_read = operands().expand(given.document, given.is_nul)
  if given.dry_run then return dry_run(session, ids) end
  if not given.yes then
    if was_read or not (system().is_terminal(io.stdin) and system().is_terminal(io.stderr)) then
      return session:misuse "--yes is required without a terminal to ask at"
    end
    if not is_confirmed(given.patient, #ids) then
      session.terminal:message "nymbl: nothing was deleted"
      return status.FAILED
    end
  end
  local client, err = session:open()
  if not client then return session:fail(err) end
  local patient = client:patient(given.patient)
  session.out.is_flushed = true
  return operands().run(session, ids, 4, function(id)
    local deleted, problem = patient:document(id):delete()
    if not deleted then return nil, problem end
    return { "deleted" }, { id = id, patient_id = given.patient, deleted = true }
  end)
end

return {
  summary = "Delete documents",
  text = { "At a terminal it asks first; the answer is 'y' or 'yes'. Elsewhere it needs --yes." },
  operands = {
    { name = "PATIENT", help = "The patient's id." },
    { name = "DOCUMENT", args = "+", help = "A document's id. '-' reads ids from standard input." },
  },
  options = { { flags = "--yes", help = "Do not ask." }, options.NUL },
  example = "nymbl delete 12345 doc-abc123 --yes",
  can_dry_run = true,
  run = run,
}
