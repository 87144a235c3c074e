-- SPDX-License-Identifier: MIT
-- Promises about the source that would rot without a test.
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

-- Names of the public functions, each with the comment before it.
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
        assert.is_nil(name:match("/"), path) -- every header of the core but nymbl.h is in a folder
      end
    end
  end)

  it("have one public header", function()
    assert.equal("nymbl.h", helper.output("cd " .. helper.path("core") .. " && ls *.[ch]"))
  end)

  it("let the binding know its blocks by their tags: a metatable can be forged", function()
    for _, path in ipairs(files("lua", "%.c$")) do
      if not path:find("object%.c$") then
        assert.is_nil(helper.read_file(path):match("luaL_checkudata"), path)
      end
    end
  end)

  it("let no C function yield or call a function of the script's", function()
    for _, path in ipairs(files("lua", "%.c$")) do
      local text = helper.read_file(path)
      for _, name in ipairs { "lua_call", "lua_pcall", "lua_callk", "lua_pcallk", "lua_yield", "lua_yieldk",
                              "lua_resume", "luaL_callmeta", "luaL_tolstring", "lua_gettable", "lua_settable",
                              "luaL_dostring", "luaL_ref" } do
        assert.is_nil(text:match(name .. "%s*%("), path .. " " .. name)
      end
    end
  end)

  it("keep every wait and the clock in one place", function()
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

describe("nymbl.h", function()
  it("says of every function what it takes and gives", function()
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

  -- Functions that are for C programs alone.
  local FOR_C = { nymbl_transfer_wait = true, nymbl_engine_new = true }

  it("is bound to the last function", function()
    local binding = ""
    for _, path in ipairs(files("lua", "%.[ch]$")) do binding = binding .. helper.read_file(path) end
    for name in pairs(public_functions()) do
      if not FOR_C[name] then assert.is_truthy(binding:match(name), name) end
    end
  end)

  it("has a word for every kind, which the README explains", function()
    local readme = helper.read_file(helper.path("README.md"))
    local count = 0
    for name in header:match("typedef enum nymbl_kind {(.-)} nymbl_kind"):gmatch("NYMBL_([A-Z_]+) = %-%d") do
      count = count + 1
      if name ~= "NO_MEMORY" and name ~= "MISUSE" then
        assert.is_truthy(readme:match("`" .. name:lower() .. "`"), name)
      end
    end
    assert.equal(22, count)
  end)
end)

describe("the module", function()
  it("exports the function that opens it, and no other", function()
    local library = package.searchpath and package.searchpath("nymbl.core", package.cpath)
      or package.cpath:match("[^;]+"):gsub("%?", "nymbl/core")
    assert.equal("luaopen_nymbl_core", helper.output("nm -D --defined-only " .. library .. " | awk '{ print $3 }'"))
  end)

  it("loads nothing that a script may do without before it is used", function()
    local interpreter = jit and "luajit" or "lua" .. _VERSION:match("%d.%d") -- luacheck: ignore
    local out = helper.output(("LUA_PATH=%s LUA_CPATH=%s %s -e %s"):format(helper.quote(package.path),
      helper.quote(package.cpath), interpreter,
      helper.quote [[
        local nymbl = require "nymbl"
        local client = nymbl.client { base_url = "https://localhost", api_key = "k", token = "t" }
        client:patient(1):document("a")
        for _, name in ipairs { "cjson", "nymbl.each", "nymbl.filter", "nymbl.listing", "nymbl.source",
                                "nymbl.stream", "nymbl.target" } do
          if package.loaded[name] then print(name) end
        end
        if _G.nymbl then print "a global" end
      ]]))
    assert.equal("", out)
  end)

  it("keeps to the names of the contract", function()
    local core = require "nymbl.core"
    require "nymbl"
    require "nymbl.stream"
    local names = {
      ["nymbl.client"] = { "close", "patient", "usage" },
      ["nymbl.patient"] = { "count", "document", "documents", "get", "page", "upload" },
      ["nymbl.document"] = { "delete", "download", "metadata", "open", "refresh" },
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
