-- SPDX-License-Identifier: MIT
-- Waiting for transfers in event loops that can watch a descriptor, which wakes the coroutines when a
-- transfer is ready: its waker. cqueues.lua and luv.lua say how their loop does that.

local core = require "nymbl.core"

-- Seconds between two checks of a transfer that has no waker.
local POLL_INTERVAL = 1 / 200

local wakers = {}

-- Make a driver (see wait.lua), as yet without groups.
-- @tparam table loop
--   new_waker(transfer)      returns a waker, a table; false if the transfer has ended; nil if the
--                            process is out of descriptors
--   suspend(waker, seconds)  suspends the running coroutine until the waker is readable (nil: there is
--                            none), or for at most so many seconds (nil: without limit)
--   is_idle(waker)           whether no coroutine waits for it
--   close(waker)             frees it. If a coroutine still waits for the waker of a closed transfer,
--                            the close of the descriptor's other end has woken that coroutine, and
--                            then `suspend` does that (`waker.transfer_closed`)
function wakers.driver(loop)
  local driver = { threaded = true }
  local by_transfer = setmetatable({}, { __mode = "k" })

  function driver.wait(transfer, deadline)
    if not transfer then
      local left = deadline - core.now()
      if left > 0 then loop.suspend(nil, left) end
      return false
    end
    if transfer:is_ready() then return true end
    local waker = by_transfer[transfer]
    if not waker then
      waker = loop.new_waker(transfer)
      if waker == false then return true end
      by_transfer[transfer] = waker
    end
    while true do
      local left = deadline and deadline - core.now()
      if left and left <= 0 then return false end
      if transfer:is_ready() then return true end
      if waker then
        loop.suspend(waker, left)
      else
        loop.suspend(nil, POLL_INTERVAL)
      end
    end
  end

  -- Free the waker of a closed transfer.
  function driver.release(transfer)
    local waker = by_transfer[transfer]
    by_transfer[transfer] = nil
    if not waker then return end
    waker.transfer_closed = true
    if loop.is_idle(waker) then loop.close(waker) end
  end

  function driver.run(body)
    return body()
  end

  return driver
end

return wakers
