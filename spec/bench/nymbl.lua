-- SPDX-License-Identifier: MIT
-- The workloads of spec/bench/run with nymbl. Usage: nymbl.lua WORKLOAD COUNT BASE_URL CA_FILE TOKEN [FILE]
--
--   get        metadata of a document
--   bare       the same without rate limits and quota
--   page       100 rows of a listing, of which three fields are read
--   download   a document of 25 MB to a file
--   upload     a document of 25 MB from a file
--   cold       a document of 200 kB; with COUNT 1, the cost of a whole process
--   many       documents of 200 kB, 16 at once

local what, count, base_url, ca_file, token, file = ...
local nymbl = require "nymbl"

local rate = what ~= "bare" and { read = { 1e6, 1e6 }, download = { 1e6, 1e6 } }
local client = assert(nymbl.client {
  base_url = base_url, api_key = "key", token = token, ca_file = ca_file, rate = rate,
  monthly_quota = rate and 1e6, max_connections = 16,
})
local patient = client:patient(1)
count = tonumber(count)

local function small()
  local parts = {}
  return patient:document("doc-2"):download(function(chunk)
    parts[#parts + 1] = chunk
    return true
  end)
end

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
elseif what == "many" then
  local numbers = {}
  for i = 1, count do numbers[i] = i end
  assert(nymbl.each(numbers, { concurrency = 16 }, small) == count)
elseif what == "cold" then
  for _ = 1, count do assert(small()) end
else
  for _ = 1, count do assert(patient:get("doc-1")) end
end
