-- SPDX-License-Identifier: MIT
-- Write every document of the account to a file: lua export.lua FOLDER [BUDGET]
-- Run it from cron, every night. BUDGET is the largest number of requests that a run may send;
-- the next run continues.
local nymbl = require "nymbl"

local client = assert(nymbl.client(assert(nymbl.from_env())))
local report, err = client:export(arg[1], { budget = tonumber(arg[2]) })
if not report then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
print(("%d new, %d unchanged, %d failed, %d requests%s"):format(report.downloaded, report.unchanged, report.failed,
  report.requests, report.stopped and "; stopped: " .. report.stopped or ""))
os.exit(report.complete or (report.failed == 0 and report.stopped == "budget"))
