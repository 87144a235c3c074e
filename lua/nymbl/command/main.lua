-- SPDX-License-Identifier: MIT
-- The program `nymbl`. The launcher (nymbl.in) runs this file with two arguments before those of the
-- user: "ignored" if SIGINT was ignored when it started, and the folder of the compiled module.

local is_interrupt_ignored = table.remove(arg, 1) == "ignored"
local libraries = table.remove(arg, 1)

-- The modules of this installation come first, whatever LUA_PATH says.
package.path = ("%s?.lua;%s"):format(arg[0]:match "^(.*)nymbl/command/main%.lua$", package.path)
package.cpath = ("%s/?.so;%s"):format(libraries, package.cpath)

-- Forget modules whose loading was interrupted: LuaJIT marks them by a number of its own.
local function forget_interrupted_modules()
  for name, module in pairs(package.loaded) do
    if type(module) == "number" then package.loaded[name] = nil end
  end
end

-- Until the program has caught the signals, the interpreter raises an error when SIGINT arrives.
-- Nothing was done by then.
local ran, problem, is_interrupted
repeat
  forget_interrupted_modules()
  ran, problem = pcall(function() require("nymbl.command.program")(arg, is_interrupt_ignored) end)
  is_interrupted = not ran and tostring(problem):find("interrupted!", 1, true) ~= nil
until not (is_interrupted and is_interrupt_ignored)

if is_interrupted then
  io.stderr:write "nymbl: stopped by SIGINT: nothing was changed\n"
  os.exit(130)
end
problem = tostring(problem):match "module '[%w_.]+' not found"
io.stderr:write("nymbl: internal error", problem and ": " .. problem or "", "\n")
os.exit(1)
