-- SPDX-License-Identifier: MIT
-- The operations of wire_spec.lua. Each has
--   run(t)            the calls: a result, or nil and an error
--   prepare(t)        what is done before, by another client
--   before(t)         what the client has done before, on the connection that may be used again
--   check(t, done, err)
--                     raises if it did not go as reported; called after the next calls, too
--   has_several       it has several requests: after a whole response, the next one may have a new connection
--   settles           if the response to its upload is lost, it looks for the document and is complete
--   after(t, done)    the next run of what failed, which must complete
-- `t` has the patient's `id`, its `document` as stored, `bytes` to upload, a `folder`, a `client`, its
-- `patient` and the `lane` of the relay; `is_over` after the next calls. `patiently(fn)` calls fn(t), and
-- again if it fails by time limits that are short for the sake of a stall.
local helper = require "helper"
local lfs = require "lfs"
local wait = require "nymbl.wait"

local SIZE = 1500

-- The paths of the files below a folder, sorted.
local function paths(folder, found)
  found = found or {}
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name ~= "." and name ~= ".." then
      if lfs.attributes(path, "mode") == "directory" then paths(path, found) else found[#found + 1] = path end
    end
  end
  table.sort(found)
  return found
end

-- The bytes of a document. They differ from all others', at any place.
local function pdf(word)
  local lines, line = { "%PDF-1.4\n" }, 0
  repeat
    line = line + 1
    lines[line + 1] = ("%s line %06d\n"):format(word, line)
  until line * #lines[2] > SIZE
  return table.concat(lines):sub(1, SIZE)
end

local operations, order = {}, {}

local function operation(name, given)
  operations[name], order[#order + 1] = given, name
end

local function check_upload(t, done, err)
  local stored = {}
  for _, item in ipairs(t.stored()) do
    if item.id ~= "d" then stored[#stored + 1] = item end
  end
  assert(#stored <= 1, "stored twice")
  if stored[1] then assert(stored[1].size == SIZE and stored[1].sha256 == t.sum(), "not stored as it was sent") end
  if done then
    assert(stored[1] and stored[1].id == done.id, "not stored")
  elseif not err.outcome_unknown then
    assert(not stored[1], "stored, but reported as failed")
  end
end

local function upload(t) return t.patient:upload({ data = t.bytes }, { file_name = "a.pdf" }) end

operation("upload", { run = upload, check = check_upload })

-- A file that exists is whole, and then the download has succeeded.
local function check_file(t, done)
  local found = paths(t.folder)
  local file = found[1] == t.folder .. "/doc" and helper.read_file(found[1])
  assert((done ~= nil) == (file == t.document), "a file that is not whole, or not reported")
  return found
end

local function download(t) return t.patient:document("d"):download(t.folder .. "/doc") end

local function check_download(t, done)
  assert(#check_file(t, done) == (done and 1 or 0), "left behind")
end

operation("download", { run = download, check = check_download })

local function resume(t) return t.patient:document("d"):download(t.folder .. "/doc", { resume = true }) end

-- An interrupted download is continued.
local function after_resume(t, done)
  if not done then assert(t.patiently(resume)) end
  assert(#check_file(t, true) == 1, "left behind")
end

operation("resume", {
  run = resume,
  check = function(t, done) if not t.is_over then check_file(t, done) end end,
  after = after_resume,
})

-- A download that was interrupted before: the exchange of the rest.
operation("continued", {
  prepare = function(t)
    helper.faults { operation = "download", times = 1, action = { cut = SIZE / 2 } }
    local done, err = resume(t)
    assert(not done and err.kind == "truncated", tostring(err))
  end,
  run = resume,
  check = function(t, done)
    if not t.is_over then check_file(t, done) end
    local request = t.requests("download")[1]
    assert(not request or helper.header(request, "range") == ("bytes=%d-"):format(SIZE / 2), "not continued")
  end,
  after = after_resume,
})

operation("stream", {
  run = function(t)
    local stream, err = t.patient:document("d"):open()
    if not stream then return nil, err end
    local all
    all, err = stream:read "a"
    stream:close()
    return all, err
  end,
  check = function(t, done) assert(not done or done == t.document, "other bytes") end,
})

local function redirect(location)
  helper.faults { operation = "download", times = 1, action = { redirect = { location = location } } }
end

-- By a redirect within the service.
operation("redirected", {
  has_several = true,
  run = function(t)
    redirect "$value?again=1"
    return download(t)
  end,
  check = check_download,
})

-- By a redirect to another origin, which has a connection of its own.
operation("elsewhere", {
  run = function(t)
    redirect(("https://127.0.0.1:%d/blob/%s"):format(t.lane.port, t.document_id))
    return download(t)
  end,
  check = check_download,
})

local function list(t) return t.patient:page() end

local function check_list(_, done) assert(not done or #done == 1 and done[1].id == "d", "other rows") end

operation("list", { run = list, check = check_list })

-- With a token that must be requested first.
operation("token", { has_several = true, run = list, check = check_list })

-- Page after page, the next one requested before it is needed.
operation("documents", {
  has_several = true,
  prepare = function(t)
    for i = 1, 3 do helper.admin("POST", "documents", { patient = t.id, id = "e" .. i, content = t.document }) end
  end,
  run = function(t)
    local ids = {}
    local ok, err = pcall(function()
      for document in t.patient:documents { page_size = 2 } do ids[#ids + 1] = document.id end
    end)
    if not ok then return nil, err end
    return ids
  end,
  check = function(_, done)
    if not done then return end
    table.sort(done)
    assert(table.concat(done, " ") == "d e1 e2 e3", "other documents")
  end,
})

operation("get", {
  run = function(t) return t.patient:get "d" end,
  check = function(_, done) assert(not done or done.file_size_bytes == SIZE, "another document") end,
})

local function count(t) return t.patient:count() end

operation("count", {
  run = count,
  check = function(_, done) assert(not done or done == 1, "another number") end,
})

operation("patients", {
  run = function(t)
    local ids = {}
    local ok, err = pcall(function()
      for item in t.client:patients() do ids[#ids + 1] = item.id end
    end)
    if not ok then return nil, err end
    return ids
  end,
  check = function(t, done) assert(not done or #done == 1 and done[1] == t.id, "another patient") end,
})

local function delete(t) return t.patient:document("d"):delete() end

local function check_delete(t, done, err)
  local is_there = #t.stored() == 1
  assert(#t.requests "delete" <= 1, "sent twice")
  if done then
    assert(not is_there, "still there")
  elseif not err.outcome_unknown then
    assert(is_there, "deleted, but reported as failed")
  end
end

operation("delete", { run = delete, check = check_delete })

-- On a connection that was used before.
local function before(t) return t.patiently(count) end

operation("list, later", { before = before, run = list, check = check_list })
operation("upload, later", { before = before, run = upload, check = check_upload })
operation("delete, later", { before = before, run = delete, check = check_delete })

-- A run that was interrupted is continued by the next one.
local function complete(report, err)
  if not report then return nil, err end
  if report.complete then return true end
  return nil, assert(report.errors[1], "not complete, without an error").err
end

local function export(t) return complete(t.client:export(t.folder, { patients = { t.id } })) end

operation("export", {
  has_several = true,
  run = export,
  check = function(t, done)
    local found = {}
    for _, path in ipairs(paths(t.folder)) do
      if not path:find "manifest%.jsonl$" and not path:find "/%.nymbl%-export" then found[#found + 1] = path end
    end
    local file = found[1] and found[1]:find "%.pdf$" and helper.read_file(found[1])
    assert(not file or file == t.document, "not the document")
    if done or t.is_over then assert(file and #found == 1, "no document, or left behind") end
  end,
  after = function(t, done) assert(done or t.patiently(export)) end,
})

-- The sandbox may still be handling a request whose connection has broken: a search at once could miss
-- the document.
local SETTLE = 0.05

local function upload_all(t)
  return complete(t.patient:upload_all({ t.path }, { journal = t.folder .. "/journal", settle = SETTLE }))
end

operation("upload_all", {
  settles = true,
  run = upload_all,
  check = function(t, done)
    local stored = 0
    for _, item in ipairs(t.stored()) do
      if item.id ~= "d" then
        stored = stored + 1
        assert(item.sha256 == t.sum(), "not stored as it was sent")
      end
    end
    assert(stored <= 1, "stored twice")
    if done or t.is_over then assert(stored == 1, "not stored") end
    if done then assert(#t.requests "upload" == 1, "sent twice") end
  end,
  after = function(t, done)
    if done then return end
    wait.wait(nil, wait.now() + SETTLE + 0.01)
    assert(t.patiently(upload_all))
  end,
})

return { operations = operations, order = order, pdf = pdf }
