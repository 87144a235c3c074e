-- SPDX-License-Identifier: MIT
-- OData filters from a template and values. Each value is quoted as a literal, so that no
-- value can change the meaning of the filter.

local core = require "nymbl.core"
local check = require "nymbl.check"

local filter = {}

local datetime = { __name = "nymbl.datetime" }

function datetime.__tostring(value)
  return value[1]
end

-- Days since 1970-01-01 in the proleptic Gregorian calendar. The years of this computation
-- begin in March, so that the leap day is the last day of a year; an era has 400 years.
local function days_since_epoch(year, month, day)
  year = year + math.floor((month - 1) / 12)
  month = (month - 1) % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local year_of_era = year - era * 400
  local day_of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return era * 146097 + year_of_era * 365 + math.floor(year_of_era / 4) - math.floor(year_of_era / 100)
    + day_of_year - 719468
end

-- Seconds since the epoch of a table of UTC fields.
local function table_seconds(fields)
  for _, name in ipairs { "year", "month", "day", "hour", "min", "sec" } do
    local value = fields[name]
    local required = name == "year" or name == "month" or name == "day"
    if value == nil and required then
      check.argument(1, "datetime", ("field '%s' missing in date table"):format(name))
    elseif value ~= nil and (type(value) ~= "number" or value ~= value or math.abs(value) > 1e9) then
      check.argument(1, "datetime", ("field '%s' is not a number"):format(name))
    elseif value ~= nil and name ~= "sec" and value % 1 ~= 0 then
      check.argument(1, "datetime", ("field '%s' is not an integer"):format(name))
    end
  end
  return days_since_epoch(fields.year, fields.month, fields.day) * 86400
    + (fields.hour or 0) * 3600 + (fields.min or 0) * 60 + (fields.sec or 0)
end

-- nymbl.datetime(t), see lua/nymbl.lua.
function filter.datetime(t)
  local seconds = t
  if type(t) == "table" then
    seconds = table_seconds(t)
  elseif type(t) ~= "number" then
    check.argument(1, "datetime", check.expected("number or table", t))
  end
  -- RFC 3339, section 5.6, has only the years 0000 to 9999
  if not (seconds >= -62167219200 and seconds < 253402300800 - 5e-4) then
    check.argument(1, "datetime", "out of range")
  end
  local thousandths = math.floor(seconds * 1000 + 1 / 2)
  local whole, rest = math.floor(thousandths / 1000), thousandths % 1000
  local days, clock = math.floor(whole / 86400), whole % 86400
  -- the inverse of days_since_epoch()
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local day_of_era = shifted - era * 146097
  local year = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
    - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local months_since_march = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * months_since_march + 2) / 5) + 1
  local month = months_since_march < 10 and months_since_march + 3 or months_since_march - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  local text = ("%04.0f-%02.0f-%02.0fT%02.0f:%02.0f:%02.0f"):format(year, month, day,
    math.floor(clock / 3600), math.floor(clock / 60) % 60, clock % 60)
  if rest > 0 then text = text .. (".%03.0f"):format(rest) end
  return setmetatable({ text .. "Z" }, datetime)
end

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
  elseif getmetatable(value) == datetime then
    return tostring(value)
  end
end

-- nymbl.filter(template, ...), see lua/nymbl.lua.
function filter.filter(template, ...)
  local problem = check.string(template)
  if problem then check.argument(1, "filter", problem) end
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
      check.argument(used + 1, "filter", type(value) == "number" and "not a finite number"
        or check.expected("string, number, boolean, null or datetime", value))
    end
    if text:find("\0", 1, true) then
      check.argument(used + 1, "filter", "string contains NUL")
    end
    return text
  end)
  if quoted then check.argument(1, "filter", "unfinished string in template") end
  if used ~= count then
    check.argument(math.min(used, count) + 2, "filter",
      ("template has %d place(s), got %d value(s)"):format(used, count))
  end
  return filled
end

return filter
