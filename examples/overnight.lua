-- SPDX-License-Identifier: MIT
-- Upload the documents in a folder, each once: lua overnight.lua PATIENT FOLDER [DOCUMENT_TYPE]
-- From cron, every night at ten:  0 22 * * * . ~/nymbl.env; lua overnight.lua 12345 ~/outbox
-- FOLDER.nymbl-journal remembers what was sent, so that the script can be killed and run again at any time.
local nymbl = require "nymbl"

local client = assert(nymbl.client(assert(nymbl.from_env { timeout = 600 })))
local folder = arg[2]:gsub("(.)/+$", "%1"):gsub("^%-", "./-")
assert(io.open(folder .. "/."), "there is no such folder")
local find = "find '%s' -maxdepth 1 -type f ! -name '.*' | grep -Ei '[.](pdf|png|jpe?g|tiff?|docx)$'"
local files = io.popen(find:format((folder:gsub("'", "'\\''"))))
local report = assert(client:patient(arg[1]):upload_all(files:lines(), {
  journal = folder .. ".nymbl-journal", document_type = arg[3],
}))
print(("%d uploaded, %d unchanged, %d failed, %d unknown%s"):format(report.uploaded, report.unchanged, report.failed,
  report.unknown, report.stopped and "; stopped: " .. report.stopped or ""))
for _, failure in ipairs(report.errors) do io.stderr:write(tostring(failure.err), "\n") end
os.exit(report.complete and 0 or 1)
