-- SPDX-License-Identifier: MIT
-- OData filters from a template and values. Each value is quoted as a literal, so that no
-- value can change the meaning of the filter.

local core = require "nymbl.core"
local check = require "nymbl.check"
local datetime = require "nymbl.datetime"

local filter = {}

-- Replace the decimal point of the host's locale, which may have several bytes, by ".".
local function with_point(text)
  return (text:gsub("[^0-9e+-]+", "."))
end

local function number_literal(value)
  if value ~= value or value == math.huge or value == -math.huge then return nil end
  if value % 1 == 0 and math.abs(value) < 2^63 then
    return math.type and math.type(value) == "integer" and ("%d"):format(value) or ("%.0f"):format(value)
  end
  local short = ("%.15g"):format(value)
  return with_point(tonumber(short) == value and short or ("%.17g"):format(value))
end

-- The literal of a value (OData 4.01, URL Conventions, section 5.1.1.6), or nil.
local function literal(value)
  local kind = type(value)
  if kind == "string" then
    return "'" .. value:gsub("'", "''") .. "'"
  elseif kind == "number" then
    return number_literal(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif value == core.null then
    return "null"
  elseif datetime.is(value) then
    return tostring(value)
  end
end

-- nymbl.filter(template, ...), see lua/nymbl.lua.
function filter.filter(template, ...)
  local problem = check.string(template)
  if problem then check.raise_argument(1, "filter", problem) end
  local count, values = select("#", ...), { ... }
  local used, quoted = 0, false
  local filled = template:gsub("['?]", function(char)
    if char == "'" then
      quoted = not quoted -- the second one of a doubled quote reopens the string
      return nil
    elseif quoted then
      return nil
    end
    used = used + 1
    if used > count then return nil end
    local value = values[used]
    local text = literal(value)
    if not text then
      check.raise_argument(used + 1, "filter", type(value) == "number" and "not a finite number"
        or check.expected("string, number, boolean, null or datetime", value))
    end
    if text:find("\0", 1, true) then
      check.raise_argument(used + 1, "filter", "string contains NUL")
    end
    return text
  end)
  if quoted then check.raise_argument(1, "filter", "unfinished string in template") end
  if used ~= count then
    check.raise_argument(math.min(used, count) + 2, "filter",
      ("template has %d placeholder(s), got %d value(s)"):format(used, count))
  end
  return filled
end

return filter
