-- SPDX-License-Identifier: MIT
-- The same calls with nymbl. Usage: nymbl.lua get|bare|page|download|upload COUNT BASE_URL CA_FILE TOKEN [FILE]
-- `bare` is `get` without rate limits and quota.

local what, count, base_url, ca_file, token, file = ...
local nymbl = require "nymbl"

local rate = what ~= "bare" and { read = { 1e6, 1e6 }, download = { 1e6, 1e6 } }
local client = assert(nymbl.client {
  base_url = base_url, api_key = "key", token = token, ca_file = ca_file, rate = rate,
  monthly_quota = rate and 1e6,
})
local patient = client:patient(1)
count = tonumber(count)

if what == "page" then
  local bytes = 0
  for document in patient:documents { top = count * 100 } do
    bytes = bytes + #document.id + #document.file_name + document.file_size_bytes
  end
  assert(bytes > 0)
elseif what == "download" then
  for _ = 1, count do assert(patient:document("doc-1"):download(file)) end
elseif what == "upload" then
  for _ = 1, count do assert(patient:upload(file, { file_name = "document.pdf" })) end
else
  for _ = 1, count do assert(patient:get("doc-1")) end
end
