-- SPDX-License-Identifier: MIT
-- The command line: finds the subcommand, runs it, and ends the process.

local options = require "nymbl.command.options"
local status = require "nymbl.command.status"

-- End with a message on standard error, or without one.
local function exit(code, text)
  if text then io.stderr:write("nymbl: ", text, "\n") end
  os.exit(code)
end

-- Wrong usage. The words of the command line may identify a patient, so only a terminal shows them.
local function misuse(name, message)
  local is_terminal = require("nymbl.core").system.is_terminal(io.stderr)
  if not is_terminal then message = message:match "^unknown [a-z]+" or message end
  message = require("nymbl.command.output").printable((message:gsub("\n", " ")))
  exit(status.USAGE, ("%s; see: nymbl help%s"):format(message, name and " " .. name or ""))
end

-- Find the subcommand. Returns its name and the other words.
local function subcommand(words)
  local name, others = options.split(words)
  if name then
    if options.is_command(name) then return name, others end
    misuse(nil, ("unknown subcommand '%s'"):format(name))
  end
  for _, word in ipairs(others) do
    if word == "--help" or word == "-h" then return "help", {} end
    if word == "--version" then
      require("nymbl.command.output").finish(("nymbl %s\n"):format(require("nymbl.core").version))
    end
  end
  misuse(nil, "a subcommand is required")
end

-- What a subcommand raised: an error of an iterator, or the misuse of a function by an argument of
-- the command line. Returns the exit status.
local function report_raised(session, raised)
  if type(raised) == "table" and raised.kind then return session:fail(raised) end
  local problem = tostring(raised):match "bad argument.*"
  if problem then return session:misuse(problem) end
  session.terminal:message "nymbl: internal error"
  if session.terminal.is_terminal then session.terminal:message(tostring(raised)) end
  return status.FAILED
end

-- Run a subcommand that needs no client.
local function run_local(command, given)
  local out = require("nymbl.command.output").new()
  local code = command.run({ out = out, given = given }, given)
  exit(out:flush() and code or status.FAILED)
end

-- Run a subcommand with a client. The signals are caught before.
local function run_with_client(command, given)
  local signals = require "nymbl.command.signals"
  local session = require("nymbl.command.session").new(given)
  local ran, code = pcall(command.run, session, given)
  if not ran and not signals.caught() then code = report_raised(session, code) end
  session:close()
  local is_written = session:finish_output()
  local signal = signals.caught()
  if signal then
    session.terminal:message(("nymbl: stopped by SIG%s: %s"):format(signal, session:left_text()))
    code = signals.status(signal)
  elseif not is_written and code == status.DONE then
    code = status.FAILED
  end
  exit(code)
end

-- Run the program; does not return.
-- @tparam table words of the command line
-- @tparam boolean is_interrupt_ignored whether SIGINT was ignored when the program was started
return function(words, is_interrupt_ignored)
  local name, others = subcommand(words)
  local command = options.load(name)
  if not command.is_local then require("nymbl.command.signals").catch(is_interrupt_ignored) end
  -- argparse is the only dependency that the library itself does not have
  local has_parser, problem = pcall(require, "argparse")
  if not has_parser and not problem:find "module 'argparse' not found" then error(problem, 0) end
  if not has_parser then
    exit(status.SETTINGS, "the Lua module argparse is missing: apt-get install lua-argparse, or luarocks install "
      .. "argparse")
  end
  local is_valid, given = options.parser(name):pparse(others)
  if not is_valid then misuse(name, given) end;
  (command.is_local and run_local or run_with_client)(command, given)
end
