-- SPDX-License-Identifier: MIT
--- Documents of the Nymbl Customer API: upload, list, get, download, delete.
-- @module nymbl

local core = require "nymbl.core"
local check = require "nymbl.check"
local client = require "nymbl.client"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

-- What not every script needs is loaded when it is first used: half of a short script
-- is start-up.
local function later(module, name)
  return function(...) return require(module)[name](...) end
end

--- Name the event loop of this process where it cannot be seen from the call: then
-- calls made in its coroutines wait for nobody else.
-- @tparam string loop "luv"
-- @raise on another name, and where luv is not installed
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
  filter = later("nymbl.filter", "filter"),
  datetime = later("nymbl.filter", "datetime"),
  each = later("nymbl.each", "each"),
  store = store,
  use = use,
}
