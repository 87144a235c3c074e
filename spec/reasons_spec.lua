-- SPDX-License-Identifier: MIT
-- Kinds and reasons of errors: the tables of lua/README.md, the definitions, and the words
-- that the code uses are the same.
local helper = require "helper"
local core = require "nymbl.core"
local errors = require "nymbl.errors"

-- Words that contract and README name: scripts rely on them.
local FINAL = {
  "resolve", "connect", "reset", "stall", "deadline", "certificate_expired", "host_name", "ca_file", "no_space",
  "exists", "permission", "not_found", "closed", "proxy", "proxy_auth", "changed", "signature", "empty",
}

local function files(pattern)
  local found = {}
  local folders = helper.quote(helper.path("core")) .. " " .. helper.quote(helper.path("lua"))
  for path in helper.output("find " .. folders .. " -type f"):gmatch("[^\n]+") do
    if path:match(pattern) then found[#found + 1] = path end
  end
  assert(#found > 5)
  return found
end

-- The text of a file without comments and without what it includes or requires.
local function code(path)
  local text = helper.read_file(path)
  if path:match("%.lua$") then
    return (text:gsub("%-%-[^\n]*", ""):gsub('require%s*%(?%s*"[^"]*"', ""))
  end
  return (text:gsub("/%*.-%*/", " "):gsub("#include[^\n]*", ""))
end

local function sorted(set)
  local list = {}
  for word in pairs(set) do list[#list + 1] = word end
  table.sort(list)
  return list
end

-- Fails with the words that only one of two sets has.
local function same(expected, found)
  local missing, more = {}, {}
  for word in pairs(expected) do if not found[word] then missing[word] = true end end
  for word in pairs(found) do if not expected[word] then more[word] = true end end
  assert.same({ missing = {}, more = {} }, { missing = sorted(missing), more = sorted(more) })
end

-- The rows of the table below a heading of lua/README.md, each an array of its cells.
local function rows(heading)
  local text = helper.read_file(helper.path("lua/README.md"))
  local part = assert(text:match("\n### " .. heading .. "\n(.-)\n#") or text:match("\n### " .. heading .. "\n(.*)$"))
  local found = {}
  for line in part:gmatch("\n|([^\n]+)|") do
    local row = {}
    for cell in line:gmatch("([^|]+)") do row[#row + 1] = cell:match("^%s*(.-)%s*$") end
    if row[1]:match("^`") then found[#found + 1] = row end
  end
  assert(#found > 10)
  return found
end

-- Words in a cell, each of which stands there once.
local function words(cell, into)
  into = into or {}
  for word in cell:gmatch("`([%w_]+)`") do
    assert.is_nil(into[word], word)
    into[word] = true
  end
  return into
end

local kinds, reasons = {}, {} -- by the README
for _, row in ipairs(rows "Kinds") do words(row[1], kinds) end
for _, row in ipairs(rows "Reasons") do words(row[1], reasons) end

local of_core = {}
for word in helper.read_file(helper.path("core/base/reasons.def")):gmatch("\nREASON%(([%w_]+)%)") do
  assert(not of_core[word], word)
  of_core[word] = true
end

local of_lua = {} -- those that the core has not
local advised = {}
for key in pairs(errors.reasons) do
  local word = key:match("^%w+%.([%w_]+)$") or key
  advised[word] = true
  if not of_core[word] then of_lua[word] = true end
end

-- Phases of nginx: the code takes these reasons from ngx.get_phase(), so it has no literals of them.
local PHASES = { set = true, header_filter = true, body_filter = true, log = true, balancer = true,
                 init_worker = true, exit_worker = true, ssl_session_store = true }

-- Words of the core that are literals in another sense: a kind, and an option.
local OTHER_MEANINGS = { not_found = "kind.c", proxy = "client.c" }

describe("the kinds of errors", function()
  it("are the same in the enum, in Lua and in the guide", function()
    local enum = {}
    local header = helper.read_file(helper.path("core/nymbl.h"))
    for name in header:match("typedef enum nymbl_kind {(.-)} nymbl_kind"):gmatch("NYMBL_([A-Z_]+) = %-%d") do
      if name ~= "NO_MEMORY" and name ~= "MISUSE" then enum[name:lower()] = true end -- Lua raises these
    end
    same(enum, core.kinds)
    same(enum, kinds)
  end)

  it("have a meaning and something to do, each", function()
    for _, row in ipairs(rows "Kinds") do
      assert.equal(3, #row, row[1])
      for i = 2, 3 do assert.is_truthy(row[i]:match("^%u.*%.$"), row[1]) end
    end
  end)
end)

describe("the reasons of errors", function()
  it("are the same in the definitions and in the guide", function()
    local defined = {}
    for word in pairs(of_core) do defined[word] = true end
    for word in pairs(of_lua) do defined[word] = true end
    same(defined, reasons)
  end)

  it("have kinds that exist, a meaning and something to do, each", function()
    for _, row in ipairs(rows "Reasons") do
      assert.equal(4, #row, row[1])
      local named = sorted(words(row[2]))
      assert.is_true(#named > 0, row[1])
      for _, kind in ipairs(named) do assert.is_truthy(kinds[kind], row[1] .. ": " .. kind) end
      for i = 3, 4 do assert.is_truthy(row[i]:match("^%u.*%.$"), row[1]) end
    end
  end)

  it("include those that are final", function()
    for _, word in ipairs(FINAL) do assert.is_truthy(reasons[word], word) end
  end)

  it("are constants in the core, each of them used", function()
    local used = {}
    for _, path in ipairs(files "/core/.+%.c$") do
      local text = code(path)
      for word in text:gmatch("nymbl__reason_([%w_]+)") do used[word] = true end
      assert.is_nil(text:match('reason%s*=%s*"'), path)
      for word in text:gmatch('"([%w_]+)"') do
        assert.is_true(not of_core[word] or OTHER_MEANINGS[word] == path:match("[^/]+$"), path .. ": " .. word)
      end
      for call in text:gmatch('error_set(%([^;]-"[%w_]+"%))') do
        assert.is_truthy(call:match("NYMBL_MISUSE"), path .. ": fail" .. call)
      end
    end
    for _, word in ipairs { "deadline", "progress", "source", "sink" } do used[word] = true end -- the callers'
    same(of_core, used)
  end)

  it("are defined if the binding or Lua uses them", function()
    local function check(word, path)
      assert.is_truthy(of_core[word] or of_lua[word], path .. ": " .. word)
    end
    local count = 0
    local PATTERNS = {
      'reason = "([%w_]+)"', 'reason [=~]= "([%w_]+)"', 'cancel%("%w+", "([%w_]+)"%)', 'page%.invalid%([^"()]+"([%w_]+)"',
      'reason = [^,}\n"]+ and "([%w_]+)"', 'reason = [^,}\n"]+"[%w_]+" or "([%w_]+)"',
    }
    for _, path in ipairs(files "/lua/.+%.[lc].*$") do
      if path:match("%.lua$") or path:match("%.c$") then
        local text = code(path)
        for _, pattern in ipairs(PATTERNS) do
          for word in text:gmatch(pattern) do
            count = count + 1
            check(word, path)
          end
        end
      end
    end
    assert.is_true(count > 40, count)
    -- the reasons why a response is invalid, and why a coroutine may not wait
    for _, name in ipairs { "document", "entity", "json", "page", "wait" } do
      local path = helper.path("lua/nymbl/" .. name .. ".lua")
      local found = 0
      for word in code(path):gmatch('return nil, "([^"]+)"') do
        found = found + 1
        check(word, path)
      end
      assert.is_true(found > 1, path)
    end
  end)

  it("that only Lua finds are used, each of them", function()
    local text = ""
    for _, path in ipairs(files "/lua/nymbl/.+%.lua$") do
      if not path:match("/errors%.lua$") then text = text .. code(path) end
    end
    local unused = {}
    for word in pairs(of_lua) do
      if not PHASES[word] and not text:find('"' .. word .. '"', 1, true) then unused[word] = true end
    end
    assert.same({}, sorted(unused))
  end)

  it("are passed to cancel() in words that the core has", function()
    for _, path in ipairs(files "/lua/nymbl/.+%.lua$") do
      for word in code(path):gmatch('cancel%("%w+", "([%w_]+)"%)') do assert.is_truthy(of_core[word], word) end
    end
  end)

  it("of every operation have an advice that fits it", function()
    for word in pairs(advised) do
      for kind in pairs(kinds) do
        local line = tostring(errors.new { kind = kind, reason = word, operation = "download" })
        assert.is_nil(line:find("false", 1, true), line)
        assert.is_nil(line:find("upload it", 1, true), line)
        assert.matches("^nymbl: download: " .. kind .. " %(" .. word .. "%): %l.+$", line)
      end
    end
  end)
end)
