-- SPDX-License-Identifier: MIT
-- debug.setmetatable can give any metatable to any block of memory. The binding answers a forged
-- object with an error, and never with other objects' bytes.
local core = require "nymbl.core"
local helper = require "helper"

local set_state = debug.setuservalue -- luacheck: ignore

local registry = debug.getregistry()

local CLASSES = { "nymbl.client", "nymbl.patient", "nymbl.document", "nymbl.stream", "nymbl.transfer", "nymbl.body",
                  "nymbl.store", "nymbl.line", "nymbl.descriptor", "nymbl.id_set" }

-- Blocks that do not match their metatable. They are created anew for each use.
local function blocks()
  local _, metatable = core.class "nymbl.document"
  local list = {
    io.tmpfile(), core.object(metatable, { {}, env = {}, patient_id = "p", id = "d" }),
    core.body_from_bytes("%PDF-1.4"),
    core.store_open(helper.temporary()), core.system.open_directory(helper.folder),
    core.line_open { unix_path = helper.temporary() }, core.id_set(),
    core.client({ base_url = "https://a.example", api_key = "k" }, { env = {} }),
  }
  if newproxy then list[#list + 1] = newproxy() end -- luacheck: ignore
  return list
end

-- Call every function of a table with arguments of various types.
local function call_all(functions, value)
  for _, fn in pairs(functions) do
    if type(fn) == "function" then
      for _, more in ipairs { {}, { 1 }, { "x", 1 }, { value, value }, { "x", "x", "x", "x", "x" } } do
        pcall(fn, value, (table.unpack or unpack)(more)) -- luacheck: ignore
      end
    end
  end
end

describe("a forged metatable", function()
  it("is detected by all functions of the class", function()
    for _, name in ipairs(CLASSES) do
      local metatable = registry[name]
      for i, value in ipairs(blocks()) do
        local original = debug.getmetatable(value)
        if original ~= metatable then
          debug.setmetatable(value, metatable)
          local methods = type(metatable.__index) == "table" and metatable.__index or metatable[1]
          call_all(methods, value)
          call_all(metatable, value)
          tostring(value)
          local _ = pcall(function() return value.x, value.close, value.id end)
          if name ~= "nymbl.patient" and name ~= "nymbl.document" and name ~= "nymbl.stream" then
            assert.is_nil(i == 1 and core.state(value, name) or nil)
          end
          debug.setmetatable(value, original)
        end
      end
    end
    collectgarbage()
  end)

  it("is collected with a block that it does not belong to", function()
    for _, name in ipairs(CLASSES) do
      for _, value in ipairs(blocks()) do
        -- a block without its finalizer must not own anything
        local is_client = core.state(value, "nymbl.client") ~= nil
        if debug.getmetatable(value) and value.close then value:close() end
        if not is_client and debug.getmetatable(value) ~= registry[name] then debug.setmetatable(value, registry[name]) end
      end
      collectgarbage()
      collectgarbage()
    end
    assert.is_false(core.pump(0))
  end)

  it("creates no object, and has no class", function()
    for _, metatable in ipairs { {}, registry["nymbl.transfer"], registry["nymbl.body"], registry["nymbl.store"],
                                 debug.getmetatable(io.stdout), { __gc = function() end, {} } } do
      assert.is_false((pcall(core.object, metatable, {})))
    end
    for _, name in ipairs { "nymbl.transfer", "nymbl.body", "nymbl.store", "FILE*", "_LOADED", "no class" } do
      assert.is_false((pcall(core.class, name)))
    end
    local _, client = core.class "nymbl.client"
    local object = core.object(client, { env = {} })
    for _, name in ipairs { "client_close", "max_upload_bytes", "account", "start_token", "start" } do
      assert.is_false((pcall(core[name], object, "t", "p", "d")), name)
    end
  end)

  it("has functions that accept nothing as their object", function()
    local metatable = registry["nymbl.document"]
    local values = { "text", 1, true, {}, io.stdout, print, coroutine.create(print), core.null }
    for _, value in ipairs(values) do
      assert.is_nil((metatable.__index(value, "id")))
      pcall(metatable.__tostring, value)
      pcall(registry["nymbl.client"].__gc, value)
      assert.is_nil((core.state(value, "nymbl.document")))
    end
  end)

  it("may have lost its methods, or an object its state", function()
    local metatable = registry["nymbl.document"]
    local document = core.object(metatable, { { id = "d" }, env = {}, patient_id = "p", id = "d" })
    local methods = metatable[1]
    for _, value in ipairs { false, 5, "x" } do
      metatable[1] = value
      assert.is_nil(document.id)
      metatable[1] = methods
      if set_state then
        set_state(document, value)
        pcall(function() return document.id end)
        pcall(tostring, document)
        assert.is_nil((core.state(document, "nymbl.document")))
      end
    end
    metatable[1] = methods
  end)
end)
