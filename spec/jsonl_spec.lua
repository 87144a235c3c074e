-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Files of JSON objects that a kill or a power cut cannot break.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local helper = require "helper"
local jsonl = require "nymbl.jsonl"

local OPTIONS = { keys = { "a", "b" }, lock = true }

describe("a file of JSON lines", function()
  local folder, dir, path, opened

  before_each(function()
    folder = helper.directory()
    dir = assert(core.system.open_directory(folder))
    path, opened = folder .. "/log", {}
  end)

  after_each(function()
    for _, log in ipairs(opened) do log:close() end
    dir:close()
    dir, opened = nil, nil
  end)

  local function open(options)
    local log, err = jsonl.open(dir, "log", options or OPTIONS)
    if not log then return nil, err end
    opened[#opened + 1] = log
    return log
  end

  -- The values of `a` in a file, joined, and how many lines do not count.
  local function content(log)
    local found = {}
    local ignored = assert(log:scan(function(record) found[#found + 1] = tostring(record.a) end))
    return table.concat(found, " "), ignored
  end

  local function reopened(text)
    if text then helper.write_file(path, text) end
    for _, log in ipairs(opened) do log:close() end
    return assert(open())
  end

  it("returns what was appended, in its order", function()
    local log = assert(open())
    assert.equal("", content(log))
    assert.equal(0, log:append { a = "1", b = "x" })
    assert.equal(18, log:append { a = "2", b = core.null })
    assert.is_true(log:flush())
    log = reopened()
    assert.equal("1 2", content(log))
    assert.equal("2", log:read(18).a)
    assert.equal(core.null, log:read(18).b)
    assert.is_nil(log:read(19))
    assert.is_nil(log:read(1000))
    assert.equal("600", helper.output("stat -c %a " .. path))
  end)

  it("returns lines of any length", function()
    local log = assert(open())
    content(log)
    local offset
    for _, size in ipairs { 1, 1000, 65535, 65536, 65537, 500000 } do
      offset = log:append { a = size, b = ("\n"):rep(size) }
    end
    assert.equal(500000, #log:read(offset).b)
    local sizes = {}
    log:scan(function(record) sizes[#sizes + 1] = #record.b end)
    assert.same({ 1, 1000, 65535, 65536, 65537, 500000 }, sizes)
  end)

  it("ignores whatever is no whole object with all keys", function()
    local good = '{"a":"1","b":2}\n'
    for _, bad in ipairs { "\n", "{}\n", '{"a":1}\n', "[1,2]\n", '{"a":1,"b":2\n', "\0\0\0\n", "x" .. good, "{" .. good,
                           '"a"\n', "\255\254\n", ("\0"):rep(70000) .. "\n" } do
      local found, ignored = content(reopened(good .. bad .. good))
      assert.equal("1 1", found)
      assert.equal(1, ignored)
    end
  end)

  it("cut off at any byte, has all whole lines and no other, and grows behind them", function()
    local log = assert(open())
    content(log)
    local ends = { [0] = 0 }
    for i = 1, 5 do
      log:append { a = i, b = ('"}\n'):rep(i) }
      ends[i] = log.size
    end
    local text = helper.read_file(path)
    for cut = 0, #text do
      log = reopened(text:sub(1, cut))
      local whole = 0
      while ends[whole + 1] and ends[whole + 1] <= cut do whole = whole + 1 end
      local expected = {}
      for i = 1, whole do expected[i] = tostring(i) end
      local found = {}
      log:scan(function(record) found[#found + 1] = ("%d"):format(record.a) end)
      assert.equal(table.concat(expected, " "), table.concat(found, " "))
      assert.equal(ends[whole], log:append { a = 9, b = "" })
      assert.equal(text:sub(1, ends[whole]) .. jsonl.line { a = 9, b = "" }, helper.read_file(path))
    end
  end)

  it("is locked until it is closed", function()
    local log = assert(open())
    local other, err = open()
    assert.is_nil(other)
    assert.equal("io in_use", err.kind .. " " .. err.reason)
    assert.is_true(errors.is(err))
    log:close()
    assert.is_truthy(open())
  end)

  it("is not opened while others replace it again and again", function()
    local times = 0
    local busy = { open_file = function(_, ...) return dir:open_file(...) end }
    function busy.stat(_, name) -- another program has replaced the file meanwhile
      times = times + 1
      helper.write_file(folder .. "/new", "")
      os.rename(folder .. "/new", path)
      return dir:stat(name)
    end
    local log, err = jsonl.open(busy, "log", OPTIONS)
    assert.is_nil(log)
    assert.equal("io in_use", err.kind .. " " .. err.reason)
    assert.is_true(times >= 100)
    log = assert(open())
    assert.equal("nymbl.jsonl", tostring(log))
  end)

  it("is not locked by a value that was abandoned", function()
    local function abandon()
      local log = assert(jsonl.open(dir, "log", OPTIONS))
      assert(log:scan(function() end))
    end
    abandon()
    assert.is_truthy(open())
  end)

  it("stays locked when it is replaced", function()
    local log = assert(open())
    content(log)
    for i = 1, 5 do log:append { a = i, b = ("x"):rep(i * 30000) } end
    local offsets = {}
    assert.is_true(log:replace(function(emit)
      log:scan(function(record, _, line)
        if record.a % 2 == 1 then offsets[#offsets + 1] = emit(line .. "\n") end
      end)
      return true
    end))
    assert.is_nil((open()))
    assert.equal(3, #offsets)
    assert.equal(5, log:read(offsets[3]).a)
    log:append { a = 6, b = "" }
    assert.same({ "log" }, { helper.names(folder) })
    log = reopened()
    local found = {}
    log:scan(function(record) found[#found + 1] = ("%d"):format(record.a) end)
    assert.equal("1 3 5 6", table.concat(found, " "))
  end)

  it("is unchanged if it cannot be replaced", function()
    local log = assert(open())
    content(log)
    log:append { a = "1", b = "" }
    local replaced, err = log:replace(function() return nil, { kind = "io", reason = "no_space" } end)
    assert.is_nil(replaced)
    assert.equal("no_space", err.reason)
    assert.same({ "log" }, { helper.names(folder) })
    helper.write_file(folder .. "/.nymbl-new-log", "left behind")
    assert.equal("1", content(reopened()))
    assert.is_true(opened[#opened]:replace(function() return true end))
    assert.equal("", helper.read_file(path))
  end)

  it("is no link", function()
    os.execute(("ln -s elsewhere %s/log"):format(folder))
    local log, err = open()
    assert.is_nil(log)
    assert.equal("symbolic_link", err.reason)
    assert.equal("log", helper.names(folder))
  end)

  it("opened read-only, is neither created nor changed", function()
    local log, err = open { keys = {}, read_only = true }
    assert.is_nil(log)
    assert.equal("not_found", err.reason)
    helper.write_file(path, '{"a":1}\n{"a"')
    log = assert(open { keys = { "a" }, read_only = true, lock = true })
    assert.equal(1, (select(2, content(log))))
    assert.equal('{"a":1}\n{"a"', helper.read_file(path))
  end)

  it("is held in memory one line at a time", function()
    local file = assert(io.open(path, "wb"))
    for i = 1, 20000 do file:write(('{"a":%d,"b":"%s"}\n'):format(i, ("x"):rep(500))) end
    file:close()
    local log = assert(open())
    collectgarbage()
    collectgarbage()
    local before, most = collectgarbage "count", 0
    log:scan(function(record)
      if record.a % 1000 == 0 then
        collectgarbage()
        most = math.max(most, collectgarbage "count")
      end
    end)
    assert.is_true(most - before < 500, most - before) -- kilobytes, of 10 MB
  end)
end)
