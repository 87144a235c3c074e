-- SPDX-License-Identifier: MIT
-- The one place where a call gets a token, starts a transfer, waits, and is
-- told from its end what happened.

local check = require "nymbl.check"
local errors = require "nymbl.errors"
local json = require "nymbl.json"
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

local function event_send(env, operation, err, status, attempt, seconds, transfer)
  local _, sent, received = transfer:counts()
  env.on_event {
    operation = operation,
    status = err and err.status or (not err and status) or nil,
    kind = err and err.kind or nil,
    attempt = attempt,
    waited = 0,
    seconds = seconds,
    bytes_sent = sent,
    bytes_received = received,
  }
end

-- An error as the script gets it.
local function failure(err, attempts, transfer)
  if not errors.is(err) then
    if err.kind == "misuse" then check.raise("wrong " .. tostring(err.reason)) end
    if transfer and err.status and err.status >= 300 then words_read(err, json.decode(transfer:body())) end
    errors.new(err)
  end
  err.attempts = attempts
  return err
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
--   that makes a second request possible, or says that none is; `again`: whether
--   an error is one that a second request, from the start, may mend
-- @return true, the two results of `drive` and how many requests went out; or nil
--   and an error
function call.perform(env, operation, options, steps)
  local timeout = options.timeout or env.timeout
  local deadline = timeout and wait.now() + timeout
  local attempts, stale = 0, nil
  local repeated = false
  local refused -- a 401 for which there may be no better token
  while true do
    local bearer, err = env.token(deadline, stale, steps.need)
    if not bearer then
      return nil, err and failure(err, attempts) or refused
    end
    local transfer
    transfer, err = steps.start(bearer, deadline)
    if not transfer then return nil, failure(err, attempts) end
    local began = wait.now()
    local ran, ok, a, b = pcall(steps.drive, transfer, deadline)
    if not ran then
      transfer:close()
      error(ok, 0)
    end
    if transfer:counts() then attempts = attempts + 1 end
    err = not ok and failure(a, attempts, transfer) or nil
    if env.on_event then
      event_send(env, operation, err, ok and transfer:head(), attempts, wait.now() - began, transfer)
    end
    if ok then
      if not steps.keep then transfer:close() end
      return true, a, b, attempts
    end
    transfer:close()
    if steps.again and not repeated and steps.again(err) then
      repeated = true
    else
      if err.status ~= 401 or stale or (steps.replay and not steps.replay()) then return nil, err end
      stale, refused = bearer, err
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
