-- SPDX-License-Identifier: MIT
-- Date and time texts: nymbl.time and nymbl.datetime. The input is the text.
local nymbl = require "nymbl"

-- What RFC 3339 and ISO 8601 allow, as far as the service may send it.
local ZONES = { "^[Zz]$", "^[+-]%d%d:%d%d$", "^[+-]%d%d%d%d$", "^[+-]%d%d$" }
local TIMES = { "^%d%d:%d%d(.*)$", "^%d%d:%d%d:%d%d(.*)$", "^%d%d:%d%d:%d%d[.,]%d+(.*)$" }

local function is_in_grammar(text)
  local rest = text:match "^%d%d%d%d%-%d%d%-%d%d[Tt ](.*)$"
  for _, time in ipairs(rest and TIMES or {}) do
    local zone = rest:match(time)
    for _, pattern in ipairs(zone and ZONES or {}) do
      if zone:find(pattern) then return true end
    end
  end
  return false
end

local function try(text)
  local seconds = nymbl.time(text)
  local made, literal = pcall(nymbl.datetime, text)
  if not seconds then
    assert(not made, "a literal of no time")
    return "refused"
  end
  assert(type(seconds) == "number" and seconds == seconds, "not a number")
  assert(is_in_grammar(text), "accepted, but not in the grammar")
  if not made then
    assert(tostring(literal):find("out of range", 1, true), literal)
    assert(seconds < -62167219200 or seconds >= 253402300800, "a year that has four digits")
    return "out of range"
  end
  local formatted = tostring(literal)
  assert(formatted:find "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.?%d*Z$", formatted)
  assert(nymbl.time(formatted) == seconds, "another time")
  assert(tostring(nymbl.datetime(formatted)) == formatted, "another text")
  -- the C library counts days, too
  local whole = math.floor(seconds)
  local ours, fraction = formatted:sub(1, 19), formatted:sub(21, -2)
  if fraction == "" or #fraction <= 15 then -- a longer one may round up
    assert(ours == os.date("!%Y-%m-%dT%H:%M:%S", whole) or os.date("!*t", whole).year < 1000, ours)
  end
  if fraction ~= "" then return "with a fraction" end
  assert(tostring(nymbl.datetime(whole)) == formatted, "from the number")
  return "accepted"
end

return { try = try, reached = { "accepted", "refused", "out of range", "with a fraction" } }
