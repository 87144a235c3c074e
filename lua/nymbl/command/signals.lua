-- SPDX-License-Identifier: MIT
-- SIGINT, SIGTERM and SIGHUP: they set a flag, which the command polls. Calls that report progress
-- are canceled by that. After a moment the client is closed, which ends all others.

local system = require("nymbl.core").system

local signals = {}

local NUMBERS = { INT = 2, TERM = 15, HUP = 1 }

-- Seconds from the signal until the client is closed.
local GRACE = 3 / 10

-- VM instructions between two polls. While a call waits, the main coroutine executes about 15 each
-- tenth of a second.
local INSTRUCTIONS = 20

-- Catch the signals, except those that are ignored. The interpreter replaces the disposition of
-- SIGINT, so the launcher says whether that was ignored.
function signals.catch(is_interrupt_ignored)
  if is_interrupt_ignored then system.ignore_signal "INT" end
  system.ignore_signal "PIPE" -- the write then fails, so the command can end what is running
  for name in pairs(NUMBERS) do system.catch_signal(name) end
end

-- The name of the first signal that was caught, or nil.
signals.caught = system.caught_signal

-- The exit status after a signal.
function signals.status(name)
  return 128 + NUMBERS[name]
end

-- Poll from now on, also while a call waits.
-- @param client closed after a signal
-- @tparam function tick called at each poll
function signals.poll(client, tick)
  local caught_at
  local jit = rawget(_G, "jit")
  if jit then -- compiled code calls no hooks
    jit.off()
    jit.flush()
  end
  debug.sethook(function()
    tick()
    if not system.caught_signal() then return end
    local now = system.now()
    caught_at = caught_at or now
    if now - caught_at < GRACE then return end
    debug.sethook()
    client:close()
  end, "", INSTRUCTIONS)
end

-- Stop polling.
function signals.stop()
  debug.sethook()
end

return signals
