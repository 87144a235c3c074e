-- SPDX-License-Identifier: MIT
-- Write a document to standard output as it arrives: lua stream.lua PATIENT DOCUMENT > FILE
local nymbl = require "nymbl"

local client = assert(nymbl.client(assert(nymbl.from_env())))

local doc = client:patient(assert(arg[1], "which patient?")):document(assert(arg[2], "which document?"))
local stream, err = doc:open()
while stream do
  local bytes
  bytes, err = stream:read(65536) -- nil at the end; nil and an error if the transfer failed
  if not bytes then break end
  assert(io.stdout:write(bytes))
end
if err then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
stream:close()
assert(io.stdout:flush()) -- the last chance to notice a full disk
