-- SPDX-License-Identifier: MIT
-- The one wait: for a transfer's news or for a time. Every wait of the library goes
-- through it, so that a call holds up nobody but its caller, wherever it is made.

local block = require "nymbl.wait.block"
local core = require "nymbl.core"

-- A driver has
--   wait(transfer or nil, deadline or nil)   true with news, false at the deadline
--   release(transfer)                        when a transfer has been closed
--   run(body), group()                       threads: spawn(body), wait(), running
--   threaded                                 whether the engine needs its thread

local wait = {}

-- Where ngx_lua may wait (its documentation of ngx.sleep and of cosockets).
local PHASES = {
  server_rewrite = true, rewrite = true, access = true, content = true, timer = true, preread = true,
  ssl_cert = true, ssl_client_hello = true, ssl_session_fetch = true,
}

-- Gives the driver, or nil and a word for where nothing may wait.
local function in_nginx(ngx)
  local phase = ngx.get_phase()
  if PHASES[phase] then return require "nymbl.wait.openresty" end
  if phase == "init" then return block end
  return nil, phase
end

-- Threads where nothing may wait: one after the other, and each call in them says so.
local nowhere = {}
nowhere.__index = nowhere

function nowhere.run(body)
  return body()
end

function nowhere.group()
  return setmetatable({ running = 0 }, nowhere)
end

function nowhere:spawn(body) -- luacheck: ignore self
  return body()
end

local function in_luv()
  local thread, is_main = coroutine.running()
  if thread and not is_main then return require "nymbl.wait.luv" end
  local uv = require "luv"
  if uv.loop_mode and not uv.loop_mode() then return block end
  return nil, "main_coroutine"
end

-- The driver of the place where a call is made, or nil and a word for it; and whether
-- its waits yield.
local function find()
  local loaded = package.loaded
  if block.is_thread() then return block, true end
  if type(loaded.ngx) == "table" and loaded.ngx.get_phase then return in_nginx(loaded.ngx) end
  if loaded.cqueues then
    local loop, is_own = loaded.cqueues.running()
    if loop and is_own then return require "nymbl.wait.cqueues" end
    if loop then return nil, "coroutine" end
  end
  if wait.loop then return in_luv() end
  return block
end

-- The same, unless a C function stands between the call and its coroutine's resume
-- (string.gsub, table.sort, require, an xpcall handler …): no yield passes it, and
-- Lua would notice only after the request was sent.
local function choose()
  local driver, place = find()
  if (driver and driver ~= block or place == true) and not core.is_yieldable() then return nil, "c_call_boundary" end
  return driver, place
end

--- Name the event loop of this process.
function wait.use(loop)
  require "nymbl.wait.luv"
  wait.loop = loop
end

--- Look whether a call may be made here, and make ready for it.
-- @treturn[1] boolean true
-- @treturn[2] nil nothing may wait here, or the process has no descriptor or thread left
-- @treturn[2] table what is known of it
function wait.enter()
  local driver, place = choose()
  if not driver then return nil, { kind = "context", reason = place } end
  return core.ready(driver.threaded)
end

--- Wait until a transfer has news, or for a time to pass.
-- @param transfer a transfer, or nil to sleep
-- @tparam ?number deadline as `now()` counts; nil: none
-- @treturn[1] boolean true with news, false at the deadline
-- @treturn[2] nil nothing may wait here
-- @treturn[2] table what is known of it
function wait.wait(transfer, deadline)
  local driver, place = choose()
  if not driver then return nil, { kind = "context", reason = place } end
  if driver.threaded then -- a stream may be older than the loop
    local ready, err = core.ready(true)
    if not ready then return nil, err end
  end
  return driver.wait(transfer, deadline)
end

--- Let transfers that nobody waits for at the moment go on. Does not wait.
function wait.turn()
  if choose() == block then block.pump.turn() end -- a thread needs no help
end

-- Drivers that keep something for a transfer. Closing one allocates nothing.
local KEEPERS = { "nymbl.wait.openresty", "nymbl.wait.cqueues", "nymbl.wait.luv" }

--- Close a transfer, canceling what of it still runs.
function wait.close(transfer)
  transfer:close()
  for i = 1, #KEEPERS do
    local driver = package.loaded[KEEPERS[i]]
    if driver then driver.release(transfer) end
  end
  wait.leave()
end

--- A call has ended. In nginx's init no worker may inherit a connection.
function wait.leave()
  local ngx = package.loaded.ngx
  if type(ngx) == "table" and ngx.get_phase and ngx.get_phase() == "init" then core.shut() end
end

--- Run a function that makes a group.
function wait.run(body)
  return (choose() or nowhere).run(body)
end

--- Threads of the loop at hand, whose waits are shared: `spawn(body)` starts one,
-- `wait()` waits until one more has ended, `running` counts them.
function wait.group()
  return (choose() or nowhere).group()
end

--- Seconds on a clock that never goes back.
function wait.now()
  return block.pump.now()
end

--- Seconds since 1970 on the wall clock, which may be set.
function wait.wall()
  return block.pump.wall()
end

--- Seconds on a clock that processes share, and a word for what it counts from.
function wait.boot()
  return (block.pump.boot or core.boot_time)()
end

local DAY = 86400
local month, month_day

--- The month of a quota, as in "2026-02" (UTC: the limits page, "Monthly quota").
function wait.month()
  local now = wait.wall()
  local day = now - now % DAY
  if day ~= month_day then
    month, month_day = os.date("!%Y-%m", now), day
  end
  return month
end

--- Seconds until the next one begins.
function wait.month_left()
  local today = os.date("!*t", wait.wall())
  local days = { 31, today.year % 4 == 0 and (today.year % 100 ~= 0 or today.year % 400 == 0) and 29 or 28,
                 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  return (days[today.month] - today.day) * 86400 + (24 - today.hour) * 3600 - today.min * 60 - today.sec
end

return wait
