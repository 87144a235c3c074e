-- SPDX-License-Identifier: MIT
-- Delete a document: lua delete.lua PATIENT DOCUMENT
local nymbl = require "nymbl"

local client = assert(nymbl.client {
  base_url = os.getenv "NYMBL_BASE_URL",
  api_key = os.getenv "NYMBL_API_KEY",
  ca_file = os.getenv "NYMBL_CA_FILE", -- only for the sandbox
  credentials = {
    token_url = os.getenv "NYMBL_TOKEN_URL",
    client_id = os.getenv "NYMBL_CLIENT_ID",
    client_secret = os.getenv "NYMBL_CLIENT_SECRET",
    scope = os.getenv "NYMBL_SCOPE",
  },
})

local doc = client:patient(assert(arg[1], "which patient?")):document(assert(arg[2], "which document?"))
local ok, err = doc:delete()
if not ok and err.kind == "not_found" then
  print "there is no such document"
elseif not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
