-- SPDX-License-Identifier: MIT
-- Counts the lines of lua/ that a process executes, for spec/coverage. It is loaded by LUA_INIT, so
-- that programs which specs start are counted, too. At the end it writes a line "FILE LINE" for each
-- into a new file of the directory NYMBL_LINES.

local folder = os.getenv "NYMBL_LINES"
local program = type(arg) == "table" and arg[0] or ""
if not folder or program:find "sandbox" then return end

local seen = {} -- by source: a set of line numbers
local names = {} -- by source: the file below lua/, or false

local function count(_, line)
  local source = debug.getinfo(2, "S").source
  local lines = seen[source]
  if lines == nil then
    names[source] = source:match "lua/(nymbl[%w_/]*%.lua)$" or false
    lines = names[source] and {} or false
    seen[source] = lines
  end
  if lines then lines[line] = true end
end

debug.sethook(count, "l")

-- Every coroutine has a hook of its own.
local create = coroutine.create
function coroutine.create(fn) -- luacheck: ignore
  local thread = create(fn)
  debug.sethook(thread, count, "l")
  return thread
end
function coroutine.wrap(fn) -- luacheck: ignore
  local thread = coroutine.create(fn)
  return function(...)
    local function check(ok, ...)
      if ok then return ... end
      error(..., 0)
    end
    return check(coroutine.resume(thread, ...))
  end
end

local function write()
  debug.sethook()
  local path = os.tmpname()
  local file = io.open(folder .. "/" .. path:gsub("/", "-"), "w")
  for source, lines in pairs(seen) do
    for line in pairs(lines or {}) do file:write(names[source], " ", line, "\n") end
  end
  file:close()
  os.remove(path)
end

local exit = os.exit
function os.exit(...) -- luacheck: ignore
  write()
  write = function() end
  exit(...)
end

nymbl_lines_guard = setmetatable({}, { __gc = function() write() end }) -- luacheck: ignore
