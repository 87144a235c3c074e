-- SPDX-License-Identifier: MIT
-- Modules that are loaded on first use, because startup is half of a short script's run time.
--
-- LuaJIT and Lua 5.1 mark a module in package.loaded while they load it. If an error interrupts
-- that (a hook raises one, or memory runs out), the mark remains, and `require` never loads the
-- module again.

local lazy = {}

local loaded = package.loaded

-- The modules that this library loads. None of them calls it while it is loaded, so a mark that is
-- found here was left behind.
local OURS = { "^nymbl%.", "^cjson$", "^luv$", "^_?cqueues", "^ngx%.semaphore$" }

local function is_ours(name)
  for _, pattern in ipairs(OURS) do
    if name:find(pattern) then return true end
  end
  return false
end

-- Remove the marks that were left behind.
function lazy.forget_interrupted()
  for name, module in pairs(loaded) do
    if (type(module) == "number" or type(module) == "userdata") and is_ours(name) then loaded[name] = nil end
  end
end

-- Load a module, which is a table.
function lazy.load(name)
  local module = loaded[name]
  if type(module) == "table" then return module end
  lazy.forget_interrupted()
  return require(name)
end

return lazy
