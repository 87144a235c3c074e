-- SPDX-License-Identifier: MIT
-- The workloads of spec/bench/run as one writes them with lua-http: no checks, limits or retries. Usage
-- and workloads are those of nymbl.lua.

local cjson = require "cjson"
local request = require "http.request"
local ssl_context = require "openssl.ssl.context"
local store = require "openssl.x509.store"

local what, count, base_url, ca_file, token, file = ...
local documents = base_url .. "/Patients(1)/Documents"

local context = ssl_context.new("TLS")
context:setVerify(ssl_context.VERIFY_PEER)
context:setStore(store.new():add(ca_file))

-- Send a request. Returns the stream of the response.
local function perform(url, body)
  local call = request.new_from_uri(url)
  call.ctx, call.version = context, 1.1
  call.headers:upsert("authorization", "Bearer " .. token)
  call.headers:upsert("x-api-key", "key")
  call.headers:upsert("accept", "application/json")
  if body then
    call.headers:upsert(":method", "POST")
    call.headers:upsert("content-type", "multipart/form-data; boundary=limit")
    call:set_body(body)
  end
  local head, stream = assert(call:go())
  assert(head:get(":status"):find("^20[01]$"), head:get(":status"))
  return stream
end

local function decoded(stream)
  return cjson.decode(assert(stream:get_body_as_string()))
end

local run = {}

function run.get()
  assert(decoded(perform(documents .. "(doc-1)")).id)
end

function run.page(i)
  local url = ("%s?$orderby=id&$top=100&$skip=%d&$count=true"):format(documents, (i - 1) * 100)
  local bytes = 0
  for _, row in ipairs(decoded(perform(url)).value) do bytes = bytes + #row.id + #row.file_name + row.file_size_bytes end
  assert(bytes > 0)
end

function run.download()
  local to = assert(io.open(file, "wb"))
  assert(perform(documents .. "(doc-1)/$value"):save_body_to_file(to))
  assert(to:close())
end

function run.cold()
  assert(perform(documents .. "(doc-2)/$value"):get_body_as_string())
end

function run.upload()
  local from = assert(io.open(file, "rb"))
  local head = '--limit\r\nContent-Disposition: form-data; name="file"; filename="document.pdf"\r\n'
    .. "Content-Type: application/pdf\r\n\r\n"
  local stage = 0
  assert(decoded(perform(documents, function()
    stage = stage + 1
    if stage == 1 then return head end
    local chunk = from and from:read(65536)
    if chunk or not from then return chunk end
    from:close()
    from = nil
    return "\r\n--limit--\r\n"
  end)).id)
end

for i = 1, tonumber(count) do run[what](i) end
