-- SPDX-License-Identifier: MIT
-- Argument checks. Misuse raises at the caller's line, worded like Lua's own errors.

local core = require "nymbl.core"

local check = {}

-- The chunk name of this file without "check.lua", such as "@/usr/share/lua/5.4/nymbl/".
local own_directory = debug.getinfo(1, "S").source:match("^(.*)check%.lua$")

-- The stack level of the first Lua function up the stack that is not part of this library. C
-- functions, such as pcall, are skipped, too.
local function caller_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 0 end
    local source = info.source
    local is_own = own_directory
      and (source:sub(1, #own_directory) == own_directory or source == own_directory:sub(1, -2) .. ".lua")
    if info.what ~= "C" and not is_own then
      return level - 1 -- as seen from the function that calls error()
    end
    level = level + 1
  end
end

-- Raise an error with the position of the library's caller.
function check.raise(message)
  error(message, caller_level())
end

-- Raise as `luaL_argerror` does. In a method, `self` is not counted.
function check.raise_argument(position, name, problem)
  check.raise(("bad argument #%d to '%s' (%s)"):format(position, name, problem))
end

local function type_name(value)
  if value == nil then return "no value" end
  local meta = type(value) == "userdata" and getmetatable(value)
  return type(meta) == "string" and meta or type(value)
end

-- Format a type mismatch, such as "string expected, got nil".
function check.expected(what, value)
  return what .. " expected, got " .. type_name(value)
end

-- The state of an object. Raises unless the object has the class and is open, and so is
-- its client.
function check.object(object, class, name)
  local state = core.state(object, class)
  if not state then
    check.raise(("calling '%s' on bad self (%s)"):format(name, check.expected(class, object)))
  end
  if state.closed then
    check.raise(("attempt to use a closed %s"):format(class:match("[^.]+$")))
  end
  if state.env.closed then
    check.raise("attempt to use a closed client")
  end
  return state
end

-- A checker is a function of a value. It returns nil, or the problem as a string.

-- A checker of options that may have any value.
function check.any()
end

function check.string(value)
  if type(value) ~= "string" then return check.expected("string", value) end
  if value:find("\0", 1, true) then return "string contains NUL" end
end

function check.nonempty(value)
  local problem = check.string(value)
  if problem then return problem end
  if value == "" then return "empty string" end
end

-- A checker of credentials: control characters get into them only by mistake.
function check.printable(value)
  local problem = check.nonempty(value)
  if problem then return problem end
  if value:find("[%z\1-\31\127]") then return "control character" end
end

-- A checker of header field values: the only control character in them is the tab (RFC 9110,
-- section 5.5).
function check.header(value)
  local problem = check.nonempty(value)
  if problem then return problem end
  if value:find("[%z\1-\8\10-\31\127]") then return "control character" end
end

-- A checker of strong entity-tags (RFC 9110, section 8.8.3), up to the length that the core
-- accepts.
function check.strong_etag(value)
  if type(value) ~= "string" then return check.expected("string", value) end
  if #value > 255 or not value:find('^"[!#-~\128-\255]*"$') then return "strong entity-tag expected" end
end

function check.boolean(value)
  if type(value) ~= "boolean" then return check.expected("boolean", value) end
end

check["function"] = function(value)
  if type(value) ~= "function" then return check.expected("function", value) end
end

-- A checker of times in seconds, which must be above zero.
function check.seconds(value)
  if type(value) ~= "number" then return check.expected("number", value) end
  if not (value > 0) then return "must be positive" end
end

-- Returns a checker for whole numbers in a range.
function check.integer(least, most)
  return function(value)
    if type(value) ~= "number" then return check.expected("number", value) end
    if value ~= value or value % 1 ~= 0 then return "number has no integer representation" end
    if value < least or value > most then return ("out of range (%.0f to %.0f)"):format(least, most) end
  end
end

-- Convert an id to a string. An id is a string, or a whole number up to 2^53.
function check.id(value, position, name)
  if type(value) == "number" then
    if value ~= value or value % 1 ~= 0 or value > 2^53 or value < -2^53 then
      check.raise_argument(position, name, "number has no integer representation")
    end
    return ("%.0f"):format(value + 0) -- no "-0"
  end
  local problem = type(value) ~= "string" and check.expected("string", value) or check.nonempty(value)
  if problem then check.raise_argument(position, name, problem) end
  return value
end

-- Check a table of options.
-- @tparam ?table options nil is the same as an empty table
-- @tparam table checkers by option name; other names raise
-- @tparam integer position of the argument, for the error message
-- @tparam string name of the function, for the error message
-- @treturn table the options, or an empty table
function check.options(options, checkers, position, name)
  if options == nil then return {} end
  if type(options) ~= "table" then
    check.raise_argument(position, name, check.expected("table", options))
  end
  for key, value in pairs(options) do
    local checker = checkers[key]
    if not checker then
      check.raise_argument(position, name, ("unknown option '%s'"):format(tostring(key)))
    end
    local problem = checker(value)
    if problem then
      check.raise_argument(position, name, ("option '%s': %s"):format(key, problem))
    end
  end
  return options
end

return check
