-- SPDX-License-Identifier: MIT
-- Locales do not change results, whenever they are set. The test builds the locales, because the
-- machine may have none.
local helper = require "helper"
local nginx = require "nginx"

local quote = helper.quote

-- A decimal comma, a capital i with a dot (in two encodings), and a decimal point of two bytes.
local LOCALES = { "de_DE.UTF-8", "tr_TR.UTF-8", "tr_TR.ISO-8859-9", "ps_AF.UTF-8" }
local folder

-- They take seconds to build. spec/run has a folder for what several runs of a spec can share.
setup(function()
  folder = (os.getenv "NYMBL_SPEC_SHARED" or helper.directory()) .. "/locales"
  local commands = { ("mkdir -p %s; exec 9>%s.lock; flock 9; test ! -e %s.done || exit 0"):format(quote(folder), quote(folder),
    quote(folder)) }
  for _, locale in ipairs(LOCALES) do
    local name, charset = locale:match("^([^.]+)%.(.+)$")
    commands[#commands + 1] = ("timeout 60 localedef -i %s -f %s %s/%s >/dev/null 2>&1 &"):format(name, charset,
      quote(folder), locale)
  end
  os.execute(table.concat(commands, "\n") .. "\nwait\ntouch " .. quote(folder .. ".done"))
end)

-- The same calls in every child process, which prints their results. It knows the sandbox only
-- from its arguments, and loads no other module than nymbl.
local SCRIPT = [[
  local nymbl = require "nymbl"
  local locale, when, path = arg[1], arg[2], arg[3]
  local options = {
    base_url = arg[4], api_key = arg[5], ca_file = arg[6], timeout = 60, max_attempts = 1,
    store = path ~= "" and nymbl.store.file(path, { token = true }) or nil, rate = { read = { 5e3, 9 }, download = { 1e4 / 3, 9 } },
    credentials = { token_url = arg[7], client_id = arg[8], client_secret = arg[9], scope = arg[10] },
  }
  local function set(name)
    if when ~= "thread" then return assert(os.setlocale(name)) end
    local ffi = require "ffi"
    ffi.cdef "void *newlocale(int, const char *, void *); void *uselocale(void *);"
    local made = ffi.C.newlocale(0x1fbf, name, nil) -- LC_ALL_MASK of glibc
    assert(made ~= nil)
    ffi.C.uselocale(made)
  end
  if when == "before" then set(locale) end

  -- by bytes: < depends on the locale
  local function is_before(a, b)
    for i = 1, math.min(#a, #b) do
      if a:byte(i) ~= b:byte(i) then return a:byte(i) < b:byte(i) end
    end
    return #a < #b
  end

  -- a value as text that does not depend on the locale
  local function show(value, more)
    if type(value) == "table" and value.kind then
      local seconds = value.retry_after and ("%.0f s"):format(value.retry_after) or "-"
      return ("%s; %s"):format(tostring(value), seconds)
    elseif type(value) == "table" then
      local parts = {}
      for key, item in pairs(value) do parts[#parts + 1] = show(key) .. "=" .. show(item) end
      table.sort(parts, is_before)
      return "{" .. table.concat(parts, " ") .. "}"
    elseif type(value) == "number" then
      local scaled = value % 1 == 0 and value or value * 2^20
      return (scaled == value and "%.0f" or "%.0f/2^20"):format(scaled)
    elseif value == nil and more ~= nil then
      return show(more)
    end
    return tostring(value)
  end
  local changes = 0
  local function say(name, ...)
    local shown = show(...)
    print(name .. ": " .. shown)
    changes = changes + 1
    if when == "flip" then set(changes % 2 == 1 and locale or "C") end
  end

  local client = assert(nymbl.client(options))
  local patient = client:patient "p"
  say("count", patient:count())
  if when == "after" or when == "thread" then set(locale) end

  local ids, sizes = 0, 0
  for document in patient:documents { page_size = 40 } do
    ids, sizes = ids + 1, sizes + document.file_size_bytes
    if when == "middle" and ids == 30 then set(locale) end
    if when == "flip" then set(ids % 2 == 1 and locale or "C") end
  end
  say("iterate", ids * 1e6 + sizes)
  say("page", #assert(patient:page { top = 7, select = "id", orderby = "file_name" }))
  local first = assert(patient:get "one")
  say("fields", first:metadata())
  say("size", first.file_size_bytes)
  local begins = { PDF = "%PDF-1.4 ", JPG = "\255\216\255\224 " }
  for _, name in ipairs { "SCAN.TIFF", "I.PDF", "I.JPG", "i.tif", "I.GIF", "I" } do
    local data = (begins[name:sub(3)] or "II*\0 ") .. name
    local sent, err = patient:upload({ data = data }, { file_name = name })
    say("upload " .. name, sent and sent.content_type, err)
  end
  for _, given in ipairs { "IMAGE/TIFF", "image/tiff;X=I", "IMAGE/GIF" } do
    local sent, err = patient:upload({ data = "II*\0 x" }, { file_name = "x", content_type = given })
    say("upload " .. given, sent and sent.content_type, err)
  end
  local function sink() return 1 end
  local tiff = assert(patient:get "tiff")
  say("type", tiff.content_type)
  say("LOCATION", tiff:download(sink))
  say("APPLICATION/JSON", tiff:download(sink))
  say("base64", tiff:download(sink, { check_size = false }))
  say("whole", tiff:download(sink))
  local stream = tiff:open()
  say("stream", stream and stream:read(4, "l", "a"))
  say("delete", patient:document("gone"):delete())
  say("get 429", patient:get "gone") -- at the end, because later calls would wait
  say("filter", nymbl.filter("a eq ? or b eq ? or c eq ? or d eq ? or e eq ?", 1 / 2, 1 / 10, -1e-7, 1e300 / 3,
    nymbl.datetime(3 / 2)))
  say("time", tostring(nymbl.datetime { year = 2026, month = 2, day = 1 }))
  local usage = client:usage()
  say("usage", usage.requests)
  say("throttled", usage.throttled)
  client:close()
  -- the remaining lines depend on the locale
  if when ~= "flip" then set(locale) end
  say("tokens", options.store and client and 1)
]]

-- The output of a script with a locale and arguments; `before` has words for the shell.
local function run(script, ...)
  local path = helper.write_file(helper.temporary(".lua"), script)
  local words = { ("LOCPATH=%s timeout 100 %s %s"):format(quote(folder), helper.interpreter(), quote(path)) }
  for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
  return helper.output(table.concat(words, " ") .. " 2>&1")
end

local FIELDS = '{"id":"one","list":[1,5],"deep":[[0.5,2,1.25e-1],{"a":1,"b":-0.75,"c":[7]}],"small":0.0000019073486328125,'
  .. '"exact":3.50e2,"file_size_bytes":8.0,"text":"1,5 and 1.5","zero":0.0,"below":-0.0625,"large":12345678.5}'

-- The server's state for the script's calls.
local function prepare()
  helper.reset()
  helper.admin("POST", "seed", { patient = "p", count = 100 })
  helper.admin("POST", "documents", { patient = "p", id = "one", content = "%PDF-1.4" })
  helper.admin("POST", "documents", { patient = "p", id = "tiff", content = "II*\0II", content_type = "IMAGE/TIFF" })
  helper.admin("POST", "documents", { patient = "p", id = "gone", content = "%PDF-1.4" })
  helper.faults(
    { operation = "token", action = { status = 200, body = ('{"access_token":"%s","token_type":"BEARER",'
      .. '"expires_in":"300,5"}'):format(helper.token()) } },
    { operation = "get", action = { status = 200, body = FIELDS } },
    { operation = "get", skip = 1, action = { status = 429, headers = { { "RETRY-AFTER", "7" } }, body = "{}" } },
    { operation = "download", action = { status = 302, body = "", headers = { { "LOCATION",
      helper.sandbox().base_url:match "^https://[^/]+(.*)$" .. "/Patients(p)/Documents(tiff)/$value" } } } },
    { operation = "download", skip = 1, action = { status = 200, content_type = "APPLICATION/JSON", body = '{"x":1}' } },
    { operation = "download", skip = 1, action = { status = 200, content_type = "IMAGE/TIFF", body = "SUkqAElJ" } })
end

local function arguments()
  local s = helper.sandbox()
  return s.base_url, s.api_key, s.ca_file, s.token_url, s.client_id, s.client_secret, s.scope
end

local expected = {}

-- The calls' results in the C locale; with a file store, or with the process's store.
local function results(locale, when, with_store)
  prepare()
  return run(SCRIPT, locale, when, with_store and helper.temporary ".store" or "", arguments())
end

local function expected_of(with_store)
  if not expected[with_store] then expected[with_store] = results("C", "before", with_store) end
  return expected[with_store]
end

describe("a locale", function()
  it("is not needed for results that it must not change", function()
    for _, with_store in ipairs { true, false } do
      local text = expected_of(with_store)
      for _, line in ipairs {
        "count: 103", "iterate: 103", "page: 7", "upload SCAN.TIFF: image/tiff", "upload I.PDF: application/pdf",
        "upload I: image/tiff", "LOCATION: 6", "type: IMAGE/TIFF", "upload I.JPG: image/jpeg", "whole: 6",
        "filter: a eq 0.5 or b eq 0.1 or c eq -1e-07 or d eq 3.3333333333333335e+299 or e eq 1970-01-01T00:00:01.500Z",
      } do
        assert.is_truthy(("\n" .. text):find("\n" .. line, 1, true), line .. "\n" .. text)
      end
      assert.is_truthy(text:find("list={1=1 2=5}", 1, true), text)
      assert.is_truthy(text:find("get 429: [^\n]*throttled[^\n]*; 7 s"), text)
      assert.is_truthy(text:find("APPLICATION/JSON: [^\n]*corrupt"), text)
      assert.is_truthy(text:find("base64: [^\n]*corrupt[^\n]*base64"), text)
    end
  end)

  local TIMES = { "before", "after", "middle", "flip" }
  if rawget(_G, "jit") then TIMES[#TIMES + 1] = "thread" end
  for _, locale in ipairs(LOCALES) do
    it(locale .. " changes no result, whenever it is set", function()
      for _, when in ipairs(TIMES) do
        assert.equal(expected_of(true), results(locale, when, true), when)
      end
      assert.equal(expected_of(false), results(locale, "after", false))
    end)
  end

  it("may differ between processes that share a file", function()
    local script = [[
      local nymbl = require "nymbl"
      local locale, path = arg[1], arg[2]
      assert(os.setlocale(locale))
      local client = assert(nymbl.client {
        base_url = arg[3], api_key = arg[4], ca_file = arg[5], timeout = 60, max_attempts = 1,
        store = nymbl.store.file(path, { token = true }), rate = { read = { 1000 / 3, 9 } },
        credentials = { token_url = arg[6], client_id = arg[7], client_secret = arg[8], scope = arg[9] },
      })
      local count, err = client:patient("p"):count()
      local usage = client:usage()
      print(("%s %d %d"):format(count or tostring(err), usage.requests, usage.throttled))
    ]]
    helper.reset()
    helper.admin("POST", "seed", { patient = "p", count = 3 })
    helper.admin("DELETE", "journal")
    local path = helper.temporary ".store"
    for i = 1, 10 do
      local locale = LOCALES[i % (#LOCALES + 1)] or "C"
      assert.equal(("3 %d 0"):format(i), run(script, locale, path, arguments()), locale)
    end
    assert.equal(1, #helper.journal "token")
  end)

  it("leaves the host program's own lua-cjson unchanged", function()
    -- whether it reads and writes fractions, whatever the locales, is the same with and without our calls
    local script = [[
      local from, order, loads = tonumber(arg[1]), arg[2], arg[3] -- the step at which our calls begin
      local nymbl = require "nymbl"
      local client = nymbl.client { base_url = arg[4], api_key = "k", token = "t", timeout = 60, max_attempts = 1 }
      local cjson
      local function state()
        local ok, text = pcall(cjson.encode, 1 / 2)
        local good, list = pcall(cjson.decode, "[0.5,1]")
        return tostring(ok and text) .. tostring(good and #list == 2 and list[1] == 1 / 2)
      end
      local step = 0
      for locale in order:gmatch "%S+" do
        step = step + 1
        assert(os.setlocale(locale))
        if loads == "late" and step >= from then assert(not client:patient("p"):page()) end
        if step == tonumber(loads) or step == 2 and not cjson then cjson = require "cjson" end
        if step >= from then
          local _, err = client:patient("p"):get "d"
          assert(err and err.code == "C" and err.detail == "1.5", tostring(err))
        end
        if cjson then print(state()) end
      end
    ]]
    helper.reset()
    helper.faults { operation = "get", times = -1, action = { status = 400,
      body = '{"error":{"code":"C","message":"1.5","details":[]},"more":[1,2.5,3]}' } }
    local url = helper.sandbox().base_url
    script = script:gsub('timeout = 60', ("timeout = 60, ca_file = %q"):format(helper.sandbox().ca_file))
    for _, order in ipairs { "C de_DE.UTF-8 C", "de_DE.UTF-8 C de_DE.UTF-8", "C ps_AF.UTF-8 C", "C C de_DE.UTF-8",
                             "tr_TR.UTF-8 C tr_TR.UTF-8 C" } do
      for _, loads in ipairs { "1", "2", "late" } do
        local without = run(script, "9", order, loads, url)
        for _, from in ipairs { "1", "2", "3" } do
          assert.equal(without, run(script, from, order, loads, url), ("%s; %s; %s"):format(order, loads, from))
        end
      end
    end
  end)

  it("has no influence on host names", function()
    local script = [[
      local nymbl = require "nymbl"
      assert(os.setlocale(arg[1]))
      print((select(2, pcall(nymbl.client, { base_url = "https://b\195\188cher.example", api_key = "k", token = "t" }))
        :gsub("^.-: ", "")))
    ]]
    for _, locale in ipairs { "C", "de_DE.UTF-8", "tr_TR.ISO-8859-9" } do
      assert.equal("bad argument #1 to 'client' (option 'base_url' must name its host in ASCII (xn--...))",
        run(script, locale), locale)
    end
    helper.reset()
    local client = helper.client()
    helper.faults { operation = "download", action = { redirect = { status = 302, location = "https://b\195\188cher.example/" } } }
    local _, err = client:patient("p"):document("d"):download(function() return 1 end)
    assert.equal("redirect", err.kind)
    client:close()
  end)
end)

describe("in nginx a locale", function()
  it("set by a handler changes no result", function()
    helper.reset()
    helper.admin("POST", "seed", { patient = "p", count = 150 })
    local server = nginx.start {
      environment = "export LOCPATH=" .. quote(folder) .. ";",
      main = "env LOCPATH;",
      http = "lua_shared_dict nymbl 1m;",
      init = [[one = client { store = nymbl.store.shdict "nymbl", rate = { read = { 3000, 9 } } }
        cjson = require "cjson"]],
      locations = {
        ["/call"] = [[
          assert(os.setlocale(ngx.var.arg_set))
          local ids, patient = 0, one:patient "p"
          for _ in patient:documents {} do ids = ids + 1 end
          local sent = assert(patient:upload({ data = "II*\0" }, { file_name = "I.TIFF" }))
          assert(patient:document(sent.id):delete())
          assert(os.setlocale "C")
          local own = pcall(cjson.decode, "[0.5]") and cjson.encode(1 / 2) -- as it was loaded
          ngx.say(("%d %s %d %s"):format(ids, sent.content_type, one:usage().requests, own))
        ]],
      },
    }
    local requests = 0
    for round = 1, 2 do
      for _, locale in ipairs { "C", LOCALES[1], LOCALES[2], LOCALES[3], LOCALES[4] } do
        local answer = server:get("/call?set=" .. locale)
        local ids, kind, count, own = answer:match("^(%d+) (%S+) (%d+) (%S+)$")
        assert.equal("150 image/tiff 0.5", ("%s %s %s"):format(ids, kind, own), answer .. locale .. server:log())
        local more = tonumber(count) - requests
        assert.is_true(more >= 4 and more <= 6, answer .. round)
        requests = tonumber(count)
      end
    end
    server:stop()
  end)
end)

describe("the source", function()
  it("calls no function that depends on the locale", function()
    local function grep(pattern, files)
      return helper.output(("cd %s && grep -nE %s %s || true"):format(quote(helper.path "." ), quote(pattern), files))
    end
    assert.equal("", grep([[\b(strn?casecmp|to(low|upp)er|is(al(pha|num)|digit|x?digit|space|upper|lower|print|punct|cntrl)]]
      .. [[|strtod|atof|strcoll|strftime|setlocale)\(]], "core/*/*.c lua/*.c | grep -vE ':[0-9]+: *(/[*]|[*]) '")) -- comments mention some
    assert.equal("", grep([[:(lower|upper)\(|string\.(lower|upper)|%[aAwWsSpPuUlLxX]\b|os\.setlocale]],
      "lua/*.lua lua/nymbl/*.lua lua/nymbl/*/*.lua | grep -vE '(format|raise|kinds)|:[0-9]+: *--|%s|%d'"))
    -- Lua 5.4 reads a number with a decimal point only if the locale's is one byte
    assert.equal("", grep([=[^[^"]*[0-9]\.[0-9]]=], "lua/*.lua lua/nymbl/*.lua lua/nymbl/*/*.lua | grep -vE ':[0-9]+:.*--.*[0-9]\\.[0-9]'"))
  end)
end)
