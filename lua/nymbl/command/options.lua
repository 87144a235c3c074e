-- SPDX-License-Identifier: MIT
-- The command line: the subcommands by name, the options that all of them have, and their parsers.
--
-- A subcommand is a module of this folder, which returns a table with
--   summary      what it does, in a few words
--   text         what else a user should know: an array of paragraphs
--   operands     an array of { name =, args =, help =, choices =, convert = }; `args` is argparse's ("?", "*", "+")
--   options      an array of { flags =, name =, target =, help =, convert =, choices = }; without `name`,
--                the option has no argument
--   example      a command line, or an array of them
--   can_dry_run  whether it has --dry-run
--   is_local     whether it needs no client
--   run(session, given)   runs it, and returns the exit status; `given` has the operands and options
--                         by name or `target`

local options = {}

options.COMMANDS = {
  "list", "show", "upload", "download", "delete", "copy", "patients", "export", "check", "ping", "quota", "config",
  "completion", "help",
}

local IS_COMMAND = {}
for _, name in ipairs(options.COMMANDS) do IS_COMMAND[name] = true end

-- Converters of argparse: they return the value, or nil and a message without the value, because it
-- could identify a patient.

function options.seconds(text)
  local value = tonumber(text)
  if value and value > 0 and value < math.huge then return value end
  return nil, "a number of seconds is expected"
end

-- A converter for whole numbers.
function options.count(text)
  local value = #text < 10 and text:find "^%d+$" and tonumber(text)
  if value and value > 0 then return value end
  return nil, "a whole number from 1 is expected"
end

local MAX_JOBS = 1000

local function jobs(text)
  local value = options.count(text)
  if value and value <= MAX_JOBS then return value end
  return nil, ("a whole number from 1 to %d is expected"):format(MAX_JOBS)
end

function options.nonempty(text)
  if text ~= "" then return text end
  return nil, "an empty argument cannot be used"
end

local function profile(text)
  if text:find "^[%w_-][%w_.-]*$" then return text end
  return nil, "a profile's name has letters, digits, '_', '-' and '.' only"
end

local COMMON = {
  { flags = "--json", help = "Print one JSON object per line." },
  { flags = "--quiet", help = "If all goes well, print only what was asked for." },
  { flags = "--verbose", help = "Add the service's own words, on a terminal." },
  { flags = "--timeout", name = "S", convert = options.seconds,
    help = "Seconds for each call, waits and retries included." },
  { flags = "--jobs", name = "N", convert = jobs, help = "How many operands at once." },
  { flags = "--profile", name = "NAME", convert = profile,
    help = "Read the settings from NAME.config instead of config." },
}

options.COMMON = COMMON

local DRY_RUN = { flags = "--dry-run", help = "Only say what would be done, and how many requests it would cost." }

options.NUL = {
  flags = "-0", target = "is_nul", help = "Operands on standard input end with NUL instead of a newline.",
}

-- A subcommand's module.
function options.load(name)
  return require("nymbl.command." .. name)
end

function options.is_command(name)
  return IS_COMMAND[name] or false
end

-- All options of a subcommand, its own first.
function options.of(command)
  local all = {}
  for _, option in ipairs(command.options or {}) do all[#all + 1] = option end
  if command.can_dry_run then all[#all + 1] = DRY_RUN end
  for _, option in ipairs(COMMON) do all[#all + 1] = option end
  return all
end

-- The name under which an option's value is given to `run`.
local function target(option)
  return option.target or (option.flags:match "^%-+([A-Za-z0-9-]+)":gsub("-", "_"))
end

local function add_option(parser, option)
  local element
  if option.name then
    element = parser:option(option.flags):argname(option.name)
  else
    element = parser:flag(option.flags)
  end
  element:target(target(option)):description(option.help)
  if option.is_required then element:count(1) end
  if option.convert then
    element:convert(function(text)
      local value, problem = option.convert(text)
      if value == nil then return nil, ("option '%s': %s"):format(option.flags, problem) end
      return value
    end)
  end
  if option.choices then element:choices(option.choices) end
end

local function to_lower(letter)
  return string.char(letter:byte() + 32)
end

local function add_operand(parser, operand)
  local element = parser:argument(operand.name):description(operand.help)
  element:target((operand.name:gsub("[A-Z]", to_lower):gsub("-", "_")))
  element:args(operand.args or 1):argname(operand.name)
  if operand.choices then
    element:choices(operand.choices)
  else
    element:convert(operand.convert or options.nonempty)
  end
end

-- The lines of a subcommand's examples.
function options.examples(command)
  return type(command.example) == "table" and command.example or { command.example }
end

-- Describe a subcommand to a parser of argparse.
function options.describe(parser, command)
  parser:description(command.summary .. "."):help_max_width(79)
  if command.text then parser:epilog(table.concat(command.text, "\n\n")) end
  for _, operand in ipairs(command.operands or {}) do add_operand(parser, operand) end
  for _, option in ipairs(options.of(command)) do add_option(parser, option) end
end

-- A parser for one subcommand.
function options.parser(name)
  local parser, command = require "argparse"("nymbl " .. name), options.load(name)
  options.describe(parser, command)
  parser:add_help { action = function()
    require("nymbl.command.output").finish(options.help_text(parser, command))
  end }
  return parser
end

-- The help of a subcommand: argparse's, and the examples, whose lines are not wrapped.
function options.help_text(parser, command)
  local lines = { parser:get_help(), "", "For example:" }
  for _, example in ipairs(options.examples(command)) do lines[#lines + 1] = "   " .. example end
  return table.concat(lines, "\n") .. "\n"
end

-- Options of the command line before the subcommand that have an argument.
local HAS_ARGUMENT = { ["--timeout"] = true, ["--jobs"] = true, ["--profile"] = true }

-- Take the subcommand out of the words of the command line.
-- @treturn ?string the subcommand, or nil if there is none
-- @treturn table the other words
function options.split(words)
  local at = 1
  while words[at] do
    if words[at] == "--" then
      at = at + 1
      break
    end
    if words[at]:sub(1, 1) ~= "-" then break end
    at = at + (HAS_ARGUMENT[words[at]] and 2 or 1)
  end
  local others = {}
  for i, word in ipairs(words) do
    if i ~= at then others[#others + 1] = word end
  end
  return words[at], others
end

return options
