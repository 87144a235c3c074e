-- SPDX-License-Identifier: MIT
-- The command `nymbl`: SIGINT, SIGTERM and SIGHUP, at known and at random moments.

local command = require "command"
local helper = require "helper"

local quote = helper.quote

local STATUS = { INT = 130, TERM = 143, HUP = 129 }
local BIG = helper.big_file(2000000)
local PDF = helper.output("realpath " .. quote(helper.path("spec/fixtures/referral.pdf")))

-- A generator that is the same in all versions of Lua.
local function random_from(seed)
  local state = seed
  return function()
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
  end
end

local function sleep(seconds)
  os.execute(("sleep %.3f"):format(seconds))
end

-- Start, wait until the sandbox has got a request of an operation, and until the condition `is_ready` of the options, if
-- given, is true; and send a signal.
local function interrupt(signal, operation, arguments, options)
  local is_ready = options and options.is_ready
  local count = #helper.journal(operation)
  local run = command.start(arguments, options)
  helper.wait_for(function() return #helper.journal(operation) > count and (not is_ready or is_ready()) end)
  sleep(0.2)
  command.signal(run, signal)
  return command.finish(run)
end

local function add_big()
  return helper.add_document { patient = "12345", file_name = "big.pdf", content_type = "application/pdf", size = 2000000 }.id
end

before_each(function()
  helper.reset()
  command.home()
end)

describe("a signal", function()
  for signal, expected in pairs(STATUS) do
    it(("ends what waits for the service: SIG%s"):format(signal), function()
      helper.faults { operation = "list", action = { delay = 60 }, times = -1 }
      local now = require("nymbl.core").now
      local began = now()
      local status, out, err = interrupt(signal, "list", { "list", "12345" })
      assert.equal(expected, status)
      assert.equal("", out)
      assert.equal(("nymbl: stopped by SIG%s: nothing was changed\n"):format(signal), err)
      assert.is_true(now() - began < 10)
    end)

    it(("removes what cannot be continued: SIG%s"):format(signal), function()
      local id = add_big()
      helper.faults { operation = "download", action = { stall = 1000000 }, times = -1 }
      local folder = helper.directory()
      local status, _, err = interrupt(signal, "download", { "download", "12345", id, "-O", folder })
      assert.equal(expected, status)
      assert.equal(("nymbl: stopped by SIG%s: 0 done, 0 failed, 1 left\n"):format(signal), err)
      assert.equal("", helper.names(folder))
    end)
  end

  it("keeps what --resume can continue", function()
    local id = add_big()
    helper.faults { operation = "download", action = { stall = 1000000 }, times = -1 }
    local folder = helper.directory()
    local status, _, err = interrupt("TERM", "download", { "download", "12345", id, "-O", folder, "--resume" },
      { is_ready = function()
        local part = folder .. "/big.pdf.nymbl-part"
        return helper.exists(part) and #helper.read_file(part) == 1000000
      end })
    assert.equal(143, status)
    assert.equal("nymbl: stopped by SIGTERM: 0 done, 0 failed, 1 left, 1000000 bytes are kept for --resume\n", err)
    helper.faults()
    assert.equal(0, (command.run { "download", "12345", id, "-O", folder, "--resume" }))
    assert.equal("big.pdf", helper.names(folder))
    assert.equal(206, helper.journal("download")[2].status)
  end)

  it("counts what an earlier run has kept, before more of it arrives", function()
    local id = add_big()
    local folder = helper.directory()
    helper.faults { operation = "download", action = { cut = 1000000 }, times = 1 }
    local client = helper.client() -- of the same account
    local done = client:patient("12345"):document(id):download(folder .. "/big.pdf", { resume = true })
    client:close()
    assert.is_nil(done)
    helper.faults { operation = "download", action = { delay = 60 }, times = -1 }
    local status, _, err = interrupt("TERM", "download", { "download", "12345", id, "-O", folder, "--resume" })
    assert.equal(143, status)
    assert.equal("nymbl: stopped by SIGTERM: 0 done, 0 failed, 1 left, 1000000 bytes are kept for --resume\n", err)
  end)

  it("says if an upload may have been carried out, and starts no other", function()
    helper.faults { operation = "upload", action = { delay = 60 }, times = -1 }
    local status, out, err = interrupt("INT", "upload", { "upload", "12345", PDF, PDF, PDF, "--jobs", "1" })
    assert.equal(130, status)
    assert.equal(PDF .. "\toutcome unknown\n", out)
    local lines = command.lines(err)
    assert.equal("nymbl: stopped by SIGINT: 0 done, 0 failed, 2 left, 1 may have been carried out: look before you repeat it",
      lines[#lines])
    assert.equal(1, #helper.journal "upload")
  end)

  it("is noticed while the rate limit is waited for", function()
    local ids = {}
    for i = 1, 20 do ids[i] = "none" .. i end
    local run = command.start { "delete", "12345", "--yes", (table.unpack or unpack)(ids) } -- luacheck: ignore
    helper.wait_for(function() return #helper.journal "delete" >= 5 end)
    command.signal(run, "TERM")
    local status, _, err = command.finish(run)
    assert.equal(143, status)
    assert.matches("nymbl: stopped by SIGTERM: 0 done, %d failed, 1%d left\n$", err)
  end)

  it("is noticed while operands are read from standard input", function()
    local fifo = helper.temporary(".fifo")
    os.execute("mkfifo " .. quote(fifo))
    local run = command.start({ "delete", "12345", "-", "--yes" },
      { before = ("sleep 30 >%s & exec <%s"):format(quote(fifo), quote(fifo)) })
    helper.wait_for(function() -- until it handles the signal
      local caught = helper.read_file("/proc/" .. run.pid .. "/status"):match "SigCgt:%s*(%x+)"
      return caught:find "[4-7c-f]%x%x%x$" -- bit 14
    end)
    sleep(0.2)
    command.signal(run, "TERM")
    local status, _, err = command.finish(run)
    assert.equal(143, status)
    assert.equal("nymbl: stopped by SIGTERM: nothing was changed\n", err)
    assert.same({}, helper.journal())
  end)

  it("answers the question of delete with no", function()
    local id = add_big()
    local status, screen = command.run_in_terminal({ "delete", "12345", id },
      { typed = "\3", typed_when = function(screen) return screen:find("[y/N]", 1, true) end })
    assert.equal(130, status)
    assert.matches("nymbl: stopped by SIGINT: nothing was changed\n$", screen)
    assert.equal(1, #helper.stored("12345"))
  end)

  it("that is ignored stays ignored", function()
    for signal in pairs(STATUS) do
      helper.faults { operation = "list", action = { delay = 1 }, times = 1 }
      local status, _, err = interrupt(signal, "list", { "list", "12345" }, { before = ("trap '' %s"):format(signal) })
      assert.equal(0, status, signal)
      assert.equal("", err)
    end
  end)

  it("of those that are not ignored ends it", function()
    helper.faults { operation = "list", action = { delay = 60 }, times = 1 }
    assert.equal(143, (interrupt("TERM", "list", { "list", "12345" }, { before = "trap '' INT HUP" })))
  end)

  -- LuaJIT compiles a loop that has waited for ten seconds, or sooner with this option.
  it("is noticed after a long wait", function()
    local lua = rawget(_G, "jit") and "luajit" or "lua" .. _VERSION:match "%d%.%d"
    local now = require("nymbl.core").now
    local runs = {}
    helper.faults { operation = "list", action = { delay = 60 }, times = -1 }
    for _, option in ipairs(lua == "luajit" and { "-Ohotloop=2", "-Ohotloop=20" } or { "--" }) do
      local folder = helper.directory()
      helper.write_file(folder .. "/" .. lua, ("#!/bin/sh\nexec %s %s \"$@\"\n"):format(
        quote(helper.output("command -v " .. lua):match "%S+"), option))
      os.execute("chmod +x " .. quote(folder .. "/" .. lua))
      runs[#runs + 1] = command.start({ "list", "12345" }, { env = { PATH = folder .. ":" .. os.getenv "PATH" } })
    end
    helper.wait_for(function() return #helper.journal "list" == #runs end)
    sleep(1)
    for _, run in ipairs(runs) do
      local began = now()
      command.signal(run, "TERM")
      assert.equal(143, (command.finish(run)))
      assert.is_true(now() - began < 10)
    end
  end)

  it("is obeyed, or ignored, while the command starts #slow", function()
    local random = random_from(1)
    for _ = 1, 15 do
      for before, expected in pairs { [""] = 130, ["trap '' INT"] = 3 } do
        -- only who ignores the signal gets the response
        helper.faults { operation = "get", action = { delay = expected == 3 and 0.3 or 60, effect = true }, times = -1 }
        local run = command.start({ "show", "12345", "none" }, { before = before, env = { XDG_STATE_HOME = helper.directory() } })
        sleep(random() * 0.015)
        command.signal(run, "INT")
        local status, out, err = command.finish(run)
        assert.equal(expected, status, err)
        assert.not_matches("traceback", out .. err)
      end
    end
    helper.tried(30, "runs ended by a signal")
  end)

  it("is sent by a terminal, too", function()
    helper.faults { operation = "list", action = { delay = 60 }, times = -1 }
    local status, screen = command.run_in_terminal({ "list", "12345" },
      { typed = "\3", typed_when = function() return #helper.journal "list" > 0 end })
    assert.equal(130, status)
    assert.matches("nymbl: stopped by SIGINT: nothing was changed\n$", screen)
  end)
end)

describe("killed at a random moment #slow", function()
  local ROUNDS = 12

  it("a download leaves the whole document, or nothing", function()
    local id = add_big()
    local sum = helper.stored("12345")[1].sha256
    for seed = 1, ROUNDS do
      local random = random_from(seed)
      local folder, resume = helper.directory(), random() < 0.5
      helper.faults { operation = "download", action = { drip = 4000000 }, times = -1 }
      local run = command.start({ "download", "12345", id, "-O", folder, resume and "--resume" or "--force" },
        { env = { XDG_STATE_HOME = helper.directory() } })
      sleep(random() * 0.9)
      command.signal(run, random() < 0.5 and "INT" or "TERM")
      local status, _, err = command.finish(run)
      local names = helper.names(folder)
      local line = ("seed %d: status %d, %s, %s"):format(seed, status, names, err)
      if helper.exists(folder .. "/big.pdf") then
        assert.equal(sum, helper.sha256(folder .. "/big.pdf"), line)
        assert.equal("big.pdf", names, line)
      elseif not resume then
        assert.equal("", names, line)
      end
      if status ~= 0 and err ~= "" then assert.matches("^nymbl: stopped by SIG%u+: ", err, nil, line) end
      helper.faults()
      assert.equal(0, (command.run({ "download", "12345", id, "-O", folder, "--resume", "--force" },
        { env = { XDG_STATE_HOME = helper.directory() } })), line)
      assert.equal("big.pdf", helper.names(folder), line)
      assert.equal(sum, helper.sha256(folder .. "/big.pdf"), line)
    end
    helper.tried(ROUNDS, "runs ended by a signal")
  end)

  it("a batch of uploads has told the id of each document, or that one is unknown", function()
    for seed = 1, 20 do
      helper.reset()
      local random = random_from(100 + seed)
      helper.faults { operation = "upload", action = { delay = 0.5 }, times = -1 }
      local run = command.start({ "upload", "12345", PDF, PDF, PDF, BIG, "--jobs", "2" }, { env = { XDG_STATE_HOME = helper.directory() } })
      sleep(random() * 1.2)
      command.signal(run, random() < 0.5 and "INT" or "TERM")
      local status, out, err = command.finish(run)
      sleep(0.2) -- what was sent may still be carried out
      local line = ("seed %d: status %d, %s%s"):format(seed, status, out, err)
      local told, unknown = {}, tonumber(err:match("(%d+) may have been carried out")) or 0
      for id in out:gmatch("\t(doc%-%w+)\n") do told[id] = true end
      local untold = 0
      for _, document in ipairs(helper.stored("12345")) do
        if told[document.id] then told[document.id] = nil else untold = untold + 1 end
      end
      assert.is_nil(next(told), line)
      assert.is_true(untold <= unknown, line)
    end
    helper.tried(20, "runs ended by a signal")
  end)
end)
