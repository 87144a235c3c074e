-- SPDX-License-Identifier: MIT
-- A busted helper for spec/run. It writes to the file that NYMBL_SPEC_TIMES names: a line
-- "in NAME" when a test starts, and a line "SECONDS NAME" when it ends.

local busted = require "busted"

local path = os.getenv "NYMBL_SPEC_TIMES"
local times = path and assert(io.open(path, "w"))

local function full_name(element)
  local names = {}
  while element and element.descriptor ~= "file" do
    table.insert(names, 1, element.name)
    element = busted.parent(element)
  end
  return table.concat(names, " ")
end

if times then
  busted.subscribe({ "test", "start" }, function(element)
    times:write("in ", full_name(element), "\n")
    times:flush()
    return nil, true -- busted passes the event to the output handler, too
  end)
  busted.subscribe({ "test", "end" }, function(element)
    times:write(("%.2f %s\n"):format(element.duration or 0, full_name(element)))
    times:flush()
    return nil, true
  end)
end
