-- SPDX-License-Identifier: MIT
-- nymbl help, and what `nymbl --help` prints.

local options = require "nymbl.command.options"

-- A converter of argparse.
local function subcommand(text)
  if options.is_command(text) then return text end
  return nil, "unknown subcommand"
end

local help = {
  summary = "Explain a subcommand, with an example",
  operands = { { name = "COMMAND", args = "?", convert = subcommand, help = "The subcommand." } },
  example = "nymbl help download",
  is_local = true,
}

help.ABOUT = "Documents of patients in the Nymbl Customer API: list, upload, download, delete."

-- Sections of the manual page.
help.SECTIONS = {
  {
    title = "DESCRIPTION",
    "nymbl moves documents of patients between this machine and the Nymbl Customer API. Data goes to standard "
      .. "output, one line each, and everything else to standard error. A file that was downloaded is complete and "
      .. "verified, or it is not there. Nothing is uploaded twice unless it was asked for twice.",
    "The operand '-' reads operands from standard input, one a line. '--' ends the options.",
    "Control characters are shown as '?'; --json has them as they are. If standard error is no terminal, nothing "
      .. "on it names a patient, a document, a file or a host.",
    "SIGINT, SIGTERM and SIGHUP end what is running, keep what can be continued, and remove the rest.",
  },
  {
    title = "SETTINGS",
    "Settings are variables of the environment, or lines NAME=value of the file $XDG_CONFIG_HOME/nymbl/config "
      .. "(~/.config/nymbl/config), which only its owner may be able to read or write. '#' begins a comment line. "
      .. "The environment wins.",
    "NYMBL_BASE_URL, NYMBL_API_KEY; NYMBL_TOKEN_URL, NYMBL_CLIENT_ID, NYMBL_CLIENT_SECRET, NYMBL_SCOPE, or "
      .. "NYMBL_TOKEN; NYMBL_CA_FILE, NYMBL_PROXY, NYMBL_STORE. A secret can be in a file of its own, named by "
      .. "NYMBL_API_KEY_FILE, NYMBL_TOKEN_FILE or NYMBL_CLIENT_SECRET_FILE.",
    "Rate limit and month's quota are kept in $XDG_STATE_HOME/nymbl (~/.local/state/nymbl), so that all runs of a "
      .. "user share them. NYMBL_STORE names another file, or a Redis server that machines share.",
  },
}

help.STATUSES = {
  { 0, "done" }, { 1, "failed" }, { 2, "wrong usage" }, { 3, "not found" }, { 4, "settings, authorization or TLS" },
  { 5, "worth another try later" }, { 6, "quota or budget spent" }, { 7, "it is unknown whether it was carried out" },
  { 8, "some of many failed" }, { "129, 130, 143", "ended by SIGHUP, SIGINT, SIGTERM" },
}

local function status_text()
  local words = {}
  for i, status in ipairs(help.STATUSES) do words[i] = ("%s %s"):format(status[1], status[2]) end
  return "Exit status: " .. table.concat(words, "; ") .. "."
end

-- A parser with all subcommands.
function help.parser()
  local parser = require "argparse"("nymbl", help.ABOUT):help_max_width(79)
  parser:epilog(status_text() .. "\n\n'nymbl help COMMAND' explains a subcommand, with an example.")
  parser:flag("--version"):description "Print the version."
  for _, name in ipairs(options.COMMANDS) do
    local command = options.load(name)
    options.describe(parser:command(name):summary(command.summary .. "."), command)
  end
  return parser
end

function help.run(session, given)
  local name = given.command
  if name then
    session.out:write(options.help_text(options.parser(name), options.load(name)))
  else
    session.out:write(help.parser():get_help() .. "\n")
  end
  return 0
end

return help
