-- SPDX-License-Identifier: MIT
-- Dates with a time of day: from texts as the service sends them, and as OData literals.

local core = require "nymbl.core"
local check = require "nymbl.check"

local datetime = {}

local metatable = { __name = "nymbl.datetime" }

function metatable.__tostring(value)
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
      check.raise_argument(1, "datetime", ("field '%s' missing in date table"):format(name))
    elseif value ~= nil and (type(value) ~= "number" or value ~= value or math.abs(value) > 1e9) then
      check.raise_argument(1, "datetime", ("field '%s' is not a number"):format(name))
    elseif value ~= nil and name ~= "sec" and value % 1 ~= 0 then
      check.raise_argument(1, "datetime", ("field '%s' is not an integer"):format(name))
    end
  end
  return days_since_epoch(fields.year, fields.month, fields.day) * 86400
    + (fields.hour or 0) * 3600 + (fields.min or 0) * 60 + (fields.sec or 0)
end

-- Minutes east of UTC of the end of a text: "Z", "+01:00", "+0100" or "+01".
local function zone_minutes(text)
  if text == "Z" or text == "z" then return 0 end
  local sign, hours, minutes = text:match("^([+-])(%d%d):?(%d%d)$")
  if not sign then
    sign, hours = text:match("^([+-])(%d%d)$")
    minutes = "0"
  end
  if not sign then return nil end
  hours, minutes = tonumber(hours), tonumber(minutes)
  if hours > 23 or minutes > 59 then return nil end
  return (hours * 60 + minutes) * (sign == "-" and -1 or 1)
end

local function month_days(year, month)
  return days_since_epoch(year, month + 1, 1) - days_since_epoch(year, month, 1)
end

-- Parse a date and time with a zone (RFC 3339, section 5.6; ISO 8601 also permits offsets
-- without minutes or colon, times without seconds, and a decimal comma). Returns the whole
-- seconds since the epoch and the digits of the fraction, or nil.
local function parse(text)
  local date, hour, min, zone = text:match("^(%d%d%d%d%-%d%d%-%d%d)[Tt ](%d%d):(%d%d)(.*)$")
  if not date then return nil end
  local sec, fraction = "0", ""
  if zone:find("^:") then
    sec, zone = zone:match("^:(%d%d)(.*)$")
    if not sec then return nil end
    if zone:find("^[.,]") then
      fraction, zone = zone:match("^[.,](%d+)(.*)$")
      if not fraction then return nil end
    end
  end
  local offset = zone_minutes(zone)
  hour, min, sec = tonumber(hour), tonumber(min), tonumber(sec)
  if not offset or hour > 23 or min > 59 or sec > 60 then return nil end -- 60: a leap second
  local year, month, day = date:match("^(%d+)%-(%d+)%-(%d+)$")
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  if month < 1 or month > 12 or day < 1 or day > month_days(year, month) then return nil end
  local minutes = days_since_epoch(year, month, day) * 1440 + hour * 60 + min - offset
  return minutes * 60 + sec, fraction
end

-- A fraction is rounded to this many digits when it becomes a number, so that it and the
-- power of ten are exact.
local MAX_FRACTION_DIGITS = 15

-- nymbl.time(text), see lua/nymbl.lua.
function datetime.time(text)
  if text == nil or text == core.null then return nil end
  if type(text) ~= "string" then check.raise_argument(1, "time", check.expected("string", text)) end
  local seconds, fraction = parse(text)
  if not seconds or fraction == "" then return seconds end
  fraction = fraction:sub(1, MAX_FRACTION_DIGITS)
  return seconds + tonumber(fraction) / 10 ^ #fraction
end

-- The literal of whole seconds since the epoch and the digits of a fraction.
local function literal(seconds, fraction)
  local days, clock = math.floor(seconds / 86400), seconds % 86400
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
  if fraction ~= "" then text = text .. "." .. fraction end
  return text .. "Z"
end

-- Whole seconds since the epoch, and the digits of the fraction. The fraction of a number has
-- three digits or none.
local function split(t)
  if type(t) == "string" then
    local seconds, fraction = parse(t)
    if not seconds then check.raise_argument(1, "datetime", "not a date and time with a zone") end
    return seconds, fraction
  end
  local seconds = t
  if type(t) == "table" then
    seconds = table_seconds(t)
  elseif type(t) ~= "number" then
    check.raise_argument(1, "datetime", check.expected("number, table or string", t))
  end
  -- compared before the multiplication: an integer could overflow
  if not (math.abs(seconds) < 1e12) then return seconds, "" end
  local thousandths = math.floor(seconds * 1000 + 1 / 2)
  local rest = thousandths % 1000
  return math.floor(thousandths / 1000), rest > 0 and ("%03.0f"):format(rest) or ""
end

-- nymbl.datetime(t), see lua/nymbl.lua.
function datetime.datetime(t)
  local seconds, fraction = split(t)
  -- RFC 3339, section 5.6, has only the years 0000 to 9999
  if not (seconds >= -62167219200 and seconds < 253402300800) then
    check.raise_argument(1, "datetime", "out of range")
  end
  return setmetatable({ literal(seconds, fraction) }, metatable)
end

-- Whether a value was returned by datetime.datetime().
function datetime.is(value)
  return getmetatable(value) == metatable
end

return datetime
