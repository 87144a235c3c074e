-- SPDX-License-Identifier: MIT
-- The workloads of spec/bench/run as one writes them by hand with Lua-cURLv3: one handle, no checks,
-- limits or retries. Usage and workloads are those of nymbl.lua.

local curl = require "lcurl"
local cjson = require "cjson"

local what, count, base_url, ca_file, token, file = ...
local documents = base_url .. "/Patients(1)/Documents"

local easy = curl.easy {
  cainfo = ca_file,
  httpheader = {
    "Authorization: Bearer " .. token, "x-api-key: key", "Expect:",
    "Accept: " .. ((what == "download" or what == "cold") and "*/*" or "application/json"),
  },
}

local parts

local function receive(chunk)
  parts[#parts + 1] = chunk
  return true
end

-- Send a request. Returns the body of the response.
local function perform(url)
  parts = {}
  easy:setopt_url(url)
  easy:perform()
  local status = easy:getinfo_response_code()
  assert(status == 200 or status == 201, status)
  return table.concat(parts)
end

local run = {}

function run.get()
  easy:setopt_writefunction(receive)
  return function() assert(cjson.decode(perform(documents .. "(doc-1)")).id) end
end

function run.page()
  easy:setopt_writefunction(receive)
  return function(i)
    local page = cjson.decode(perform(("%s?$orderby=id&$top=100&$skip=%d&$count=true"):format(documents, (i - 1) * 100)))
    local bytes = 0
    for _, row in ipairs(page.value) do bytes = bytes + #row.id + #row.file_name + row.file_size_bytes end
    assert(bytes > 0)
  end
end

function run.download()
  return function()
    local to = assert(io.open(file, "wb"))
    easy:setopt_writefunction(function(chunk) return to:write(chunk) ~= nil end)
    perform(documents .. "(doc-1)/$value")
    assert(to:close())
  end
end

function run.cold()
  easy:setopt_writefunction(receive)
  return function() perform(documents .. "(doc-2)/$value") end
end

function run.upload()
  easy:setopt_writefunction(receive)
  return function()
    local form = curl.form()
    form:add_file("file", file, "application/pdf", "document.pdf")
    easy:setopt_httppost(form)
    assert(cjson.decode(perform(documents)).id)
  end
end

local call = run[what]()
for i = 1, tonumber(count) do call(i) end
