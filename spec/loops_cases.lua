-- SPDX-License-Identifier: MIT
-- The Lua API, case by case, through the public functions only: the same calls have the same results
-- in every environment. spec/loops_spec.lua runs the cases.
--
-- A case is a name, its expected result and a function of a table:
--   patient(given)  a patient of a new client
--   others(fn)      runs fn; returns "others continued" if other coroutines ran meanwhile, and fn's result
local helper = require "helper"
local nymbl = require "nymbl"
local redis = require "redis"
local wait = require "nymbl.wait"

local PDF = "%PDF-1.4 "

local cases = {}

local function case(name, expected, run)
  cases[#cases + 1] = { name = name, expected = expected, run = run }
end

-- An error in a few words.
local function words(result, err)
  if result ~= nil then return tostring(result) end
  if type(err) ~= "table" then return "nil " .. tostring(err) end
  return ("%s %s %s %d"):format(err.kind, err.status or "-", err.reason or "-", err.attempts)
end

local function bytes(size, letter)
  return PDF .. (letter or "x"):rep(size - #PDF)
end

local function document(size, id)
  helper.admin("POST", "documents", { patient = "p", id = id or "d", size = size, content_type = "application/pdf" })
end

-- A source that returns the given pieces.
local function pieces(...)
  local list, i = { ... }, 0
  return function()
    i = i + 1
    return list[i]
  end
end

-- The results of all these functions, run concurrently.
local function together(...)
  local list, results = { ... }, {}
  local count = nymbl.each(list, { concurrency = #list }, function(fn)
    for i = 1, #list do
      if list[i] == fn then results[i] = words(fn()) end
    end
    return true
  end)
  return count .. ": " .. table.concat(results, ", ")
end

local function stored()
  local sizes = {}
  for i, entry in ipairs(helper.stored("p")) do sizes[i] = ("%d"):format(entry.size) end
  return table.concat(sizes, " ")
end

case("upload a path, bytes, a handle, a source, a stream", "700000 300000 1000 300000 700000", function(t)
  local patient = t.patient()
  local path = helper.big_file(700000)
  local first = assert(patient:upload(path))
  assert(patient:upload({ data = bytes(300000) }, { file_name = "a.pdf" }))
  local handle = assert(io.open(helper.write_file(helper.temporary(), bytes(1000)), "rb"))
  assert(patient:upload(handle, { file_name = "b.pdf" }))
  handle:close()
  assert(patient:upload(pieces(bytes(100000), ("y"):rep(150000), ("z"):rep(50000)), { file_name = "c.pdf" }))
  local stream = assert(first:open())
  assert(patient:upload(stream, { file_name = "d.pdf" }))
  stream:close()
  local list = helper.stored("p")
  assert(list[1].sha256 == helper.sha256(path) and list[5].sha256 == list[1].sha256)
  return stored()
end)

case("copy a document", "700000 700000 700000, the same bytes, others continued", function(t)
  local patient, client = t.patient { max_connections = 1 }
  local doc = assert(patient:upload(helper.big_file(700000)))
  local first, second
  local continued = t.others(function()
    helper.faults { operation = "download", action = { drip = 2000000 } }
    first = assert(doc:copy_to(client:patient "q"))
  end)
  second = assert(client:patient("q"):upload(patient:document(doc.id)))
  local list = helper.stored "q"
  assert(list[1].sha256 == list[2].sha256 and list[1].sha256 == helper.stored("p")[1].sha256)
  return ("%d %d %d, the same bytes, %s"):format(doc.file_size_bytes, first.file_size_bytes, second.file_size_bytes, continued)
end)

case("upload all files", "complete, 6 uploaded, complete, 6 unchanged, 6 documents, others continued", function(t)
  local patient = t.patient()
  local folder, paths, texts = helper.directory(), {}, {}
  for i = 1, 6 do paths[i] = helper.write_file(("%s/%d.pdf"):format(folder, i), bytes(400000, tostring(i))) end
  helper.faults({ operation = "upload", skip = 2, action = { lost_reply = "reset" } },
    { operation = "list", times = -1, action = { delay = 0.1 } })
  local function run()
    local report = assert(patient:upload_all(paths, { journal = folder .. "/journal", concurrency = 3 }))
    texts[#texts + 1] = report.complete and "complete" or "incomplete"
    return report
  end
  local continued, report = t.others(run)
  texts[#texts + 1] = report.uploaded .. " uploaded"
  local again = run()
  texts[#texts + 1] = again.unchanged .. " unchanged"
  local sums, count = {}, 0
  for _, entry in ipairs(helper.stored "p") do
    if not sums[entry.sha256] then sums[entry.sha256], count = true, count + 1 end
  end
  assert(count == #helper.stored "p")
  return ("%s, %d documents, %s"):format(table.concat(texts, ", "), count, continued)
end)

case("compare a folder", "1 1 1 1, others continued", function(t)
  local patient = t.patient()
  local folder = helper.directory()
  for name, size in pairs { same = 3000000, different = 1000, missing_here = 1000 } do
    helper.admin("POST", "documents", { patient = "p", id = name, file_name = name, size = size, content_type = "application/pdf" })
  end
  assert(patient:document("same"):download(folder .. "/same"))
  helper.write_file(folder .. "/different", bytes(1000))
  helper.write_file(folder .. "/missing_there", "")
  helper.faults { operation = "list", action = { delay = 0.2 } }
  local continued, found = t.others(function() return assert(patient:compare(folder, { verify = true })) end)
  for list, items in pairs(found) do assert(items[1].name:find(list, 1, true) == 1) end
  return ("%d %d %d %d, %s"):format(#found.same, #found.different, #found.missing_here, #found.missing_there, continued)
end)

case("iterate, page, count, get", "7 documents in 3 pages, 3 of 7, more, 7, get is the same, 4 requests more", function(t)
  local patient = t.patient()
  helper.admin("POST", "seed", { patient = "p", count = 7 })
  local ids = {}
  for found in patient:documents { page_size = 3 } do ids[#ids + 1] = found.id end
  local requests = #helper.journal("list")
  local page = assert(patient:page { page_size = 3 })
  local total = assert(patient:count())
  local got = assert(patient:get(ids[7]))
  assert(patient:page { page_size = 3, skip = 6 }.has_more == false)
  return ("%d documents in %d pages, %d of %d, %s, %d, get is %s, %d requests more"):format(#ids, requests, #page,
    page.count, page.has_more and "more" or "no more", total, got.id == ids[7] and "the same" or "another",
    #helper.journal() - requests)
end)

case("download to a path, a handle, a sink", "3000000 3000000 3000000, the same bytes", function(t)
  local patient = t.patient()
  document(3000000)
  local doc = patient:document "d"
  local path, other, third = helper.temporary(), helper.temporary(), helper.temporary()
  local a = assert(doc:download(path))
  local handle = assert(io.open(other, "wb"))
  local b = assert(doc:download(handle))
  handle:close()
  handle = assert(io.open(third, "wb"))
  local c = assert(doc:download(function(chunk)
    if chunk then handle:write(chunk) end
    return 1
  end))
  handle:close()
  local sha = helper.stored("p")[1].sha256
  assert(sha == helper.sha256(path) and sha == helper.sha256(other) and sha == helper.sha256(third))
  for _, name in ipairs { path, other, third } do os.remove(name) end
  return ("%d %d %d, the same bytes"):format(a, b, c)
end)

case("read a stream", "%PDF| one|two\n|three|four,five|nil|17 of 32", function(t)
  local patient = t.patient()
  helper.admin("POST", "documents", { patient = "p", id = "d", content = "%PDF one\ntwo\nthree\nfour\nfive\nand" })
  local stream = assert(patient:document("d"):open())
  local read = { stream:read(4, "l", "L", "l") }
  local lines = {}
  for line in stream:lines() do
    lines[#lines + 1] = line
    if #lines == 2 then break end
  end
  local size = stream.size
  assert(stream:read("a") == "and" and stream:read("a") == "")
  read[#read + 1] = table.concat(lines, ",")
  read[#read + 1] = tostring(stream:read(1))
  stream:close()
  read[#read + 1] = ("%d of %d"):format(size - 9 - 6, size)
  return table.concat(read, "|")
end)

case("a refused range of a partial file", "truncated 200 - 1, 3000000 in 2 requests, the same bytes", function(t)
  local patient = t.patient { max_attempts = 2 }
  document(3000000)
  local path = helper.temporary()
  helper.faults { operation = "download", action = { cut = 1000000 } }
  local doc = patient:document "d"
  local first = words(t.patient():document("d"):download(path, { resume = true }))
  helper.faults { operation = "download", action = { status = 412, body_kind = "empty" } }
  helper.admin("DELETE", "journal")
  local size = assert(doc:download(path, { resume = true }))
  local same = helper.stored("p")[1].sha256 == helper.sha256(path)
  os.remove(path)
  return ("%s, %d in %d requests, %s"):format(first, size, #helper.journal("download"),
    same and "the same bytes" or "others")
end)

case("a range, whether the service supports it or not", "206 5000, 400 200 5000, 200 5000, changed 1", function(t)
  local patient = t.patient { max_attempts = 2 }
  document(3000000)
  local doc, seen = patient:document "d", {}
  local stream = assert(doc:open())
  local content, etag = assert(stream:read("a")), stream.etag
  stream:close()
  local function range()
    helper.admin("DELETE", "journal")
    stream = assert(doc:open { offset = 2000000, length = 5000, if_match = etag })
    assert(stream:read("a") == content:sub(2000001, 2005000))
    local words_seen = {}
    for _, entry in ipairs(helper.journal("download")) do words_seen[#words_seen + 1] = ("%d"):format(entry.status) end
    words_seen[#words_seen + 1] = ("%d"):format(stream.size)
    stream:close()
    seen[#seen + 1] = table.concat(words_seen, " ")
  end
  range()
  helper.faults { operation = "download", action = { status = 400, body_kind = "empty" } }
  range()
  helper.admin("POST", "settings", { ranges = false })
  range()
  local _, err = doc:open { offset = 5, if_match = '"other"' }
  seen[#seen + 1] = ("%s %d"):format(err.reason, err.attempts)
  return table.concat(seen, ", ")
end)

case("the digest of a download that is resumed", "truncated 200 - 1, 3000000 by 206, the same digest", function(t)
  document(3000000)
  local path = helper.temporary()
  helper.faults { operation = "download", action = { cut = 2000000 } }
  local doc = t.patient():document "d"
  local first = words(doc:download(path, { resume = true, sha256 = true }))
  helper.admin("DELETE", "journal")
  local size, _, digest = doc:download(path, { resume = true, sha256 = true })
  local same = digest == helper.stored("p")[1].sha256 and digest == helper.sha256(path)
  os.remove(path)
  return ("%s, %d by %d, %s"):format(first, size, helper.journal("download")[1].status,
    same and "the same digest" or "another digest")
end)

case("417 for a source that is read once", "3 requests, 300000", function(t)
  local patient = t.patient { max_attempts = 2 }
  helper.faults { operation = "upload", action = { status = 417, body_kind = "empty" } }
  assert(patient:upload(pieces(bytes(100000), ("y"):rep(200000)), { file_name = "a.pdf" }))
  helper.faults { operation = "upload", action = { status = 417, body_kind = "empty", effect = true } }
  assert(not patient:upload(pieces(bytes(1000)), { file_name = "a.pdf" }))
  return ("%d requests, %s"):format(#helper.journal("upload"), stored():match("%d+"))
end)

case("delete, and again", "true, not_found 404 - 1", function(t)
  local patient = t.patient()
  document(1000)
  local doc = patient:document "d"
  return words(doc:delete()) .. ", " .. words(doc:delete())
end)

case("404 for every call", "not_found 404 - 1 (5)", function(t)
  local doc = t.patient():document "none"
  local path = helper.temporary()
  local seen
  for _, call in ipairs { "refresh", "delete", "open" } do
    local text = words(doc[call](doc))
    assert(not seen or seen == text)
    seen = text
  end
  assert(words(doc:download(path)) == seen and words(doc:download(function() return 1 end)) == seen)
  assert(not io.open(path))
  return seen .. " (" .. #helper.journal() .. ")"
end)

case("an expired token is refreshed", "d after 2 requests and a token", function(t)
  local patient = t.patient { max_attempts = 2 }
  document(1000)
  assert(patient:get "d")
  helper.admin("DELETE", "journal")
  helper.admin("POST", "settings", { expire_tokens = true })
  helper.faults { operation = "token", action = { delay = 0.2 } }
  local found = assert(patient:get "d")
  return ("%s after %d requests and %s"):format(found.id, #helper.journal(),
    #helper.journal("token") == 1 and "a token" or "tokens")
end)

case("an error of the token endpoint", "unauthorized 400 - 0", function(t)
  helper.faults { operation = "token", action = { status = 400, body_kind = "token" } }
  return words(t.patient():get "d")
end)

case("callers that wait for a token share its failure", "8: " .. ("not_found 404 - 0, "):rep(8) .. "1 request; 8: "
  .. ("unauthorized - token_function 0, "):rep(8) .. "1 call", function(t)
  local patient = t.patient { max_attempts = 5 }
  helper.faults { operation = "token", times = -1, action = { delay = 0.3, status = 404, body_kind = "empty" } }
  local function get() return patient:get "d" end
  local function eight(fn)
    local list = {}
    for i = 1, 8 do list[i] = function() return fn(i) end end -- without i, Lua 5.3 makes one function of them
    return together((unpack or table.unpack)(list)) -- luacheck: ignore
  end
  local first, requests, calls = eight(get), #helper.journal("token"), 0
  patient = t.patient { token = function()
    calls = calls + 1
    wait.wait(nil, wait.now() + 0.3)
    return nil, "why"
  end }
  return ("%s, %d request; %s, %d call"):format(first, requests, eight(get), calls)
end)

case("429 with Retry-After is waited for", "others continued: d in 2 requests, paused", function(t)
  local patient = t.patient { max_attempts = 2 }
  document(1000)
  helper.faults { operation = "get", action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "1" } } } }
  local began = require("nymbl.core").now()
  local others, found = t.others(function() return patient:get "d" end)
  return ("%s: %s in %d requests, %s"):format(others, found.id, #helper.journal(),
    require("nymbl.core").now() - began >= 1 and "paused" or "too soon")
end)

case("429 at the last attempt", "throttled 429 - 1, retry after 7", function(t)
  local patient = t.patient()
  helper.faults { operation = "get", action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "7" } } } }
  local _, err = patient:get "d"
  return ("%s, retry after %d"):format(words(nil, err), err.retry_after)
end)

case("others continue while a response is awaited", "others continued, d", function(t)
  local patient = t.patient()
  document(1000)
  assert(patient:get "d")
  helper.faults { operation = "get", action = { delay = 0.4 } }
  local others, found = t.others(function() return patient:get "d" end)
  return others .. ", " .. found.id
end)

case("others continue while a token is awaited", "others continued, d", function(t)
  local patient = t.patient()
  document(1000)
  helper.faults { operation = "token", action = { delay = 0.4 } }
  local others, found = t.others(function() return patient:get "d" end)
  return others .. ", " .. found.id
end)

case("others continue while a call waits for the rate limiter", "others continued, d d d", function(t)
  local patient = t.patient { rate = { read = { 4, 1 } } }
  document(1000)
  local others, found = t.others(function()
    return assert(patient:get "d").id .. " " .. assert(patient:get "d").id .. " " .. assert(patient:get "d").id
  end)
  return others .. ", " .. found
end)

case("others continue while a body arrives slowly", "others continued, 600", function(t)
  local patient = t.patient()
  document(600)
  assert(patient:get "d")
  helper.faults { operation = "download", action = { delay = 0.3 } }
  local others, size = t.others(function() return (patient:document("d"):download(function() return 1 end)) end)
  return others .. ", " .. size
end)

case("a timeout of its own", "timeout - deadline 1, timeout 200 deadline 1, timeout 200 deadline 1", function(t)
  local patient = t.patient()
  document(100000)
  helper.faults({ operation = "get", action = { delay = 30 } }, { operation = "download", action = { stall = 1000 } },
    { operation = "download", action = { stall = 1000 } })
  local path = helper.temporary()
  local text = words(patient:get("d", { timeout = 0.3 }))
  text = text .. ", " .. words(patient:document("d"):download(path, { timeout = 0.3 }))
  assert(not io.open(path))
  return text .. ", " .. words(patient:document("d"):download(function() return 1 end, { timeout = 0.3 }))
end)

case("a reservation that is due too late", "timeout - rate_limit 0", function(t)
  local patient = t.patient { rate = { read = { 0.1, 1 } } }
  document(1000)
  assert(patient:get "d")
  return words(patient:get("d", { timeout = 0.2 }))
end)

case("a response that stalls", "timeout 200 stall 1, timeout 200 stall 1", function(t)
  local patient = t.patient { stall_timeout = 0.3 }
  document(100000)
  helper.faults { operation = "download", times = 2, action = { stall = 50000 } }
  local text = words(patient:document("d"):download(helper.temporary()))
  local stream = assert(patient:document("d"):open())
  local all, err = stream:read("a")
  stream:close()
  return text .. ", " .. words(all, err)
end)

case("progress cancels", "canceled 200 progress 1, canceled - progress 1, nothing there", function(t)
  local patient = t.patient()
  document(3000000)
  local path = helper.temporary()
  local down = words(patient:document("d"):download(path, { progress = function(done) return done < 100000 end }))
  local up = words(patient:upload(helper.big_file(3000000), { progress = function(done) return done < 100000 end }))
  return down .. ", " .. up .. ", " .. (io.open(path) and "a file" or "nothing there")
end)

case("a reset within the body", "network 200 reset 1, 100000 after 2 requests", function(t)
  local patient = t.patient { max_attempts = 2 }
  document(100000)
  helper.faults { operation = "download", times = 2, action = { reset = 50000 } }
  local stream = assert(patient:document("d"):open())
  local all, err = stream:read("a")
  stream:close()
  local path = helper.temporary()
  local size = patient:document("d"):download(path)
  os.remove(path)
  return ("%s, %s after %d requests"):format(words(all, err), tostring(size), #helper.journal() - 1)
end)

case("a lost response to an upload", "network - reset 1 unknown, 1000", function(t)
  helper.faults { operation = "upload", action = { lost_reply = "reset" } }
  local doc, err = t.patient():upload({ data = bytes(1000) }, { file_name = "a.pdf" })
  return words(doc, err) .. (err.outcome_unknown and " unknown, " or " known, ") .. stored()
end)

case("each: some at once, and all of them", "40 of 40, 4 at once", function(t)
  local patient = t.patient()
  helper.admin("POST", "seed", { patient = "p", count = 40 })
  local running, most = 0, 0
  local count, failed = nymbl.each(patient:documents { page_size = 15 }, { concurrency = 4 }, function(found)
    running = running + 1
    if running > most then most = running end
    local ok, err = found:download(function() return 1 end)
    running = running - 1
    return ok, err
  end)
  return ("%d of %d, %d at once"):format(count, count + #failed, most)
end)

case("each: what fails", "1, mine, why, nil", function()
  local count, failed = nymbl.each({ "raises", "returns", "forgets", "works" }, { concurrency = 1 }, function(item)
    if item == "raises" then error("mine", 0) end
    if item == "returns" then return nil, "why" end
    if item == "works" then return true end
  end)
  return ("%d, %s, %s, %s"):format(count, failed[1].err, failed[2].err, tostring(failed[3].err))
end)

case("each: an iterator that raises", "not_found 404 - 1, 20 finished", function(t)
  local patient = t.patient()
  helper.admin("POST", "seed", { patient = "p", count = 30 })
  helper.faults { operation = "list", skip = 1, action = { status = 404, body_kind = "service" } }
  local finished = 0
  local _, err = pcall(nymbl.each, patient:documents { page_size = 20 }, { concurrency = 4 }, function(found)
    assert(found:refresh())
    finished = finished + 1
    return true
  end)
  return words(nil, err) .. (", %d finished"):format(finished)
end)

case("each: nested", "3, 15", function(t)
  local patient = t.patient()
  helper.admin("POST", "seed", { patient = "p", count = 5 })
  local total = 0
  local count = nymbl.each({ 1, 2, 3 }, nil, function()
    local inner = nymbl.each(patient:documents(), { concurrency = 2 }, function(found) return found:refresh() end)
    total = total + inner
    return inner == 5
  end)
  return ("%d, %d"):format(count, total)
end)

case("more at once than connections", "24, few connections", function(t)
  local patient = t.patient { max_connections = 2 }
  helper.admin("POST", "seed", { patient = "p", count = 24 })
  local before = helper.admin("GET", "state").connections
  local count = nymbl.each(patient:documents(), { concurrency = 24 }, function(found) return found:refresh() end)
  local open = helper.admin("GET", "state").connections - before
  return ("%d, %s"):format(count, open <= 3 and "few connections" or open .. " connections")
end)

case("misuse raises", "bad argument #1 to 'upload' (path, file, { data = }, source, stream or document expected, got no value)", function(t)
  local patient = t.patient()
  local ok, err = pcall(patient.upload, patient)
  assert(not ok and #helper.journal() == 0)
  return (tostring(err):gsub("^.-(bad argument)", "%1"))
end)

case("use after close raises", "closed client, closed stream, closed client", function(t)
  local patient, client = t.patient()
  document(1000)
  local doc = patient:document "d"
  local stream = assert(doc:open())
  stream:close()
  local function what(fn, ...)
    local ok, err = pcall(fn, ...)
    return ok and "nothing" or tostring(err):match("closed %a+")
  end
  local second = what(stream.read, stream)
  client:close()
  return table.concat({ what(doc.refresh, doc), second, what(patient.count, patient) }, ", ")
end)

case("errors of callbacks are passed on unchanged", "progress sink source event 0", function(t)
  local patient = t.patient()
  document(3000000)
  local doc = patient:document "d"
  local function raised(fn, ...)
    local ok, err = pcall(fn, ...)
    return not ok and type(err) == "table" and err.word or "nothing"
  end
  local function raise(word)
    return function() error({ word = word }, 0) end
  end
  local result = {
    raised(doc.download, doc, helper.temporary(), { progress = raise "progress" }),
    raised(doc.download, doc, raise "sink"),
    raised(patient.upload, patient, raise "source", { file_name = "a.pdf" }),
    raised(function() assert(t.patient({ on_event = raise "event" }):get "d") end),
  }
  helper.faults { operation = "get", action = { delay = 0.2 } } -- let the aborted transfers end
  assert(patient:get "d")
  return table.concat(result, " ") .. " " .. #helper.stored("none")
end)

case("a client that is closed while a call waits", "2: canceled closed, true", function(t)
  local patient, client = t.patient()
  document(1000)
  assert(patient:get "d")
  helper.faults { operation = "get", action = { delay = 30 } }
  local other, begun = t.patient(), false
  return together(function()
    begun = true
    local _, err = patient:get "d"
    return err.kind .. " " .. err.reason -- the request may not have been sent yet
  end, function()
    repeat assert(other:count() == 1) until begun -- the loop may run either one first
    client:close()
    return true
  end)
end)

case("a stream that is closed while a coroutine reads it", "2: canceled - closed 1, true", function(t)
  local patient = t.patient()
  document(100000)
  helper.faults { operation = "download", action = { stall = 1000 } }
  local stream = assert(patient:document("d"):open())
  local other, begun = t.patient(), false
  return together(function()
    assert(stream:read(1000))
    begun = true
    return stream:read(1)
  end, function()
    repeat assert(other:count() == 1) until begun
    stream:close()
    return true
  end)
end)

case("two readers of a stream", "2: true, true, all of it", function(t)
  local patient = t.patient()
  document(400000)
  helper.faults { operation = "download", action = { drip = 1000000 } }
  local stream = assert(patient:document("d"):open())
  local total = 0
  local function read()
    while true do
      local chunk, err = stream:read(1000)
      if not chunk then return err == nil, err end
      total = total + #chunk
    end
  end
  local text = together(read, read)
  stream:close()
  return text .. ", " .. (total == 400000 and "all of it" or total)
end)

case("two readers of a stream that stalls", "2: timeout 200 stall 1, timeout 200 stall 1", function(t)
  local patient = t.patient { stall_timeout = 0.4 }
  document(100000)
  helper.faults { operation = "download", action = { stall = 1000 } }
  local stream = assert(patient:document("d"):open())
  assert(stream:read(1000))
  local function read() return stream:read(1) end
  local text = together(read, read)
  stream:close()
  return text
end)

case("a job on a file is waited for", "others continued, 26214400, true", function(t)
  local job = require "nymbl.job"
  local path = helper.big_file(26214400)
  local others, size = t.others(function()
    local total = 0
    for _ = 1, 10 do total = total + select(2, assert(job.digest(path))) end
    return total / 10
  end)
  local list = assert(job.read_directory(helper.folder))
  assert(job.sync(path))
  return ("%s, %d, %s"):format(others, size, tostring(#list > 0))
end)

case("on_event and on_wait add up", "8 requests, 8 events, connection 1, retry 1, none without an end", function(t)
  local events, waits = {}, {}
  local patient = t.patient {
    max_connections = 1, max_attempts = 2, token = helper.token(),
    on_event = function(event) events[#events + 1] = event end,
    on_wait = function(event) waits[event.reason] = (waits[event.reason] or 0) + 1 end,
  }
  document(300000)
  helper.faults({ operation = "get", action = { status = 503 } }, { operation = "list", action = { delay = 0.5 } })
  assert(patient:get("d"))
  assert(patient:upload({ data = bytes(1000) }, { file_name = "a.pdf" }))
  assert(patient:document("d"):download(function() return 1 end))
  local stream = assert(patient:document("d"):open())
  assert(#stream:read("a") == 300000)
  stream:close()
  stream = assert(patient:document("d"):open())
  stream:read(1)
  stream:close()
  together(function() return patient:count() end, function() return patient:count() end)
  local journal, open = helper.journal(), 0
  local by_id = {}
  for _, entry in ipairs(journal) do by_id[entry.request_id] = entry end
  for _, event in ipairs(events) do
    local entry = assert(by_id[event.request_id])
    by_id[event.request_id] = nil
    assert(entry.operation == event.operation and entry.status == event.status)
    assert(event.kind == "canceled" or entry.response_bytes == event.bytes_received)
  end
  for _ in pairs(by_id) do open = open + 1 end
  return ("%d requests, %d events, connection %d, retry %d, %s without an end"):format(#journal, #events,
    waits.connection or 0, waits.retry or 0, open == 0 and "none" or tostring(open))
end)

case("check the set-up", "true, ok ok ok ok ok ok ok ok, false, ok ok ok ok ok ok failed skipped", function(t)
  local function check(given)
    local _, client = t.patient(given)
    local steps, ok = client:check()
    local states = {}
    for i, step in ipairs(steps) do states[i] = step.state end
    return tostring(ok) .. ", " .. table.concat(states, " ")
  end
  return check() .. ", " .. check { api_key = "wrong" }
end)

case("share limits through a Redis that is stopped meanwhile",
  "3: 0, 0, 0, others continued, io - store_down 0, waits for store, 0, 4 requests", function(t)
  local server = redis.start()
  local waits = {}
  local ran, result = pcall(function()
    local patient, client = t.patient {
      store = nymbl.store.redis { url = server.url, timeout = 0.6, token = true },
      rate = { read = { 10, 20 } }, monthly_quota = 100, token = helper.token(),
      on_wait = function(event) waits[#waits + 1] = event.reason end,
    }
    local function rows()
      local page, err = patient:page()
      return page and #page, err
    end
    local words_of_three = together(function() return rows() end, function() return rows() end, rows)
    server:signal "STOP"
    waits = {} -- on a busy machine, the first calls may have waited for the connection
    local continued, refused = t.others(function() return words(rows()) end)
    server:signal "CONT"
    wait.wait(nil, wait.now() + 0.6) -- a server that has failed is not asked at once
    return ("%s, %s, %s, waits for %s, %s, %d requests"):format(words_of_three, continued, refused,
      table.concat(waits, " "), words(rows()), client:usage().requests)
  end)
  server:stop()
  return assert(ran and result, result)
end)

local function report_words(report, err)
  if not report then return words(nil, err) end
  return ("%d patients, %d new, %d as before, %d failed, %s"):format(report.patients, report.downloaded, report.unchanged,
    report.failed, report.stopped or (report.complete and "complete" or "incomplete"))
end

local function three_patients()
  for i = 1, 9 do
    helper.admin("POST", "documents", { patient = "p" .. i % 3, id = "d" .. i, size = 100000, content_type = "application/pdf" })
  end
end

case("export an account, and again", "others continued: 3 patients, 9 new, 0 as before, 0 failed, complete; "
  .. "3 patients, 0 new, 9 as before, 0 failed, complete", function(t)
  three_patients()
  local _, client = t.patient()
  local folder = helper.temporary()
  helper.faults { operation = "download", action = { delay = 0.1 }, times = 3 }
  local others, first = t.others(function() return report_words(client:export(folder)) end)
  return others .. ": " .. first .. "; " .. report_words(client:export(folder, { verify = true }))
end)

case("export with a budget, and an error", "1 patients, 3 new, 0 as before, 0 failed, budget; unauthorized, 1 failed", function(t)
  three_patients()
  local _, client = t.patient()
  local folder = helper.temporary()
  local first = report_words(client:export(folder, { budget = 6 }))
  helper.faults { operation = "list", action = { status = 401 }, times = -1 }
  local report = assert(client:export(folder))
  return ("%s; %s, %d failed"):format(first, report.stopped, report.failed)
end)

case("exports that are canceled or closed, and continued", "canceled, 0 failed; canceled, 0 failed; complete", function(t)
  three_patients()
  local _, client = t.patient()
  local folder = helper.temporary()
  helper.faults { operation = "download", action = { delay = 0.3 }, times = 6 }
  local function ended(report)
    return ("%s, %d failed"):format(report.stopped or (report.complete and "complete" or "incomplete"), report.failed)
  end
  local first = ended(assert(client:export(folder, { progress = function() return false end })))
  local second = ended(assert(client:export(folder, { progress = function() client:close() end })))
  local _, other = t.patient()
  helper.faults()
  local report = assert(other:export(folder))
  assert(report.downloaded + report.unchanged == 9)
  return ("%s; %s; %s"):format(first, second, report.complete and "complete" or report.stopped)
end)

return cases
