-- SPDX-License-Identifier: MIT

--- Stores: where clients of the same account share rate limit, quota, pauses and tokens. Pass
-- one as the client option `store`. Without it, the clients of this process share one.
--
-- A store of your own is a table with
--
-- - `now()`: returns the store's time in seconds, which never goes back.
-- - `update(self, key, deadline, change, ...)`: calls `change(state, now, ...)` on the table stored
--   under `key`, in isolation and at the store's time; stores the changed table, and returns
--   the results of `change`; or nil and a table with the `kind` of the failure. It may wait until
--   `deadline`, a time of `nymbl.wait.now` (nil: without limit).
-- - `tokens`: the store for tokens, if that is another one.
--
-- `change` neither waits nor fails. It may be called again, on a fresh state, so it changes
-- nothing else. A state is a flat table of strings, numbers and booleans.
-- @module nymbl.store

-- All changes of this library (rate_state.lua, token_state.lua) return a first value that is
-- neither nil nor false, so nil always means that the store failed.

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

--- Create a store in a file, for the scripts of one machine and user.
--
-- It opens nothing before the first call that needs it. If the file cannot be used, that call
-- fails with an error of kind `io`. The file is created with mode 0600, in a directory that
-- must exist. It contains no key, URL or secret, and a token only if `token` is set.
--
-- A killed or stopped process delays others by at most 15 seconds, and a damaged file counts
-- as empty. Of a file that another version of nymbl wrote, older or newer, the months' counts
-- are kept if this version finds them, and the rest is dropped.
-- @function file
-- @tparam string path of the file; an absolute one if the script may change its directory
-- @tparam[opt] table options
-- @tparam[opt=false] boolean options.token whether scripts share the token, too
-- @treturn table the store
-- @raise on a wrong argument or an unknown option
-- @usage
-- local client = assert(nymbl.client {
--   base_url = os.getenv "NYMBL_BASE_URL",
--   api_key = os.getenv "NYMBL_API_KEY",
--   ca_file = os.getenv "NYMBL_CA_FILE", -- only for the sandbox
--   token = os.getenv "NYMBL_TOKEN",
--   store = nymbl.store.file(os.getenv "HOME" .. "/.nymbl-store"),
-- })
-- print(assert(client:usage()).requests)
function store.file(path, options)
  local problem = check.nonempty(path)
  if problem then check.raise_argument(1, "file", problem) end
  options = check.options(options, { token = check.boolean }, 2, "file")
  return require("nymbl.store.file").new(path, not options.token and store.default or nil)
end

--- Create a store in a shared dictionary, for the workers of one nginx: token, rate limit,
-- quota and pauses. It survives a reload, but not a restart.
--
-- Use the dictionary only for this store: other entries could evict its state. A call that
-- finds no room in it fails with an error of kind `io`, reason `no_space`. The token stays in
-- nginx's memory, too.
-- @function shdict
-- @tparam string name of a `lua_shared_dict`, such as `lua_shared_dict nymbl 1m;`
-- @treturn table the store
-- @raise on a wrong argument, if there is no dictionary of that name, and outside nginx
-- @usage
-- local client = assert(nymbl.client {
--   base_url = os.getenv "NYMBL_BASE_URL",
--   api_key = os.getenv "NYMBL_API_KEY",
--   ca_file = os.getenv "NYMBL_CA_FILE", -- only for the sandbox
--   token = os.getenv "NYMBL_TOKEN",
--   store = nymbl.store.shdict "nymbl",
-- })
-- print(assert(client:usage()).requests)
function store.shdict(name)
  local problem = check.nonempty(name)
  if problem then check.raise_argument(1, "shdict", problem) end
  return require("nymbl.store.shdict").new(name)
end

return store
