-- SPDX-License-Identifier: MIT
local helper = require "helper"

local MEGABYTE = 1048576

-- The interpreter of this run and its paths, for a separate process.
local interpreter = jit and "luajit" or "lua" .. _VERSION:match("%d.%d") -- luacheck: ignore

-- Run a script in a new process. Returns its output.
local function run(script, ...)
  local path = helper.write_file(helper.temporary(".lua"), script)
  local words = { ("LUA_PATH=%s LUA_CPATH=%s %s %s"):format(helper.quote(package.path), helper.quote(package.cpath),
    interpreter, path) }
  for i = 1, select("#", ...) do words[#words + 1] = helper.quote((select(i, ...))) end
  return helper.output(table.concat(words, " "))
end

local PREAMBLE = [[
local nymbl = require "nymbl"
local base_url, api_key, ca_file, token, what, id, path = ...
local client = assert(nymbl.client { base_url = base_url, api_key = api_key, ca_file = ca_file, token = token,
                                     max_upload_bytes = 300 * 1048576, timeout = 300 })
local patient = client:patient("big")
]]

local PEAK = PREAMBLE .. [[
local function drain(stream)
  for chunk in stream do assert(#chunk > 0) end
end
if what == "download to a path" then
  assert(patient:document(id):download(path))
elseif what == "download to a handle" then
  local handle = assert(io.open(path, "wb"))
  assert(patient:document(id):download(handle))
  handle:close()
elseif what == "read a stream" then
  drain(assert(patient:document(id):open()))
elseif what == "copy a document" then
  assert(patient:document(id):copy_to(client:patient("copies")))
elseif what == "upload a path" then
  assert(patient:upload(path, { file_name = "big.pdf" }))
elseif what == "upload a handle" then
  assert(patient:upload(assert(io.open(path, "rb")), { file_name = "big.pdf" }))
elseif what == "upload a source" then
  local handle = assert(io.open(path, "rb"))
  assert(patient:upload(function() return handle:read(16384) end, { file_name = "big.pdf" }))
end
for line in io.lines("/proc/self/status") do
  local peak = line:match("^VmHWM:%s*(%d+)")
  if peak then print(peak) end
end
]]

describe("memory use #memory", function()
  local sandbox, token

  setup(function()
    helper.reset()
    helper.admin("POST", "settings", { max_upload = 300 * MEGABYTE })
    sandbox, token = helper.sandbox(), helper.token()
  end)

  local function peak(what, id, path)
    return assert(tonumber(run(PEAK, sandbox.base_url, sandbox.api_key, sandbox.ca_file, token, what, id, path)))
  end

  for _, what in ipairs { "download to a path", "download to a handle", "read a stream", "copy a document" } do
    it("to " .. what .. " is the same for 200 MB as for 1 MB", function()
      local path = helper.temporary()
      local peaks = {}
      for i, size in ipairs { MEGABYTE, 200 * MEGABYTE } do
        local made = helper.admin("POST", "documents", { patient = "big", size = size, content_type = "application/pdf" })
        peaks[i] = peak(what, made.id, path)
        helper.admin("DELETE", "documents?patient=big&id=" .. made.id)
        for _, copy in ipairs(helper.stored "copies") do helper.admin("DELETE", "documents?patient=copies&id=" .. copy.id) end
      end
      os.remove(path)
      assert.is_true(peaks[2] <= peaks[1] + 1024, ("%d kB and %d kB"):format(peaks[1], peaks[2]))
    end)
  end

  for _, what in ipairs { "upload a path", "upload a handle", "upload a source" } do
    it("to " .. what .. " is the same for 200 MB as for 1 MB", function()
      local peaks = {}
      for i, size in ipairs { MEGABYTE, 200 * MEGABYTE } do
        local path = helper.big_file(size)
        peaks[i] = peak(what, "", path)
        os.remove(path)
      end
      assert.is_true(peaks[2] <= peaks[1] + 1024, ("%d kB and %d kB"):format(peaks[1], peaks[2]))
    end)
  end

  it("by Lua includes no byte of a file that is sent from or received into a path", function()
    local out = run(PREAMBLE .. [[
      collectgarbage()
      collectgarbage("stop")
      local before = collectgarbage("count")
      local document = assert(patient:upload(path, { file_name = "big.pdf" }))
      assert(document:download(path .. ".copy"))
      print(math.floor(collectgarbage("count") - before))
    ]], sandbox.base_url, sandbox.api_key, sandbox.ca_file, token, "", "", helper.big_file(26214400))
    local kilobytes = assert(tonumber(out), out)
    assert.is_true(kilobytes < 256, kilobytes .. " kB of strings and tables for 50 MB")
    os.remove(helper.big_file(26214400) .. ".copy")
  end)

  it("by a journal of uploads is less than 100 bytes for each file", function()
    local COUNT = 30000
    local journal, client = helper.temporary(), helper.client()
    assert(client:patient("big"):upload_all({}, { journal = journal }))
    client:close()
    local out = assert(io.open(journal, "a"))
    for i = 1, COUNT do
      local name = ("patient-scan-%d.pdf"):format(i)
      local line = { state = "begun", attempt = i, patient_id = "big", file_name = name, path = "/" .. name, size = 9,
        sha256 = ("%064x"):format(i), version = "1", time = 1, boot = 1, boot_id = "x", known = {} }
      out:write(helper.json.encode(line), "\n")
      line.state, line.id = "done", ("doc-%012d"):format(i)
      out:write(helper.json.encode(line), "\n")
    end
    out:close()
    local used = tonumber(run(PREAMBLE .. [[
      local function count()
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
      end
      patient:upload_all({}, { journal = path .. ".empty" })
      os.remove(path .. ".empty")
      local before, used = count(), nil
      assert(patient:upload_all({}, { journal = path, progress = function() used = count() - before end }))
      print(used * 1024 / tonumber(id))
    ]], sandbox.base_url, sandbox.api_key, sandbox.ca_file, token, "", COUNT, journal))
    assert.is_true(used > 20 and used < 100, used .. " bytes")
  end)
end)
