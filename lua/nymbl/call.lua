-- SPDX-License-Identifier: MIT
-- Performing a call. Each attempt gets a token, makes a reservation, waits for its time,
-- refreshes the token if that took long, starts a transfer, waits for the response and
-- classifies it. Then `call.perform` decides whether there is another attempt.
--
-- A `request` describes one call to the service:
--   what core.start sends (lua/request.c); or, if that is known only when an attempt starts:
--   start(bearer, deadline, headers)   starts a transfer and returns it; or nil and an error
--                              table
--   run(transfer, deadline, request)
--                              waits for as much of the response as the call needs. Returns
--                              true and up to two results; or nil and an error table. An
--                              error that it raises ends the call, and is raised again
--   keep_open                  whether the transfer stays open after a success
--   prepare(deadline)          prepares what the transfer needs, each time before it is started; may
--                              wait. Returns a true value; or nil and an error table
--   min_token_ttl              seconds for which the token must remain valid, or nil
--   rewind()                   prepares the request's data for another attempt. Returns false
--                              if that is impossible
--   should_restart(err)        prepares a different request that avoids `err`. Returns true if
--                              there is one: it is then sent, once and without a delay
--   should_continue()          is called during waits; false cancels the call
--   prefetched                 the transfer that was started in advance, and its reservation (prefetch.lua)
-- Two things are required: what starts the transfer, and `run`.
--
-- An error table has the fields of an error (errors.lua), but not yet its metatable and
-- `attempts`. An error table with the field `user_error` has no other field: a function of the
-- program returned that error. The call ends with it, unchanged and without a retry.

local core = require "nymbl.core"
local check = require "nymbl.check"
local events = require "nymbl.events"
local failure = require "nymbl.failure"
local headers = require "nymbl.headers"
local json = require "nymbl.json"
local limiter = require "nymbl.limiter"
local meter = require "nymbl.meter"
local prefetch = require "nymbl.prefetch"
local wait = require "nymbl.wait"

local call = {}

-- The time of `wait.now()` at which a call must have ended, or nil.
-- @tparam table options the call's
function call.deadline(env, options)
  local timeout = options.timeout or env.timeout
  return timeout and wait.now() + timeout
end

-- Seconds left until a deadline, or nil without a deadline. They are the timeout of a call that
-- is one step of another call.
function call.time_left(deadline)
  return deadline and math.max(0, deadline - wait.now())
end

-- Cancel a transfer because its deadline has passed.
function call.cancel_on_deadline(transfer)
  transfer:cancel("timeout", "deadline")
  wait.wait(transfer) -- an I/O thread may have to carry out the cancellation
end

-- Wait once until a transfer is ready. At the deadline, cancel the transfer.
local function wait_for(transfer, deadline)
  if events.are_used then events.check_connection(transfer) end
  if not wait.wait(transfer, deadline) then call.cancel_on_deadline(transfer) end
end
call.wait_for = wait_for

-- Wait until a transfer has ended. This is the `run` function of calls without a result.
-- @treturn[1] boolean true
-- @treturn[2] nil it failed
-- @treturn[2] table error
function call.wait_until_ended(transfer, deadline)
  while true do
    local done, err = transfer:result()
    if done then return true end
    if done == nil then return nil, err end
    wait_for(transfer, deadline)
  end
end

-- If the token and `prepare` took longer than so many seconds, the reservation is too old to be
-- used.
local REFRESH_SLACK = 1 / 20

-- Seconds of a sleep after which `should_continue` is called again.
local CANCEL_POLL = 1

-- The checkers of the options that every call has (see check.lua), added to those of others.
function call.options(others)
  others.timeout, others.headers, others.tag = check.seconds, headers.checker, check.any
  return others
end

-- Add the program's headers to a request.
-- @tparam table options the call's
-- @raise the error of the program's function
function call.add_headers(env, operation, options, request)
  local of_client, of_call = env.headers, options.headers
  if of_client or of_call then request.headers = headers.list(of_client, operation, of_call) end
end

-- Start a request's transfer.
local function start_transfer(env, request, bearer, deadline)
  if request.start then return request.start(bearer, deadline, request.headers) end
  return core.start(env.client, bearer, request)
end

-- The state of a call, from its start to its end. Methods return a value; or nil and an error
-- table.
local call_state = {
  outcome_unknown = false,   -- whether one of the requests may have been carried out
  has_restarted = false,     -- whether `should_restart` has led to another attempt
  rejected_token = false,    -- the token that the service refused with a 401
  rejection = false,         -- the error of that 401
  -- of the current attempt:
  has_slept = false,         -- whether it waited for the time of its reservation
  backoff = 0,               -- seconds that a retry waits
  -- pending                 the event of its request (events.lua), if the client has on_event
}
call_state.__index = call_state

-- A new table has only the fields that each call sets.
local function call_state_new(env, operation, options, request)
  return setmetatable({
    env = env,
    operation = operation,
    options = options,
    request = request,
    deadline = call.deadline(env, options),
    attempts_made = 0,       -- attempts that have ended, whether a request was sent or not
    requests_sent = 0,
    -- of the current attempt:
    reservation = false,
    meter = false,           -- of the run that pays for the request (meter.lua)
    bearer = false,
    transfer = false,
    was_sent = false,
  }, call_state)
end

local function canceled(reason)
  return nil, { kind = "canceled", reason = reason }
end

-- Sleep for a reason (see events.lua). Returns true.
function call_state:sleep(reason, seconds)
  events.begin_wait(reason, seconds)
  local till, should_continue = wait.now() + seconds, self.request.should_continue
  repeat
    wait.wait(nil, math.min(till, wait.now() + CANCEL_POLL))
    if self.env.closed then return canceled "closed" end
    if should_continue and should_continue() == false then return canceled "progress" end
    if not meter.poll() then return canceled "stopped" end
  until wait.now() >= till
  events.end_wait()
  return true
end

-- Get a bearer token. A token function may close the client.
function call_state:get_token()
  local env = self.env
  if env.closed then return canceled "closed" end
  local bearer, err = env.token(self.deadline, self.rejected_token, self.request.min_token_ttl)
  if env.closed then return canceled "closed" end
  if bearer then return bearer end
  return nil, err or self.rejection
end

-- Make a reservation, and wait for its time. Returns true.
function call_state:reserve_and_wait()
  local reservation, err = limiter.reserve(self.env, self.operation, self.deadline)
  if not reservation then return nil, err end
  self.reservation = reservation
  local delay = reservation.delay
  if delay <= 0 then return true end
  self.has_slept = true
  repeat
    if self.deadline and wait.now() + delay > self.deadline then
      return nil, { kind = "timeout", reason = "rate_limit", retry_after = delay }
    end
    local slept, interruption = self:sleep(reservation.is_paused and "pause" or "rate_limit", delay)
    if not slept then return nil, interruption end
    delay, err = limiter.recheck(reservation)
    if not delay then return nil, err end
  until delay <= 0
  return true
end

function call_state:cancel_reservation()
  if self.reservation then limiter.cancel(self.reservation) end
  meter.give_back(self.meter)
  self.reservation, self.meter = false, false
end

-- Take the prefetched transfer, with its token and reservation. Returns nil if there is no usable one.
function call_state:take_prefetched()
  local prefetched = self.request.prefetched and prefetch.take(self.request)
  if not prefetched then return nil end
  self.reservation, self.bearer, self.meter = prefetched.reservation, prefetched.bearer, prefetched.meter
  self.reservation.deadline = self.deadline
  self.pending = prefetched.pending
  events.adopt(self.pending)
  return prefetched.transfer
end

-- Acquire a token and a reservation, and start the transfer. Returns the transfer.
function call_state:acquire_and_start()
  local prefetched = self:take_prefetched()
  if prefetched then return prefetched end
  local bearer, err = self:get_token()
  if not bearer then return nil, err end
  local reserved
  reserved, err = self:reserve_and_wait()
  if not reserved then return nil, err end
  local began, prepare = 0, self.request.prepare
  if self.has_slept or prepare then began = wait.now() end
  if prepare then
    local prepared
    prepared, err = prepare(self.deadline)
    if not prepared then return nil, err end
  end
  if self.has_slept or (prepare and wait.now() - began > REFRESH_SLACK) then -- the token may have expired
    bearer, err = self:get_token()
    if not bearer then return nil, err end
    -- with the old reservation, all callers that waited for the token would send at once
    if wait.now() - began > REFRESH_SLACK then
      self:cancel_reservation()
      reserved, err = self:reserve_and_wait()
      if not reserved then return nil, err end
    end
  end
  self.bearer = bearer
  call.add_headers(self.env, self.operation, self.options, self.request)
  if self.env.closed then return canceled "closed" end -- by the function `headers`
  self.meter, err = meter.take()
  if self.meter == nil then return nil, err end
  local transfer
  transfer, err = start_transfer(self.env, self.request, bearer, self.deadline)
  if not transfer then return nil, err end
  if self.env.on_event then
    self.pending = events.begin(self.env, transfer, {
      operation = self.operation, attempt = self.requests_sent + 1, waited = self.waited, tag = self.options.tag,
    })
  end
  return transfer
end

-- Start an attempt and wait for its response. Returns as `run` does; or nil and an error table if
-- the attempt could not start: then there is no `transfer`.
function call_state:start_and_run()
  local transfer, err = self:acquire_and_start()
  if not transfer then return nil, err end
  self.transfer = transfer
  return self.request.run(transfer, self.deadline, self.request)
end

-- Call on_event, unless the transfer stays open. Returns whether it returned; otherwise also the
-- error that it raised.
function call_state:emit_event(err)
  local pending = self.pending
  pending.event.attempt, self.waited = self.requests_sent, 0
  if self.request.keep_open and not err then
    events.release(pending)
    return true
  end
  return pcall(events.finish, pending, err)
end

-- Record whether the request was sent.
function call_state:count_attempt()
  self.was_sent = self.transfer:was_sent()
  self.attempts_made = self.attempts_made + 1
  if self.was_sent then self.requests_sent = self.requests_sent + 1 end
end

-- Record the end of a request with the limiter and on_event. The parameters are what pcall has
-- returned. Returns true; or nil, the error and whether a function of the program returned it.
function call_state:record(ran, ok, a)
  self:count_attempt()
  local err, is_user_error
  if not ran then
    err = events.canceled(self.operation, self.was_sent)
  elseif not ok then
    is_user_error = a.user_error ~= nil
    err = failure.to_error(a, self.operation, self.requests_sent, self.transfer)
    self.backoff = failure.backoff(self.attempts_made, err)
  end
  if not self.was_sent then
    self:cancel_reservation()
  else -- a program's error says nothing about the response
    limiter.record(self.reservation, is_user_error and { kind = "canceled" } or err, self.backoff)
  end
  local emitted, raised = true, nil
  if self.pending then emitted, raised = self:emit_event(err) end
  if not ran then error(ok, 0) end
  if not emitted then error(raised, 0) end
  if err then return nil, err, is_user_error end
  return true
end

-- Record the end of a request and close its transfer, unless that succeeded and is to stay open.
-- Parameters and results are those of `record`.
function call_state:record_and_close(ran, ok, a)
  local transfer = self.transfer
  local recorded, done, err, is_user_error = pcall(self.record, self, ran, ok, a)
  if not recorded or not done or not self.request.keep_open then wait.close(transfer) end
  if not recorded then error(done, 0) end
  return done, err, is_user_error
end

-- Make one attempt. Returns true and the results of `run`; or nil, the error and whether a function
-- of the program returned it. Without a transfer the error is an error table.
function call_state:attempt()
  self.reservation, self.meter, self.transfer = false, false, false
  if self.has_slept then self.has_slept = false end
  if self.pending then self.pending = nil end
  local ran, ok, a, b = pcall(self.start_and_run, self)
  if not self.transfer then
    self:cancel_reservation()
    if not ran then error(ok, 0) end
    return nil, a
  end
  if ran and ok and not self.pending and not self.request.keep_open and self.transfer:was_sent() then
    -- as `record` does, but there is nothing that could fail before the transfer is closed
    self:count_attempt()
    wait.close(self.transfer)
    limiter.record(self.reservation)
    return true, a, b
  end
  local done, err, is_user_error = self:record_and_close(ran, ok, a)
  if not done then return nil, err, is_user_error end
  return true, a, b
end

-- Decide whether another attempt follows a failed one, and prepare it. Returns the seconds until
-- then, or nil if the failure is final.
function call_state:plan_retry(err)
  if self.attempts_made >= self.env.max_attempts then return nil end
  local request, backoff = self.request, self.backoff
  if err.status == 401 then -- once, with another token
    if self.rejected_token or (request.rewind and not request.rewind()) then return nil end
    self.rejected_token, self.rejection = self.bearer, err
    return 0
  end
  if request.should_restart and not self.has_restarted and request.should_restart(err) then
    self.has_restarted = true
    return 0
  end
  if not failure.is_retryable(self.operation, err, self.was_sent)
    or (self.deadline and wait.now() + backoff >= self.deadline)
    or (request.rewind and not request.rewind()) then
    return nil
  end
  return backoff
end

-- The call's error if an attempt could not start. If only the time was too short for it, or the
-- store was lost meanwhile, the error of the attempt before says more.
function call_state:start_error(err, previous)
  local is_too_short = err.kind == "timeout" and (err.reason == "rate_limit" or err.reason == "token_wait")
  if previous and (is_too_short or err.from_store) then
    previous.retry_after = previous.retry_after or err.retry_after
    return previous
  end
  return failure.to_error(err, self.operation, self.requests_sent)
end

-- Make attempts until one succeeds or a failure is final. Returns true and the results of `run`;
-- or nil and the error.
function call_state:perform()
  local err
  while true do
    local ok, a, b = self:attempt()
    if ok then return true, a, b end
    if not self.transfer then return nil, self:start_error(a, err) end
    local is_user_error
    err, is_user_error = a, b
    if is_user_error then return nil, err end
    -- an earlier delete, whose response was lost, was carried out
    if self.operation == "delete" and err.status == 404 and self.outcome_unknown then return true end
    self.outcome_unknown = self.outcome_unknown or err.outcome_unknown or false

    local delay = self:plan_retry(err)
    if not delay then return nil, err end
    if delay > 0 then
      local is_pause = err.retry_after or err.kind == "throttled"
      local slept, interruption = self:sleep(is_pause and "pause" or "retry", delay)
      if not slept then return nil, failure.to_error(interruption, self.operation, self.requests_sent) end
    end
  end
end

-- Perform the call registered for events.
function call_state:perform_registered()
  events.register(self)
  local ran, ok, a, b = pcall(self.perform, self)
  events.unregister(self)
  if not ran then error(ok, 0) end
  return ok, a, b
end

-- Report the requests whose owners were collected. If on_event raises an error, so does this.
local function flush_events(env, request)
  local ran, raised = pcall(events.flush, env)
  if ran then return end
  prefetch.discard(request)
  error(raised, 0)
end

-- Perform a call, with all its attempts.
-- @tparam table env the client's environment
-- @tparam string operation
-- @tparam table options the call's: those of `call.options`
-- @tparam table request
-- @treturn[1] boolean true
-- @return[1] the first result of `run`
-- @return[1] the second result of `run`
-- @treturn[1] integer number of requests sent
-- @treturn[1] ?table the event of a request that was kept open (events.lua)
-- @treturn[2] nil
-- @treturn[2] table the error
function call.perform(env, operation, options, request)
  local self = call_state_new(env, operation, options, request)
  if env.on_event then flush_events(env, request) end
  json.prepare(operation == "download")
  local prepared, prepare_err = wait.prepare()
  if not prepared then
    prefetch.discard(request)
    return nil, failure.to_error(prepare_err, operation, 0)
  end
  local perform = (env.on_event or env.on_wait) and self.perform_registered or self.perform
  local ok, a, b = perform(self)
  if ok then return true, a, b, self.requests_sent, self.pending end
  if self.outcome_unknown then a.outcome_unknown = true end
  return nil, a
end

-- Returns a `run` function for calls whose response is JSON.
-- @tparam function read converts the decoded response to the call's result (and gets the transfer
--   and the request); or returns nil and the reason why that is impossible
-- @tparam ?boolean is_change whether the call changes something: an unreadable response then
--   leaves the outcome unknown
function call.json_reader(read, is_change)
  return function(transfer, deadline, request)
    local ok, err = call.wait_until_ended(transfer, deadline)
    if not ok then return nil, err end
    local result
    local response, problem = json.decode_response(transfer:body())
    if response then result, problem = read(response, transfer, request) end
    if result == nil then
      return nil, { kind = "protocol", status = transfer:response(), reason = problem, outcome_unknown = is_change }
    end
    return true, result
  end
end

return call
