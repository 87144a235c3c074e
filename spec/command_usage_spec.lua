-- SPDX-License-Identifier: MIT
-- The command `nymbl`: command lines, help, completions, manual page, and what it loads.

local command = require "command"
local helper = require "helper"
local options = require "nymbl.command.options"

local quote = helper.quote
local VERSION = require("nymbl.core").version

local COMMANDS = { "list", "show", "upload", "download", "delete", "copy", "patients", "export", "check", "ping", "quota",
                   "config", "completion", "help" }

describe("the command line of nymbl", function()
  setup(function() command.home() end)

  it("has these subcommands", function()
    assert.same(COMMANDS, options.COMMANDS)
  end)

  it("prints the version", function()
    local status, out, err = command.run { "--version" }
    assert.equal(0, status)
    assert.equal("nymbl " .. VERSION .. "\n", out)
    assert.equal("", err)
  end)

  it("explains itself, and each subcommand with an example", function()
    local status, out, err = command.run { "--help" }
    assert.equal(0, status)
    assert.equal("", err)
    for _, name in ipairs(COMMANDS) do assert.matches("\n   " .. name .. " ", out) end
    assert.equal(out, (select(2, command.run { "help" })))
    for _, name in ipairs(COMMANDS) do
      local _, text = command.run { "help", name }
      assert.equal(text, (select(2, command.run { name, "--help" })))
      assert.matches("^Usage: nymbl " .. name, text)
      assert.matches("\nFor example:\n   .*nymbl " .. name, text)
      for line in text:gmatch("[^\n]+") do assert.is_true(#line < 80, line) end
    end
  end)

  it("has examples that its own parser accepts", function()
    for _, name in ipairs(COMMANDS) do
      for _, example in ipairs(options.examples(options.load(name))) do
        local words = {}
        for word in example:match("nymbl ([^>)]+)"):gsub('"%s*$', ""):gmatch("%S+") do words[#words + 1] = word end
        local found, others = options.split(words)
        assert.equal(name, found)
        assert.is_true((options.parser(found):pparse(others)), example)
      end
    end
  end)

  local WRONG = {
    { "" }, { "frobnicate" }, { "--frobnicate" }, { "list" }, { "list", "1", "2" }, { "list", "" }, { "list", "1", "--top" },
    { "list", "1", "--top", "0" }, { "list", "1", "--top", "1.5" }, { "list", "1", "--since", "yesterday" },
    { "list", "1", "--timeout", "0" }, { "list", "1", "--timeout", "soon" }, { "list", "1", "--jobs", "0" },
    { "list", "1", "--jobs", "1001" },
    { "list", "1", "--profile", "../x" }, { "list", "1", "--dry-run" }, { "show", "1" }, { "show", "1", "2", "3" },
    { "upload", "1" }, { "upload", "1", "--stdin" }, { "upload", "1", "a", "--stdin", "--name", "b" },
    { "upload", "1", "a", "b", "--name", "c" }, { "upload", "1", "-", "--name", "c" },
    { "upload", "1", "--stdin", "--name", "a", "--once", "j" }, { "download", "1" },
    { "download", "1", "a", "b", "-o", "c" }, { "download", "1", "-", "-o", "c" }, { "download", "1", "a", "-o", "b", "-O", "c" },
    { "download", "1", "a", "-o", "-", "--json" }, { "download", "1", "a", "-o", "-", "--resume" }, { "delete", "1" },
    { "delete", "1", "a" }, { "copy", "1", "a" }, { "export" }, { "export", "1" }, { "export", "--to", "d", "--budget", "0" },
    { "check", "1" }, { "ping", "1", "2" }, { "quota", "1" }, { "config", "1" }, { "completion" }, { "completion", "tcsh" },
    { "help", "frobnicate" }, { "list", "1", "--orderby", "" }, { "patients", "--select", ", ," },
  }

  it("ends with 2 if it is wrong, says one line, and sends nothing", function()
    helper.reset()
    for _, words in ipairs(WRONG) do
      local status, out, err = command.run(words)
      local line = table.concat(words, " ")
      assert.equal(2, status, line)
      assert.equal("", out, line)
      assert.matches("^nymbl: [^\n]+\n$", err, nil, line)
    end
    assert.same({}, helper.journal())
  end)

  it("does not repeat the words of a wrong command line, unless at a terminal", function()
    for _, words in ipairs { { "patient-4711" }, { "list", "1", "--patient-4711" }, { "list", "1", "--top", "4711" .. "x" } } do
      local _, _, err = command.run(words)
      assert.not_matches("4711", err)
    end
    local status, screen = command.run_in_terminal { "list", "1", "--tpye", "x" }
    assert.equal(2, status)
    assert.matches("unknown option '--tpye'", screen, 1, true)
    assert.matches("Did you mean '--type'", screen, 1, true)
  end)

  it("takes options before the subcommand, and none behind '--'", function()
    helper.reset()
    local status, out = command.run { "--json", "--timeout", "20", "list", "1" }
    assert.equal(0, status)
    assert.equal("", out)
    assert.equal(1, #helper.journal "list")
    status = command.run { "show", "--", "1", "--json" }
    assert.equal(3, status)
    assert.equal(2, command.run { "show", "1", "--json" })
    assert.equal(3, command.run { "--", "show", "--verbose", "--json" })
  end)

  it("says what to install if argparse is missing", function()
    local status, out, err = command.run({ "list", "1" }, { env = {
      LUA_PATH = "/nowhere/?.lua", LUA_PATH_5_3 = "/nowhere/?.lua", LUA_PATH_5_4 = "/nowhere/?.lua",
    } })
    assert.equal(4, status)
    assert.equal("", out)
    assert.equal("nymbl: the Lua module argparse is missing: apt-get install lua-argparse, or luarocks install argparse\n", err)
  end)
end)

describe("a mistake in the program nymbl", function()
  -- Run a subcommand that raises an error. Options as of command.run().
  local function run_raising(raised, run_options)
    run_options = run_options or {}
    run_options.env = helper.before_program(([[
      package.preload["nymbl.command.quota"] = function(name)
        local quota = dofile(assert(package.searchpath(name, package.path)))
        function quota.run() error(%s) end
        return quota
      end]]):format(raised))
    if run_options.is_in_terminal then return command.run_in_terminal({ "quota" }, run_options) end
    return command.run({ "quota" }, run_options)
  end

  before_each(function()
    helper.reset()
    command.home()
  end)

  it("is shown at a terminal only: the message may contain a patient's data", function()
    local status, out, err = run_raising [["a mistake"]]
    assert.equal(1, status)
    assert.equal("", out)
    assert.equal("nymbl: internal error\n", err)
    local screen
    status, screen = run_raising([["a mistake"]], { is_in_terminal = true })
    assert.equal(1, status)
    assert.matches("nymbl: internal error\n[^\n]*a mistake\n$", screen)
  end)

  it("is wrong usage if the library refuses an argument, and a failure if a loop raises one", function()
    local status, _, err = run_raising [["file.lua:1: bad argument #1 to 'quota' (that)"]]
    assert.equal(2, status)
    assert.equal("nymbl: bad argument #1 to 'quota' (that)\n", err)
    status, _, err = run_raising [[require("nymbl").error { kind = "not_found" }]]
    assert.equal(3, status)
    assert.matches("^nymbl: not_found: ", err)
  end)

  it("says which module is missing", function()
    local status, out, err = command.run({ "quota" }, { env = helper.before_program [[
      package.preload["nymbl.command.program"] = function() require "nowhere" end]] })
    assert.equal(1, status)
    assert.equal("", out)
    assert.equal("nymbl: internal error: module 'nowhere' not found\n", err)
  end)

  -- SIGINT raises an error in a Lua program that does not catch it.
  it("is none if SIGINT arrives before it is caught", function()
    local env = helper.before_program [[
      local has_raised = false
      package.preload["nymbl.command.program"] = function()
        if not has_raised then has_raised = true error "interrupted!" end
        return function() print "runs" os.exit(0) end
      end]]
    local status, out, err = command.run({ "quota" }, { env = env })
    assert.equal(130, status)
    assert.equal("", out)
    assert.equal("nymbl: stopped by SIGINT: nothing was changed\n", err)
    local run = command.start({ "quota" }, { env = env, before = "trap '' INT" })
    assert.same({ 0, "runs\n", "" }, { command.finish(run) })
  end)
end)

describe("nymbl completion", function()
  local function completion(shell)
    local status, out, err = command.run { "completion", shell }
    assert.equal(0, status)
    assert.equal("", err)
    return helper.write_file(helper.temporary("." .. shell), out)
  end

  -- What bash offers after these words.
  local function offered(file, ...)
    local words = { ... }
    for i, word in ipairs(words) do words[i] = quote(word) end
    return helper.output(("bash -c %s"):format(quote(
      (". %s; COMP_WORDS=(%s); COMP_CWORD=%d; _nymbl; echo \"${COMPREPLY[*]}\""):format(quote(file), table.concat(words, " "),
      #words - 1))))
  end

  it("is a function for bash, which offers subcommands and their options", function()
    local file = completion "bash"
    assert.matches("%-F _nymbl .*nymbl$", helper.output("bash -c " .. quote(". " .. quote(file) .. "; complete -p nymbl")))
    assert.equal(table.concat(COMMANDS, " "), offered(file, "nymbl", ""))
    assert.equal("--resume", offered(file, "nymbl", "download", "--r"))
    for _, name in ipairs(COMMANDS) do
      local words = " " .. offered(file, "nymbl", name, "-") .. " "
      for _, option in ipairs(options.of(options.load(name))) do
        assert.is_truthy(words:find(" " .. option.flags .. " ", 1, true), name .. " " .. option.flags)
      end
    end
  end)

  for shell, check in pairs { zsh = "zsh -n %s", fish = "fish --no-execute %s" } do
    it("is a program for " .. shell, function()
      local file = completion(shell)
      local text = helper.read_file(file)
      assert.matches(shell == "zsh" and "^#compdef nymbl\n" or "complete %-c nymbl", text)
      for _, name in ipairs(COMMANDS) do assert.is_truthy(text:find(name, 1, true)) end
      if helper.output("command -v " .. shell) ~= "" then
        assert.equal("0", helper.output(check:format(quote(file)) .. "; echo $?"))
      end
    end)
  end
end)

describe("the manual page of nymbl", function()
  it("has every subcommand, option and example, and no error, before the module is built", function()
    local page = helper.temporary(".1")
    os.execute(("%s -e %s %s %s >%s"):format(helper.interpreter(), quote "package.cpath = ''",
      quote(helper.path("lua/nymbl/command/manual.lua")), VERSION, quote(page)))
    local source = helper.read_file(page)
    assert.matches('^.TH "NYMBL" "1" "" "nymbl ' .. VERSION:gsub("%.", "%%."), source)
    local plain = source:gsub("\\%-", "-"):gsub("\\%(aq", "'"):gsub("\\%(dq", '"')
    for _, name in ipairs(COMMANDS) do
      local module = options.load(name)
      assert.is_truthy(plain:find('.SS "nymbl ' .. name, 1, true), name)
      for _, option in ipairs(options.of(module)) do assert.is_truthy(plain:find(option.flags, 1, true)) end
      for _, example in ipairs(options.examples(module)) do assert.is_truthy(plain:find(example, 1, true), example) end
    end
    if helper.output("command -v groff") ~= "" then
      assert.equal("", helper.output(("groff -man -Tutf8 -ww -b %s 2>&1 >/dev/null"):format(quote(page))))
    end
  end)
end)

-- The modules of the library, and others, that a run of the command loads.
local function loaded(arguments)
  local list = helper.temporary(".list")
  local env = helper.before_program(([[
    local exit = os.exit
    os.exit = function(...)
      local file = io.open(%q, "w")
      for name in pairs(package.loaded) do file:write(name, "\n") end
      file:close()
      exit(...)
    end]]):format(list))
  local status, _, err = command.run(arguments, { env = env })
  assert.equal(0, status, err)
  local found = {}
  for name in helper.read_file(list):gmatch("[^\n]+") do
    local is_store = name:find "^nymbl%.store" -- which ones is the library's concern
    if not is_store and name:find("^nymbl") or name == "argparse" or name == "cjson" then found[#found + 1] = name end
  end
  table.sort(found)
  return table.concat(found, " ")
end

describe("a subcommand of nymbl loads", function()
  local id

  setup(function()
    command.home()
    helper.reset()
    id = helper.add_document { patient = "1", file_name = "a.pdf", content_type = "application/pdf", content = "%PDF-1.4 a" }.id
  end)

  -- The modules of `require "nymbl"`.
  local LIBRARY = helper.output(helper.interpreter() .. " -e " .. quote([[
    require "nymbl"
    local names = {}
    for name in pairs(package.loaded) do if name:find "^nymbl" and not name:find "^nymbl%.store" then names[#names + 1] = name end end
    print(table.concat(names, " "))]]))

  local function with_library(...)
    local names = { "argparse" }
    for name in LIBRARY:gmatch("%S+") do names[#names + 1] = name end
    for _, text in ipairs { ... } do
      for name in text:gmatch("%S+") do names[#names + 1] = name end
    end
    table.sort(names)
    return table.concat(names, " ")
  end

  local OWN = "nymbl.command.options nymbl.command.program nymbl.command.status nymbl.command.output nymbl.command.progress"
    .. " nymbl.command.session nymbl.command.settings nymbl.command.signals nymbl.command.terminal nymbl.settings"

  it("no more than the parser for help, completions and the version", function()
    assert.equal("nymbl.command.options nymbl.command.output nymbl.command.program nymbl.command.status nymbl.core",
      loaded { "--version" })
    assert.not_matches("nymbl%.client", loaded { "help" })
    assert.equal("argparse nymbl.command.help nymbl.command.list nymbl.command.options nymbl.command.output"
      .. " nymbl.command.program nymbl.command.status nymbl.core",
      loaded { "help", "list" })
  end)

  it("only itself, and what its calls need", function()
    local listing = " nymbl.listing nymbl.page nymbl.paginator nymbl.query"
    for words, expected in pairs {
      [{ "quota" }] = with_library(OWN, "nymbl.command.quota"),
      [{ "config" }] = with_library(OWN, "nymbl.command.config"),
      [{ "show", "1", id }] = with_library(OWN, "nymbl.command.show"),
      [{ "list", "1" }] = with_library(OWN, "nymbl.command.list", listing),
      [{ "upload", "1", "a.pdf", "--dry-run" }] = true,
    } do
      command.home() -- with a new store
      if words[1] == "upload" then
        helper.write_file(command.current_home .. "/a.pdf", "%PDF-1.4 a")
        assert.not_matches("nymbl%.source", loaded(words))
      else
        assert.equal(expected, loaded(words), table.concat(words, " "))
      end
    end
  end)
end)

describe("nymbl --version", function()
  it("starts within 15 ms of require 'nymbl' #speed", function()
    local function quickest(line)
      return tonumber(helper.output(([[bash -c %s]]):format(quote(([[
        least=999999
        for _ in {1..15}; do
          began=${EPOCHREALTIME/[.,]/}
          %s >/dev/null
          took=$((${EPOCHREALTIME/[.,]/} - began))
          [ $took -ge $least ] || least=$took
        done
        echo $least]]):format(line)))))
    end
    local library = quickest(helper.interpreter() .. " -e 'require \"nymbl\"'")
    local program = quickest(quote(command.launcher()) .. " --version")
    assert.is_true(program - library < 15000, ("%d and %d µs"):format(program, library))
  end)
end)
