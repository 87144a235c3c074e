-- SPDX-License-Identifier: MIT
-- nymbl check

local output = require "nymbl.command.output"

local STATES = { "missing_here", "missing_there", "different", "same" }

-- The rows of a state, for --json.
local function plain(session, rows)
  local result = output.array {}
  for i, row in ipairs(rows) do
    result[i] = { name = row.name, size = row.size, document = row.document and session.metadata(row.document) or nil }
  end
  return result
end

local function print(session, given, report)
  if given.json then
    local fields = {}
    for _, state in ipairs(STATES) do fields[state] = plain(session, report[state]) end
    session.out:json(fields)
  elseif not given.quiet then
    for _, state in ipairs(STATES) do
      for _, row in ipairs(state ~= "same" and report[state] or {}) do
        session.out:row(state, row.document and row.document.id or "-", row.name or "-")
      end
    end
  end
end

local function run(session, given)
  local client, err = session:open()
  if not client then return session:fail(err) end
  local report
  report, err = client:patient(given.patient):compare(given.dir, { verify = given.verify })
  if not report then return session:fail(err) end
  print(session, given, report)
  session:note(("nymbl: %d the same, %d missing here, %d missing there, %d different"):format(#report.same,
    #report.missing_here, #report.missing_there, #report.different))
  return #report.missing_here + #report.missing_there + #report.different == 0 and 0 or 1
end

return {
  summary = "Compare a folder with a patient's documents",
  text = {
    "A line for each difference has the columns 'missing_here', 'missing_there' or 'different', the document's id "
      .. "and the name, separated by tabs. The exit status is 1 if anything differs. Files match documents by name "
      .. "and size.",
  },
  operands = {
    { name = "PATIENT", help = "The patient's id." },
    { name = "DIR", help = "The folder. Folders in it are ignored." },
  },
  options = {
    { flags = "--verify", help = "Compare the contents, too, which downloads every document that has a file." },
  },
  example = "nymbl check 12345 documents",
  run = run,
}
