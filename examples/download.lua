-- SPDX-License-Identifier: MIT
-- Download a document to a file: lua download.lua PATIENT DOCUMENT FILE
local nymbl = require "nymbl"

local client = assert(nymbl.client(assert(nymbl.from_env())))

local doc = client:patient(assert(arg[1], "which patient?")):document(assert(arg[2], "which document?"))
-- The file appears only when it is complete. An existing file is not replaced.
local bytes, err = doc:download(assert(arg[3], "which file?"), { overwrite = false, timeout = 300 })
if not bytes then
  if err.reason == "exists" then
    io.stderr:write("there is such a file already\n")
  else
    io.stderr:write(tostring(err), "\n")
  end
  os.exit(1)
end
print(bytes .. " bytes")
