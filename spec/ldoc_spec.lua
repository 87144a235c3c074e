-- SPDX-License-Identifier: MIT
-- The documentation that LDoc makes of lua/, the annotations for editors, and the code: none of the three names
-- anything that the others do not. Every @usage runs.

local helper = require "helper"
local nginx = require "nginx"
local nymbl = require "nymbl"
local check = require "nymbl.check"
local core = require "nymbl.core"

local quote = helper.quote
local unpack = table.unpack or unpack -- luacheck: ignore
local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")

-- Run a command in the root of the repository; exit status, standard output and standard error.
local function run(command)
  local out, err = helper.temporary(".out"), helper.temporary(".err")
  local status = helper.output(("cd %s; { %s; } </dev/null >%s 2>%s; echo $?"):format(quote(ROOT), command, quote(out),
    quote(err)))
  return tonumber(status), helper.read_file(out), helper.read_file(err)
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- The documentation: public functions by name ("nymbl.client", "patient:upload"), tables ("nymbl.err"), fields.
local functions, tables, fields, usages

local function read_documentation()
  local status, out, err = run(("LUA_PATH=%s ldoc --filter ldoc_json.write lua"):format(quote(ROOT .. "/spec/?.lua;;")))
  assert(status == 0, out .. err)
  functions, tables, fields, usages = {}, {}, {}, {}
  for _, module in ipairs(helper.json.decode(out)) do
    if module.usage[1] then usages[#usages + 1] = { name = module.name, code = module.usage[1] } end
    for _, item in ipairs(module.items) do
      local name = module.type == "module" and module.name .. "." .. item.name or item.name
      local list = item.type == "function" and functions or item.type == "table" and tables or fields
      assert(not list[name], name)
      list[name] = item
      for _, code in ipairs(item.usage) do usages[#usages + 1] = { name = name, code = code } end
    end
  end
end

-- The annotations: functions by name, each with `params` and the number of `returns`; classes by name, each with its
-- `fields`; aliases by name, each with its literals. A type is a text.
local annotations

local function read_annotations()
  annotations = { functions = {}, classes = {}, aliases = {} }
  local params, returns = {}, 0
  local class_fields, literals
  for line in io.lines(ROOT .. "/.luals/nymbl.meta.lua") do
    local tag, rest = line:match("^%-%-%-@(%w+)%s*(.*)$")
    if tag == "class" then
      class_fields = {}
      annotations.classes[rest] = { fields = class_fields }
    elseif tag == "field" then
      local name, optional, kind = rest:match("^([%w_]+)(%??)%s+(.*)$")
      if name then class_fields[name] = { type = kind:match("^%S+"), optional = optional == "?" } end
    elseif tag == "alias" then
      literals = {}
      annotations.aliases[rest:match("^%S+")] = literals
    elseif tag == "param" then
      local name, optional, kind = rest:match("^([%w_.]+)(%??)%s+(.*)$")
      kind = kind:match("^%S+")
      params[#params + 1] = { name = name, optional = optional == "?" or kind:match("%?$") ~= nil, type = kind:gsub("%?$", "") }
    elseif tag == "return" then
      returns = returns + 1
    end
    local literal = line:match('^%-%-%-| "([%w_]+)"$')
    if literal then literals[literal] = true end
    local name, arguments = line:match("^function ([%w_.:]+)%((.-)%) end$")
    if name then
      local names = {}
      for _, param in ipairs(params) do names[#names + 1] = param.name end
      assert.equal(arguments, table.concat(names, ", "), name) -- each parameter has its @param
      annotations.functions[name] = { params = params, returns = returns }
      params, returns = {}, 0
    end
  end
end

-- The code: public functions by name.
local real
local objects = {}

-- In the table nymbl.store, for the library itself.
local INTERNAL = { memory = true, default = true, ask = true, tell = true, of_tokens = true, attach = true, detach = true,
                   delete_from_memory = true }
-- They are loaded on first use; nymbl has only a function that does so.
local LAZY = { filter = "nymbl.filter", datetime = "nymbl.datetime", time = "nymbl.datetime", each = "nymbl.each",
               from_env = "nymbl.settings" }

local function read_code()
  real = {}
  for name, value in pairs(nymbl) do
    if type(value) == "function" then
      real["nymbl." .. name] = LAZY[name] and require(LAZY[name])[name] or value
    end
  end
  for name, value in pairs(nymbl.store) do
    if not INTERNAL[name] then real["nymbl.store." .. name] = value end
  end
  for class, object in pairs(objects) do
    local methods, metatable = core.class("nymbl." .. class)
    assert.equal(metatable, debug.getmetatable(object))
    for name, method in pairs(methods) do real[class .. ":" .. name] = method end
    if rawget(metatable, "__call") then real[class .. ":__call"] = metatable.__call end
  end
end

-- A document that can be downloaded, and a client.
local function prepare()
  helper.reset()
  for _, id in ipairs { "doc-abc123", "doc-def456" } do
    helper.admin("POST", "documents", { patient = "12345", id = id, content = "%PDF-1.4\nline\nline\n",
                                        content_type = "application/pdf" })
  end
  objects.client = helper.client()
  objects.patient = objects.client:patient(12345)
  objects.document = assert(objects.patient:get "doc-abc123")
  objects.stream = assert(objects.document:open())
end

describe("the documentation", function()
  setup(function()
    prepare()
    read_documentation()
    read_annotations()
    read_code()
  end)

  teardown(function()
    objects.client:close()
    for class in pairs(objects) do objects[class] = nil end
    real = nil
    assert.equal(0, helper.object_count())
  end)

  it("is made without a warning, and shows the public interface alone", function()
    local site = helper.temporary("-site")
    local status, out, err = run("ldoc --fatalwarnings --dir " .. quote(site) .. " lua")
    assert.equal("", err)
    assert.equal(0, status)
    assert.matches("^reading configuration from [^\n]+\noutput written to [^\n]+\n$", out)
    assert.equal("classes/client.html classes/document.html classes/patient.html classes/stream.html index.html "
      .. "modules/nymbl.html modules/nymbl.store.html topics/cookbook.md.html topics/core.md.html topics/guide.md.html",
      helper.output(("cd %s && echo $(find * -name '*.html' | LC_ALL=C sort)"):format(quote(site))))

    local pages, anchors = {}, {}
    for path in helper.output("find " .. quote(site) .. " -type f"):gmatch("[^\n]+") do
      pages[path] = helper.read_file(path)
      anchors[path] = {}
      for name in pages[path]:gmatch('[%s<]name%s*=%s*"([^"]+)"') do anchors[path][name] = true end
      for name in pages[path]:gmatch(' id="([^"]+)"') do anchors[path][name] = true end
    end
    local broken = {}
    for path, html in pairs(pages) do
      for link in html:gmatch('href="([^"]+)"') do
        if not link:match("^https?:") then
          local page, anchor = link:match("^([^#]*)#?(.*)$")
          local target = page == "" and path or (path:match("^.*/") .. page):gsub("[^/]+/%.%./", "")
          if not pages[target] or (anchor ~= "" and not anchors[target][anchor]) then broken[path .. " " .. link] = true end
        end
      end
    end
    assert.same({}, sorted(broken))

    local shown = {}
    for path, html in pairs(pages) do
      if path:match("/modules/") or path:match("/classes/") then
        for name in html:gmatch("<strong>([%w_.:]+)%(") do shown[name] = true end
      end
    end
    assert.same(sorted(functions), sorted(shown))
  end)

  it("has every public function, and none that does not exist", function()
    assert.same(sorted(real), sorted(functions))
    annotations.functions["stream:__call"] = { params = {} } -- an @overload there
    assert.same(sorted(real), sorted(annotations.functions))
    local names = {}
    for name, value in pairs(nymbl) do
      if type(value) ~= "function" and name ~= "store" then names["nymbl." .. name] = true end
    end
    assert.same(sorted(names), sorted(fields))
    for name in pairs(INTERNAL) do assert.is_not_nil(nymbl.store[name]) end
  end)

  it("has the parameters of each function", function()
    for name, item in pairs(functions) do
      local documented, annotated = {}, {}
      for _, param in ipairs(item.params) do
        if not param.name:find(".", 1, true) or param.name == "..." then
          documented[#documented + 1] = param.name .. (param.optional and "?" or "")
        end
      end
      for _, param in ipairs(annotations.functions[name].params) do
        annotated[#annotated + 1] = param.name .. (param.optional and "?" or "")
      end
      assert.same(documented, annotated, name)
      local info = debug.getinfo(real[name], "u")
      local count = #documented - (documented[#documented] == "..." and 1 or 0)
      assert.equal(info.nparams, count + (name:find(":", 1, true) and 1 or 0), name)
      assert.equal(info.isvararg, documented[#documented] == "...", name)
      assert.is_true(item.text ~= "", name)
      assert.is_true(#item.usage > 0, name .. " has no @usage")
      assert.is_true(#item.returns > 0 or name == "nymbl.use", name .. " has no @return")
      assert.is_true(item.has_raise or name:match(":close$") ~= nil, name .. " has no @raise")
    end
  end)

  -- An argument for a parameter, by its name.
  local ARGUMENTS = { id = "1", what = "letter.pdf", destination = "copy.pdf", path = "store", folder = ".", filter = "a eq 1", items = {},
                      files = {}, fn = print }

  -- The options that the code checks a table for: by the names that it passes to check.options.
  local function checked_options(name)
    local arguments, count, has_options = {}, 0, false
    for _, param in ipairs(annotations.functions[name].params) do
      count = count + 1
      arguments[count] = ARGUMENTS[param.name] or objects[param.name]
      if param.name == "options" then arguments[count], has_options = { ["not an option"] = true }, true end
    end
    if not has_options then return {} end
    local real_options, found = check.options, nil
    check.options = function(options, checkers, ...)
      found = found or checkers
      return real_options(options, checkers, ...)
    end
    local object = objects[name:match("^(%w+):")]
    local ran, message
    if object then
      ran, message = pcall(real[name], object, unpack(arguments, 1, count))
    else
      ran, message = pcall(real[name], unpack(arguments, 1, count))
    end
    check.options = real_options
    assert.is_false(ran, name)
    assert.matches("unknown option 'not an option'", message, 1, true)
    return found
  end
  -- The options that a checker of a nested table knows.
  local function nested_options(checker)
    for i = 1, 20 do
      local name, value = debug.getupvalue(checker, i)
      if not name then return nil end
      if type(value) == "table" and value.token_url then return value end
    end
  end

  local SIMPLE = { string = true, integer = true, number = true, boolean = true }

  it("has the options of each function", function()
    local count = 0
    for name, item in pairs(functions) do
      local expected = {}
      for option, checker in pairs(checked_options(name)) do
        expected[option] = true
        for nested in pairs(option == "credentials" and nested_options(checker) or {}) do
          expected["credentials." .. nested] = true
        end
      end
      local documented, annotated, class = {}, {}, nil
      for _, param in ipairs(annotations.functions[name].params) do
        if param.name == "options" then
          class = assert(annotations.classes[param.type], param.type).fields
        end
      end
      for option, field in pairs(class or {}) do
        annotated[option] = true
        for nested in pairs(field.type == "nymbl.credentials" and annotations.classes[field.type].fields or {}) do
          annotated[option .. "." .. nested] = true
        end
      end
      for _, param in ipairs(item.params) do
        local option = param.name:match("^%w+%.([%w_.]+)$")
        if option then
          documented[option], count = true, count + 1
          local field = class[option] or annotations.classes["nymbl.credentials"].fields[option:match("%.(.+)$")]
          assert.equal(param.optional, field.optional, name .. " " .. option)
          local simple = param.type:gsub("^%?", "")
          if SIMPLE[simple] then assert.equal(simple, field.type, name .. " " .. option) end
        end
      end
      assert.same(sorted(expected), sorted(documented), name)
      assert.same(sorted(expected), sorted(annotated), name)
    end
    assert.is_true(count > 50)
  end)

  -- Fields of a documented table and of an annotated class.
  local function same_fields(item, class)
    local documented, annotated = {}, {}
    for _, param in ipairs(item.params) do documented[param.name] = param.type:gsub("^%?", "") end
    for name, field in pairs(annotations.classes[class].fields) do
      annotated[name] = ({ ["nymbl.kind"] = "string", ["nymbl.operation"] = "string",
                          ["nymbl.wait_reason"] = "string" })[field.type] or field.type
    end
    assert.same(documented, annotated)
    for _, param in ipairs(item.params) do
      assert.equal(param.optional, annotations.classes[class].fields[param.name].optional, param.name)
    end
    return documented
  end

  local function subset(values, names)
    for name in pairs(values) do assert.is_not_nil(names[name], name) end
  end

  it("has the fields of errors and events", function()
    local events, problems = {}, {}
    local waits = {}
    local clock = helper.clock()
    finally(clock.restore)
    local client = helper.client {
      rate = { read = { 0.1, 1 } }, on_event = function(event) events[#events + 1] = event end,
      on_wait = function(event) waits[#waits + 1] = event end,
    }
    local patient = client:patient(12345)
    local function fails(call, ...)
      local result, err = call(...)
      assert.is_nil(result)
      problems[#problems + 1] = err
    end
    fails(patient.get, patient, "doc-none")
    helper.faults { operation = "upload", action = { after = true, reset = true }, times = 1 }
    patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf", tag = "a tag" })
    helper.faults { operation = "list", action = { status = 429, headers = { { "Retry-After", "300" } } }, times = 1 }
    fails(patient.page, patient)
    client:close()
    local error_fields = same_fields(tables["nymbl.err"], "nymbl.err")
    local event_fields = same_fields(tables["nymbl.event"], "nymbl.event")
    local wait_fields = same_fields(tables["nymbl.wait_event"], "nymbl.wait_event")
    assert.is_true(#waits > 0)
    for _, event in ipairs(waits) do
      subset(event, wait_fields)
      assert.is_true(annotations.aliases["nymbl.wait_reason"][event.reason])
    end
    local seen, seen_events = {}, {}
    for _, err in ipairs(problems) do
      subset(err, error_fields)
      for name in pairs(err) do seen[name] = true end
    end
    for _, event in ipairs(events) do
      subset(event, event_fields)
      for name in pairs(event) do seen_events[name] = true end
    end
    assert.is_true(seen.detail and seen.code and seen.retry_after)
    assert.same(sorted(event_fields), sorted(seen_events))
    for _, event in ipairs(events) do assert.is_true(annotations.aliases["nymbl.operation"][event.operation]) end
  end)

  it("has the fields of documents, streams, pages and usage", function()
    local document_fields = same_fields(tables["document.metadata"], "nymbl.document")
    for name in pairs(objects.document:metadata()) do
      assert.is_true(document_fields[name] ~= nil or name:match("^@odata%.") ~= nil, name)
    end
    local stream_fields = same_fields(tables["stream.fields"], "nymbl.stream")
    for name in pairs(stream_fields) do assert.is_not_nil(objects.stream[name], name) end

    local usage = assert(helper.client({ monthly_quota = 100 }):usage())
    local page = assert(objects.patient:page())
    local results = { ["client:usage"] = { usage, "nymbl.usage" }, ["patient:page"] = { page, "nymbl.page" } }
    for name, result in pairs(results) do
      local names = {}
      for key in pairs(result[1]) do
        if type(key) == "string" then
          names[key] = true
          assert.matches("`" .. key .. "`", functions[name].returns[1], 1, true)
        end
      end
      assert.same(sorted(names), sorted(annotations.classes[result[2]].fields))
    end
  end)

  it("has all kinds of errors", function()
    local kinds = {}
    for kind in pairs(core.kinds) do kinds[kind] = true end
    assert.same(sorted(kinds), sorted(annotations.aliases["nymbl.kind"]))
  end)

  it("has annotations that are Lua", function()
    local status, _, err = run("luac5.4 -p .luals/nymbl.meta.lua")
    assert.equal("", err)
    assert.equal(0, status)
    assert.matches("^%-%-%-@meta nymbl\n", helper.read_file(ROOT .. "/.luals/nymbl.meta.lua"))
  end)
end)

describe("every @usage", function()
  -- What a usage may rely on.
  local PRELUDE = [[
    local nymbl = require "nymbl"
    local client = assert(nymbl.client {
      base_url = os.getenv "NYMBL_BASE_URL", api_key = os.getenv "NYMBL_API_KEY", ca_file = os.getenv "NYMBL_CA_FILE",
      token = os.getenv "NYMBL_TOKEN", timeout = 60,
    })
    local patient = client:patient(12345)
    local doc = assert(patient:get "doc-abc123")
    local stream = assert(doc:open())
    assert(nymbl and patient and doc and stream)
    do
%s
    end
  ]]

  local function absolute(paths)
    return (paths:gsub("%./", ROOT .. "/"))
  end

  -- Run a usage as a program, in a folder with a document.
  local function run_script(code, folder)
    local sandbox = helper.sandbox()
    local script = helper.write_file(folder .. "/usage.lua", PRELUDE:format(code))
    local words = { "env", "HOME=" .. quote(folder), "NYMBL_TOKEN=" .. quote(helper.token()),
                    "LUA_PATH=" .. quote(absolute(package.path)), "LUA_CPATH=" .. quote(absolute(package.cpath)) }
    for _, setting in ipairs { "base_url", "ca_file", "api_key", "token_url", "client_id", "client_secret", "scope" } do
      words[#words + 1] = quote(("NYMBL_%s=%s"):format(setting:upper(), sandbox[setting]))
    end
    words[#words + 1] = jit and "luajit" or "lua" .. _VERSION:match("%d%.%d") -- luacheck: ignore
    return run(("cd %s && timeout 60 %s %s"):format(quote(folder), table.concat(words, " "), quote(script)))
  end

  -- Run a usage in nginx, which has the shared dictionary.
  local function run_in_nginx(code)
    local server = nginx.start {
      main = ("env NYMBL_TOKEN=%s;"):format(helper.token()), http = "lua_shared_dict nymbl 1m;",
      locations = { ["/"] = 'local nymbl = require "nymbl"; local print = ngx.say\n' .. code },
    }
    local text = server:get("/")
    local log = server:log()
    server:stop()
    return text, log
  end

  it("runs as it is written", function()
    read_documentation()
    assert.equal(helper.output("grep -rE '^ *-- @usage$' " .. quote(ROOT .. "/lua") .. " | wc -l"):match("%d+"), tostring(#usages))
    assert.is_true(#usages > 25)
    for _, usage in ipairs(usages) do
      prepare()
      objects.client:close()
      if usage.name == "nymbl.store.shdict" then
        local text, log = run_in_nginx(usage.code)
        assert.equal("0", text, log)
      else
        local folder = helper.directory()
        run(("cp spec/fixtures/referral.pdf %s"):format(quote(folder)))
        local status, out, err = run_script(usage.code, folder)
        assert.equal("", err, usage.name .. "\n" .. usage.code)
        assert.equal(0, status, usage.name)
        assert.not_matches("nymbl: ", out, 1, true) -- an error
      end
    end
    for class in pairs(objects) do objects[class] = nil end
  end)
end)
