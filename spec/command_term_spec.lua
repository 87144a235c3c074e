-- SPDX-License-Identifier: MIT
-- The command `nymbl` gets SIGTERM at a system call, with its handler in place: it ends as it says it does,
-- and the next run completes. Without NYMBL_SPEC_LARGE only some of the calls are tried; NYMBL_SEED selects
-- others.
local command = require "command"
local helper = require "helper"

local SHIM = "./build/spec/core/faults.so"
local SIZE = 60000
local SEED = tonumber(os.getenv "NYMBL_SEED" or "") or rawget(_G, "jit") and 2 or 1
local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil
local SAMPLES = 4 -- calls of each operation
local SETTLED = 1000 -- seconds after which nobody waits for an upload of the run before

-- Runs in the process before the command: the plan begins when the signals are caught, so that no
-- signal meets the default disposition, which system_calls_spec.lua is for.
local PLAN = [==[
  dofile(%q) -- the clock
  local shim = %q
  package.preload["nymbl.command.signals"] = function(name)
    local signals = dofile(assert(package.searchpath(name, package.path)))
    local catch, exit = signals.catch, os.exit
    function signals.catch(...)
      catch(...)
      package.loadlib(shim, "faults_begin")()
    end
    function os.exit(...) -- luacheck: ignore
      package.loadlib(shim, "faults_end")()
      return exit(...)
    end
    return signals
  end
]==]

describe("SIGTERM at a system call of the command #slow", function()
  if os.getenv "ASAN_OPTIONS" then return end -- the sanitizers' runtime would have to be loaded first
  if not helper.exists(SHIM) then return end -- the C tests are not built
  local shim = helper.output("realpath " .. SHIM)

  -- What a test has: folder, state_home; patient; pdf, a file to upload; sum, its SHA-256; id, a document;
  -- id_sum, its SHA-256
  local world
  local patients = 0 -- another one for each run: a request of the one before may be handled late

  local function set_up(operation)
    helper.reset()
    command.home()
    patients = patients + 1
    world = { patient = "p" .. patients, folder = helper.directory(), state_home = helper.directory() }
    if operation.has_document then
      world.id = "d"
      world.id_sum = helper.admin("POST", "documents", {
        patient = world.patient, id = "d", file_name = "letter.pdf", content_type = "application/pdf", size = SIZE,
      }).sha256
    else
      world.pdf = helper.write_file(world.folder .. "/a.pdf", "%PDF-1.4 " .. ("x"):rep(SIZE))
      world.sum = helper.sha256(world.pdf)
    end
    if operation.prepare then operation.prepare() end
    helper.admin("DELETE", "journal")
  end

  -- Run the command with a plan. Returns its status, output and messages, and the number of its calls.
  local function run(operation, plan, ahead)
    local calls = helper.temporary(".calls")
    local clock = command.clock { ahead = ahead and helper.write_file(helper.temporary(".ahead"), tostring(ahead)) }
    local env = helper.before_program(PLAN:format(clock.LUA_INIT:sub(2), shim))
    env.LD_PRELOAD, env.NYMBL_FAULTS_LATER, env.NYMBL_FAULTS_REPORT = shim, plan, calls
    env.XDG_STATE_HOME = world.state_home
    local status, out, err = command.run(operation.arguments(ahead), { env = env })
    local count = helper.exists(calls) and tonumber(helper.read_file(calls):match "^%d+")
    return status, out, err, assert(count, "it did not end by itself: " .. err)
  end

  -- The files in the folder, without what differs between patients.
  local function names()
    local found = helper.output(("cd %s && find . -type f | sort"):format(world.folder))
    return (found:gsub("/" .. world.patient .. "/letter%-%x+", "/patient/letter"))
  end

  -- How many of the files are whole documents. There must not be any other visible file.
  local function count_whole(name_pattern)
    local count = 0
    for path in helper.output(("cd %s && find . -type f"):format(world.folder)):gmatch "[^\n]+" do
      if not path:find "%.nymbl%-" and path ~= "./manifest.jsonl" then
        assert(path:find(name_pattern), "another file: " .. path)
        assert(helper.sha256(world.folder .. "/" .. path) == world.id_sum, "half a file: " .. path)
        count = count + 1
      end
    end
    return count
  end

  -- The numbers of the message after a signal, by their words.
  local function numbers(text)
    local found = {}
    for number, word in text:gmatch "(%d+) (%l+)" do found[word] = tonumber(number) end
    return found
  end

  local function stored()
    local count = 0
    for _, document in ipairs(helper.stored(world.patient)) do
      assert(document.sha256 == world.sum, "other bytes were stored")
      count = count + 1
    end
    return count
  end

  local operations = {}

  operations.upload = {
    arguments = function() return { "upload", world.patient, world.pdf } end,
    -- The id of each document was told, or that one may be there.
    check = function(status, out, text)
      local count, told = stored(), numbers(text)
      assert(helper.sent("upload", world.patient) <= 1, "sent twice")
      local id = out:match "^[^\t]+\t(%S+)\n$"
      assert(out == "" or id, "half a line")
      if id then
        assert(count == 1, "told, but not stored")
        assert(status == 0 or told.done == 1, text)
      elseif count == 1 then
        assert(told.may == 1, "stored, but not told")
      else
        assert(told.done ~= 1, "not stored, but done")
      end
    end,
  }

  operations["upload --once"] = {
    arguments = function() return { "upload", world.patient, world.pdf, "--once", world.folder .. "/journal" } end,
    check = function(status, _, text)
      local count, told = stored(), numbers(text)
      local is_done = status == 0 or told.uploaded == 1
      assert(helper.sent("upload", world.patient) <= 1, "sent twice")
      if is_done then assert(count == 1, "not stored, but uploaded") end
      if count == 1 then assert(is_done or told.may == 1, "stored, but not told") end
    end,
    check_next = function() assert(stored() == 1, "stored " .. stored()) end,
  }

  operations.download = {
    has_document = true,
    prepare = function() -- an interrupted download
      local client = helper.client() -- of the same account
      helper.faults { operation = "download", action = { cut = SIZE / 2 }, times = 1 }
      local document = client:patient(world.patient):document(world.id)
      local done, err = document:download(world.folder .. "/letter.pdf", { resume = true })
      client:close()
      assert(not done and err.kind == "truncated", tostring(err))
    end,
    arguments = function(is_next)
      return { "download", world.patient, world.id, "-O", world.folder, "--resume", is_next and "--force" or nil }
    end,
    check = function(status, out, text)
      local count, told = count_whole "^%./letter%.pdf$", numbers(text)
      assert(count == ((status == 0 or told.done == 1) and 1 or 0), ("%d files"):format(count))
      assert((out ~= "") == (count == 1), "output")
      local kept = helper.output(("cat %s/*.nymbl-part 2>/dev/null | wc -c"):format(world.folder))
      if count == 0 then assert(tonumber(kept) >= SIZE / 2, "not kept") end
      world.is_kept = count == 0
      if told.bytes then assert(told.bytes == tonumber(kept), ("%s kept, %s"):format(kept, text)) end
    end,
    check_next = function()
      assert(count_whole "^%./letter%.pdf$" == 1, "no file")
      local requests = helper.journal "download"
      assert(not world.is_kept or requests[#requests].status == 206, "not continued")
    end,
  }

  operations.export = {
    has_document = true,
    arguments = function() return { "export", world.patient, "--to", world.folder } end,
    check = function(status, _, text)
      local count, told = count_whole "%.pdf$", numbers(text)
      assert(count <= 1, "twice")
      if status == 0 or told.downloaded == 1 then assert(count == 1, "not there, but downloaded") end
      if text:find "nothing was changed" then assert(count == 0, "changed") end
    end,
    check_next = function()
      assert(count_whole "%.pdf$" == 1, "no file")
      local line = helper.read_file(world.folder .. "/manifest.jsonl"):match "([^\n]*)\n$"
      assert(helper.json.decode(line).sha256 == world.id_sum, "not what the manifest says")
    end,
  }

  -- The message after the signal, as README.md of the command has it.
  local MESSAGES = {
    "^nothing was changed$", "^%d+ done, %d+ failed, %d+ left$",
    "^%d+ done, %d+ failed, %d+ left, %d+ bytes are kept for %-%-resume$",
    "^%d+ done, %d+ failed, %d+ left, 1 may have been carried out: look before you repeat it$",
    "^%d+ downloaded, %d+ unchanged, %d+ failed, the next run continues$",
    "^%d+ uploaded, %d+ unchanged, %d+ failed, the next run continues$",
    "^%d+ uploaded, %d+ unchanged, %d+ failed, 1 may have been carried out: look before you repeat it, the next run continues$",
  }

  local function check_message(status, err)
    assert(not err:find "traceback" and not err:find "internal error", err)
    if status == 0 then
      assert(err == "", err)
      return ""
    end
    assert(status == 143, ("status %d: %s"):format(status, err))
    local text = assert(err:match "nymbl: stopped by SIGTERM: ([^\n]*)\n$", err)
    for _, pattern in ipairs(MESSAGES) do
      if text:find(pattern) then return text end
    end
    error("unknown message: " .. text, 0)
  end

  -- Returns whether the signal came.
  local function try(operation, call, whole_names)
    set_up(operation)
    local status, out, err, calls = run(operation, "term=" .. call)
    local text = check_message(status, err)
    assert(status == 143 or calls < call, "the signal was ignored")
    operation.check(status, out, text)
    if operation.check_next then
      status, out, err = run(operation, "kill=0", SETTLED)
      assert(status == 0 and err == "", ("the next run: %d, %s%s"):format(status, out, err))
      operation.check_next()
    end
    if operation.check_next or operation == operations.upload then
      assert(names() == whole_names, "left behind: " .. names())
    end
    return calls >= call
  end

  for _, name in ipairs { "upload", "upload --once", "download", "export" } do
    it("ends it as documented: " .. name, function()
      local operation, random = operations[name], command.random_from(SEED)
      set_up(operation)
      local status, _, err, count = run(operation, "kill=0")
      assert(status == 0 and count > 30, err)
      local whole_names, tried = names(), 0
      for i = 1, long and count or SAMPLES do
        local call = long and i or 1 + math.floor(random() * count)
        local ok, has_come = pcall(try, operation, call, whole_names)
        if not ok then error(("call %d of %d: %s"):format(call, count, tostring(has_come)), 0) end
        if has_come then tried = tried + 1 end
      end
      helper.tried(tried, "runs ended by a signal", ("SIGTERM at a call of %s, of %d, seed %d"):format(name, count, SEED))
    end)
  end
end)
