-- SPDX-License-Identifier: MIT
--- Documents of the Nymbl Customer API: upload, list, get, download, delete.
-- @module nymbl

local core = require "nymbl.core"
local check = require "nymbl.check"
local client = require "nymbl.client"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

-- Modules that many scripts do not need are loaded on first use, because startup is half of
-- a short script's run time.
local function lazy(module, name)
  return function(...) return require(module)[name](...) end
end

--- Name the event loop of this process if nymbl cannot detect it. A call made in a
-- coroutine of that loop then suspends only this coroutine.
-- @tparam string loop "luv"
-- @raise on another name, or if luv is not installed
local function use(loop)
  if loop ~= "luv" then
    check.argument(1, "use", type(loop) == "string" and ("unknown loop '%s'"):format(loop)
      or check.expected("string", loop))
  end
  wait.use(loop)
end

return {
  _VERSION = "nymbl " .. core.version,
  null = core.null,
  client = client.new,
  filter = lazy("nymbl.filter", "filter"),
  datetime = lazy("nymbl.filter", "datetime"),
  each = lazy("nymbl.each", "each"),
  store = store,
  use = use,
}
