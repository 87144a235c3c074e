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
end

-- Wait for a transfer once; at the deadline it is ended, which is news too.
local function wait_for(transfer, deadline)
  if not wait.wait(transfer, deadline) then
    transfer:cancel("timeout", "deadline")
    wait.wait(transfer)
  end
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
local function failure(err, attempts, transfer)
  if errors.is(err) then return err end
  if err.kind == "misuse" then check.raise("wrong " .. tostring(err.reason)) end
  if transfer and err.status and err.status >= 300 then words_read(err, json.decode(transfer:body())) end
  err.attempts = attempts
  return errors.new(err)
end

-- Failures after which a call that changes nothing, or a delete, may be repeated.
local PASSING = { network = true, timeout = true, truncated = true }
local PASSING_STATUS = { [500] = true, [502] = true, [503] = true, [504] = true }

-- Longest Retry-After that is waited for; a longer one is the caller's to obey.
local LONGEST_RETRY = 120

-- Whether the same request may help, and is harmless.
local function is_repeatable(operation, err, sent)
  if err.reason == "deadline" then return false end
  if err.kind == "throttled" then return true end
  if operation == "upload" then return err.kind == "network" and not sent end
  return PASSING[err.kind] or PASSING_STATUS[err.status] or false
end

-- Seconds before the next attempt: full jitter, or what the service asks for.
local function backoff(attempt, err)
  if err.retry_after then return err.retry_after end
  return math.random() * math.min(30, 0.5 * 2 ^ (attempt - 1))
end

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

-- Gives a transfer that has begun, or nil and what is known of the failure.
function attempt:begin()
  local env, steps = self.env, self.steps
  -- renewed before the place is waited for, and after, if the wait was long
  local bearer, err = self:token()
  if not bearer then return nil, err end
  self.place, self.waited = pace.reserve(env, self.operation, self.deadline)
  if not self.place then return nil, self.waited end
  bearer, err = self:token()
  local transfer
  if bearer then transfer, err = steps.start(bearer, self.deadline) end
  if not transfer then
    pace.refund(env, self.operation, self.place)
    return nil, err
  end
  self.bearer = bearer
  return transfer
end

-- Drive it to its end. Gives what it gave, or nil and an error.
function attempt:run(transfer)
  local began = wait.now()
  local ran, ok, a, b = pcall(self.steps.drive, transfer, self.deadline)
  if not ran then
    wait.close(transfer)
    error(ok, 0)
  end
  local sent, bytes_sent, bytes_received = transfer:counts()
  local status = transfer:head()
  self.sent = sent
  if sent then self.attempts = self.attempts + 1 end
  local err
  if not ok then
    self.foreign = errors.is(a)
    err = failure(a, self.attempts, transfer)
  end
  if err or not self.steps.keep then wait.close(transfer) end
  if self.env.on_event then
    local told, problem = pcall(self.env.on_event, {
      operation = self.operation, status = err and err.status or status, kind = err and err.kind,
      attempt = self.attempts, waited = self.waited + self.pause, seconds = wait.now() - began,
      bytes_sent = bytes_sent, bytes_received = bytes_received,
    })
    if not told then
      wait.close(transfer)
      error(problem, 0)
    end
  end
  if err then return nil, err end
  return true, a, b
end

-- After a failure: whether there is to be another attempt. Waits for its time.
function attempt:goes_on(err)
  self.unknown = self.unknown or (not self.foreign and err.outcome_unknown)
  local seconds = backoff(self.attempts, err)
  if self.sent then
    if not self.foreign then pace.answered(self.env, err, seconds) end
  else
    pace.refund(self.env, self.operation, self.place)
  end
  self.tries = self.tries + 1
  if self.foreign or self.tries >= self.env.max_attempts then return false end
  local steps = self.steps
  if err.status == 401 then
    if self.stale or (steps.replay and not steps.replay()) then return false end
    self.stale, self.refused, self.pause = self.bearer, err, 0
    return true
  end
  if steps.again and not self.repeated and steps.again(err) then
    self.repeated, self.pause = true, 0
    return true
  end
  if not is_repeatable(self.operation, err, self.sent) or seconds > LONGEST_RETRY
    or (self.deadline and wait.now() + seconds >= self.deadline)
    or (steps.replay and not steps.replay()) then
    return false
  end
  self.pause = seconds
  wait.wait(nil, wait.now() + seconds)
  return true
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
--   an error is one that a second request, from the start, may mend
-- @return true, the two results of `drive` and how many requests went out; or nil
--   and an error
function call.perform(env, operation, options, steps)
  local timeout = options.timeout or env.timeout
  local self = setmetatable({
    env = env, operation = operation, steps = steps, deadline = timeout and wait.now() + timeout,
    attempts = 0, tries = 0, waited = 0, pause = 0,
  }, attempt)
  local entered, place = wait.enter()
  if not entered then return nil, failure(place, 0) end
  while true do
    local transfer, err = self:begin()
    if not transfer then
      err = failure(err, self.attempts)
      if self.unknown then err.outcome_unknown = true end
      return nil, err
    end
    local ok, a, b = self:run(transfer)
    if ok then
      pace.answered(env)
      return true, a, b, self.attempts
    end
    err = a
    -- gone by an attempt whose reply was lost
    if operation == "delete" and err.status == 404 and self.unknown then return true, nil, nil, self.attempts end
    if not self:goes_on(err) then
      if self.unknown then err.outcome_unknown = true end
      return nil, err
    end
  end
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
    local reply = json.decode(transfer:body())
    local result, problem
    if reply then
      result, problem = read(reply)
    else
      problem = "json"
    end
    if result == nil then
      return nil, { kind = "protocol", status = transfer:head(), reason = problem,
                    outcome_unknown = changes }
    end
    return true, result
  end
end

return call
