-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Times from texts as the service sends them.

local helper = require "helper"
local nymbl = require "nymbl"

local time, datetime = nymbl.time, nymbl.datetime

-- Texts that are no date and time with a zone.
local WRONG = {
  "", "now", "2026", "2026-02-03", "2026-02-03T04:05:06", "2026-02-03 04:05:06", "2026-02-03T04:05:06.5",
  "2026-02-03T04Z", "2026-02-03T4:05:06Z", "2026-2-3T04:05:06Z", "26-02-03T04:05:06Z", "02026-02-03T04:05:06Z",
  "2026-02-03T04:05:06.Z", "2026-02-03T04:05.5Z", "2026-02-03T04:05:6Z", "2026-02-03T04:05:06ZZ", " 2026-02-03T04:05:06Z",
  "2026-02-03T04:05:06Z ", "2026-02-03T04:05:06Z\n", "2026-02-03T04:05:06+1", "2026-02-03T04:05:06+01:", "2026-02-03T04:05:06+1:00",
  "2026-02-03T04:05:06+24:00", "2026-02-03T04:05:06+01:60", "2026-02-03T04:05:06 +01:00", "2026-02-03T04:05:06UTC",
  "2026-00-03T04:05:06Z", "2026-13-03T04:05:06Z", "2026-02-00T04:05:06Z", "2026-02-29T04:05:06Z", "2024-02-30T04:05:06Z",
  "1900-02-29T04:05:06Z", "2026-04-31T04:05:06Z", "2026-02-03T24:00:00Z", "2026-02-03T23:60:00Z", "2026-02-03T23:59:61Z",
  "-2026-02-03T04:05:06Z", "+2026-02-03T04:05:06Z", "2026-02-03T04:05:06.1e3Z", "2026-02-03T04:05:06.-1Z",
  "2026-02-03T04:05:06.5.5Z", "2026-02-03X04:05:06Z", "2026/02/03T04:05:06Z", "20260203T040506Z", "2026-02-03T-1:05:06Z",
  "2026-02-03T04:05:06\0Z", "2026-W05-2T04:05:06Z", "0x26-02-03T04:05:06Z",
}

describe("nymbl.time()", function()
  it("returns the seconds since 1970 of a text", function()
    assert.equal(0, time "1970-01-01T00:00:00Z")
    assert.equal(1770091506, time "2026-02-03T04:05:06Z")
    assert.equal(1709210096, time "2024-02-29T12:34:56Z")
    assert.equal(-1, time "1969-12-31T23:59:59Z")
    assert.equal(-62167219200, time "0000-01-01T00:00:00Z")
    assert.equal(253402300799, time "9999-12-31T23:59:59Z")
  end)

  it("returns an integer if the text has no fraction", function()
    if not math.type then pending "this Lua has no integers" end
    assert.equal("integer", math.type(time "2026-02-03T04:05:06+01:00"))
    assert.equal("float", math.type(time "2026-02-03T04:05:06.0Z"))
  end)

  it("takes offsets", function()
    for zone, seconds in pairs { ["Z"] = 0, ["z"] = 0, ["+00:00"] = 0, ["-00:00"] = 0, ["+01:00"] = 3600, ["-05:30"] = -19800,
                                 ["+0545"] = 20700, ["-08"] = -28800, ["+23:59"] = 86340, ["+14:00"] = 50400 } do
      assert.equal(1770091506 - seconds, time("2026-02-03T04:05:06" .. zone), zone)
    end
  end)

  it("takes the forms that RFC 3339 and OData permit", function()
    assert.equal(1770091506, time "2026-02-03t04:05:06z")
    assert.equal(1770091506, time "2026-02-03 04:05:06Z")
    assert.equal(1770091500, time "2026-02-03T04:05Z")
    assert.equal(1770091500, time "2026-02-03T05:05+01:00")
    assert.equal(1483228800, time "2016-12-31T23:59:60Z") -- a leap second
  end)

  it("returns the fraction, too", function()
    assert.equal(1770091506.5, time "2026-02-03T04:05:06.5Z")
    assert.equal(1770091506.5, time "2026-02-03T04:05:06,5Z")
    assert.equal(1770091506.789, time "2026-02-03T04:05:06.789Z")
    assert.equal(1770091506.125, time "2026-02-03T05:05:06.1250000+01:00")
    assert.equal(1770091506, time "2026-02-03T04:05:06.000Z")
    assert.equal(-0.5, time "1969-12-31T23:59:59.5Z")
    assert.equal(0.123456789012345, time("1970-01-01T00:00:00.123456789012345" .. ("9"):rep(1000) .. "Z"))
  end)

  it("is the inverse of nymbl.datetime()", function()
    math.randomseed(7)
    for _ = 1, 3000 do
      local seconds = math.floor(-62167219200 + math.random() * 315569519999)
      assert.equal(seconds, time(tostring(datetime(seconds))))
    end
  end)

  it("returns nil if the text is something else", function()
    for _, text in ipairs(WRONG) do
      assert.equal(1, select("#", time(text)), text)
      assert.is_nil(time(text), text)
    end
  end)

  it("returns nil for a field that the service did not send", function()
    assert.is_nil(time(nil))
    assert.is_nil(time(nymbl.null))
  end)

  it("raises on other types", function()
    for _, value in ipairs { 1, true, {}, print } do
      local ok, message = pcall(time, value)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'time' (string expected, got ", 1, true), message)
    end
  end)

  it("never raises on random text", function()
    math.randomseed(11)
    local pieces = { "2026", "-", "02", "03", "T", ":", "04", ".", "5", "Z", "+", "01", "99", " ", "\0", "\255" }
    for _ = 1, 20000 do
      local made = {}
      for i = 1, math.random(15) do made[i] = pieces[math.random(#pieces)] end
      local seconds = time(table.concat(made))
      assert(seconds == nil or type(seconds) == "number")
    end
  end)

  it("does not depend on locale or time zone", function()
    local code = [[
      for _, name in ipairs { "de_DE.UTF-8", "de_DE.utf8", "C" } do if os.setlocale(name) then break end end
      io.write(("%.0f"):format(require("nymbl").time "2026-02-03T04:05:06.789Z" * 1000))
    ]]
    assert.equal("1770091506789", helper.output("TZ=America/New_York " .. helper.interpreter() .. " -e " .. helper.quote(code)))
  end)
end)

describe("nymbl.datetime() of a text", function()
  local function text(t) return tostring(datetime(t)) end

  it("is that time in UTC", function()
    assert.equal("2026-02-03T04:05:06Z", text "2026-02-03T04:05:06Z")
    assert.equal("2026-02-02T23:05:06Z", text "2026-02-03T04:05:06+05:00")
    assert.equal("2027-01-01T03:30:00Z", text "2026-12-31T23:30:00-04:00")
    assert.equal("2026-02-03T04:05:00Z", text "2026-02-03 04:05Z")
  end)

  it("keeps the fraction digit by digit", function()
    for _, fraction in ipairs { "0", "5", "50", "789", "1234567", "999999999999999999999", ("0"):rep(40) .. "1" } do
      assert.equal("2026-02-03T03:05:06." .. fraction .. "Z", text("2026-02-03T04:05:06." .. fraction .. "+01:00"))
    end
  end)

  it("can be filled into a filter", function()
    assert.equal("uploaded_at gt 2026-02-03T04:05:06.1234567Z",
      nymbl.filter("uploaded_at gt ?", datetime "2026-02-03T04:05:06.1234567Z"))
  end)

  it("raises if the text is something else, and never shows it", function()
    for _, wrong in ipairs(WRONG) do
      local ok, message = pcall(datetime, wrong)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'datetime' (not a date and time with a zone)", 1, true), message)
    end
  end)

  it("raises if it is outside of the years 0 to 9999 in UTC", function()
    for _, wrong in ipairs { "0000-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z" } do
      local ok, message = pcall(datetime, wrong)
      assert.is_false(ok)
      assert.truthy(message:find("bad argument #1 to 'datetime' (out of range)", 1, true), message)
    end
  end)
end)
