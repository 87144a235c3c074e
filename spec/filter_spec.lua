-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Filters: literals that values cannot break out of, and times.

local helper = require "helper"
local nymbl = require "nymbl"

local filter, datetime = nymbl.filter, nymbl.datetime

-- The message of an error that a call raises, without the position.
local function problem(call, ...)
  local ok, message = pcall(call, ...)
  assert.is_false(ok)
  return (tostring(message):gsub("^[^:]*filter_spec%.lua:%d+: ", ""))
end

describe("nymbl.filter()", function()
  it("returns a template without placeholders unchanged", function()
    assert.equal("", filter(""))
    assert.equal("document_type eq 'Referral'", filter("document_type eq 'Referral'"))
    assert.equal("100% %d %s %%", filter("100% %d %s %%"))
  end)

  it("fills placeholders in order", function()
    assert.equal("a eq 'x' and b gt 2 or c eq true", filter("a eq ? and b gt ? or c eq ?", "x", 2, true))
    assert.equal("'a''b'", filter("??", "a", "b"))
  end)

  it("returns a single value", function()
    assert.equal(1, select("#", filter("a eq ? and b eq ?", 1, 2)))
  end)

  it("writes strings in quotes and doubles quotes within them", function()
    assert.equal("a eq ''", filter("a eq ?", ""))
    assert.equal("a eq 'O''Brien'", filter("a eq ?", "O'Brien"))
    assert.equal("a eq ''''", filter("a eq ?", "'"))
    assert.equal("a eq ''''''", filter("a eq ?", "''"))
    assert.equal("a eq '''x'''", filter("a eq ?", "'x'"))
    assert.equal("a eq '\"'", filter("a eq ?", '"'))
    assert.equal("a eq '\\'''", filter("a eq ?", "\\'"))
  end)

  it("accepts every byte except NUL in a string", function()
    for byte = 1, 255 do
      local char = string.char(byte)
      local expected = char == "'" and "''" or char
      assert.equal("a eq 'x" .. expected .. "y'", filter("a eq ?", "x" .. char .. "y"))
    end
    assert.equal("bad argument #2 to 'filter' (string contains NUL)", problem(filter, "a eq ?", "a\0b"))
    assert.equal("bad argument #1 to 'filter' (string contains NUL)", problem(filter, "a\0 eq 1"))
  end)

  it("does not interpret placeholders or patterns in values", function()
    assert.equal("a eq '?' and b eq '%1 %0 %%'", filter("a eq ? and b eq ?", "?", "%1 %0 %%"))
    assert.equal("a eq '''?' and b eq '?'''", filter("a eq ? and b eq ?", "'?", "?'"))
  end)

  it("ignores a ? between quotes", function()
    assert.equal("a eq '?' and b eq 1", filter("a eq '?' and b eq ?", 1))
    assert.equal("a eq 'it''s ?' and b eq 1", filter("a eq 'it''s ?' and b eq ?", 1))
    assert.equal("a eq '''?''' and b eq 1", filter("a eq '''?''' and b eq ?", 1))
    assert.equal("a eq '' and b eq 1", filter("a eq '' and b eq ?", 1))
    assert.equal("a eq '''' and b eq 1", filter("a eq '''' and b eq ?", 1))
    assert.equal("contains(a,'?')", filter("contains(a,'?')"))
  end)

  it("raises if the template's quotes are not closed", function()
    for _, template in ipairs { "'", "a eq 'x", "a eq 'it''s", "a eq ''' and b eq 1", "a eq 'x' and b eq '" } do
      assert.equal("bad argument #1 to 'filter' (unfinished string in template)", problem(filter, template))
    end
  end)

  it("writes integers without quotes", function()
    assert.equal("a eq 0", filter("a eq ?", 0))
    assert.equal("a eq -17", filter("a eq ?", -17))
    assert.equal("a eq 12345", filter("a eq ?", 12345))
    assert.equal("a eq 9007199254740992", filter("a eq ?", 2^53))
    assert.equal("a eq -9007199254740992", filter("a eq ?", -2^53))
    assert.equal("a eq 1099511627776", filter("a eq ?", 2^40))
    assert.equal("a eq 3", filter("a eq ?", 3.0))
    if math.type then
      assert.equal("a eq 9223372036854775807", filter("a eq ?", math.maxinteger))
      assert.equal("a eq -9223372036854775808", filter("a eq ?", math.mininteger))
      assert.equal("a eq 9007199254740993", filter("a eq ?", 9007199254740993))
    end
  end)

  it("writes fractions that are read back exactly", function()
    assert.equal("a eq 0.5", filter("a eq ?", 0.5))
    assert.equal("a eq -2.25", filter("a eq ?", -2.25))
    assert.equal("a eq 0.1", filter("a eq ?", 0.1))
    assert.equal("a eq 1e-07", filter("a eq ?", 1e-7))
    for _, value in ipairs { 0.1 + 0.2, 1 / 3, math.pi, 1e300, 5e-324, -1.7976931348623157e308, 2^63, 2^64 + 4096 } do
      local text = filter("?", value)
      assert.equal(value, tonumber(text))
      assert.truthy(text:find("^%-?%d[%d.]*e?[+-]?%d*$"), text)
    end
  end)

  it("writes a decimal point if the host's locale has a comma", function()
    local plain = string.format
    finally(function() string.format = plain end) -- luacheck: ignore 122
    string.format = function(...) -- luacheck: ignore 122
      return (plain(...):gsub("^(-?%d+)%.(%d)", "%1,%2"))
    end
    local short, long = filter("?", 2.5), filter("?", 1 / 3)
    string.format = plain -- luacheck: ignore 122
    assert.equal("2.5", short)
    assert.equal(1 / 3, tonumber(long))
  end)

  it("raises on NaN and infinities", function()
    for _, value in ipairs { 0 / 0, math.huge, -math.huge } do
      assert.equal("bad argument #2 to 'filter' (not a finite number)", problem(filter, "a eq ?", value))
      assert.equal("bad argument #3 to 'filter' (not a finite number)", problem(filter, "a eq ? or b eq ?", 1, value))
    end
  end)

  it("writes booleans, null and times without quotes", function()
    assert.equal("a eq true and b eq false", filter("a eq ? and b eq ?", true, false))
    assert.equal("a ne null", filter("a ne ?", nymbl.null))
    assert.equal("a ge 1970-01-01T00:00:00Z", filter("a ge ?", datetime(0)))
    assert.equal("a eq 'true' and b eq 'null'", filter("a eq ? and b eq ?", "true", "null"))
    assert.equal("a eq null", filter("a eq ?", require("cjson").null))
  end)

  it("raises on values of other types, with their position", function()
    local meta = setmetatable({}, { __tostring = function() return "1 or true" end })
    for _, value in ipairs { {}, meta, print, io.stdout, coroutine.create(print) } do
      assert.truthy(problem(filter, "a eq ?", value):find("^bad argument #2 to 'filter' %(.* expected, got %a+%)$"))
      assert.truthy(problem(filter, "a eq ? or b eq ?", 1, value):find("^bad argument #3 to 'filter' "))
    end
    assert.truthy(problem(filter, "a eq ?", nil):find("^bad argument #2 to 'filter' "))
    assert.truthy(problem(filter, "a eq ? or b eq ?", nil, 1):find("^bad argument #2 to 'filter' "))
    assert.truthy(problem(filter, "a eq ? or b eq ?", 1, nil):find("^bad argument #3 to 'filter' "))
  end)

  it("raises on too few and too many values", function()
    assert.equal("bad argument #2 to 'filter' (template has 1 placeholder(s), got 0 value(s))", problem(filter, "a eq ?"))
    assert.equal("bad argument #3 to 'filter' (template has 2 placeholder(s), got 1 value(s))", problem(filter, "? ?", 1))
    assert.equal("bad argument #2 to 'filter' (template has 0 placeholder(s), got 1 value(s))", problem(filter, "a eq 1", 1))
    assert.equal("bad argument #3 to 'filter' (template has 1 placeholder(s), got 3 value(s))", problem(filter, "?", 1, 2, 3))
    assert.equal("bad argument #2 to 'filter' (template has 0 placeholder(s), got 1 value(s))", problem(filter, "a eq '?'",
      "x"))
    assert.equal("bad argument #2 to 'filter' (template has 0 placeholder(s), got 1 value(s))", problem(filter, "a", nil))
  end)

  it("raises on a template that is not a string", function()
    for _, value in ipairs { 1, true, {}, print } do
      assert.truthy(problem(filter, value):find("^bad argument #1 to 'filter' %(string expected, got "))
    end
    assert.equal("bad argument #1 to 'filter' (string expected, got no value)", problem(filter))
  end)

  it("never shows a value in an error", function()
    for _, call in ipairs {
      function() filter("a eq ?", "SENTINEL\0") end,
      function() filter("a eq 1", "SENTINEL") end,
      function() filter("a eq ? and b eq ?", "SENTINEL") end,
      function() filter("a eq ?", { "SENTINEL" }) end,
      function() filter("a eq 'SENTINEL") end,
    } do
      assert.is_nil(problem(call):find("SENTINEL", 1, true))
    end
  end)

  it("keeps every value within its literal", function()
    -- an independent OData tokenizer: the text outside string literals
    local function outside(text)
      local rest, quoted = {}, false
      for char in text:gmatch(".") do
        if char == "'" then
          quoted = not quoted
        elseif not quoted then
          rest[#rest + 1] = char
        end
      end
      assert.is_false(quoted)
      return table.concat(rest)
    end
    local attacks = {
      "' or true or '", "x' or '1' eq '1", "''", "'''", "' or ?", "?", "')", "x'))) or (((true", "%27 or 1 eq 1",
      "' or id ne null or '' eq '", "\\' or 1 eq 1 or '\\", "\226\128\153", "\239\188\135", "\r\n' or 1 eq 1",
    }
    local pieces = { "'", "''", "?", " or ", "\\", "%", "%27", "1 eq 1", "\n" }
    math.randomseed(20260301)
    for _ = 1, 500 do
      local made = {}
      for i = 1, math.random(1, 8) do made[i] = pieces[math.random(#pieces)] end
      attacks[#attacks + 1] = table.concat(made)
    end
    for _, attack in ipairs(attacks) do
      assert.equal("a eq  and contains(b,) and c eq 1",
        outside(filter("a eq ? and contains(b,?) and c eq ?", attack, attack, 1)))
    end
  end)
end)

describe("nymbl.datetime()", function()
  local function text(t) return tostring(datetime(t)) end

  it("writes seconds since 1970 in UTC", function()
    assert.equal("1970-01-01T00:00:00Z", text(0))
    assert.equal("2001-09-09T01:46:40Z", text(1000000000))
    assert.equal("2024-02-29T12:34:56Z", text(1709210096))
    assert.equal("2038-01-19T03:14:08Z", text(2^31))
    assert.equal("1970-01-01T00:00:00Z", text(-0.0))
  end)

  it("accepts times before 1970", function()
    assert.equal("1969-12-31T23:59:59Z", text(-1))
    assert.equal("1969-12-31T00:00:00Z", text(-86400))
    assert.equal("1900-03-01T00:00:00Z", text(-2203891200))
    assert.equal("1900-02-28T23:59:59Z", text(-2203891201))
  end)

  it("writes fractions as milliseconds", function()
    assert.equal("1970-01-01T00:00:00.500Z", text(0.5))
    assert.equal("1970-01-01T00:00:01.001Z", text(1.001))
    assert.equal("1970-01-01T00:00:00.020Z", text(0.02))
    assert.equal("1969-12-31T23:59:59.750Z", text(-0.25))
    assert.equal("2001-09-09T01:46:40.123Z", text(1000000000.123))
    assert.equal("1970-01-01T00:00:01Z", text(0.9999))
    assert.equal("1970-01-01T00:00:00Z", text(0.0001))
    assert.equal("1970-01-01T00:01:00Z", text(59.9996))
  end)

  it("accepts years 0 to 9999 only", function()
    assert.equal("0000-01-01T00:00:00Z", text(-62167219200))
    assert.equal("0001-01-01T00:00:00Z", text(-62135596800))
    assert.equal("9999-12-31T23:59:59Z", text(253402300799))
    assert.equal("9999-12-31T23:59:59.999Z", text(253402300799.999))
    assert.equal("9999-12-31T23:59:59Z", text { year = 9999, month = 12, day = 31, hour = 23, min = 59, sec = 59 })
    for _, seconds in ipairs { -62167219201, -62167219200.5, 253402300800, 253402300799.9999, 1e18, -1e18,
                               math.huge, -math.huge, 0 / 0 } do
      assert.equal("bad argument #1 to 'datetime' (out of range)", problem(datetime, seconds))
    end
    assert.equal("bad argument #1 to 'datetime' (out of range)",
      problem(datetime, { year = 10000, month = 1, day = 1 }))
    assert.equal("bad argument #1 to 'datetime' (out of range)",
      problem(datetime, { year = -1, month = 12, day = 31 }))
  end)

  it("agrees with os.date for many seconds, including times before 1970", function()
    math.randomseed(42)
    local function random(least, most)
      return math.floor(least + math.random() * (most - least))
    end
    local seeds = { 0, 951782400, 951868799, 951868800, 4107542399, 4107542400, 1709164800, 1709251199 }
    for _ = 1, 3000 do seeds[#seeds + 1] = random(-62135596800, 253402300799) end
    for _ = 1, 3000 do seeds[#seeds + 1] = random(0, 2^32) end
    for _, seconds in ipairs(seeds) do
      local fields = os.date("!*t", seconds)
      local expected = ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(fields.year, fields.month, fields.day,
        fields.hour, fields.min, fields.sec)
      assert.equal(expected, text(seconds))
      assert.equal(expected, text(fields))
    end
  end)

  it("agrees with os.date on every day of 500 years", function()
    for day = -135140, 47481 do -- 1600 to 2100
      local fields = os.date("!*t", day * 86400)
      local expected = ("%04d-%02d-%02dT00:00:00Z"):format(fields.year, fields.month, fields.day)
      if text(day * 86400) ~= expected or text(fields) ~= expected then
        assert.equal(expected, text(day * 86400) .. " " .. text(fields))
      end
    end
  end)

  it("takes a date without a time of day as midnight", function()
    assert.equal("2026-02-03T00:00:00Z", text { year = 2026, month = 2, day = 3 })
    assert.equal("2026-02-03T04:00:00Z", text { year = 2026, month = 2, day = 3, hour = 4 })
  end)

  it("accepts fractions of seconds in a table", function()
    assert.equal("2026-02-03T04:05:06.789Z",
      text { year = 2026, month = 2, day = 3, hour = 4, min = 5, sec = 6.789 })
  end)

  it("normalises fields that are out of range", function()
    local function same(expected, fields) assert.equal(expected, text(fields)) end
    same("2027-01-01T00:00:00Z", { year = 2026, month = 13, day = 1 })
    same("2025-12-01T00:00:00Z", { year = 2026, month = 0, day = 1 })
    same("2024-11-30T00:00:00Z", { year = 2026, month = -12, day = 0 })
    same("2026-01-31T00:00:00Z", { year = 2026, month = 2, day = 0 })
    same("2026-03-01T00:00:00Z", { year = 2026, month = 2, day = 29 })
    same("2024-02-29T00:00:00Z", { year = 2024, month = 2, day = 29 })
    same("2000-02-29T00:00:00Z", { year = 2000, month = 2, day = 29 })
    same("1900-03-01T00:00:00Z", { year = 1900, month = 2, day = 29 })
    same("2026-02-04T00:00:00Z", { year = 2026, month = 2, day = 3, hour = 24 })
    same("2026-02-02T23:59:59Z", { year = 2026, month = 2, day = 3, sec = -1 })
    same("2026-02-03T01:30:00Z", { year = 2026, month = 2, day = 3, min = 90 })
    same("2027-01-01T00:00:00Z", { year = 2026, month = 12, day = 31, hour = 23, min = 59, sec = 60 })
    same("2026-05-14T00:00:00Z", { year = 2026, month = 2, day = 3 + 100 })
  end)

  it("ignores isdst, yday and wday", function()
    assert.equal("2026-07-01T12:00:00Z",
      text { year = 2026, month = 7, day = 1, hour = 12, isdst = true, yday = 7, wday = 7 })
  end)

  it("leaves the table unchanged", function()
    local fields = { year = 2026, month = 13, day = 40 }
    datetime(fields)
    assert.same({ year = 2026, month = 13, day = 40 }, fields)
  end)

  it("raises on other types than numbers, tables and strings", function()
    for _, value in ipairs { true, print, io.stdout } do
      assert.truthy(problem(datetime, value):find("^bad argument #1 to 'datetime' %(number, table or string expected, got "))
    end
    assert.truthy(problem(datetime):find("^bad argument #1 to 'datetime' "))
  end)

  it("raises on missing and wrong fields, with their name", function()
    local whole = { year = 2026, month = 2, day = 3 }
    for _, name in ipairs { "year", "month", "day" } do
      local fields = { year = 2026, month = 2, day = 3 }
      fields[name] = nil
      assert.equal(("bad argument #1 to 'datetime' (field '%s' missing in date table)"):format(name),
        problem(datetime, fields))
    end
    for _, name in ipairs { "year", "month", "day", "hour", "min", "sec" } do
      for _, value in ipairs { "2", true, {}, 0 / 0, math.huge, -math.huge } do
        local fields = {}
        for key, item in pairs(whole) do fields[key] = item end
        fields[name] = value
        assert.truthy(problem(datetime, fields):find("^bad argument #1 to 'datetime' %(field '" .. name .. "' "))
      end
    end
  end)

  it("raises on fractions in fields other than seconds", function()
    for _, name in ipairs { "year", "month", "day", "hour", "min" } do
      local fields = { year = 2026, month = 2, day = 3 }
      fields[name] = 1.5
      assert.equal(("bad argument #1 to 'datetime' (field '%s' is not an integer)"):format(name),
        problem(datetime, fields))
    end
  end)

  it("does not depend on the time zone of the process", function()
    local script = helper.write_file(helper.temporary(".lua"), ([[
      package.path, package.cpath = %q, %q
      io.write(tostring(require("nymbl").datetime { year = 2026, month = 7, day = 1, hour = 12 }), " ",
        tostring(require("nymbl").datetime(1782907200)))
    ]]):format(package.path, package.cpath))
    local lua = jit and "luajit" or "lua" .. _VERSION:match("%d.%d")
    for _, zone in ipairs { "UTC", "America/New_York", "Asia/Kathmandu", "XYZ-14" } do
      assert.equal("2026-07-01T12:00:00Z 2026-07-01T12:00:00Z",
        helper.output(("TZ=%s %s %s"):format(zone, lua, helper.quote(script))))
    end
  end)
end)

describe("a filter", function()
  local client, patient

  -- Text in names and descriptions with special meaning in URLs, OData or the shell.
  local texts = {
    "plain", "O'Brien", "''", "'", "100% sure", "%27", "%2527", "a&b=c", "1+1", "a b", "#1", "a?b", "a/b", "a;b,c",
    "$filter", "\\", "\"quoted\"", "Gr\195\182\195\159e", "\227\130\171\227\131\171\227\131\134", "\240\159\146\137",
    "x' or 'a' eq 'a", "') or true or contains(id,'", "~!*()", "<&>", "tab\there", "|", "[x]{y}^`",
  }

  setup(function()
    helper.reset()
    client = helper.client { rate = false, monthly_quota = false }
    patient = client:patient("filters")
    for i, text in ipairs(texts) do
      helper.admin("POST", "documents", {
        patient = "filters", id = ("doc-%03d"):format(i), content = "%PDF-1.4\n", file_name = text .. ".pdf",
        description = text, document_type = i % 2 == 0 and "Even" or "Odd",
        uploaded_at = ("2026-01-%02dT12:00:00Z"):format(i), file_size_bytes = 1000 + i,
      })
    end
  end)

  teardown(function()
    client:close()
    client, patient = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function ids(text)
    local found = {}
    for document in patient:documents { filter = text } do found[#found + 1] = document.id end
    return table.concat(found, " ")
  end

  it("selects only the document with the given text, whatever the text", function()
    for i, text in ipairs(texts) do
      assert.equal(("doc-%03d"):format(i), ids(filter("description eq ?", text)))
      assert.equal(("doc-%03d"):format(i), ids(filter("file_name eq ?", text .. ".pdf")))
    end
  end)

  it("accepts any text in a function's argument", function()
    for _, text in ipairs(texts) do
      local expected = {}
      for i, other in ipairs(texts) do
        if other:find(text, 1, true) then expected[#expected + 1] = ("doc-%03d"):format(i) end
      end
      assert.equal(table.concat(expected, " "), ids(filter("contains(description,?)", text)))
    end
  end)

  it("selects nothing if an injection would select everything", function()
    assert.equal("", ids(filter("document_type eq ?", "x' or 'a' eq 'a")))
    assert.equal("", ids(filter("document_type eq ?", "' or true or '")))
    assert.equal("", ids(filter("contains(document_type,?)", "') or contains(id,'")))
  end)

  it("compares numbers, times and null", function()
    assert.equal("doc-003", ids(filter("file_size_bytes eq ?", 1003)))
    assert.equal("doc-001 doc-002", ids(filter("file_size_bytes lt ?", 1002.5)))
    assert.equal("doc-005", ids(filter("uploaded_at ge ? and uploaded_at lt ?",
      datetime { year = 2026, month = 1, day = 5 }, datetime { year = 2026, month = 1, day = 6 })))
    assert.equal("doc-001", ids(filter("uploaded_at le ?", datetime(1767268800.5))))
    assert.equal("", ids(filter("uploaded_at le ?", datetime(1767268799.5))))
    assert.equal("", ids(filter("document_type eq ?", nymbl.null)))
  end)

  it("is received by the service byte by byte", function()
    helper.admin("DELETE", "journal")
    local text = filter("description eq ?", table.concat(texts))
    assert.equal(0, patient:count(text))
    local entry = helper.journal("list")[1]
    local sent = entry.path:match("[?&]%$filter=([^&]*)") or entry.path:match("[?&]%%24filter=([^&]*)")
    assert.is_nil(sent:find("[^%w%%._~-]"))
    assert.equal(text, (sent:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)))
  end)

  it("counts with the same filter", function()
    assert.equal(1, patient:count(filter("description eq ?", "O'Brien")))
    assert.equal(#texts, patient:count(filter("description ne ?", nymbl.null)))
  end)
end)
