-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Random calls with random arguments, with the collector always at work, hooks that raise, and
-- coroutines that nobody resumes. Whatever a program does, an error names its line and not one of
-- ours, nothing secret is in it, and the client works afterwards. NYMBL_SEED repeats a run.
local helper = require "helper"
local lfs = require "lfs"
local nymbl = require "nymbl"

local unpack = table.unpack or unpack
local is_jit = rawget(_G, "jit") ~= nil
local SEED = tonumber(os.getenv "NYMBL_SEED" or "") or is_jit and 2 or 1
local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil
local ROUNDS, CALLS = long and 600 or 10, 60

local function generator(seed)
  local state = (seed * 48271 + 11) % 2147483647
  return function(most)
    state = (state * 16807) % 2147483647
    return math.floor(state / 7) % most + 1
  end
end

local random

local function silent() end

local function pick(list) return list[random(#list)] end

-- Names of options, methods and fields: those of the library, and others.
local OPTIONS = {
  "timeout", "tag", "headers", "progress", "filter", "select", "orderby", "top", "skip", "page_size", "count", "size",
  "file_name", "content_type", "document_type", "description", "check_type", "reconcile", "mode", "overwrite", "resume",
  "check_size", "sha256", "offset", "length", "if_match", "concurrency", "unique", "rate", "token", "api_key", "base_url",
  "credentials", "store", "monthly_quota", "max_attempts", "on_event", "kind", "status", "reason", "year", "month", "day",
  "tiemout", 1,
}
local METHODS = {
  client = { "patient", "usage", "close", "check", "patients", "export", "closed" },
  patient = { "upload", "upload_all", "documents", "page", "count", "get", "document", "compare", "id" },
  document = { "download", "open", "refresh", "delete", "metadata", "safe_name", "copy_to", "file_name", "id" },
  stream = { "read", "lines", "close", "size", "content_type" },
}
local FUNCTIONS = { "client", "filter", "datetime", "time", "error", "each" } -- from_env reads the environment
local STORES = { "memory", "file", "shdict", "redis" } -- made, but the world's own is a file
local CLASSES = { "client", "patient", "document", "stream" }
local METAMETHODS = { "__gc", "__close", "__index", "__tostring", "__call", "__concat", "__len", "__eq", "__newindex" }

local world -- objects of this round, by class

local nan = 0 / 0
local value

local function options()
  local made = {}
  for _ = 1, random(3) do made[pick(OPTIONS)] = value() end
  if random(3) == 1 then made.timeout = 2 end
  return made
end

-- Functions that a program may pass. As an iterator or a source, each of them ends.
local function callback()
  local calls, fn = 0, pick {
    function() end,
    function() return false end,
    function() return value() end,
    function() error "raised by a callback" end,
    function() error(nil) end,
    function() world.client:close() end,
    function() collectgarbage() return 1 end,
    function(...) return ... end,
    function() -- which the main coroutine refuses, in words that would be Lua's own
      local ok, result = pcall(coroutine.yield)
      return ok and result or error "raised by a callback"
    end,
  }
  return function(...)
    calls = calls + 1
    if calls <= 20 then return fn(...) end
  end
end

local VALUES = {
  function() return nil end,
  function() return random(2) == 1 end,
  function() return pick { 0, -1, 1, 1.5, 7, 100, 2^31, 2^53, 2^63, -2^63, nan, 1 / 0, -1 / 0 } end,
  function()
    return pick { "", "d", "p", "d e", "*a", "l", "\0", "a\0b", "\255", ("x"):rep(5000), "application/pdf",
                  "2026-02-03T10:11:12Z" }
  end,
  function() return world.folder .. "/" .. pick { "a.pdf", "missing", "b/c", "out" } end,
  function() return {} end,
  function() return { data = pick { "%PDF-1.4 x", "", "text", 5 } } end,
  function() return { pick { 1, "a", world.document }, 2 } end,
  options, options, options,
  callback,
  function() return coroutine.create(callback()) end,
  function() return pick { world.file, world.closed_file } end,
  function() return world[pick(CLASSES)] end,
  function() return world.store end,
  function()
    return pick { nymbl.null, nymbl.error { kind = "io" }, nymbl.datetime(0), nymbl.store, nymbl, math, _G.newproxy or silent }
  end,
}

function value()
  return pick(VALUES)()
end

local function arguments()
  local list, count = {}, random(4) - 1
  for i = 1, count do list[i] = value() end
  return list, count
end

-- Arguments with which a call succeeds: of random ones, most are refused at once.
local GOOD = {
  ["patient:upload"] = function() return { { data = "%PDF-1.4 x" }, { file_name = "a.pdf" } } end,
  ["patient:upload_all"] = function() return { { world.folder .. "/a.pdf" }, { journal = world.folder .. "/journal" } } end,
  ["patient:get"] = function() return { "d" } end,
  ["patient:document"] = function() return { "d" } end,
  ["patient:compare"] = function() return { world.folder } end,
  ["document:download"] = function() return { world.folder .. "/out" } end,
  ["document:copy_to"] = function() return { world.patient } end,
  ["client:export"] = function() return { world.folder .. "/export", { patients = { "p" } } } end,
  ["client:patient"] = function() return { "p" } end,
  ["stream:read"] = function() return { 100 } end,
}

local function good_arguments(name)
  local list = GOOD[name] and GOOD[name]() or {}
  return list, #list
end

-- One call: a function, its name, and its arguments.
local function call_new()
  local list, count = arguments()
  local kind = random(21)
  if kind == 21 then
    local name = pick(STORES)
    return nymbl.store[name], "nymbl.store." .. name, list, count
  elseif kind <= 4 then
    local name = pick(FUNCTIONS)
    return nymbl[name], "nymbl." .. name, list, count
  elseif kind <= 6 then -- a metamethod of any value
    local object, name = world[pick(CLASSES)], pick(METAMETHODS)
    local metatable = debug.getmetatable(object)
    local fn = metatable and metatable[name]
    if type(fn) ~= "function" then return nil end
    -- a finalizer of its own object would close it behind the library's back
    if name == "__gc" then return fn, name, { pick { 5, "x", {}, world.file, silent } }, 1 end
    return fn, name, { random(3) > 1 and object or value(), list[1], list[2] }, 3
  end
  local class = pick(CLASSES)
  local object, name = world[class], pick(METHODS[class])
  local ok, fn = pcall(function() return object[name] end)
  if not ok or type(fn) ~= "function" then return nil end
  if name == "close" and random(3) > 1 then return nil end -- most calls need open objects
  if random(3) == 1 then
    list, count = good_arguments(class .. ":" .. name)
    return fn, class .. ":" .. name, { object, unpack(list, 1, count) }, count + 1
  end
  return fn, class .. ":" .. name, { random(8) == 1 and value() or object, unpack(list, 1, count) }, count + 1
end

local function world_new()
  helper.admin("POST", "documents", { patient = "p", id = "d", size = 5000, content_type = "application/pdf" })
  world = { folder = helper.directory() }
  helper.write_file(world.folder .. "/a.pdf", "%PDF-1.4 x")
  world.file = assert(io.open(world.folder .. "/file", "w+b"))
  world.closed_file = assert(io.open(world.folder .. "/a.pdf", "rb"))
  world.closed_file:close()
  world.store = nymbl.store.file(world.folder .. "/store", { token = true })
  world.token = random(2) == 1 and helper.token() or nil
  world.client = helper.client { timeout = 1, api_key = helper.sandbox().api_key, token = world.token, store = world.store }
  world.patient = world.client:patient "p"
  world.document = world.patient:document "d"
  world.stream = assert(world.document:open())
end

-- No text within a value is a secret.
local function check_secrets(what, found, seen)
  if type(found) == "table" and not seen[found] then
    seen[found] = true
    for name, field in next, found do
      check_secrets(what, name, seen)
      check_secrets(what, field, seen)
    end
  end
  local text = tostring(found)
  for _, secret in ipairs { helper.sandbox().api_key, helper.sandbox().client_secret, world.token } do
    assert(not text:find(secret, 1, true), what .. " shows a secret")
  end
end

-- What a call may raise.
local function check_raised(what, raised)
  check_secrets(what, raised, {})
  if type(raised) ~= "string" then return end
  assert(not raised:find "lua/nymbl/", what .. " raises at a line of ours: " .. raised)
  local internal = raised:find "attempt to" and not raised:find "attempt to use a closed"
  assert(not internal, what .. " raises Lua's own error: " .. raised)
end

local function check_result(what, first, err)
  if first == nil and type(err) == "table" and err.kind then
    check_secrets(what, err, {})
    assert(#tostring(err) < 300 and not tostring(err):find "[%c]", what)
  end
end

-- Run a function in one of several ways. Returns what pcall() does.
local ways = {}

-- Of a function that is called within another one: its outcomes.
local outcomes

local function recorded(fn)
  return function()
    local outcome = { pcall(fn) }
    outcomes[#outcomes + 1] = outcome
    if not outcome[1] then error(outcome[2], 0) end
    return unpack(outcome, 2, 3)
  end
end

function ways.plain(fn) return pcall(fn) end

function ways.coroutine(fn) -- nobody resumes it, if it yields
  local thread = coroutine.create(fn)
  return coroutine.resume(thread)
end

function ways.each(fn)
  local inner = recorded(fn)
  local ok, count, failed = pcall(nymbl.each, { 1, 2 }, { concurrency = 2 }, function() return inner() or true end)
  for _, item in ipairs(ok and failed or {}) do outcomes[#outcomes + 1] = { false, item.err } end
  return ok, count
end

function ways.collector(fn) -- at work between any two steps; finalizers run there, too
  debug.sethook(function() collectgarbage() end, "", random(1000))
  local outcome = { pcall(fn) }
  debug.sethook()
  return unpack(outcome, 1, 3)
end

function ways.hook(fn) -- as Ctrl-C, or a limit of time
  local result
  local function interrupt()
    debug.sethook()
    error "raised by a hook"
  end
  local count = random(random(2) == 1 and 200 or 3000)
  pcall(function() -- it may raise after the call, too
    debug.sethook(interrupt, "", count)
    result = { pcall(fn) }
    debug.sethook()
  end)
  debug.sethook()
  return unpack(result or { true }, 1, 3)
end

function ways.loop(fn) -- a loop that is abandoned
  local loop = require("cqueues").new()
  loop:wrap(function() pcall(recorded(fn)) end)
  for _ = 1, random(6) do
    local ok, stepped, problem = pcall(loop.step, loop, 0.001)
    if not ok or not stepped then return false, ok and problem or stepped end
  end
  return true
end

function ways.gsub(fn) -- across a C function
  local inner = recorded(fn)
  return pcall(string.gsub, "x", "x", function() inner() end)
end

local WAYS = { "plain", "plain", "plain", "coroutine", "each", "hook", "hook", "loop", "gsub", "collector" }

local function round(log)
  world_new()
  for i = 1, CALLS do
    local fn, name, list, count = call_new()
    if fn then
      local way = pick(WAYS)
      log[i] = way .. " " .. name
      outcomes = {}
      outcomes[1] = { ways[way](function() return fn(unpack(list, 1, count)) end) }
      for _, outcome in ipairs(outcomes) do
        local ok, first, err = unpack(outcome, 1, 3)
        if not ok then check_raised(log[i], first) else check_result(log[i], first, err) end
      end
      log.calls = log.calls + 1
    end
    if random(15) == 1 then collectgarbage() end
  end
  debug.sethook()
  pcall(world.stream.close, world.stream)
  pcall(world.client.close, world.client)
  world.file:close()
  -- a new client of the same engine works
  local client = helper.client()
  assert(client:patient("q"):count() == 0)
  client:close()
  world, outcomes = nil, nil
end

-- LuaJIT's compiled code calls no hooks, so half of the rounds are interpreted.
local function compile(on)
  if is_jit then rawget(_G, "jit")[on and "on" or "off"]() end
end

describe("random misuse", function()
  local pause, root

  before_each(function()
    pause = collectgarbage("setpause", 0)
    root = lfs.currentdir()
    -- a random string may be the path of a download; modules are still found
    assert(lfs.chdir(helper.directory()))
    os.execute(("cd %s && for name in lua spec examples build*; do ln -s \"$PWD/$name\" \"$OLDPWD\"; done"):format(helper.quote(root)))
  end)
  after_each(function()
    collectgarbage("setpause", pause)
    compile(true)
    assert(lfs.chdir(root))
  end)

  it("raises at the program's line, and harms no other call", function()
    local calls = 0
    for number = 1, ROUNDS do
      local seed, log = SEED * 1000 + number, { calls = 0 }
      compile(number % 2 == 0)
      random = generator(seed)
      helper.reset()
      local ok, problem = pcall(round, log)
      debug.sethook()
      if not ok then
        error(("seed %d, round %d, call %d: %s"):format(SEED, number, #log, tostring(problem)), 0)
      end
      calls = calls + log.calls
      -- an I/O thread may still have to release what was abandoned
      helper.eventually(5, function() return helper.object_count() == 0 end)
      assert.equal(0, helper.object_count(), ("seed %d, round %d"):format(SEED, number))
    end
    helper.tried(calls, "random calls", ("%d rounds, seed %d"):format(ROUNDS, SEED))
  end)
end)
