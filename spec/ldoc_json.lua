-- SPDX-License-Identifier: MIT
-- A filter for `ldoc --filter ldoc_json.write lua`: the documentation as JSON. It runs in LDoc's own process.

local json = require "cjson"

local function text(value)
  return (tostring(value):gsub("^%s+", ""):gsub("%s+$", ""))
end

local function item_of(item)
  local params = {}
  local function add(name)
    local modifiers = item.modifiers.param and item.modifiers.param[name] or item.modifiers.field and item.modifiers.field[name]
    local kind = type(modifiers) == "table" and modifiers.type
    params[#params + 1] = {
      name = name, type = kind and text(kind) or json.null, text = text(item.params.map[name] or ""),
      optional = type(modifiers) == "table" and modifiers.opt ~= nil or (kind and kind:sub(1, 1) == "?") or false,
    }
  end
  for _, name in ipairs(item.params or {}) do
    local options = item.subparams and item.subparams[name]
    add(name)
    for _, option in ipairs(options or {}) do add(option) end
  end
  local returns, usage = {}, {}
  for _, value in ipairs(item.ret or {}) do returns[#returns + 1] = text(value) end
  for _, code in ipairs(item.usage or {}) do usage[#usage + 1] = code end
  return { type = item.type, name = item.name, params = params, returns = returns, usage = usage,
           text = text((item.summary or "") .. " " .. (item.description or "")), has_raise = item.raise ~= nil }
end

local function write(modules)
  local found = {}
  for _, module in ipairs(modules) do
    if module.type == "module" or module.type == "classmod" then
      local items = {}
      for item in module.items:iter() do items[#items + 1] = item_of(item) end
      found[#found + 1] = { type = module.type, name = module.name, usage = module.usage and { module.usage[1] } or {},
                            items = items }
    end
  end
  print(json.encode(found))
end

return { write = write }
