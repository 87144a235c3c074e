-- SPDX-License-Identifier: MIT
-- Properties of the source that need a test to remain true.
local helper = require "helper"

local function files(folder, pattern)
  local found = {}
  for path in helper.output("find " .. helper.quote(helper.path(folder)) .. " -type f"):gmatch("[^\n]+") do
    if path:match(pattern) then found[#found + 1] = path end
  end
  assert(#found > 0)
  return found
end

local header = helper.read_file(helper.path("core/nymbl.h"))

-- The names of the public functions, each with its comment.
local function public_functions()
  local found = {}
  local at = 1
  while true do
    local first, last, name = header:find("\nNYMBL_API%s+[%w_ ]-%*?([%w_]+)%(", at)
    if not first then break end
    found[name] = header:sub(1, first - 1):match("(/%*%*.-%*/)%s*$")
      and header:sub(1, first - 1):match(".*(/%*%*.-%*/)%s*$") or ""
    at = last
  end
  return found
end

describe("the top level", function()
  it("has the agreed files only", function()
    if not helper.output("git -C " .. helper.quote(helper.path(".")) .. " rev-parse 2>&1; echo $?"):find("^0") then
      return -- an unpacked archive
    end
    local known = {}
    for name in ("CMakeLists.txt LICENSE README.md core examples lua rockspec spec"):gmatch("%S+") do known[name] = true end
    for name in helper.output("git -C " .. helper.quote(helper.path(".")) .. " ls-tree --name-only HEAD"):gmatch("[^\n]+") do
      assert.is_true(known[name] or name:sub(1, 1) == ".", name)
    end
  end)
end)

describe("the layers", function()
  it("keep Lua and JSON out of the core", function()
    for _, path in ipairs(files("core", "%.[ch]$")) do
      local text = helper.read_file(path)
      assert.is_nil(text:match('#include%s*[<"]lua'), path)
      assert.is_nil(text:match('#include%s*[<"]lauxlib'), path)
      assert.is_nil(text:lower():match("cjson"), path)
    end
  end)

  it("keep libcurl and the core's insides out of the binding", function()
    for _, path in ipairs(files("lua", "%.[ch]$")) do
      for name in helper.read_file(path):gmatch('#include%s*[<"]([^>"]+)') do
        assert.is_nil(name:match("curl"), path)
      end
      for name in helper.read_file(path):gmatch('#include%s*"([^"]+)') do
        assert.is_nil(name:match("/"), path) -- every header of the core except nymbl.h is in a directory
      end
    end
  end)

  it("have one public header", function()
    assert.equal("nymbl.h", helper.output("cd " .. helper.path("core") .. " && ls *.[ch]"))
  end)

  it("make the binding check its blocks by their tags: a metatable can be forged", function()
    for _, path in ipairs(files("lua", "%.c$")) do
      if not path:find("helpers%.c$") then
        assert.is_nil(helper.read_file(path):match("luaL_checkudata"), path)
      end
    end
  end)

  it("let no C function yield or call a function of the script", function()
    for _, path in ipairs(files("lua", "%.c$")) do
      local text = helper.read_file(path)
      for _, name in ipairs { "lua_call", "lua_pcall", "lua_callk", "lua_pcallk", "lua_yield", "lua_yieldk",
                              "lua_resume", "luaL_callmeta", "luaL_tolstring", "lua_gettable", "lua_settable",
                              "luaL_dostring", "luaL_ref" } do
        assert.is_nil(text:match(name .. "%s*%("), path .. " " .. name)
      end
    end
  end)

  it("have one module for every wait and the clock", function()
    for _, path in ipairs(files("lua", "%.lua$")) do
      if not path:match("wait%.lua$") and not path:match("wait/%w+%.lua$") then
        local text = helper.read_file(path)
        assert.is_nil(text:match("core%.pump"), path)
        assert.is_nil(text:match("core%.now"), path)
        assert.is_nil(text:match("os%.time"), path)
        assert.is_nil(text:match("os%.clock"), path)
      end
    end
  end)
end)

-- The directories of the core, from bottom to top.
local LAYERS = { "base", "file", "job", "port", "exchange", "engine", "api" }

-- The nodes of a graph that can reach themselves. `graph` maps each node to a set of others.
local function circle(graph)
  local state, path = {}, {}
  local function visit(node)
    state[node] = "open"
    path[#path + 1] = node
    for other in pairs(graph[node] or {}) do
      if state[other] == "open" then return table.concat(path, " -> ") .. " -> " .. other end
      local found = not state[other] and visit(other)
      if found then return found end
    end
    path[#path] = nil
    state[node] = "done"
  end
  for node in pairs(graph) do
    local found = not state[node] and visit(node)
    if found then return found end
  end
end

-- A file of the core without comments, by "layer/name.c".
local function core_files()
  local found = {}
  local root = helper.path("core")
  for _, path in ipairs(files("core", "%.[ch]$")) do
    local name = path:sub(#root + 2)
    if name ~= "nymbl.h" then found[name] = helper.read_file(path):gsub("/%*.-%*/", " ") end
  end
  return found
end

-- The public functions of a file.
local function functions(text)
  local found = {}
  for line in text:gmatch("[^\n]+") do
    local name = line:match("^[%a_][%w_ %*]-%*?(nymbl__?[%w_]+)%(")
    if name and not line:match("^static") then found[name] = true end
  end
  return found
end

-- The dependencies of the core's units ("layer/name"): by the headers that they include, and by the
-- functions that they call, whichever header declares them.
local function core_graph()
  local texts = core_files()
  local graph, defined = {}, {}
  for path, text in pairs(texts) do
    local unit = path:match("^(.+)%.")
    graph[unit] = graph[unit] or {}
    if path:match("%.c$") then
      for name in pairs(functions(text)) do defined[name] = unit end
    end
  end
  for path, text in pairs(texts) do
    local unit = path:match("^(.+)%.")
    local function use(other)
      if other and other ~= unit then graph[unit][other] = true end
    end
    for name in text:gmatch('#include "([^"]+)%.h"') do
      if name ~= "nymbl" then
        assert.is_truthy(graph[name], path .. " includes " .. name)
        use(name)
      end
    end
    if path:match("%.c$") then
      for name in text:gmatch("%f[%w_](nymbl__?[%w_]+)") do use(defined[name]) end
    end
  end
  return graph
end

describe("the layers of the core", function()
  it("use no layer above them", function()
    local rank = {}
    for i, layer in ipairs(LAYERS) do rank[layer] = i end
    local count = 0
    for unit, others in pairs(core_graph()) do
      local own = assert(rank[unit:match("^%w+")], unit)
      for other in pairs(others) do
        count = count + 1
        assert.is_true(rank[other:match("^%w+")] <= own, unit .. " uses " .. other)
      end
    end
    assert.is_true(count > 100)
  end)

  it("have no circle", function()
    assert.is_nil(circle(core_graph()))
  end)

  it("declare the functions of a file in its own header, which it includes first", function()
    local texts = core_files()
    for path, text in pairs(texts) do
      if path:match("%.c$") then
        local own = path:gsub("c$", "h")
        local first = text:match('#include "([^"]+)"')
        assert.equal(texts[own] and own or "nymbl.h", first, path)
        for name in pairs(functions(text)) do
          local declared = name:match("^nymbl__") and texts[own] or header
          assert.is_truthy(declared and declared:find(name .. "(", 1, true), path .. ": " .. name)
        end
      end
    end
  end)

  it("use libcurl only in exchange and the layers above", function()
    for path, text in pairs(core_files()) do
      if path:match("^base/") or path:match("^file/") or path:match("^job/") or path:match("^port/") then
        assert.is_nil(text:match("#include <curl"), path)
      end
    end
  end)
end)

describe("the files of the binding", function()
  it("have no circle", function()
    local graph = {}
    for _, path in ipairs(files("lua", "%.[ch]$")) do
      local unit = path:match("([%w_]+)%.[ch]$")
      graph[unit] = graph[unit] or {}
      for name in helper.read_file(path):gmatch('#include "([^"]+)%.h"') do
        if name ~= unit then graph[unit][name] = true end
      end
    end
    assert.is_nil(circle(graph))
  end)

  it("load a module on first use by lazy.lua: LuaJIT's require would not load it again after an interrupt", function()
    for _, path in ipairs(files("lua", "%.lua$")) do
      if not path:find "/nymbl/command/" then -- the command ends if it was interrupted
        for line in helper.read_file(path):gmatch "[^\n]+" do
          local is_other = line:find "^%s*%-%-" or line:find '^local [%w_]+ = require[ (]"'
          assert.is_truthy(is_other or not line:find 'require%s*%(?"', path .. ": " .. line)
        end
      end
    end
  end)

  it("have no circle in Lua, not even one that is closed at a call", function()
    local graph = {}
    local root = helper.path("lua")
    for _, path in ipairs(files("lua", "%.lua$")) do
      local module = path:sub(#root + 2):gsub("%.lua$", ""):gsub("/", ".")
      graph[module] = {}
      for line in helper.read_file(path):gmatch("[^\n]+") do
        local is_code = not line:match("^%s*%-%-")
        for _, loader in ipairs { "require", "load", "on_first_use" } do
          local name = is_code and line:match(loader .. '%s*%(?%s*"(nymbl[%w.]*)"')
          if name then graph[module][name] = true end
        end
      end
    end
    assert.is_truthy(graph["nymbl.store.file"]["nymbl.json"])
    assert.is_truthy(graph["nymbl.store"]["nymbl.store.file"])
    assert.is_truthy(graph.nymbl["nymbl.filter"])
    assert.is_nil(circle(graph))
  end)
end)

describe("a file", function()
  local function is_short(folder, pattern, most)
    for _, path in ipairs(files(folder, pattern)) do
      local _, lines = helper.read_file(path):gsub("\n", "")
      assert.is_true(lines <= most, path .. ": " .. lines)
    end
  end

  it("has no more than 450 lines in C, and 500 in Lua", function()
    is_short("core", "%.c$", 450)
    is_short("lua", "%.c$", 450)
    is_short("lua", "%.lua$", 500)
  end)
end)

describe("nymbl.h", function()
  it("documents every function's parameters and results", function()
    local count = 0
    for name, comment in pairs(public_functions()) do
      count = count + 1
      assert.is_true(#comment > 40, name)
      if not header:match("NYMBL_API void " .. name) then
        assert.is_truthy(comment:match("@return"), name)
      end
    end
    assert.is_true(count > 30)
  end)

  -- Functions for C programs only.
  local FOR_C = {
    nymbl_transfer_wait = true, nymbl_engine_new = true, nymbl_sniff = true,
    -- Lua describes requests itself (nymbl_request_start)
    nymbl_upload_start = true, nymbl_list_start = true, nymbl_get_start = true, nymbl_download_start = true,
    nymbl_delete_start = true,
  }

  it("is bound completely", function()
    local binding = ""
    for _, path in ipairs(files("lua", "%.[ch]$")) do binding = binding .. helper.read_file(path) end
    for name in pairs(public_functions()) do
      if not FOR_C[name] then assert.is_truthy(binding:match(name), name) end
    end
  end)

  it("has a name for every kind, which the guide explains", function()
    local guide = helper.read_file(helper.path("lua/README.md"))
    local count = 0
    for name in header:match("typedef enum nymbl_kind {(.-)} nymbl_kind"):gmatch("NYMBL_([A-Z_]+) = %-%d") do
      count = count + 1
      if name ~= "NO_MEMORY" and name ~= "MISUSE" then
        assert.is_truthy(guide:match("`" .. name:lower() .. "`"), name)
      end
    end
    assert.equal(23, count)
  end)
end)

describe("the module", function()
  it("exports the function that opens it, and no other", function()
    local library = package.searchpath and package.searchpath("nymbl.core", package.cpath)
      or package.cpath:match("[^;]+"):gsub("%?", "nymbl/core")
    assert.equal("luaopen_nymbl_core", helper.output("nm -D --defined-only " .. library .. " | awk '{ print $3 }'"))
  end)

  it("loads no optional module before it is used", function()
    local interpreter = jit and "luajit" or "lua" .. _VERSION:match("%d.%d") -- luacheck: ignore
    local out = helper.output(("LUA_PATH=%s LUA_CPATH=%s %s -e %s"):format(helper.quote(package.path),
      helper.quote(package.cpath), interpreter,
      helper.quote [[
        local nymbl = require "nymbl"
        local client = nymbl.client { base_url = "https://localhost", api_key = "k", token = "t" }
        client:patient(1):document("a")
        for _, name in ipairs { "cjson", "nymbl.each", "nymbl.diagnosis", "nymbl.filter", "nymbl.listing", "nymbl.source",
                                "nymbl.stream", "nymbl.target" } do
          if package.loaded[name] then print(name) end
        end
        if _G.nymbl then print "a global" end
      ]]))
    assert.equal("", out)
  end)

  it("has only the names of the Lua API", function()
    local core = require "nymbl.core"
    require "nymbl"
    require "nymbl.stream"
    local names = {
      ["nymbl.client"] = { "check", "close", "export", "patient", "patients", "usage" },
      ["nymbl.patient"] = { "compare", "count", "document", "documents", "get", "page", "upload", "upload_all" },
      ["nymbl.document"] = { "copy_to", "delete", "download", "metadata", "open", "refresh", "safe_name" },
      ["nymbl.stream"] = { "close", "lines", "read" },
    }
    for class, expected in pairs(names) do
      local found = {}
      for name in pairs((core.class(class))) do found[#found + 1] = name end
      table.sort(found)
      assert.same(expected, found)
    end
  end)

  it("has a comment on every method", function()
    for _, path in ipairs(files("lua", "%.lua$")) do
      local text = helper.read_file(path)
      local before = ""
      for line in text:gmatch("([^\n]*)\n") do
        if line:match("^function methods%.") then
          assert.is_truthy(before:match("^%-%-"), path .. ": " .. line)
        end
        before = line
      end
    end
  end)
end)

describe("every file", function()
  it("names its licence", function()
    for _, folder in ipairs { "core", "lua", "spec", "examples" } do
      for _, path in ipairs(files(folder, "%.[chl][ua]*a?$")) do
        assert.is_truthy(helper.read_file(path):sub(1, 200):match("SPDX%-License%-Identifier: MIT"), path)
      end
    end
  end)
end)
