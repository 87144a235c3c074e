-- SPDX-License-Identifier: MIT
-- Delete a document: lua delete.lua PATIENT DOCUMENT
local nymbl = require "nymbl"

local client = assert(nymbl.client(assert(nymbl.from_env())))

local doc = client:patient(assert(arg[1], "which patient?")):document(assert(arg[2], "which document?"))
local ok, err = doc:delete()
if not ok and err.kind == "not_found" then
  print "there is no such document"
elseif not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
