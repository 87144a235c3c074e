-- SPDX-License-Identifier: MIT
-- nymbl export

local function operands() return require "nymbl.command.operands" end
local options = require "nymbl.command.options"
local status = require "nymbl.command.status"

local function run(session, given)
  local patients
  if #given.patient > 0 then patients = operands().expand(given.patient, given.is_nul) end
  local client, err = session:open()
  if not client then return session:fail(err) end
  local report
  report, err = client:export(given.to, {
    patients = patients, filter = given.filter, budget = given.budget, verify = given.verify, dry_run = given.dry_run,
    concurrency = given.jobs,
    progress = function(current) return session.progress:report(current) end,
  })
  if not report then return session:fail(err) end
  session:print_report(report, { "patients", "downloaded", "unchanged", "gone", "failed" })
  return status.of_report(report, report.downloaded + report.unchanged)
end

return {
  summary = "Download all documents of some or all patients, and later only what is new",
  text = {
    "DIR gets a folder for each patient, and manifest.jsonl with one JSON object for each document. A run that was "
      .. "interrupted, or ended by the month's quota or --budget, is continued by the next one. Documents that "
      .. "were deleted on the service stay in DIR.",
  },
  operands = { { name = "PATIENT", args = "*",
                 help = "A patient's id; without any, all patients. '-' reads ids from standard input." } },
  options = {
    { flags = "--to", name = "DIR", convert = options.nonempty, is_required = true, help = "The folder (required)." },
    { flags = "--filter", name = "F", convert = options.nonempty, help = "An OData filter of the documents." },
    { flags = "--budget", name = "N", convert = options.count, help = "At most so many requests." },
    { flags = "--verify", help = "Read all files again, and replace those that have changed." },
    options.NUL,
  },
  example = "nymbl export --to /srv/documents --budget 300 --quiet",
  can_dry_run = true,
  run = run,
}
