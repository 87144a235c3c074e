-- SPDX-License-Identifier: MIT
-- Performing a call: token, reservation, transfer, wait, and the decision about a retry.
--
-- A `request` describes one call to the service:
--   what core.start sends; or, if that is known only when it starts:
--   start(bearer, deadline)    starts a transfer; or returns nil and an error table
--   run(transfer, deadline)    waits for as much of it as the call needs. Returns true and up
--                              to two results; or nil and an error table. What it raises ends
--                              the call and is raised again, unchanged
--   keep_open                  the transfer stays open after a success
--   min_token_ttl              seconds for which the token must last
--   rewind()                   prepares for another attempt; returns whether it can
--   should_restart(err)        whether to start once more, because another request avoids err
--   should_continue()          is called during waits; false cancels the call
--   prefetched                 set by `call.prefetch`
--
-- An error table has the fields of an error (errors.lua), but not yet its metatable and
-- `attempts`. One with only `user_error` carries an error that a function of the program has
-- returned: the call ends with it, unchanged and without a retry.

local core = require "nymbl.core"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local json = require "nymbl.json"
local limiter = require "nymbl.limiter"
local wait = require "nymbl.wait"

local call = {}

local function text(value)
  return type(value) == "string" and value or nil
end

local GATEWAY = { ["Forbidden"] = "api_key", ["Missing Authentication Token"] = "unknown_route" }

-- Add what an error response says: the service's {error = {code, message, details}} or a
-- gateway's flat {message} (lua/README.md, "Facts about the service").
local function error_body_read(err, response)
  if not response then return end
  local inner = type(response.error) == "table" and response.error or response
  local details = inner.details
  if type(details) == "table" then
    local parts = {}
    for _, item in ipairs(details) do
      parts[#parts + 1] = text(item) or (type(item) == "table" and text(item.message)) or nil
    end
    details = table.concat(parts, "; ")
  end
  err.code = text(inner.code) or text(response.error)
  local words = { text(inner.message) or text(inner.Message) }
  if text(details) and details ~= "" then words[#words + 1] = details end
  err.detail = #words > 0 and table.concat(words, ": ") or nil
  -- a 429 for the quota differs from one for the rate only by its message
  if err.status == 429 and inner.message == "Limit Exceeded" then err.kind = "quota" end
  -- the gateway itself refuses a wrong key, and a path that it does not know
  if err.status == 403 then err.reason = err.reason or GATEWAY[response.message] end
end

--- Cancel a transfer because its deadline has passed.
function call.cancel_on_deadline(transfer)
  transfer:cancel("timeout", "deadline")
  wait.wait(transfer) -- if a thread runs it, the cancellation takes effect there
end

--- Wait once until a transfer is ready. At the deadline it is canceled.
local function wait_for(transfer, deadline)
  if not wait.wait(transfer, deadline) then call.cancel_on_deadline(transfer) end
end
call.wait_for = wait_for

--- Wait until a transfer has ended.
-- @treturn[1] boolean true
-- @treturn[2] nil it failed
-- @treturn[2] table error
function call.finish(transfer, deadline)
  while true do
    local done, err = transfer:result()
    if done then return true end
    if done == nil then return nil, err end
    wait_for(transfer, deadline)
  end
end

--- Call the client's on_event after a request. What it raises is raised.
-- @tparam table event the fields that the transfer does not know
function call.emit_event(env, transfer, err, event)
  local bytes_sent, bytes_received = transfer:bytes_sent(), transfer:bytes_received()
  event.status = err and err.status or transfer:response() or nil
  event.kind = err and err.kind
  event.bytes_sent, event.bytes_received = bytes_sent, bytes_received
  env.on_event(event)
end

-- Complete an error table, so that the program can get it.
local function failure(err, operation, sent_count, transfer)
  if err.user_error then return err.user_error end
  if err.kind == "misuse" then check.raise("wrong " .. tostring(err.reason)) end
  if transfer and err.status and err.status >= 300 then error_body_read(err, json.decode_response(transfer:body())) end
  err.attempts = sent_count
  return errors.new(err, operation)
end

-- Failures that may not occur again: a call that changes nothing, or a delete, is retried.
local TRANSIENT = { network = true, timeout = true, truncated = true }
local TRANSIENT_STATUS = { [500] = true, [502] = true, [503] = true, [504] = true }

-- The longest Retry-After that is waited for. A longer one is left to the caller.
local MAX_RETRY_AFTER = 120

--- Whether the same request may succeed later.
function call.is_transient(err)
  if errors.is_from_proxy(err) and err.status then return TRANSIENT_STATUS[err.status] end
  return err.reason ~= "deadline"
    and (TRANSIENT[err.kind] or TRANSIENT_STATUS[err.status] or err.kind == "throttled")
    and (err.retry_after or 0) <= MAX_RETRY_AFTER
end

-- Whether the same request may succeed later, and cannot be carried out twice.
local function is_retryable(operation, err, was_sent)
  if not call.is_transient(err) then return false end
  return operation ~= "upload" or err.kind == "throttled" or not was_sent
end

--- Seconds to wait after an attempt: exponential backoff with full jitter, and at least as
-- long as the service asks for.
function call.backoff(attempt_no, err)
  return math.max(err.retry_after or 0, math.random() * math.min(30, 2 ^ (attempt_no - 2)))
end

-- If a token refresh took longer than this, the time of a reservation is over.
local REFRESH_SLACK = 1 / 20

-- Seconds of a sleep after which `should_continue` is called again.
local CANCEL_POLL = 1

-- Start a request's transfer.
local function start(env, request, bearer, deadline)
  if request.start then return request.start(bearer, deadline) end
  return core.start(env.client, bearer, request)
end

-- The state of a call, from its start to its end. Methods return a value, or nil and an error
-- table.
local call_state = {}
call_state.__index = call_state

local function call_state_new(env, operation, timeout, request)
  return setmetatable({
    env = env,
    operation = operation,
    request = request,
    deadline = timeout and wait.now() + timeout or nil,
    attempt_no = 0,          -- attempts that have ended
    sent_count = 0,          -- requests that were sent
    outcome_unknown = false, -- whether one of them may have been carried out
    is_restarted = false,    -- whether `should_restart` was obeyed
    rejected = false,        -- the token that the service refused with a 401
    rejection = false,       -- the error of that 401
    retry_delay = 0,         -- seconds that passed between the last attempt and this one
    -- of the current attempt:
    waited = 0,              -- seconds that passed until its reservation's time
    reservation = false,
    bearer = false,
    was_sent = false,
    backoff = 0,             -- seconds until the next one
  }, call_state)
end

local function canceled(reason)
  return nil, { kind = "canceled", reason = reason }
end

-- A bearer token. A token function may close the client.
function call_state:get_token()
  local env = self.env
  if env.closed then return canceled "closed" end
  local bearer, err = env.token(self.deadline, self.rejected, self.request.min_token_ttl)
  if env.closed then return canceled "closed" end
  if bearer then return bearer end
  return nil, err or self.rejection
end

-- Sleep. Returns true.
function call_state:sleep(seconds)
  local till, should_continue = wait.now() + seconds, self.request.should_continue
  repeat
    wait.wait(nil, math.min(till, wait.now() + CANCEL_POLL))
    if self.env.closed then return canceled "closed" end
    if should_continue and should_continue() == false then return canceled "progress" end
  until wait.now() >= till
  return true
end

-- Reserve the right to send a request, and wait for its time. Returns true.
function call_state:reserve()
  local reservation, err = limiter.reserve(self.env, self.operation, self.deadline)
  if not reservation then return nil, err end
  self.reservation = reservation
  local delay = reservation.delay
  if delay <= 0 then return true end
  local began = wait.now()
  repeat
    if self.deadline and wait.now() + delay > self.deadline then
      return nil, { kind = "timeout", reason = "rate_limit", retry_after = delay }
    end
    local slept, interruption = self:sleep(delay)
    if not slept then return nil, interruption end
    delay, err = limiter.recheck(reservation)
    if not delay then return nil, err end
  until delay <= 0
  self.waited = self.waited + wait.now() - began
  return true
end

function call_state:cancel_reservation()
  if self.reservation then limiter.cancel(self.reservation) end
  self.reservation = false
end

-- The prefetched transfer, or nil if there is none that can be used. If it failed before it was
-- sent, that says nothing about the service. In a forked child it belongs to the parent.
function call_state:take_prefetched()
  local prefetched = self.request.prefetched
  if not prefetched then return nil end
  local _, err = prefetched.transfer:result()
  if err and (err.reason == "forked" or not prefetched.transfer:was_sent()) then
    call.discard_prefetch(self.request)
    return nil
  end
  self.request.prefetched = nil
  self.reservation, self.bearer = prefetched.reservation, prefetched.bearer
  self.reservation.deadline = self.deadline
  return prefetched.transfer
end

-- Acquire what a request needs, and start it. Returns the transfer.
function call_state:acquire_and_start()
  local prefetched = self:take_prefetched()
  if prefetched then return prefetched end
  local bearer, err = self:get_token()
  if not bearer then return nil, err end
  local reserved
  reserved, err = self:reserve()
  if not reserved then return nil, err end
  if self.waited > 0 then -- the token may have expired
    local began = wait.now()
    bearer, err = self:get_token()
    if not bearer then return nil, err end
    -- otherwise all callers that waited for the token would send at once
    if wait.now() - began > REFRESH_SLACK then
      self:cancel_reservation()
      reserved, err = self:reserve()
      if not reserved then return nil, err end
    end
  end
  self.bearer = bearer
  return start(self.env, self.request, bearer, self.deadline)
end

-- Begin an attempt. Returns the transfer. If it fails, the reservation is canceled.
function call_state:begin()
  self.waited, self.reservation = 0, false
  local ran, transfer, err = pcall(self.acquire_and_start, self)
  if ran and transfer then return transfer end
  self:cancel_reservation()
  if not ran then error(transfer, 0) end
  return nil, err
end

-- Run a transfer, and record its response. Returns true and the results of `run`.
function call_state:run(transfer)
  local env = self.env
  local began = env.on_event and wait.now()
  local ran, ok, a, b = pcall(self.request.run, transfer, self.deadline)
  self.was_sent = transfer:was_sent()
  self.attempt_no = self.attempt_no + 1
  if self.was_sent then self.sent_count = self.sent_count + 1 end
  local err, is_user_error
  if not ran then
    err = { kind = "canceled" }
  elseif not ok then
    is_user_error = a.user_error ~= nil
    err = failure(a, self.operation, self.sent_count, transfer)
    self.backoff = call.backoff(self.attempt_no, err)
  end
  if not self.was_sent then
    self:cancel_reservation()
  else -- a program's error says nothing about the response
    limiter.record(self.reservation, is_user_error and { kind = "canceled" } or err, self.backoff)
  end
  local emitted, problem = true, nil
  if env.on_event then
    emitted, problem = pcall(call.emit_event, env, transfer, err, {
      operation = self.operation, attempt = self.sent_count, waited = self.waited + self.retry_delay,
      seconds = wait.now() - began,
    })
  end
  if not ran then error(ok, 0) end
  if not emitted then error(problem, 0) end
  if err then return nil, is_user_error and a or err end
  return true, a, b
end

-- Run a transfer and close it, unless it succeeds and is to stay open.
function call_state:run_and_close(transfer)
  local ran, ok, a, b = pcall(self.run, self, transfer)
  if not ran or not ok or not self.request.keep_open then wait.close(transfer) end
  if not ran then error(ok, 0) end
  return ok, a, b
end

-- Decide after a failure whether there is another attempt, and sleep until then. Returns a
-- boolean; or nil and an error table if the sleep was canceled.
function call_state:should_retry_and_sleep(err)
  if err.user_error then return false end
  self.outcome_unknown = self.outcome_unknown or err.outcome_unknown or false
  if self.attempt_no >= self.env.max_attempts then return false end
  local request, seconds = self.request, self.backoff
  if err.status == 401 then
    if self.rejected or (request.rewind and not request.rewind()) then return false end
    self.rejected, self.rejection, self.retry_delay = self.bearer, err, 0
    return true
  end
  if request.should_restart and not self.is_restarted and request.should_restart(err) then
    self.is_restarted, self.retry_delay = true, 0
    return true
  end
  if not is_retryable(self.operation, err, self.was_sent)
    or (self.deadline and wait.now() + seconds >= self.deadline)
    or (request.rewind and not request.rewind()) then
    return false
  end
  self.retry_delay = seconds
  return self:sleep(seconds)
end

-- The call's error if an attempt could not begin. If only the time was too short for it, the
-- error of the attempt before says more.
function call_state:final_error(err, before)
  if before and err.kind == "timeout" and (err.reason == "rate_limit" or err.reason == "token_wait") then
    before.retry_after = before.retry_after or err.retry_after
    return before
  end
  return failure(err, self.operation, self.sent_count)
end

--- Start the first attempt of a call that will probably be made, without waiting: only if
-- there is a token, and the limiter lets the request be sent now.
-- @tparam table request gets the field `prefetched`
function call.prefetch(env, operation, request)
  if not wait.prepare() then return end -- the call could not be made here either
  local bearer = env.cached_token()
  local reservation = bearer and limiter.try_reserve(env, operation)
  if not reservation then return end
  local transfer = start(env, request, bearer)
  if not transfer then
    limiter.cancel(reservation)
    return
  end
  request.prefetched = { transfer = transfer, reservation = reservation, bearer = bearer, began = wait.now() }
  wait.poll()
end

--- Let a prefetched transfer make progress, without waiting.
function call.poll_prefetch(request)
  if request.prefetched and request.prefetched.transfer:result() == false then wait.poll() end
end

-- Record a prefetched request that was sent and is not needed: it was billed.
local function prefetch_record(prefetched, done, err)
  local reservation, transfer = prefetched.reservation, prefetched.transfer
  local env, operation = reservation.env, reservation.operation
  if err then err = failure(err, operation, 1, transfer) end
  if done == false then err = { kind = "canceled" } end
  limiter.record(reservation, err, err and call.backoff(1, err))
  if env.on_event then -- what it raises belongs to no call
    pcall(call.emit_event, env, transfer, err, {
      operation = operation, attempt = 1, waited = 0, seconds = wait.now() - prefetched.began,
    })
  end
end

--- Cancel a prefetched transfer: it is not needed.
function call.discard_prefetch(request)
  local prefetched = request.prefetched
  if not prefetched then return end
  request.prefetched = nil
  local transfer = prefetched.transfer
  transfer:cancel("canceled")
  local done, err = transfer:result()
  if transfer:was_sent() then
    prefetch_record(prefetched, done, err)
  elseif not (err and err.reason == "forked") then
    limiter.cancel(prefetched.reservation)
  end
  wait.close(transfer)
end

--- Perform a call, with all its attempts.
-- @tparam table env the client's environment
-- @tparam string operation
-- @tparam table options the call's; `timeout`
-- @tparam table request
-- @treturn[1] boolean true
-- @return[1] the first result of `run`
-- @return[1] the second result of `run`
-- @treturn[1] integer number of requests sent
-- @treturn[2] nil
-- @treturn[2] table the error
function call.perform(env, operation, options, request)
  local self = call_state_new(env, operation, options.timeout or env.timeout, request)
  json.prepare(operation == "download")
  local entered, problem = wait.prepare()
  if not entered then
    call.discard_prefetch(request)
    return nil, failure(problem, operation, 0)
  end
  local err
  while true do
    local transfer, refused = self:begin()
    if not transfer then
      err = self:final_error(refused, err)
      break
    end
    local ok, a, b = self:run_and_close(transfer)
    if ok then return true, a, b, self.sent_count end
    err = a
    -- an earlier attempt, whose response was lost, has deleted it
    if operation == "delete" and err.status == 404 and self.outcome_unknown then
      return true, nil, nil, self.sent_count
    end
    local should_retry, interruption = self:should_retry_and_sleep(err)
    if interruption then
      err = failure(interruption, operation, self.sent_count)
      break
    elseif not should_retry then
      err = err.user_error or err
      break
    end
  end
  if self.outcome_unknown then err.outcome_unknown = true end
  return nil, err
end

--- Make a `run` for calls whose response is JSON.
-- @tparam function read makes a result of the decoded response; or returns nil and the reason
--   why it cannot
-- @tparam ?boolean is_change whether the call changes something: a response that cannot be
--   read then leaves its outcome unknown
function call.read_json(read, is_change)
  return function(transfer, deadline)
    local ok, err = call.finish(transfer, deadline)
    if not ok then return nil, err end
    local result
    local response, problem = json.decode_response(transfer:body())
    if response then result, problem = read(response) end
    if result == nil then
      return nil, { kind = "protocol", status = transfer:response(), reason = problem, outcome_unknown = is_change }
    end
    return true, result
  end
end

return call
