-- SPDX-License-Identifier: MIT
-- Waiting for a transfer or until a time. Every wait of the library goes through this
-- module, so that in an event loop a call suspends only its own coroutine.
--
-- A transfer is "ready" if calling its methods again can succeed: bytes or its result have
-- arrived, or the body that it sends has room.

local blocking = require "nymbl.wait.blocking"
local core = require "nymbl.core"
local lazy = require "nymbl.lazy"

-- A driver adapts these waits to one event loop. It has
--   wait(transfer or nil, deadline or nil)
--                       returns true once the transfer is ready, false at the deadline
--   release(transfer)   frees what the driver keeps for a transfer; called after its close
--   run(body)           runs a function that creates groups
--   group()             creates a group of coroutines: spawn(body), wait(), running
--   threaded            whether the engine needs its I/O thread

local wait = {}

-- The event loop named by nymbl.use(), or nil.
local named_loop

-- Phases of ngx_lua in which a handler may yield (its documentation of ngx.sleep and
-- of cosockets).
local YIELDING_PHASES = {
  server_rewrite = true, rewrite = true, access = true, content = true, timer = true, preread = true,
  ssl_cert = true, ssl_client_hello = true, ssl_session_fetch = true,
}

local function nginx_driver(ngx)
  local phase = ngx.get_phase()
  if YIELDING_PHASES[phase] then return lazy.load "nymbl.wait.openresty" end
  if phase == "init" then return blocking end
  return nil, phase
end

local function luv_driver()
  local thread, is_main = coroutine.running()
  if thread and not is_main then return lazy.load "nymbl.wait.luv" end
  local uv = lazy.load "luv"
  if uv.loop_mode and not uv.loop_mode() then return blocking end
  return nil, "main_coroutine"
end

-- Replaces a driver if the calling coroutine cannot wait. The bodies of its groups run one after
-- the other, and each of their calls returns an error of kind `context`.
local unsupported = {}
unsupported.__index = unsupported

function unsupported.run(body)
  return body()
end

function unsupported.group()
  return setmetatable({ running = 0 }, unsupported)
end

function unsupported:spawn(body) -- luacheck: ignore self
  return body()
end

local loaded = package.loaded

-- Whether there can be no event loop but that of wait/blocking.lua.
local function is_plain_script()
  return not (loaded.ngx or loaded.cqueues or named_loop)
end

-- Returns the driver for the event loop of the calling coroutine, or nil and the reason why
-- that coroutine cannot wait.
local function loop_driver()
  if type(loaded.ngx) == "table" and loaded.ngx.get_phase then return nginx_driver(loaded.ngx) end
  if type(loaded.cqueues) == "table" then
    local loop, is_own = loaded.cqueues.running()
    if loop and is_own then return lazy.load "nymbl.wait.cqueues" end
    if loop then return nil, "coroutine" end
  end
  if named_loop then return luv_driver() end
  return blocking
end

-- Returns the driver for the calling coroutine, or nil and the reason why that coroutine cannot
-- wait. One of the reasons is a C function that cannot be yielded across, such as string.gsub,
-- table.sort, require or an xpcall handler. Lua itself would detect it only at the yield, after
-- the request was sent.
local function choose_driver()
  local driver, reason = blocking, nil
  local in_thread = blocking.is_thread()
  if not in_thread then
    if is_plain_script() then return blocking end
    driver, reason = loop_driver()
  end
  local yields = in_thread or (driver and driver.threaded)
  if yields and not core.is_yieldable() then return nil, "c_call_boundary" end
  return driver, reason
end

-- Name the event loop of this process.
function wait.use(loop)
  lazy.load "nymbl.wait.luv"
  named_loop = loop
end

-- Prepare for a call: check that it may wait here, and that the engine can run.
-- @treturn[1] boolean true
-- @treturn[2] nil the caller cannot wait, or the process is out of descriptors or threads
-- @treturn[2] table error fields
function wait.prepare()
  local driver, reason = choose_driver()
  if not driver then return nil, { kind = "context", reason = reason } end
  return core.engine_prepare(driver.threaded)
end

-- Wait until a transfer is ready, or until a time.
-- @param transfer a transfer, or nil to sleep
-- @tparam ?number deadline on the clock of `now()`, or nil for none
-- @treturn[1] boolean true if the transfer is ready, false at the deadline
-- @treturn[2] nil the caller cannot wait
-- @treturn[2] table error fields
function wait.wait(transfer, deadline)
  local driver, reason = choose_driver()
  if not driver then return nil, { kind = "context", reason = reason } end
  if driver.threaded then -- a stream may have been opened before the event loop started
    local ready, err = core.engine_prepare(true)
    if not ready then return nil, err end
  end
  return driver.wait(transfer, deadline)
end

-- Let transfers make progress while no coroutine waits for them. Does not block.
function wait.poll()
  if choose_driver() == blocking then blocking.runtime.poll() end -- an I/O thread needs no help
end

-- Drivers that have a `release`. A constant, so that closing a transfer allocates nothing.
local STATEFUL_DRIVERS = { "nymbl.wait.openresty", "nymbl.wait.cqueues", "nymbl.wait.luv" }

-- Close a transfer within a call. If it is still running, it is canceled.
function wait.release(transfer)
  transfer:close()
  if is_plain_script() then return end
  for i = 1, #STATEFUL_DRIVERS do
    local driver = loaded[STATEFUL_DRIVERS[i]]
    if type(driver) == "table" then driver.release(transfer) end
  end
end

-- Close a transfer, with which a call ends.
function wait.close(transfer)
  wait.release(transfer)
  wait.call_ended()
end

-- Report that a call has ended. In nginx's init phase this frees the engine, because the
-- workers, which are forked later, must not inherit its connections.
function wait.call_ended()
  local ngx = loaded.ngx
  if type(ngx) == "table" and ngx.get_phase and ngx.get_phase() == "init" then core.engine_close() end
end

-- Run a function that creates groups.
function wait.run(body)
  return (choose_driver() or unsupported).run(body)
end

-- Create a group of coroutines in the current event loop. `spawn(body)` starts a
-- coroutine, `wait()` waits until one more has ended, `running` is the number of those that
-- have not ended.
function wait.group()
  return (choose_driver() or unsupported).group()
end

-- Seconds on a monotonic clock.
function wait.now()
  return blocking.runtime.now()
end

-- Seconds since 1970 on the wall clock, which may be set back or forward.
function wait.wall_clock()
  return blocking.runtime.wall_clock()
end

-- Seconds on the boot clock, which all processes share, and the boot id.
function wait.boot_clock()
  return (blocking.runtime.boot_clock or core.boot_clock)()
end

local DAY = 86400
local month, month_day

-- The current month of the quota, such as "2026-02". Quota months are UTC
-- (lua/README.md, "Facts about the service").
function wait.month()
  local now = wait.wall_clock()
  local day = now - now % DAY
  if day ~= month_day then
    month, month_day = os.date("!%Y-%m", now), day
  end
  return month
end

-- Seconds until the next month begins.
function wait.seconds_left_in_month()
  local today = os.date("!*t", wait.wall_clock())
  local days = { 31, today.year % 4 == 0 and (today.year % 100 ~= 0 or today.year % 400 == 0) and 29 or 28,
                 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  return (days[today.month] - today.day) * DAY + (24 - today.hour) * 3600 - today.min * 60 - today.sec
end

return wait
