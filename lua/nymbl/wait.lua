-- SPDX-License-Identifier: MIT
-- The one place where anything waits, and the one clock.
--
-- A driver is a table with `wait(transfer or nil, deadline or nil)` and `now()`.
-- Here is the plain one: the caller pumps the engine itself.

local core = require "nymbl.core"

local block = {}

-- A turn is bounded so that Lua's own signal handling (Ctrl-C) gets its chance.
local TURN = 0.1

function block.wait(transfer, deadline)
  if transfer and transfer:news() then return true end
  while true do
    local seconds = TURN
    if deadline then
      local left = deadline - core.now()
      if left <= 0 then return false end
      if left < seconds then seconds = left end
    end
    if core.pump(seconds, transfer) then return true end
  end
end

block.now = core.now

local wait = { driver = block }

--- Wait until a transfer has news, or for a time to pass.
-- @param transfer a transfer, or nil to sleep
-- @tparam ?number deadline as `now()` counts; nil: none
-- @treturn boolean true with news, false at the deadline
function wait.wait(transfer, deadline)
  return wait.driver.wait(transfer, deadline)
end

--- Seconds on a clock that never goes back.
function wait.now()
  return wait.driver.now()
end

return wait
