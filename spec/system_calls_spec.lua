-- SPDX-License-Identifier: MIT
-- A program's system calls fail, or the program is killed there, or the machine's power is cut: whatever
-- happens, it ends, nothing is sent twice, no file is half a file, and the next run completes. Without
-- NYMBL_SPEC_LARGE only some of the calls are tried. NYMBL_SEED selects others.
local helper = require "helper"
local power = require "power"

local SHIM = "./build/spec/core/faults.so"
local SIZE = 120000
local SEED = tonumber(os.getenv "NYMBL_SEED" or "") or rawget(_G, "jit") and 2 or 1
local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil
local SAMPLES = long and math.huge or 6 -- faults of each scenario
local STATES = long and 16 or 1 -- states of the disk after which the next run is tried, of each power cut
local COUNTED = 3 -- requests that a store has counted before
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
  list = [[
    begin()
    local page, err = patient:page()
    finish(page, err)
    for _, document in ipairs(page or {}) do print("row", document.id, document.file_size_bytes) end
  ]],
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
  local base -- has the rest, in memory if possible
  local folder, store, flushed, calls_file, random, boot
  local patient, patients = nil, 0 -- another one for each run: a request of a killed one may be handled late
  local upload_sum, sum, old_sum

  if os.getenv "ASAN_OPTIONS" then
    pending "the sanitizers' runtime would have to be loaded first"
    return
  elseif not helper.exists(SHIM) then
    pending "the C tests are not built"
    return
  end

  before_each(function()
    random = generator(SEED)
    boot = helper.write_file(helper.temporary(), "bbbbbbbb-0000-4000-8000-000000000000\n")
    base = helper.output(("mktemp -d -p $([ -w /dev/shm ] && echo /dev/shm || echo %s)"):format(helper.quote(helper.folder)))
  end)

  after_each(function() os.execute("rm -rf " .. helper.quote(base)) end)

  local function change_document()
    sum = helper.admin("POST", "documents", {
      patient = patient, id = "d", content = "%PDF-1.4 " .. ("z"):rep(SIZE), uploaded_at = "2030-01-01T00:00:00Z",
    }).sha256
  end

  local function set_up(name)
    helper.reset()
    patients = patients + 1
    patient = ("p%05d"):format(patients)
    folder, store, flushed, calls_file = base .. "/files", base .. "/state/store", base .. "/flushed", base .. "/calls"
    assert(os.execute(("rm -rf %s/* && mkdir %s %s/state %s"):format(base, folder, base, flushed)))
    sum = helper.admin("POST", "documents", { patient = patient, id = "d", size = SIZE, content_type = "application/pdf" }).sha256
    if name == "upload" or name == "upload_all" then
      upload_sum = helper.sha256(helper.write_file(folder .. "/a.pdf", "%PDF-1.4 " .. ("x"):rep(SIZE)))
    elseif name == "download" then
      helper.write_file(folder .. "/doc", "old")
    elseif name == "store" then
      local client = helper.client { store = require("nymbl.store").file(store), token = helper.token(), monthly_quota = 1000 }
      for _ = 1, COUNTED do assert(client:patient(patient):count()) end
      client:close()
      helper.admin("DELETE", "journal")
    elseif name == "replace" then
      local client = helper.client()
      assert(assert(client:export(folder .. "/doc", { patients = { patient } })).complete)
      client:close()
      old_sum = sum
      change_document()
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

  -- The command that runs a program with a plan.
  local function command_of(name, threaded, plan, max_attempts, environment)
    local sandbox = helper.sandbox()
    local options = literal {
      base_url = sandbox.base_url, api_key = sandbox.api_key, ca_file = sandbox.ca_file, timeout = 10,
      token = helper.token(), rate = false, monthly_quota = 1000,
      max_attempts = max_attempts or 1,
    }
    if name == "store" then options = options:gsub("}$", (", store = require('nymbl.store').file(%q) }"):format(store)) end
    local body = programs[name]
    local script = helper.write_file(base .. "/script.lua", PREAMBLE .. (threaded and THREADED:format(body) or body))
    local path = folder .. (name:find "^upload" and "/a.pdf" or "/doc")
    return table.concat({
      "env LD_PRELOAD=" .. SHIM, environment or "", "NYMBL_FAULTS_LATER=" .. helper.quote(plan), "NYMBL_FAULTS_REPORT=" .. calls_file,
      "timeout -s KILL", LIMIT, helper.interpreter(), script, helper.quote(options), SHIM, path, patient,
      max_attempts and 0 or 900, "2>&1",
    }, " ")
  end

  -- Run a program with a plan. Returns its exit status as the shell has it, and its output.
  local function run(...)
    local output = helper.output(command_of(...) .. "; echo status $?")
    return tonumber(output:match "status (%d+)$"), output
  end

  -- The number of calls that a program makes. It differs with what arrives at once.
  local function calls_of(name, threaded)
    local most = 0
    for _ = 1, long and 5 or 1 do
      set_up(name)
      local status, output = run(name, threaded, "kill=0")
      assert(status == 0 and output:find "^done", output)
      most = math.max(most, tonumber(helper.read_file(calls_file):match "^%d+"))
    end
    return most
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

  -- The manifest describes the file that is there, even if the service does not have it any more.
  local function check_manifest()
    local record = helper.json.decode(helper.read_file(folder .. "/doc/manifest.jsonl"):match "([^\n]*)\n$")
    assert(record.sha256 == helper.sha256(folder .. "/doc/" .. record.path), "not what the manifest says")
  end

  -- What was reported as exported is there, and the manifest says so.
  function checks.export(state)
    local count = count_exported()
    if state ~= "done" then return end
    assert(count == 1, "not exported")
    check_manifest()
  end

  function checks.replace(state)
    assert(count_exported(state ~= "done" and old_sum) == 1, "the old file is gone")
    if state == "done" then check_manifest() end
  end

  local function check_file(state)
    local done = helper.exists(folder .. "/doc") and helper.sha256(folder .. "/doc") == sum
    assert(done or not helper.exists(folder .. "/doc") or helper.read_file(folder .. "/doc") == "old", "half a file")
    if state == "done" then assert(done, "not the document") end
    if state == "known" then assert(not done, "complete, but reported as failed") end
  end

  function checks.download(state)
    check_file(state)
    assert(helper.exists(folder .. "/doc"), "the old file is gone")
  end

  checks.resume = check_file

  function checks.list(state, output)
    local rows = state == "done" and ("row\td\t%d\n"):format(SIZE) or ""
    assert(output:gsub("^[^\n]*\n", ""):gsub("status %d+$", "") == rows, output)
  end

  -- What was counted stays counted. A store that is damaged, which only a power cut can do, counts as empty.
  function checks.store(state, _, is_damaged)
    local client = helper.client { store = require("nymbl.store").file(store), token = "any", monthly_quota = 1000 }
    local count = assert(client:usage()).requests
    client:close()
    if is_damaged and count == 0 then return end
    local sent = state == "cut" and 0 or helper.sent("list", patient) -- the last counts may be missing then
    assert(count >= COUNTED + sent, "a request that is not counted: " .. count)
    -- a store that cannot tell whether it has lost its lock repeats the change
    assert(count <= COUNTED + 2, count)
    if state == "done" then assert(count > COUNTED, count) end
  end

  function checks.delete(state)
    local is_there = #helper.stored(patient) == 1
    assert(helper.sent("delete", patient) <= 1, "sent twice")
    if state == "done" then assert(not is_there, "still there") end
    if state == "known" then assert(is_there, "deleted, but reported as failed") end
  end

  -- The next run, without faults. What an earlier one has done is not done again.
  local function recover(name, state, environment)
    if name == "upload" or name == "delete" then return end
    if name == "replace" then helper.admin("DELETE", ("documents?patient=%s&id=d"):format(patient)) end
    if state == "done" then helper.admin("DELETE", "journal") end
    local status, output = run(name, false, "kill=0", 2, environment) -- a range may be refused first
    assert(status == 0 and output:find "^done", "the next run: " .. output)
    if name == "upload_all" then
      check_stored "done" -- with `settle` 0, what was sent but not stored is sent again
      assert(state ~= "done" or #helper.journal() == 0, "looked for again")
    elseif name == "export" then
      checks.export "done"
      assert(state ~= "done" or helper.sent("download", patient) == 0, "exported again")
    elseif name == "replace" then
      checks.replace()
      check_manifest()
    end
    if name == "download" or name == "resume" then
      check_file "done"
      assert(helper.names(folder) == "doc", "left behind: " .. helper.names(folder))
    end
  end

  -- After a power cut, the disk has one of its possible states, and the machine starts again. Calls
  -- `done(state)` for each one that was tried. `known` has those that need not be tried again.
  local function try_states(name, states, known, was_done, done)
    local documents, stored = helper.stored(patient), {}
    for _, document in ipairs(documents) do stored[document.id] = true end
    for i, disk in ipairs(states) do
      -- of two runs, only lengths and names tell states apart; a store always has the same
      local shape = disk.shape:gsub(patient, "P"):gsub(("%x"):rep(16), "X"):gsub("(nymbl%-tmp%-)%x%x", "%1")
      shape = ("%s %d %s"):format(was_done, #documents, shape)
      if not known[shape] then
        known[shape] = name ~= "store"
        if i > 1 then -- what the run before has changed
          for _, document in ipairs(helper.stored(patient)) do
            if not stored[document.id] then
              helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(patient, document.id))
            end
          end
          if name == "replace" then change_document() end
          helper.admin("DELETE", "journal")
        end
        disk:apply()
        local state = was_done and "done" or "killed"
        local ok, problem = pcall(function()
          checks[name](name == "store" and "cut" or state, nil, disk.is_damaged)
          recover(name, state, "NYMBL_FAULTS_BOOT=" .. boot)
        end)
        if not ok then error(("%s; the disk had: %s"):format(tostring(problem), disk.shape), 0) end
        done(state)
      end
    end
  end

  -- The program is killed at a call, or has ended (call 0).
  local function try_power_cut(name, call, seed, known, done)
    set_up(name)
    local disk = name == "store" and base .. "/state" or folder
    local before = power.look(disk)
    local status, output = run(name, false, "kill=" .. call, nil, "NYMBL_FAULTS_DISK=" .. flushed)
    local was_done = output:find "^done" ~= nil
    assert(status == 137 and not was_done or status == 0 and was_done, output)
    local limit = (not long and call == 0) and 2 or STATES
    try_states(name, power.states(disk, before, flushed, limit, generator(seed)), known, was_done, done)
  end

  -- Calls `done(state, kind)` for each fault that has struck; returns whether one has, and how many calls
  -- the program has made.
  local function try(name, threaded, plan, known, done)
    local call, seed = plan:match "^power=(%d+):(%d+)$"
    if call then
      try_power_cut(name, tonumber(call), tonumber(seed), known, done)
      return true
    end
    set_up(name)
    local status, output = run(name, threaded, plan)
    local kind = output:match "^failed (%S+)"
    local state = output:find "^done" and "done" or kind and output:match "^[^\n]* (%l+)\n" or "killed"
    local has_struck, calls
    if plan:find "^kill" or plan:find "^term" then
      has_struck = status == (plan:find "^kill" and 137 or 143)
      -- another thread's last call may be slower than the program's end: then it is done as well
      assert(has_struck or status == 0 and state ~= "killed", output)
    else
      assert(status == 0, "it died: " .. output)
      assert(state ~= "killed" and not output:find "raised", output)
      has_struck = helper.read_file(calls_file):match "^%d+ (%S+)" ~= "-"
    end
    if not has_struck then calls = tonumber(helper.read_file(calls_file):match "^%d+") end
    checks[name](state, output)
    recover(name, state)
    if has_struck then done(state, plan:match "^%l+") end
    return has_struck, calls
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
    local cuts = has_power_cuts and (long and count or SAMPLES - 2) or 0
    for i = 1, cuts do
      plans[#plans + 1] = ("power=%d:%d"):format(long and i or random(count), random(1000000))
    end
    if has_power_cuts then plans[#plans + 1] = "power=0:1" end -- when it has ended
    return plans
  end

  -- Of all moments, this is the one for which the journal is flushed: the service has the document, and
  -- only a line in the journal knows.
  it("in the middle of: upload_all, when the power is cut before the answer", function()
    set_up "upload_all"
    helper.faults { operation = "upload", action = { delay = 8 }, times = 1 }
    local before = power.look(folder)
    local program = io.popen("echo $$; exec " .. command_of("upload_all", false, "kill=0", nil, "NYMBL_FAULTS_DISK=" .. flushed))
    local id = program:read "*l"
    local is_stored = helper.eventually(LIMIT, function() return #helper.stored(patient) == 2 end)
    os.execute("pkill -KILL -P " .. id .. "; kill -KILL " .. id)
    local output = program:read "*a"
    program:close()
    assert.equal("", output)
    assert(is_stored)
    helper.admin("DELETE", "faults")
    local tried = 0
    try_states("upload_all", power.states(folder, before, flushed, long and 100 or 4, generator(SEED)), {}, false, function()
      tried = tried + 1
      assert(helper.sent("upload", patient) <= 1)
    end)
    assert(tried > 0)
    helper.tried(tried, "states of the disk", "upload_all, before the answer, seed " .. SEED)
  end)

  for _, mode in ipairs { "plain", "threaded" } do
    for _, name in ipairs { "upload", "download", "resume", "list", "store", "delete", "upload_all", "export", "replace" } do
      it(("in the middle of: %s, %s"):format(name, mode), function()
        local threaded = mode == "threaded"
        local count = calls_of(name, threaded)
        assert(count > 10, count)
        local states = { done = 0, stored = 0, known = 0, unknown = 0, killed = 0 }
        local struck, known = { kill = 0, term = 0, fail = 0, from = 0, power = 0 }, {}
        local plans = plans_of(count, not threaded and KEEPS[name])
        local tried, expected = 0, 0
        local function note(state, kind)
          kind = kind or "power"
          tried, states[state], struck[kind] = tried + 1, states[state] + 1, struck[kind] + 1
        end
        for _, plan in ipairs(plans) do
          local has_struck, calls
          for _ = 1, long and 1 or 3 do -- a run may make fewer calls than the first one
            local ok
            ok, has_struck, calls = pcall(try, name, threaded, plan, known, note)
            if not ok then error(("%s: %s"):format(plan, tostring(has_struck)), 0) end
            if has_struck then break end
            plan = plan:gsub("=%d+", "=" .. random(calls))
          end
          if not plan:find "^power" then expected = expected + 1 end
        end
        assert(2 * (tried - struck.power) >= expected, ("of %d faults, %d have struck"):format(expected, tried - struck.power))
        assert(struck.kill + struck.term > 0 and struck.fail + struck.from > 0, "no fault of a kind has struck")
        helper.tried(tried, "failing or last system calls", ("%s, %s, of %d, seed %d: %d done, %d failed, %d unknown, %d killed"):format(
          name, mode, count, SEED, states.done + states.stored, states.known, states.unknown, states.killed))
        assert.equal(0, helper.object_count())
      end)
    end
  end
end)
