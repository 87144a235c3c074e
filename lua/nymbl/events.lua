-- SPDX-License-Identifier: MIT
-- What a program can see of its calls: the client options on_event and on_wait.
--
-- on_event is called after every request. A `pending` is the event of a request that has not
-- ended: a call, a stream or a paginator owns it, together with the transfer. If the owner is
-- garbage before the request has ended, the event is kept until the client's next call.
--
-- on_wait is called when a call begins to wait. Some waits begin in modules that do not know the
-- call, such as a store. So the calls whose client has one of these options are registered by the
-- coroutine that makes them. A registered call (call.lua) has
--   env, operation, options
--   waited        seconds that the current attempt has waited before its request
--   wait_depth    the number of waits, one in the other, that have begun
--   wait_began    when the outermost of them began
--   outer         the call within which this one is made, or nil: a source may make calls

local finalizer = require "nymbl.finalizer"
local wait = require "nymbl.wait"

local events = {}

-- Whether any client of this process has had one of these options.
events.are_used = false

-- ---- on_event ----

-- Complete an event. `err` has the fields of an error, and is nil if the request succeeded.
local function complete(pending, err)
  local event, transfer = pending.event, pending.transfer
  local bytes_sent, bytes_received = transfer:bytes_sent(), transfer:bytes_received()
  event.status = err and err.status or transfer:response() or nil
  event.bytes_sent, event.bytes_received = bytes_sent, bytes_received
  event.seconds = wait.now() - pending.began
  event.request_id = transfer:request_id()
  if err then
    event.kind, event.retry_after, event.outcome_unknown = err.kind, err.retry_after, err.outcome_unknown
  end
  return event
end

-- The error of a request that ends because the program raised an error or needs it no more.
function events.canceled(operation, was_sent)
  local is_change = operation == "upload" or operation == "delete"
  return { kind = "canceled", outcome_unknown = is_change and was_sent or nil }
end

-- The error of a request that is not needed any more; nil if it has succeeded. The second result
-- is whether there is nothing to report: the request was not sent, or by another process.
local function abandoned(pending)
  local transfer, operation = pending.transfer, pending.event.operation
  local done, err = transfer:result()
  if done then return nil, false end
  if err then return err, err.reason == "forked" or not transfer:was_sent() end
  return events.canceled(operation, transfer:was_sent()), not transfer:was_sent()
end

local function on_collect(pending)
  if pending.is_done then return end
  pending.is_done = true
  local err, is_nothing = abandoned(pending)
  if is_nothing then return end
  local collected = pending.env.collected_events
  collected[#collected + 1] = complete(pending, err)
end

-- Begin the event of a request that was just started.
-- @tparam table event `operation`, `attempt`, `waited` and `tag`
-- @treturn table the pending
function events.begin(env, transfer, event)
  local pending = {
    env = env, transfer = transfer, event = event, began = wait.now(), is_running = true, is_done = false,
  }
  pending.guard = finalizer.new(function() on_collect(pending) end)
  env.pending_events[pending] = true
  return pending
end

-- The functions below do nothing without a pending, and if it has ended before.

-- No call owns the request any more: a stream or a paginator does.
function events.release(pending)
  if pending then pending.is_running = false end
end

-- A call owns the request from now on, and waits for it.
function events.adopt(pending)
  if pending then pending.is_running, pending.began = true, wait.now() end
end

-- End a request without an event.
function events.drop(pending)
  if not pending then return end
  pending.is_done = true
  pending.env.pending_events[pending] = nil
end

-- End a request: call on_event. An error that it raises is not caught.
-- @tparam ?table pending
-- @tparam ?table err the error, or nil
function events.finish(pending, err)
  if not pending or pending.is_done then return end
  events.drop(pending)
  pending.env.on_event(complete(pending, err))
end

-- End a request that is not needed any more.
-- @tparam ?table pending
-- @tparam ?table err the error with which its owner has ended it, or nil
function events.abandon(pending, err)
  if not pending or pending.is_done then return end
  local is_nothing = false
  if not err then err, is_nothing = abandoned(pending) end
  if is_nothing then
    events.drop(pending)
  else
    events.finish(pending, err)
  end
end

-- Report the requests whose owners were collected.
function events.flush(env)
  local collected = env.collected_events
  while collected[1] do env.on_event(table.remove(collected, 1)) end
end

-- Report all that has not ended when the client is closed, except the requests of calls that
-- are running: these report them. Returns false and the first error that on_event raised.
function events.close(env)
  if not env.on_event then return true end
  local open = {}
  for pending in pairs(env.pending_events) do
    if not pending.is_running then open[#open + 1] = pending end
  end
  local ok, raised = pcall(events.flush, env)
  for _, pending in ipairs(open) do
    local ran, problem = pcall(events.abandon, pending)
    if ok and not ran then ok, raised = false, problem end
  end
  return ok, raised
end

-- ---- on_wait ----

-- The registered calls by coroutine.
local calls = setmetatable({}, { __mode = "k" })

local MAIN = {} -- the main coroutine, where Lua 5.1 has no value for it

-- The call of the running coroutine, or nil.
local function current()
  if next(calls) == nil then return nil end
  return calls[coroutine.running() or MAIN]
end

-- Register a call. It must be unregistered when it has ended, however it ends.
function events.register(call)
  local thread = coroutine.running() or MAIN
  call.outer, call.waited, call.wait_depth = calls[thread], 0, 0
  calls[thread] = call
end

function events.unregister(call)
  calls[coroutine.running() or MAIN] = call.outer
end

-- The option `tag` of the call that is running, or nil.
function events.tag()
  local call = current()
  return call and call.options.tag
end

-- Report a wait, also one that is between two calls.
-- @raise the error that on_wait raised
function events.report_wait(env, operation, reason, seconds, tag)
  if not env.on_wait then return end
  env.on_wait { operation = operation, reason = reason, seconds = seconds, tag = tag }
end

local function report(call, operation, reason, seconds)
  events.report_wait(call.env, operation, reason, seconds, call.options.tag)
end

-- Report that the running call begins to wait.
-- @tparam string reason
-- @tparam ?number seconds as far as known
-- @raise the error that on_wait raised
function events.begin_wait(reason, seconds)
  local call = current()
  if not call then return end
  report(call, call.operation, reason, seconds)
  if call.wait_depth == 0 then call.wait_began = wait.now() end
  call.wait_depth = call.wait_depth + 1
end

function events.end_wait()
  local call = current()
  if not call then return end
  call.wait_depth = call.wait_depth - 1
  if call.wait_depth == 0 then call.waited = call.waited + wait.now() - call.wait_began end
end

-- Report that the running call's token request is about to be repeated.
function events.token_waits(reason, seconds)
  local call = current()
  if call then report(call, "token", reason, seconds) end
end

-- Report, once, that a transfer waits for a connection. (This time is part of the request's.)
-- @tparam ?string operation that of the running call by default
function events.check_connection(transfer, operation)
  local call = current()
  if not call or call.queued == transfer or not transfer:is_queued() then return end
  call.queued = transfer
  report(call, operation or call.operation, "connection")
end

return events
