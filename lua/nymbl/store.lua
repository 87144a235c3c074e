-- SPDX-License-Identifier: MIT
--- Where clients share pace, quota, pauses and tokens.
--
-- A store has
--   now()         its time in seconds, which never goes back: valid for what the
--                 last update gave, until the next wait
--   update(key, deadline, change, …)
--                 calls `change(state, now, …)` on the table kept under a key,
--                 alone, at the store's time, and gives what it gives (never a
--                 table second); or nil and a table of what is known of a failure.
--                 It may wait, until `deadline` (as wait.now() counts; nil: none)
--   tokens        the store for tokens, where that is another one
--
-- `change` neither waits nor fails, and may be called again, on a fresh state. A
-- state is a flat table of strings, numbers and booleans.
-- @module nymbl.store

local check = require "nymbl.check"
local copy = require("nymbl.store.change").copy
local wait = require "nymbl.wait"

local store = {}

local memory = {}
memory.__index = memory

function memory.now()
  return wait.now()
end

-- Keep a state that was changed, and give what the change gave.
local function keep(self, key, state, ...)
  self[key] = state
  return ...
end

-- A copy is changed, so that an allocation that fails in the middle changes nothing.
function memory:update(key, _, change, ...)
  local state = copy(self[key])
  return keep(self, key, state, change(state, self.now(), ...))
end

--- Have a store of this process forget a state. What others share stays.
function store.forget(keeper, key)
  if getmetatable(keeper) == memory then keeper[key] = nil end
end

--- A store of its own in this process.
function store.memory()
  return setmetatable({}, memory)
end

--- The store that clients share unless they are given another.
store.default = store.memory()

--- A store in a file, for the scripts of one machine and user.
--
-- Nothing is opened before the first call that needs it; where the file cannot be
-- used that call fails with an error of kind `io`. The file is made with mode 0600
-- in a folder that must be there. It holds no key, URL or secret, and a token only
-- where that is asked for.
--
-- @tparam string path of the file; an absolute one, where the script may change
--   its folder
-- @tab[opt] options `token`: whether scripts share the token, too (default false)
-- @treturn table the store, for the client option `store`
-- @raise on a wrong argument or an unknown option
-- @usage
-- local client = assert(nymbl.client { store = nymbl.store.file "/var/lib/me/nymbl.state", … })
function store.file(path, options)
  local problem = check.nonempty(path)
  if problem then check.argument(1, "file", problem) end
  options = check.options(options, { token = check.boolean }, 2, "file")
  return require("nymbl.store.file").new(path, not options.token and store.default or nil)
end

--- A store in a shared dictionary, for the workers of one nginx: token, pace, quota and
-- pauses. It outlives a reload, and not a restart.
--
-- The dictionary is to be this store's alone, for what others put there may push out
-- what is kept; a call that finds no room in it fails with an error of kind `io`,
-- reason `no_space`. Only nginx's own memory holds it, the token too.
--
-- @tparam string name of a `lua_shared_dict`
-- @treturn table the store, for the client option `store`
-- @raise on a wrong argument, where there is no dictionary of that name, and outside
--   nginx
-- @usage
-- -- http { lua_shared_dict nymbl 1m; … }
-- local client = assert(nymbl.client { store = nymbl.store.shdict "nymbl", … })
function store.shdict(name)
  local problem = check.nonempty(name)
  if problem then check.argument(1, "shdict", problem) end
  return require("nymbl.store.shdict").new(name)
end

return store
