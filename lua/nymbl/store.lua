-- SPDX-License-Identifier: MIT

--- Stores: where clients of the same account share rate limit, quota, pauses and tokens. Pass
-- one as the client option `store`. Without it, the clients of this process share one.
--
-- A store of your own is a table with two methods:
--
-- - `now(self)` returns the store's time in seconds.
-- - `update(self, key, deadline, change, ...)` calls `change(state, now, ...)` on the table stored
--   under `key` (an empty one if there is none), in isolation and at the store's time; stores what
--   `change` left there; and returns what `change` returned, at most three values. If that is
--   impossible it returns nil and a table `{ kind =, reason = }`, of kind `io` if it names none,
--   and the change should then have no effect.
--
-- `deadline` is a time of `now`, or nil. Until then the store may wait, but no longer. A deadline
-- that has passed already means that the caller cannot wait: the change is then applied at once,
-- or not at all.
--
-- A state is a flat table of strings, numbers and booleans, and so are the arguments and results
-- of a change; some of these are tables of such values, some are nil. `change` neither waits nor
-- fails. It may be called again, on a fresh state, so it changes nothing else.
--
-- Tokens stay in the process, unless the store's field `token` is true.
-- @module nymbl.store

-- All changes of this library (rate_state.lua, token_state.lua) return a first value that is
-- neither nil nor false, so nil always means that the store failed.
--
-- The rest of the library uses a store by two verbs: `ask` may wait, and returns the result.
-- `tell` never waits, keeps its order, and may be lost: it is for changes whose result is not
-- needed, such as a canceled reservation. A store may have a method `tell(self, key, change, ...)`,
-- if it can do better than an update that must not wait.

local check = require "nymbl.check"
local copy = require("nymbl.store.change").copy
local core = require "nymbl.core"
local lazy = require "nymbl.lazy"
local wait = require "nymbl.wait"

local store = {}

local memory = { token = true }
memory.__index = memory

function memory.now()
  return wait.now()
end

-- Store a changed state. Returns the results of the change.
local function store_and_return(self, key, state, ...)
  self.states[key] = state
  return ...
end

-- The change is applied to a copy, so that a failed allocation within it changes nothing.
function memory:update(key, _, change, ...)
  local state = copy(self.states[key])
  return store_and_return(self, key, state, change(state, self.now(), ...))
end

-- Check the results of `update`: a program's own store may fail without an error table, without
-- its `kind`, or with words that do not belong into an error message. The error table has the
-- field `from_store`, which errors.new() removes.
local function check_results(first, second, ...)
  if first ~= nil then return first, second, ... end
  local err = type(second) == "table" and second or {}
  local kind, reason = err.kind, err.reason
  if not core.kinds[kind or ""] then kind = "io" end
  if type(reason) ~= "string" or not reason:find("^[a-z][a-z0-9_]*$") then reason = nil end
  return nil, { kind = kind, reason = reason, from_store = true }
end

-- Change a state in any store, the program's own included, and wait for the result.
-- @tparam ?number deadline a time of `wait.now()`, or nil
-- @return what `change` returned
-- @treturn[2] nil the store failed
-- @treturn[2] table error
function store.ask(self, key, deadline, change, ...)
  if deadline then deadline = self:now() + (deadline - wait.now()) end
  return check_results(self:update(key, deadline, change, ...))
end

-- Change a state in any store without waiting. The change may be lost.
function store.tell(self, key, change, ...)
  if self.tell then
    self:tell(key, change, ...)
  else
    self:update(key, self:now(), change, ...)
  end
end

-- The store for the tokens of clients that use this store.
function store.of_tokens(self)
  return self.token == true and self or store.default
end

-- Delete a state from the memory of this process. If the store is outside of the process, this
-- does nothing.
function store.delete_from_memory(self, key)
  if getmetatable(self) == memory then self.states[key] = nil end
end

-- Make a store in this process.
function store.memory()
  return setmetatable({ states = {} }, memory)
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
  return lazy.load("nymbl.store.file").new(path, options.token)
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
  return lazy.load("nymbl.store.shdict").new(name)
end

--- Create a store in Redis 6 or later, or in Valkey, for many machines: one server, or a primary
-- with replicas. It connects to nothing before the first call that needs it.
--
-- Nothing is sent to the service before the store has answered. If it cannot answer, the call fails
-- with kind `io` and one of the reasons `store_down`, `store_auth`, `store_certificate`,
-- `store_full`, `store_readonly`, `store_protocol`, `cluster`. It contains no key, URL, id or
-- secret, and a token only if `token` is set. The connection is closed with the last client that
-- uses the store.
-- @function redis
-- @tparam table options `url` or `urls` is required
-- @tparam[opt] string options.url `rediss://host[:port][/db]`, `redis://…` for this machine, or
--   `unix:/path[?db=n]`
-- @tparam[opt] table options.urls several of these, tried in order: those of a primary and its replicas
-- @tparam[opt] string options.username
-- @tparam[opt] string options.password
-- @tparam[opt] string options.ca_file PEM file of trusted certificates (default: the system's)
-- @tparam[opt="nymbl:"] string options.prefix of every key
-- @tparam[opt=false] boolean options.token whether it keeps tokens, too
-- @tparam[opt=1] number options.timeout seconds for one change, over all servers
-- @tparam[opt="fail"] string options.when_down `"alone"`: if the store is unreachable or silent, the
--   process continues with a share of the limits
-- @tparam[opt=0.1] number options.share of the rate, and of what is left of the month, for a process
--   that continues alone
-- @tparam[opt=false] boolean options.allow_plain whether `redis://` may lead to another machine
-- @treturn table the store
-- @raise on a wrong argument or an unknown option
-- @usage
-- local store = nymbl.store.redis {
--   url = "rediss://redis.example.org",
--   username = "nymbl",
--   password = os.getenv "NYMBL_STORE_PASSWORD" or "for a test",
-- }
-- print(store)
function store.redis(options)
  return lazy.load("nymbl.store.redis").new(options)
end

-- Register a client as a user of a store, which may have connections.
-- @tparam table env the client's environment
function store.attach(self, env)
  if self.attach then env.detach_store, env.store_finalizer = self:attach() end
end

-- End what `attach` has begun.
function store.detach(env)
  if env.detach_store then env.detach_store() end
end

return store
