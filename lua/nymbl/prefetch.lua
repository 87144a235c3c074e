-- SPDX-License-Identifier: MIT
-- Starting the first attempt of a call before the call is made: a listing's next page arrives while the
-- rows of this one are processed.

local core = require "nymbl.core"
local events = require "nymbl.events"
local failure = require "nymbl.failure"
local limiter = require "nymbl.limiter"
local meter = require "nymbl.meter"
local wait = require "nymbl.wait"

local prefetch = {}

-- Start the first attempt of a call that will probably be made. Does not wait: nothing is
-- started without a cached token and a reservation whose time has come.
-- @tparam table env the client's environment
-- @tparam string operation
-- @tparam table request what core.start sends (lua/request.c). It gets the field `prefetched`
-- @tparam table options the call's
function prefetch.start(env, operation, request, options)
  if not wait.prepare() then return end -- the call could not be made here either
  local bearer = env.cached_token()
  local reservation = bearer and limiter.try_reserve(env, operation)
  if not reservation then return end
  local metered = meter.take()
  local transfer = metered ~= nil and core.start(env.client, bearer, request)
  if not transfer then
    meter.give_back(metered)
    limiter.cancel(reservation)
    return
  end
  local pending
  if env.on_event then
    pending = events.begin(env, transfer, { operation = operation, attempt = 1, waited = 0, tag = options.tag })
    events.release(pending)
  end
  request.prefetched = {
    transfer = transfer, reservation = reservation, bearer = bearer, pending = pending, meter = metered,
  }
  wait.poll()
end

-- Let a prefetched transfer make progress, without waiting. Returns whether it has not ended.
function prefetch.poll(request)
  local prefetched = request.prefetched
  if not prefetched or prefetched.transfer:result() ~= false then return false end
  wait.poll()
  return true
end

-- Take what was prefetched, for the call. Returns a table of `transfer`, `reservation`, `bearer`,
-- `pending` (the event, or nil) and `meter`; or nil if the transfer belongs to the parent of a forked
-- process, or failed before it was sent, which says nothing about the service.
function prefetch.take(request)
  local prefetched = request.prefetched
  local _, err = prefetched.transfer:result()
  if err and (err.reason == "forked" or not prefetched.transfer:was_sent()) then
    prefetch.discard(request)
    return nil
  end
  request.prefetched = nil
  return prefetched
end

-- Record a request that was sent, and so was billed, but is not needed.
local function record(prefetched, done, err)
  local reservation, transfer = prefetched.reservation, prefetched.transfer
  if err then err = failure.to_error(err, reservation.operation, 1, transfer) end
  if done == false then err = { kind = "canceled" } end
  limiter.record(reservation, err, err and failure.backoff(1, err))
  pcall(events.finish, prefetched.pending, err) -- there is no call that could raise its errors
end

-- Cancel a prefetched transfer: it is not needed. Does nothing if there is none.
function prefetch.discard(request)
  local prefetched = request.prefetched
  if not prefetched then return end
  request.prefetched = nil
  local transfer = prefetched.transfer
  transfer:cancel("canceled")
  local done, err = transfer:result()
  if transfer:was_sent() then
    record(prefetched, done, err)
  elseif not (err and err.reason == "forked") then
    limiter.cancel(prefetched.reservation)
    meter.give_back(prefetched.meter)
  end
  events.drop(prefetched.pending)
  wait.close(transfer)
end

return prefetch
