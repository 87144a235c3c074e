-- SPDX-License-Identifier: MIT
-- Scripts in a Lua state of their own, whose allocations fail: once, again when Lua retries it, or with
-- all later ones. Without NYMBL_SPEC_LARGE only some of the allocations are tried.
local assert = require "luassert"
local helper = require "helper"

local allocations = {}

local is_jit = jit ~= nil -- luacheck: ignore
local folder = helper.temporary(".allocator")

-- The module, built for the running Lua.
local function allocator()
  local package_name = is_jit and "luajit" or "lua" .. _VERSION:match("%d%.%d")
  os.execute("mkdir -p " .. helper.quote(folder))
  local problem = helper.output(("gcc -std=c11 -Wall -Wextra -Werror -fPIC -shared $(pkg-config --cflags %s) -o %s %s 2>&1"):format(
    package_name, helper.quote(folder .. "/allocator.so"), helper.quote(helper.path "spec/faults/allocator.c")))
  assert(problem == "", problem)
  return assert(package.loadlib(folder .. "/allocator.so", "luaopen_allocator"))()
end

-- For use in a state: `each_allocation(what, judge)` calls `what` repeatedly with its first, second
-- … allocation failing, until none is left, and returns the number of failures. LuaJIT does not
-- retry. Its compiler is switched off, because it crashes without memory (2.1.0-beta3). After each
-- call `judge` returns what is wrong; its last argument says whether no allocation has failed.
-- `given.begin` is called before each call, `given.most` limits the number of the allocation, and the
-- larger `given.growth`, the more of them spec/run leaves out.
local PREAMBLE = ([[
  local argument, large = ..., %s
  local getenv = os.getenv
  function os.getenv(name)
    if name == "NYMBL_SPEC_SANDBOX" then return argument end
    return getenv(name)
  end
  if jit then jit.off() end
  package.path, package.cpath = %q, %q
  local nymbl, core = require "nymbl", require "nymbl.core"
  for _, name in ipairs { "listing", "source", "stream", "target", "each", "filter", "store.file", "json" } do
    require("nymbl." .. name)
  end
  require("nymbl.json").prepare()
  local all_failed = 0
  local function following(n, growth)
    return (large or n < 6) and n + 1 or math.max(n + 1, math.floor(n * growth))
  end
  local function each_allocation(what, judge, given)
    given = given or {}
    local total = 0
    for _, times in ipairs(jit and { 1, math.huge } or { 1, 2, math.huge }) do
      local n, failed = 0, nil
      repeat
        n = following(n, given.growth or 1.2)
        if given.begin then given.begin() end
        fault.arm(n, times)
        local ok, a, b = pcall(what)
        failed = select(2, fault.disarm())
        local where = ("allocation %%d x %%g: "):format(n, times)
        -- "… for buffer allocation" (Lua 5.3), "error loading module …"; "stack overflow" if there is no
        -- memory for more of the stack (luaL_checkstack)
        if not ok and type(a) == "string" and (a:find "not enough memory" or a:find ": stack overflow$") then
          a = "not enough memory"
        end
        if not ok and a ~= "not enough memory" then error(where .. tostring(a), 0) end
        if not ok and failed == 0 then error("raised for nothing", 0) end
        local problem = judge(ok, a, b, failed == 0)
        if problem then error(where .. problem, 0) end
        total, all_failed = total + math.min(failed, 1), all_failed + math.min(failed, 1)
      until failed == 0 or n >= (given.most or 1e6)
    end
    return total
  end
  local function options(given)
    local sandbox = {}
    for line in io.lines(argument) do
      local name, value = line:match("^NYMBL_([%%u_]+)=(.*)$")
      if name then sandbox[name:lower()] = value end
    end
    local all = {
      base_url = sandbox.base_url, api_key = sandbox.api_key, ca_file = sandbox.ca_file, timeout = 60, rate = false,
      monthly_quota = false, max_attempts = 1,
      credentials = { token_url = sandbox.token_url, client_id = sandbox.client_id, client_secret = sandbox.client_secret,
                      scope = sandbox.scope },
      on_event = function() end,
    }
    for name, value in pairs(given or {}) do all[name] = value end
    if all.token then all.credentials = nil end
    return all
  end
]]):format(os.getenv "NYMBL_SPEC_LARGE" and "true" or "false", package.path, package.cpath)

-- LuaJIT accepts an allocator only if its pointers have 64 bits, or all pointers have 32.
allocations.is_supported = not is_jit or require("ffi").abi "gc64" or require("ffi").abi "32bit"

local states

--- Run a script in a separate state, which is freed completely. Returns its result as text. If that is a
-- number, it is the number of failing allocations, and printed.
function allocations.run(text)
  states = states or allocator()
  local before = helper.object_count()
  local state = assert(states.new())
  local ok, result = state:run(("%s local result = (function()\n%s\nend)() return all_failed .. ' ' .. tostring(result)"):format(
    PREAMBLE, text), helper.sandbox().path)
  local left = state:close()
  assert.is_true(ok, result)
  helper.tried(tonumber(result:match "^%d+"), "failing allocations")
  if not is_jit then assert.equal(0, left) end -- LuaJIT leaks some blocks itself
  assert.equal(before, helper.object_count())
  return result:match "^%d+ (.*)$"
end

return allocations
