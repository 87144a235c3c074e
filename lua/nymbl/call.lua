-- SPDX-License-Identifier: MIT
-- The one place where a call gets a token, starts a transfer, waits, and is
-- told from its end what happened.

local check = require "nymbl.check"
local errors = require "nymbl.errors"
local json = require "nymbl.json"
local pace = require "nymbl.pace"
local wait = require "nymbl.wait"

local call = {}

local function text(value)
  return type(value) == "string" and value or nil
end

local GATEWAY = { ["Forbidden"] = "api_key", ["Missing Authentication Token"] = "unknown_route" }

-- The server's own words, in any of the shapes that are known: the service's
-- {error = {code, message, details}}, a gateway's flat {message}.
local function words_read(err, reply)
  if not reply then return end
  local inner = type(reply.error) == "table" and reply.error or reply
  local details = inner.details
  if type(details) == "table" then
    local parts = {}
    for _, item in ipairs(details) do
      parts[#parts + 1] = text(item) or (type(item) == "table" and text(item.message)) or nil
    end
    details = table.concat(parts, "; ")
  end
  err.code = text(inner.code) or text(reply.error)
  local words = { text(inner.message) or text(inner.Message) }
  if text(details) and details ~= "" then words[#words + 1] = details end
  err.detail = #words > 0 and table.concat(words, ": ") or nil
  -- told from a rate limit by its words alone (facts, section 11)
  if err.status == 429 and inner.message == "Limit Exceeded" then err.kind = "quota" end
  -- a gateway's own refusals: of the key, and of a path that it does not know
  if err.status == 403 then err.reason = err.reason or GATEWAY[reply.message] end
end

--- End a transfer whose deadline has come.
function call.end_late(transfer)
  transfer:cancel("timeout", "deadline")
  wait.wait(transfer) -- where a thread carries it out
end

-- Wait for a transfer once; at the deadline it is ended.
local function wait_for(transfer, deadline)
  if not wait.wait(transfer, deadline) then call.end_late(transfer) end
end
call.wait_for = wait_for

--- Drive a transfer to its end.
-- @treturn[1] boolean true
-- @treturn[2] nil it failed
-- @treturn[2] table what is known of it
function call.finish(transfer, deadline)
  while true do
    local done, err = transfer:result()
    if done then return true end
    if done == nil then return nil, err end
    wait_for(transfer, deadline)
  end
end

-- What is known of a failure as the error that the script gets. One that is an
-- error already came from a function of the script's and is handed on as it is.
local function failure(err, operation, attempts, transfer)
  if errors.is(err) then return err end
  if err.kind == "misuse" then check.raise("wrong " .. tostring(err.reason)) end
  if transfer and err.status and err.status >= 300 then words_read(err, json.decode_response(transfer:body())) end
  err.attempts = attempts
  return errors.new(err, operation)
end

-- Failures after which a call that changes nothing, or a delete, may be repeated.
local PASSING = { network = true, timeout = true, truncated = true }
local PASSING_STATUS = { [500] = true, [502] = true, [503] = true, [504] = true }

-- Longest Retry-After that is waited for; a longer one is the caller's to obey.
local LONGEST_RETRY = 120

-- Whether a failure passes: the same request may go well the next time.
function call.is_passing(err)
  if errors.is_from_proxy(err) and err.status then return PASSING_STATUS[err.status] end
  return err.reason ~= "deadline" and (PASSING[err.kind] or PASSING_STATUS[err.status] or err.kind == "throttled")
    and (err.retry_after or 0) <= LONGEST_RETRY
end

-- Whether the same request may help, and is harmless.
local function is_repeatable(operation, err, sent)
  if not call.is_passing(err) then return false end
  return operation ~= "upload" or err.kind == "throttled" or not sent
end

--- Seconds before the next attempt: full jitter, and no less than the service asks for.
function call.backoff(try, err)
  return math.max(err.retry_after or 0, math.random() * math.min(30, 2 ^ (try - 2)))
end

-- A renewal that took longer has made a place late.
local LATE = 1 / 20

-- Seconds of a sleep after which the script is asked whether it still wants the call.
local NAP = 1

-- One attempt of a call: a place, a token, a transfer to its end.
local attempt = {}
attempt.__index = attempt

-- A bearer token, or nil and what is known of the failure. A function of the
-- script's may have closed the client meanwhile.
function attempt:token()
  local env = self.env
  if env.closed then return nil, { kind = "canceled", reason = "closed" } end
  local bearer, err = env.token(self.deadline, self.stale, self.steps.need)
  if env.closed then return nil, { kind = "canceled", reason = "closed" } end
  return bearer, err or self.refused
end

-- Sleep, as long as the call is wanted. Gives what is known where it is not.
function attempt:sleep(seconds)
  local till, asks = wait.now() + seconds, self.steps.asks
  repeat
    wait.wait(nil, math.min(till, wait.now() + NAP))
    if self.env.closed then return { kind = "canceled", reason = "closed" } end
    if asks and asks() == false then return { kind = "canceled", reason = "progress" } end
  until wait.now() >= till
end

-- Take a place and wait for its time. Gives what is known where that fails.
function attempt:queue()
  local err
  self.place, err = pace.reserve(self.env, self.operation, self.deadline)
  if not self.place then return err end
  local left = self.place.left
  if left <= 0 then return nil end
  local began = wait.now()
  repeat
    if self.deadline and wait.now() + left > self.deadline then
      return { kind = "timeout", reason = "rate_limit", retry_after = left }
    end
    err = self:sleep(left)
    if err then return err end
    left, err = pace.postpone(self.place)
    if err then return err end
  until left <= 0
  self.waited = self.waited + wait.now() - began
end

-- Give the place back, where there is one.
function attempt:leave()
  if self.place then pace.refund(self.place) end
  self.place = nil
end

-- The transfer that `call.ahead` has started, if it can be gone on with. One that failed
-- before it went out tells nothing of the service; in a forked child it is the parent's.
function attempt:early()
  local ahead = self.steps.ahead
  if not ahead then return nil end
  local _, err = ahead.transfer:result()
  if err and (err.reason == "forked" or not ahead.transfer:counts()) then
    call.abandon(self.steps)
    return nil
  end
  self.steps.ahead = nil
  self.place, self.bearer = ahead.place, ahead.bearer
  self.place.deadline = self.deadline
  return ahead.transfer
end

-- Gives a transfer that has begun, or nil and what is known of the failure.
function attempt:enter()
  local early = self:early()
  if early then return early end
  -- renewed before the place is waited for, and after, if there was a wait
  local bearer, err = self:token()
  if not bearer then return nil, err end
  err = self:queue()
  if err then return nil, err end
  if self.waited > 0 then
    local began = wait.now()
    bearer, err = self:token()
    if not bearer then return nil, err end
    if wait.now() - began > LATE then -- or all who waited for it would go out at once
      self:leave()
      err = self:queue()
      if err then return nil, err end
    end
  end
  self.bearer = bearer
  return self.steps.start(bearer, self.deadline)
end

-- The same, and nothing is left behind where it fails.
function attempt:begin()
  self.waited, self.place = 0, nil -- that of the attempt before is used
  local ran, transfer, err = pcall(self.enter, self)
  if ran and transfer then return transfer end
  self:leave()
  if not ran then error(transfer, 0) end
  return nil, err
end

-- Tell the script of a request.
function attempt:tell(transfer, err, seconds)
  local _, bytes_sent, bytes_received = transfer:counts()
  local status = transfer:head()
  return pcall(self.env.on_event, {
    operation = self.operation, status = err and err.status or status or nil, kind = err and err.kind,
    attempt = self.attempts, waited = self.waited + self.pause, seconds = seconds,
    bytes_sent = bytes_sent, bytes_received = bytes_received,
  })
end

-- Drive it to its end and take in what came of it.
function attempt:follow(transfer)
  local env = self.env
  local began = env.on_event and wait.now()
  local ran, ok, a, b = pcall(self.steps.drive, transfer, self.deadline)
  self.sent = transfer:counts()
  self.tries = self.tries + 1
  if self.sent then self.attempts = self.attempts + 1 end
  local err
  if not ran then
    err = { kind = "canceled" }
  elseif not ok then
    self.foreign = errors.is(a)
    err = failure(a, self.operation, self.attempts, transfer)
    self.seconds = call.backoff(self.tries, err)
  end
  if not self.sent then
    self:leave()
  else -- a foreign error says nothing of an answer
    pace.answered(self.place, self.foreign and { kind = "canceled" } or err, self.seconds)
  end
  local told, problem = true, nil
  if env.on_event then told, problem = self:tell(transfer, err, wait.now() - began) end
  if not ran then error(ok, 0) end
  if not told then error(problem, 0) end
  if err then return nil, err end
  return true, a, b
end

-- The same, and the transfer is closed, however that ends. Gives what it gave, or nil and
-- an error.
function attempt:run(transfer)
  local ran, ok, a, b = pcall(self.follow, self, transfer)
  if not ran or not ok or not self.steps.keep then wait.close(transfer) end
  if not ran then error(ok, 0) end
  return ok, a, b
end

-- After a failure: whether there is to be another attempt. Waits for its time; with
-- false comes what is known where that was broken off.
function attempt:goes_on(err)
  self.unknown = self.unknown or (not self.foreign and err.outcome_unknown)
  if self.foreign or self.tries >= self.env.max_attempts then return false end
  local steps, seconds = self.steps, self.seconds
  if err.status == 401 then
    if self.stale or (steps.replay and not steps.replay()) then return false end
    self.stale, self.refused, self.pause = self.bearer, err, 0
    return true
  end
  if steps.again and not self.repeated and steps.again(err) then
    self.repeated, self.pause = true, 0
    return true
  end
  if not is_repeatable(self.operation, err, self.sent)
    or (self.deadline and wait.now() + seconds >= self.deadline)
    or (steps.replay and not steps.replay()) then
    return false
  end
  self.pause = seconds
  local canceled = self:sleep(seconds)
  return not canceled, canceled
end

-- What a call ends with that could not begin another attempt: where it is only that
-- its time would not have sufficed, the failure before tells more.
function attempt:given_up(err, before)
  if before and err.kind == "timeout" and (err.reason == "rate_limit" or err.reason == "token_wait") then
    before.retry_after = before.retry_after or err.retry_after
    return before
  end
  return failure(err, self.operation, self.attempts)
end

--- Make the first attempt of a call now, for `perform` to take it up later: only
-- where a token is at hand and a place is free, so that nothing has to be waited for.
-- @tparam table steps as for `perform`; gets the field `ahead`
function call.ahead(env, operation, steps)
  if not wait.prepare() then return end -- the page could not be waited for, so nothing is sent
  local bearer = env.token_at_hand()
  local place = bearer and pace.reserve_free(env, operation)
  if not place then return end
  local transfer = steps.start(bearer)
  if not transfer then
    pace.refund(place)
    return
  end
  steps.ahead = { transfer = transfer, place = place, bearer = bearer, began = wait.now() }
  wait.poll()
end

--- Let what was started ahead go on, without waiting for it.
function call.advance(steps)
  if steps.ahead and steps.ahead.transfer:result() == false then wait.poll() end
end

-- What came of a request that nobody takes up: it counts, and its answer too.
local function ahead_answered(ahead, done, err)
  local place, transfer = ahead.place, ahead.transfer
  if err then err = failure(err, place.operation, 1, transfer) end
  if done == false then err = { kind = "canceled" } end
  pace.answered(place, err, err and call.backoff(1, err))
  if place.env.on_event then
    attempt.tell({ env = place.env, operation = place.operation, attempts = 1, waited = 0, pause = 0 }, transfer, err,
      wait.now() - ahead.began)
  end
end

--- Let go what was started ahead: it is not wanted any more.
function call.abandon(steps)
  local ahead = steps.ahead
  if not ahead then return end
  steps.ahead = nil
  local transfer = ahead.transfer
  transfer:cancel("canceled")
  local done, err = transfer:result()
  if transfer:counts() then
    ahead_answered(ahead, done, err)
  elseif not (err and err.reason == "forked") then
    pace.refund(ahead.place)
  end
  wait.close(transfer)
end

--- Perform a call.
--
-- `start(bearer)` gives a transfer, or nil and what is known of the failure.
-- `drive(transfer, deadline)` waits for as much of it as the call needs and
-- gives true and results, or nil and an error. An error raised in it ends the
-- call and goes on unchanged.
--
-- @tparam table env the client's environment
-- @tparam string operation its name, for events
-- @tparam table options `timeout` at least
-- @tparam table steps `start` and `drive`; `keep`: a transfer that went well is
--   left open; `need`: seconds the token must still live; `replay`: a function
--   that makes a further request possible, or says that none is; `again`: whether
--   an error is one that a second request, from the start, may mend; `asks`: a
--   function that is called during waits, and ends the call with false
-- @return true, the two results of `drive` and how many requests went out; or nil
--   and an error
function call.perform(env, operation, options, steps)
  local timeout = options.timeout or env.timeout
  local self = setmetatable({
    env = env, operation = operation, steps = steps, deadline = timeout and wait.now() + timeout,
    attempts = 0, tries = 0, waited = 0, pause = 0,
  }, attempt)
  json.prepare(operation == "download")
  local entered, place = wait.prepare()
  if not entered then
    call.abandon(steps)
    return nil, failure(place, operation, 0)
  end
  local err
  repeat
    local transfer, refused = self:begin()
    if not transfer then
      err = self:given_up(refused, err)
      break
    end
    local ok, a, b = self:run(transfer)
    if ok then return true, a, b, self.attempts end
    err = a
    -- gone by an attempt whose reply was lost
    if operation == "delete" and err.status == 404 and self.unknown then return true, nil, nil, self.attempts end
    local goes_on, canceled = self:goes_on(err)
    if canceled then err = failure(canceled, operation, self.attempts) end
  until not goes_on
  if self.unknown then err.outcome_unknown = true end
  return nil, err
end

--- A `drive` for calls whose reply is JSON.
--
-- @tparam function read makes a result of the decoded reply, or gives nil and
--   what is wrong with it
-- @tparam ?boolean changes whether the call changes something: a reply that
--   cannot be read then leaves its outcome unknown
function call.read_json(read, changes)
  return function(transfer, deadline)
    local ok, err = call.finish(transfer, deadline)
    if not ok then return nil, err end
    local result
    local reply, problem = json.decode_response(transfer:body())
    if reply then result, problem = read(reply) end
    if result == nil then
      return nil, { kind = "protocol", status = transfer:head(), reason = problem,
                    outcome_unknown = changes }
    end
    return true, result
  end
end

return call
