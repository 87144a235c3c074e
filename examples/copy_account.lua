-- SPDX-License-Identifier: MIT
-- Copy all documents of an account to another one, which has the same patients: lua copy_account.lua
-- TO_BASE_URL, TO_API_KEY and TO_TOKEN (unless the credentials are the same) are of the other account.
local nymbl = require "nymbl"

local from = assert(nymbl.client(assert(nymbl.from_env { timeout = 600 })))
local to = assert(nymbl.client(assert(nymbl.from_env { timeout = 600, base_url = os.getenv "TO_BASE_URL",
  api_key = os.getenv "TO_API_KEY", token = os.getenv "TO_TOKEN" })))
for patient in from:patients() do
  local target, there = to:patient(patient.id), {}
  local function key(doc) return ("%s %s"):format(doc.file_size_bytes, doc.file_name) end
  for doc in target:documents() do there[key(doc)] = (there[key(doc)] or 0) + 1 end
  local done, failed = nymbl.each(patient:documents(), { concurrency = 2 }, function(doc)
    there[key(doc)] = (there[key(doc)] or 0) - 1
    return there[key(doc)] >= 0 or doc:copy_to(target, { reconcile = true })
  end)
  print(("%d documents there, %d failed"):format(done, #failed))
  for _, failure in ipairs(failed) do io.stderr:write(tostring(failure.err), "\n") end
end
