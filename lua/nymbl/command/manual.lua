-- SPDX-License-Identifier: MIT
-- The manual page nymbl(1), from the texts of the subcommands. The build runs this file:
--
--   LUA_PATH=lua/?.lua lua5.4 lua/nymbl/command/manual.lua VERSION > nymbl.1

local help = require "nymbl.command.help"
local options = require "nymbl.command.options"

-- A text for roff.
local function escape(text)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("'", "\\(aq")
  return (text:gsub("^%.", "\\&."))
end

local function line(macro, ...)
  local words = { macro }
  for _, word in ipairs { ... } do words[#words + 1] = ('"%s"'):format(escape(word):gsub('"', '\\(dq')) end
  io.write(table.concat(words, " "), "\n")
end

local function text(words)
  io.write(escape(words), "\n")
end

-- An operand in the synopsis.
local function operand_synopsis(operand)
  local form = { ["*"] = "[%s...]", ["+"] = "%s...", ["?"] = "[%s]" }
  return (form[operand.args] or "%s"):format(operand.choices and not operand.args and table.concat(operand.choices, "|")
    or operand.name)
end

local function option_text(option)
  return option.flags .. (option.name and " " .. option.name or "")
end

-- The subcommand's own options, without those that all have.
local function own_options(command)
  local all, own = options.of(command), {}
  for i = 1, #all - #options.COMMON do own[i] = all[i] end
  return own
end

local function synopsis(name, command)
  local words = { "nymbl " .. name }
  for _, operand in ipairs(command.operands or {}) do words[#words + 1] = operand_synopsis(operand) end
  for _, option in ipairs(own_options(command)) do
    words[#words + 1] = (option.is_required and "%s" or "[%s]"):format(option_text(option))
  end
  return table.concat(words, " ")
end

local function subcommand(name)
  local command = options.load(name)
  line(".SS", synopsis(name, command))
  text(command.summary .. ".")
  for _, paragraph in ipairs(command.text or {}) do
    line(".PP")
    text(paragraph)
  end
  for _, operand in ipairs(command.operands or {}) do
    line(".TP")
    line(".B", operand.name)
    text(operand.help)
  end
  for _, option in ipairs(own_options(command)) do
    line(".TP")
    line(".B", option_text(option))
    text(option.help)
  end
  line(".PP")
  text("For example:")
  line(".PP")
  line(".EX")
  for _, example in ipairs(options.examples(command)) do text("    " .. example) end
  line(".EE")
end

local function main(version)
  line(".TH", "NYMBL", "1", "", "nymbl " .. version, "")
  line(".SH", "NAME")
  text("nymbl - " .. help.ABOUT:gsub("^D", "d"):gsub("%.$", ""))
  line(".SH", "SYNOPSIS")
  text("nymbl COMMAND [OPTION...] [OPERAND...]")
  for _, section in ipairs(help.SECTIONS) do
    line(".SH", section.title)
    for i, paragraph in ipairs(section) do
      if i > 1 then line(".PP") end
      text(paragraph)
    end
  end
  line(".SH", "COMMANDS")
  for _, name in ipairs(options.COMMANDS) do subcommand(name) end
  line(".SH", "OPTIONS OF ALL COMMANDS")
  for _, option in ipairs(options.COMMON) do
    line(".TP")
    line(".B", option_text(option))
    text(option.help)
  end
  line(".SH", "EXIT STATUS")
  for _, status in ipairs(help.STATUSES) do
    line(".TP")
    line(".B", tostring(status[1]))
    text(status[2])
  end
end

main(...)
