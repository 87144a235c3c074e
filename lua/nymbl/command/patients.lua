-- SPDX-License-Identifier: MIT
-- nymbl patients

local options = require "nymbl.command.options"

-- The names in the option --select.
local function split(text)
  local names = {}
  for name in text:gmatch "[^,%s]+" do names[#names + 1] = name end
  if names[1] then return names end
  return nil, "names of fields are expected, separated by commas"
end

local function run(session, given)
  local client, err = session:open()
  if not client then return session:fail(err) end
  local null, encode = require("nymbl").null, require("nymbl.command.output").encode
  for patient in client:patients { filter = given.filter, select = given.select, top = given.top } do
    local words, fields = { patient.id }, { id = patient.id }
    for _, name in ipairs(given.select or {}) do
      local value = patient[name]
      if type(value) == "function" then value = nil end -- a method wins over a field of its name
      fields[name] = value == nil and null or value
      words[#words + 1] = value == nil and "-" or type(value) == "string" and value or encode(value)
    end
    local written
    if given.json then
      written = session.out:json(fields)
    else
      written = session.out:row((table.unpack or unpack)(words)) -- luacheck: ignore
    end
    if not written then break end
  end
  return 0
end

return {
  summary = "List the patients",
  text = {
    "Each line has a patient's id, then the fields of --select, separated by tabs; '-' stands for a missing one.",
  },
  options = {
    { flags = "--filter", name = "F", convert = options.nonempty, help = "An OData filter." },
    { flags = "--select", name = "S", convert = split, help = "Names of fields, separated by commas." },
    { flags = "--top", name = "N", convert = options.count, help = "At most so many patients." },
  },
  example = "nymbl patients --top 10",
  run = run,
}
