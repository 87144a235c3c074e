-- SPDX-License-Identifier: MIT
-- A program's system calls fail, or the program is killed there, or the machine's power is cut: whatever
-- happens, it ends, nothing is sent twice, no file is half a file, and the next run completes. Without
-- NYMBL_SPEC_LARGE only some of the calls are tried; NYMBL_SEED selects others.
local helper = require "helper"
local power = require "power"

local SHIM = "./build/spec/core/faults.so"
local SIZE = 120000
local SEED = tonumber(os.getenv "NYMBL_SEED" or "") or rawget(_G, "jit") and 2 or 1
local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil
local SAMPLES = long and math.huge or 6 -- faults of each scenario
local POWER_CUTS = long and 2 or 1 -- after how many states of the disk the next run is tried, of each call
local LIMIT = 30 -- seconds after which a run counts as hanging

local function generator(seed)
  local state = (seed * 48271 + 11) % 2147483647
  return function(most)
    state = (state * 16807) % 2147483647
    return math.floor(state / 7) % most + 1
  end
end

local ERRORS = { "EIO", "ENOSPC", "EMFILE", "ENOMEM", "EACCES", "EINTR", "EAGAIN", "ECONNRESET", "EBADF" }
local LASTING = { "EIO", "ENOSPC", "EMFILE", "EACCES", "ECONNRESET" } -- a call that is always interrupted never ends

-- The beginning of each program. `finish` prints what became of the call.
local PREAMBLE = [[
  local options, shim, path, id, settle = ...
  settle = tonumber(settle)
  local chunk = loadstring or load
  options = chunk("return " .. options)()
  local function begin() package.loadlib(shim, "faults_begin")() end
  local nymbl = require "nymbl"
  local client = assert(nymbl.client(options))
  local patient = client:patient(id)
  local function finish(ok, err)
    package.loadlib(shim, "faults_end")()
    if ok then print "done" return end
    local outcome = err.outcome or err.outcome_unknown and "unknown" or "known"
    print(("failed %s %s %s"):format(err.kind, err.reason or "-", outcome))
  end
]]

local THREADED = [[
  local cqueues = require "cqueues"
  local loop = cqueues.new()
  loop:wrap(function() %s end)
  local ran, problem = loop:loop()
  if not ran then print("raised " .. tostring(problem)) end
]]

local programs = {
  upload = [[ begin() finish(patient:upload(path, { file_name = "a.pdf" })) ]],
  download = [[ begin() finish(patient:document("d"):download(path)) ]],
  resume = [[ begin() finish(patient:document("d"):download(path, { resume = true })) ]],
  list = [[ begin() finish(patient:page()) ]],
  store = [[ begin() finish(patient:count()) ]],
  upload_all = [[
    begin()
    local report, err = patient:upload_all({ path }, { journal = path .. ".journal", settle = settle })
    if report and not report.complete then
      -- the file was uploaded, and then the journal could not be written
      local outcome = report.uploaded > 0 and "stored" or nil
      err = { kind = report.stopped or "io", outcome_unknown = report.unknown > 0, outcome = outcome }
    end
    finish(report and report.complete, err)
  ]],
  export = [[
    begin()
    local report, err = client:export(path, { patients = { id } })
    if report and not report.complete then err = { kind = report.stopped or "io" } end
    finish(report and report.complete, err)
  ]],
  delete = [[ begin() finish(patient:document("d"):delete()) ]],
}
programs.replace = programs.export -- a document that has changed

local function literal(value)
  if type(value) ~= "table" then return type(value) == "string" and ("%q"):format(value) or tostring(value) end
  local words = {}
  for name, item in pairs(value) do words[#words + 1] = ("[%q] = %s"):format(name, literal(item)) end
  return "{ " .. table.concat(words, ", ") .. " }"
end

describe("a program whose system calls fail #slow", function()
  local folder, store, calls_file, random, boot
  local patient, patients = nil, 0 -- another one for each run: a request of a killed one may be handled late
  local upload_sum, sum, old_sum

  if os.getenv "ASAN_OPTIONS" then return end -- the sanitizers' runtime would have to be loaded first
  local file = io.open(SHIM)
  if not file then return end -- the C tests are not built
  file:close()

  before_each(function()
    random = generator(SEED)
    boot = helper.write_file(helper.temporary(), "bbbbbbbb-0000-4000-8000-000000000000\n")
  end)

  local function set_up(name)
    helper.reset()
    patients = patients + 1
    patient = "p" .. patients
    folder, store = helper.directory(), helper.directory() .. "/store"
    calls_file = helper.temporary(".calls")
    sum = helper.admin("POST", "documents", { patient = patient, id = "d", size = SIZE, content_type = "application/pdf" }).sha256
    if name == "upload" or name == "upload_all" then
      upload_sum = helper.sha256(helper.write_file(folder .. "/a.pdf", "%PDF-1.4 " .. ("x"):rep(SIZE)))
    elseif name == "download" then
      helper.write_file(folder .. "/doc", "old")
    elseif name == "replace" then
      local client = helper.client()
      assert(assert(client:export(folder .. "/doc", { patients = { patient } })).complete)
      client:close()
      old_sum = sum
      sum = helper.admin("POST", "documents", {
        patient = patient, id = "d", content = "%PDF-1.4 " .. ("z"):rep(SIZE), uploaded_at = "2030-01-01T00:00:00Z",
      }).sha256
      helper.admin("DELETE", "journal")
    elseif name == "resume" then -- an interrupted download
      local client = helper.client()
      helper.faults { operation = "download", action = { cut = SIZE / 2 }, times = 1 }
      local done, err = client:patient(patient):document("d"):download(folder .. "/doc", { resume = true })
      assert(not done and err.kind == "truncated", tostring(err))
      client:close()
      helper.admin("DELETE", "journal")
    end
  end

  -- Run a program with a plan. Returns its exit status as the shell has it, and its output.
  local function run(name, threaded, plan, max_attempts, environment)
    local sandbox = helper.sandbox()
    local options = literal {
      base_url = sandbox.base_url, api_key = sandbox.api_key, ca_file = sandbox.ca_file, timeout = 10,
      token = helper.token(), rate = false, monthly_quota = 1000,
      max_attempts = max_attempts or 1,
    }
    if name == "store" then options = options:gsub("}$", (", store = require('nymbl.store').file(%q) }"):format(store)) end
    local body = programs[name]
    local script = helper.write_file(helper.temporary(".lua"), PREAMBLE .. (threaded and THREADED:format(body) or body))
    local path = folder .. (name:find "^upload" and "/a.pdf" or "/doc")
    local output = helper.output(table.concat({
      "env LD_PRELOAD=" .. SHIM, environment or "", "NYMBL_FAULTS_LATER=" .. helper.quote(plan), "NYMBL_FAULTS_REPORT=" .. calls_file,
      "timeout -s KILL", LIMIT, helper.interpreter(), script, helper.quote(options), SHIM, path, patient,
      max_attempts and 0 or 900, "2>&1; echo status $?",
    }, " "))
    return tonumber(output:match "status (%d+)$"), output
  end

  local function calls_of(name, threaded)
    set_up(name)
    local status, output = run(name, threaded, "kill=0")
    assert(status == 0 and output:find "^done", output)
    return tonumber(helper.read_file(calls_file):match "^%d+")
  end

  -- What must hold after a run, whatever has failed.
  local checks = {}

  local function check_stored(state)
    local stored = 0
    for _, document in ipairs(helper.stored(patient)) do
      if document.id ~= "d" then
        stored = stored + 1
        assert(document.sha256 == upload_sum, "other bytes were stored")
      end
    end
    if state == "done" or state == "stored" then assert(stored == 1, "stored " .. stored) end
    if state == "known" then assert(stored == 0, "stored, but reported as failed") end
  end

  function checks.upload(state)
    assert(helper.sent("upload", patient) <= 1, "sent twice")
    check_stored(state)
  end

  checks.upload_all = checks.upload

  -- Only whole documents, apart from the library's own files. Returns how many.
  local function count_exported(other_sum)
    local paths = helper.output(("find %s -type f ! -name manifest.jsonl ! -path '*/.nymbl-*'"):format(folder))
    local count = 0
    for path in paths:gmatch "[^\n]+" do
      local found = helper.sha256(path)
      assert(found == sum or found == other_sum, "half a file: " .. path)
      count = count + 1
    end
    assert(count <= 1, "twice")
    return count
  end

  function checks.export() return count_exported() end

  function checks.replace(state)
    assert(count_exported(state ~= "done" and old_sum) == 1, "the old file is gone")
  end

  -- The manifest describes the file that is there, even if the service does not have it any more.
  local function check_manifest()
    local record = helper.json.decode(helper.read_file(folder .. "/doc/manifest.jsonl"):match "([^\n]*)\n$")
    assert(record.sha256 == helper.sha256(folder .. "/doc/" .. record.path), "not what the manifest says")
  end

  local function check_file(state)
    local done = helper.exists(folder .. "/doc") and helper.sha256(folder .. "/doc") == sum
    assert(done or not helper.exists(folder .. "/doc") or helper.read_file(folder .. "/doc") == "old", "half a file")
    if state == "done" then assert(done, "not the document") end
    if state == "known" then assert(not done, "complete, but reported as failed") end
  end

  function checks.download(state)
    check_file(state)
    if state == "known" then assert(helper.read_file(folder .. "/doc") == "old", "the old file is gone") end
  end

  checks.resume = check_file

  function checks.list() end

  function checks.store(state)
    local client = helper.client { store = require("nymbl").store.file(store), token = "any", monthly_quota = 1000 }
    local usage = assert(client:usage())
    client:close()
    assert(usage.requests >= helper.sent("list", patient), "a request that was not counted")
    -- a store that cannot tell whether it has lost its lock repeats the change
    if state == "done" then assert(usage.requests >= 1 and usage.requests <= 2, usage.requests) end
  end

  function checks.delete(state)
    local is_there = #helper.stored(patient) == 1
    assert(helper.sent("delete", patient) <= 1, "sent twice")
    if state == "done" then assert(not is_there, "still there") end
    if state == "known" then assert(is_there, "deleted, but reported as failed") end
  end

  -- The next run, without faults.
  local function recover(name, environment)
    if name == "upload" or name == "delete" then return end
    if name == "replace" then helper.admin("DELETE", ("documents?patient=%s&id=d"):format(patient)) end
    local status, output = run(name, false, "kill=0", 2, environment) -- a range may be refused first
    assert(status == 0 and output:find "^done", "the next run: " .. output)
    if name == "upload_all" then
      check_stored "done" -- with `settle` 0, what was sent but not stored is sent again
    elseif name == "export" then
      assert(checks.export() == 1, "not exported")
      check_manifest()
    elseif name == "replace" then
      checks.replace()
      check_manifest()
    end
    if name == "download" or name == "resume" then
      check_file "done"
      assert(helper.names(folder) == "doc", "left behind: " .. helper.names(folder))
    end
  end

  -- The program is killed, then the disk has one of its possible states, and the machine starts again.
  local function try_power_cut(name, call, seed)
    set_up(name)
    local disk, record = name == "store" and store:match "^(.*)/" or folder, helper.directory()
    local before = power.look(disk)
    local status, output = run(name, false, "kill=" .. call, nil, "NYMBL_FAULTS_DISK=" .. record)
    assert(status == 137 or status == 0, output)
    power.cut(disk, before, record, generator(seed))
    local state = output:find "^done" and "done" or "killed"
    if name ~= "store" then checks[name](state) end -- the last counts may be missing
    recover(name, "NYMBL_FAULTS_BOOT=" .. boot)
    return state
  end

  local function try(name, threaded, plan)
    local call, seed = plan:match "^power=(%d+):(%d+)$"
    if call then return try_power_cut(name, call, tonumber(seed)) end
    set_up(name)
    local status, output = run(name, threaded, plan)
    local kind = output:match "^failed (%S+)"
    local state = output:find "^done" and "done" or kind and output:match "(%l+)\nstatus" or "killed"
    if plan:find "^kill" or plan:find "^term" then
      assert(status == 137 or status == 143 or state ~= "killed", output)
    else
      assert(status == 0, "it died: " .. output)
      assert(state ~= "killed" and not output:find "^raised", output)
    end
    checks[name](state)
    recover(name)
    return state
  end

  -- The programs whose files are looked at after a power cut.
  local KEEPS = { download = true, resume = true, store = true, upload_all = true, export = true, replace = true }

  -- The faults of a scenario: kinds of fault, spread over its calls.
  local function plans_of(count, has_power_cuts)
    local plans = {}
    local function add(kind, call)
      local word = kind .. "=" .. call
      if kind == "fail" then word = word .. ":" .. ERRORS[random(#ERRORS)] end
      if kind == "from" then word = word .. ":" .. LASTING[random(#LASTING)] end
      plans[#plans + 1] = word
    end
    local kinds = { "kill", "fail", "from", "term" }
    if SAMPLES == math.huge then
      for call = 1, count do
        for _, kind in ipairs(kinds) do add(kind, call) end
      end
    else
      for i = 1, SAMPLES do add(kinds[i % #kinds + 1], random(count)) end
    end
    local cuts = math.min(SAMPLES, count) * POWER_CUTS
    for i = 1, has_power_cuts and cuts or 0 do
      plans[#plans + 1] = ("power=%d:%d"):format(long and (i - 1) % count + 1 or random(count + 1), random(1000000))
    end
    return plans
  end

  for _, mode in ipairs { "plain", "threaded" } do
    for _, name in ipairs { "upload", "download", "resume", "list", "store", "delete", "upload_all", "export", "replace" } do
      it(("in the middle of: %s, %s"):format(name, mode), function()
        local threaded = mode == "threaded"
        local count = calls_of(name, threaded)
        assert(count > 10, count)
        local tried, states = 0, { done = 0, stored = 0, known = 0, unknown = 0, killed = 0 }
        for _, plan in ipairs(plans_of(count, not threaded and KEEPS[name])) do
          local ok, state = pcall(try, name, threaded, plan)
          if not ok then error(("%s: %s"):format(plan, tostring(state)), 0) end
          tried, states[state] = tried + 1, states[state] + 1
        end
        helper.tried(tried, "failing or last system calls", ("%s, %s, of %d, seed %d: %d done, %d failed, %d unknown, %d killed"):format(
          name, mode, count, SEED, states.done + states.stored, states.known, states.unknown, states.killed))
        assert.equal(0, helper.object_count())
      end)
    end
  end
end)
