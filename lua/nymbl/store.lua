-- SPDX-License-Identifier: MIT
--- Where clients of the same account share rate limit, quota, pauses and tokens.
--
-- A store has
--   now()         its time in seconds, which never goes back
--   update(key, deadline, change, …)
--                 calls `change(state, now, …)` on the table stored under `key`, in isolation
--                 and at the store's time; stores what it left there, and returns what it
--                 returned; or nil and an error table. It may wait until `deadline` (in the
--                 time of wait.now(); nil: without limit)
--   tokens        the store for tokens, if that is another one
--
-- A `change` neither waits nor fails. It may be called again, on a fresh state, so it changes
-- nothing else. A state is a flat table of strings, numbers and booleans. All changes of this
-- library (rate_state.lua, token_state.lua) return a first value that is neither nil nor false,
-- so nil always means that the store failed.
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

-- Store a changed state. Returns the results of the change.
local function store_and_return(self, key, state, ...)
  self[key] = state
  return ...
end

-- The change is applied to a copy, so that a failed allocation within it changes nothing.
function memory:update(key, _, change, ...)
  local state = copy(self[key])
  return store_and_return(self, key, state, change(state, self.now(), ...))
end

-- Check the results of `update`: a program's own store may fail without an error table, or
-- without its `kind`.
local function check_results(first, second, ...)
  if first ~= nil then return first, second, ... end
  local err = type(second) == "table" and second or {}
  err.kind = err.kind or "io"
  return nil, err
end

-- Change a state in any store, the program's own included.
-- @return what `change` returned
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function store.update(self, key, deadline, change, ...)
  return check_results(self:update(key, deadline, change, ...))
end

-- Delete a state from the memory of this process. If the store is outside of the process, this
-- does nothing.
function store.delete_from_memory(self, key)
  if getmetatable(self) == memory then self[key] = nil end
end

-- Make a store in this process.
function store.memory()
  return setmetatable({}, memory)
end

-- The store of clients that name no other.
store.default = store.memory()

--- A store in a file, for the scripts of one machine and user.
--
-- It opens nothing before the first call that needs it. If the file cannot be used, that call
-- fails with an error of kind `io`. The file is created with mode 0600, in a directory that
-- must exist. It contains no key, URL or secret, and a token only if `token` is set.
--
-- A killed or stopped process delays others by at most 15 seconds, and a damaged file counts
-- as empty. Of a file that another version of nymbl wrote, older or newer, the months' counts
-- are kept if this version finds them, and the rest is dropped.
--
-- @tparam string path of the file; an absolute one if the script may change its directory
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

--- A store in a shared dictionary, for the workers of one nginx: token, rate limit, quota and
-- pauses. It survives a reload, but not a restart.
--
-- Use the dictionary only for this store: other entries could evict its state. A call that
-- finds no room in it fails with an error of kind `io`, reason `no_space`. The token stays in
-- nginx's memory, too.
--
-- @tparam string name of a `lua_shared_dict`
-- @treturn table the store, for the client option `store`
-- @raise on a wrong argument, if there is no dictionary of that name, and outside nginx
-- @usage
-- -- http { lua_shared_dict nymbl 1m; … }
-- local client = assert(nymbl.client { store = nymbl.store.shdict "nymbl", … })
function store.shdict(name)
  local problem = check.nonempty(name)
  if problem then check.argument(1, "shdict", problem) end
  return require("nymbl.store.shdict").new(name)
end

return store
