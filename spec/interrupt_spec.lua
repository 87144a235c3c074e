-- SPDX-License-Identifier: MIT
-- An error raised by a hook (Ctrl-C in `lua`, a program's own time limit) is not an error in the data
-- being processed: it passes through, and no stored data is lost.
local command = require "command"
local dictionary = require "dictionary"
local helper = require "helper"
local json = require "nymbl.json"
local nymbl = require "nymbl"
local rate_state = require "nymbl.rate_state"

local MONTH, WORD = "2026-02", "interrupted!"

-- LuaJIT's compiled code calls no hooks.
if jit then jit.off() end -- luacheck: ignore

-- Run a function repeatedly. Each time the hook raises its error at the next call or return, or
-- instruction.
local function each_interrupt(what, judge, instructions)
  local n, raised = 0, nil -- luacheck: ignore
  repeat
    n, raised = n + 1, false
    local seen, armed = 0, false
    debug.sethook(function()
      if not armed then return end
      seen = seen + 1
      if seen == n then
        armed, raised = false, true
        error(WORD, 0)
      end
    end, instructions and "" or "cr", instructions and 1 or 0)
    local ok, a, b = pcall(function()
      armed = true
      local first, second = what()
      armed = false
      return first, second
    end)
    debug.sethook()
    if raised then
      assert.is_false(ok, "swallowed at " .. n)
      assert.equal(WORD, a)
    end
    judge(n, ok, a, b)
  until not raised
  return n
end

describe("an error of a hook", function()
  for name, make in pairs {
    ["the file store"] = function() return nymbl.store.file(helper.temporary(".store")) end,
    ["a dictionary"] = function()
      local shared = dictionary.new()
      dictionary.pretend_nginx { it = shared }
      local store = nymbl.store.shdict "it"
      return setmetatable({ clear = function() -- an interrupted caller still holds the lock
        for key in pairs(shared.kept) do
          if key:find(" lock$") then shared.kept[key] = nil end
        end
      end }, { __index = store })
    end,
  } do
    it("loses no account's count in " .. name, function()
      local store = make()
      finally(function() package.loaded.ngx = nil end)
      local function count(key)
        return store:update(key, nil, rate_state.usage, MONTH).requests
      end
      local function reserve(key)
        return store:update(key, nil, rate_state.reserve, { bucket = "read" }, MONTH)
      end
      for _ = 1, 50 do
        reserve "one"
        reserve "other"
      end
      local last = 50
      local times = each_interrupt(function() return reserve "one" end, function(n)
        if store.clear then store.clear() end
        collectgarbage() -- and a file that was open
        local now = count "one"
        assert.is_true(now >= last, ("%d at %d, after %d"):format(now, n, last))
        assert.equal(50, count "other", "at " .. n)
        last = now
      end)
      assert.is_true(times > 10)
    end)
  end

  it("leaves a stream open or closed, and not half closed", function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "d", content = "%PDF-1.4 x" })
    local client = helper.client()
    local document, stream = client:patient("p"):document "d", nil
    local function open() stream = assert(document:open()) end
    open()
    local times = each_interrupt(function() return stream:close() end, function(n)
      local ok, all = pcall(stream.read, stream, "a")
      if ok then assert.equal("%PDF-1.4 x", all, n) else assert.matches("use a closed stream", all, nil, true) end
      stream:close()
      open()
    end, true)
    assert.is_true(times > 20)
    stream:close()
    client:close()
    client, document, stream = nil, nil, nil -- luacheck: ignore
    assert.equal(0, helper.object_count())
  end)

  it("does not turn valid JSON invalid", function()
    each_interrupt(function() return json.decode '{"a":[1,2]}' end, function(_, ok, value, problem)
      if ok then
        assert.same({ a = { 1, 2 } }, value)
        assert.is_nil(problem)
      end
    end)
  end)

  it("leaves invalid JSON invalid", function()
    each_interrupt(function() return json.decode '{"a":[1,2}' end, function(_, ok, value, problem)
      if ok then
        assert.is_nil(value)
        assert.equal("bad_json", problem)
      end
    end)
  end)
end)

-- An error that ends the loading of a module, before the module has run or after it. Each module has
-- both in turn, and so have those that it needs.
local PREAMBLE = [[
  local nymbl = require "nymbl"
  local client = nymbl.client { base_url = "https://127.0.0.1:1", api_key = "k", token = "t", max_attempts = 1, rate = false }
  local interrupted, seen, is_armed = 0, {}, false
  local searchers = package.searchers or package.loaders
  local function search(name)
    for i = 2, #searchers do
      local loader, extra = searchers[i](name)
      if type(loader) == "function" then return loader, extra end
    end
    error("not found: " .. name)
  end
  table.insert(searchers, 1, function(name)
    if not is_armed then return nil end
    seen[name] = (seen[name] or 0) + 1
    local times = seen[name]
    if times > 2 then return nil end
    return function(...)
      if times == 2 then
        local loader, extra = search(name)
        loader(name, extra)
      end
      interrupted = interrupted + 1
      error("interrupted!", 0)
    end
  end)
  -- Call a function until nothing interrupts it.
  local function call(fn, ...)
    while true do
      local before = interrupted
      is_armed = true
      local results = { pcall(fn, ...) }
      is_armed = false
      if results[1] then return results[2], results[3] end
      if interrupted == before then error(results[2], 0) end
    end
  end
]]

describe("a module whose loading was interrupted is loaded again", function()
  for name, code in pairs {
    ["by functions of nymbl"] = [[
      call(nymbl.datetime, 0)
      call(nymbl.filter, "id eq ?", "1")
      call(nymbl.from_env)
      call(nymbl.store.file, "/nonexistent/store")
      call(nymbl.store.redis, { url = "redis://127.0.0.1:1" })]],
    ["by methods of a client"] = [[
      call(client.patients, client, {})
      call(client.check, client)
      call(client.export, client, "/nonexistent/folder")]],
    ["by methods of a patient"] = [[
      local patient = client:patient(1)
      call(patient.documents, patient)
      call(patient.count, patient)
      call(patient.upload, patient, { data = "text" }, { file_name = "a.txt" })
      call(patient.compare, patient, "/nonexistent/folder")
      call(patient.upload_all, patient, {}, { journal = "/nonexistent/journal" })]],
    ["by methods of a document"] = [[
      local document = client:patient(1):document "d"
      call(document.open, document)
      call(document.download, document, "/nonexistent/file")
      call(document.safe_name, document)
      call(document.copy_to, document, client:patient(2))]],
    ["by JSON"] = [[
      local json = require "nymbl.json"
      assert(call(json.decode, "[0.5]")[1] == 0.5)
      assert(seen.cjson == 3)]],
    ["in luv"] = [[
      if pcall(require, "luv") then
        call(nymbl.use, "luv")
        coroutine.wrap(function() client:patient(1):count() end)()
        require("luv").run()
      end]],
    ["in cqueues"] = [[
      local found, cqueues = pcall(require, "cqueues")
      if found then
        local loop = cqueues.new()
        loop:wrap(function() call(client.check, client) end)
        assert(loop:loop())
      end]],
  } do
    it(name, function()
      local script = helper.write_file(helper.temporary(".lua"), PREAMBLE .. code .. "\n      print 'done'")
      assert.equal("done", helper.output(("%s %s 2>&1"):format(helper.interpreter(), helper.quote(script))))
    end)
  end

  it("but not a module of the program that uses this library while it is loaded", function()
    local script = helper.write_file(helper.temporary(".lua"), [[
      package.preload["ngx.app"] = function() require("nymbl").datetime(0) end
      print(require "ngx.app", package.loaded["ngx.app"])]])
    assert.equal("true\ttrue", helper.output(("%s %s 2>&1"):format(helper.interpreter(), helper.quote(script))))
  end)
end)

-- The interpreter's handler of SIGINT sets a hook that raises.
describe("Ctrl-C ends", function()
  local WAITS = {
    ["a call that has been waiting for long"] = "patient:count()",
    ["nymbl.each() that has been waiting for long"] = [[nymbl.each({ 1 }, function() return patient:count() end)]],
  }

  for name, code in pairs(WAITS) do
    it(name, function()
      helper.reset()
      helper.faults { operation = "list", action = { delay = 60 }, times = -1 }
      local script = helper.write_file(helper.temporary(".lua"), [[
        local nymbl = require "nymbl"
        local patient = assert(nymbl.client(assert(nymbl.from_env { timeout = 60 }))):patient(12345)
      ]] .. code)
      -- -Ohotloop=1: what LuaJIT would compile after ten seconds, it compiles after the first turn of a loop
      local interpreter = helper.interpreter():gsub("luajit$", "luajit -Ohotloop=1")
      local run = command.start({ script }, { program = interpreter, directory = "." })
      helper.wait_for(function() return #helper.journal "list" > 0 end)
      os.execute "sleep 1"
      command.signal(run, "INT")
      local status, _, err = command.finish(run)
      assert.equal(1, status)
      assert.matches("interrupted!", err, 1, true)
    end)
  end
end)
