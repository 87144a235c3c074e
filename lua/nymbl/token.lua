-- SPDX-License-Identifier: MIT
-- Bearer tokens: given, asked of a function, or by client credentials.
--
-- A token source is a function `(deadline, stale, need)`: it gives a token that
-- is not `stale` and has `need` seconds left, or nil and what is known of a failure, or plain nil
-- where there is no other token to be had. With each comes a function that gives the
-- token that is at hand and good, or nil: it never waits.

local call = require "nymbl.call"
local core = require "nymbl.core"
local errors = require "nymbl.errors"
local json = require "nymbl.json"
local pace = require "nymbl.pace"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

local token = {}

-- Used where the service does not say (the guide, "Authentication": 5 minutes).
local DEFAULT_LIFE = 300
local LONGEST_LIFE = 24 * 3600

--- What may stand behind "Bearer " (RFC 6750, 2.1, and some more).
function token.is_valid(value)
  return type(value) == "string" and value:find("^[!-~]+$") ~= nil and #value <= 16384
end

--- A token as it is.
function token.given(value)
  return function(_, stale)
    if stale == value then return nil end
    return value
  end, function()
    return value
  end
end

-- Ahead of the end by a fifth of its life, a minute at most, so that no request
-- goes out with a token that dies on the way.
local function lead(life)
  return math.min(60, life / 5)
end

-- Whoever renews holds a lease, which is short, so that one who dies is not waited
-- for, and kept alive while he waits for the service: never are there two at a time.
-- A request that takes too long is given up.
local LEASE = 3
local BEAT = 1
local LONGEST_RENEWAL = 15
local POLL = 1 / 20

-- A renewal ahead that failed is not tried again at once: meanwhile the old token
-- serves, and nobody waits for an endpoint that is down. Credentials that were rejected
-- are not tried again at once either.
local HOLD = 5

-- A failure is kept with the state, for the callers that wait for the renewal: as one text
-- of its fixed words and numbers. What the server said is not among them.

local function failure_text(err)
  return ("%s %s %s %s"):format(err.kind, err.reason or "-", err.status and ("%d"):format(err.status) or "-",
    err.retry_after and ("%d"):format(math.ceil(err.retry_after)) or "-")
end

-- The same as what is known of a failure, `age` seconds later.
local function failure_read_text(text, age)
  local kind, reason, status, retry_after = text:match("^([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)$")
  if not kind then return { kind = "protocol", reason = "token_response", operation = "token" } end
  retry_after = tonumber(retry_after)
  return {
    kind = kind, reason = reason ~= "-" and reason or nil, status = tonumber(status), operation = "token",
    retry_after = retry_after and math.max(0, retry_after - age),
  }
end

-- Failures of the caller that renews, which say nothing of the service: another one may
-- have more luck.
local OWN = { canceled = true, context = true, io = true, misuse = true, no_memory = true }

-- Functions of the state kept under a token's key; a store runs them alone.

-- Seconds that a token still lives.
local function left_of(state, now, stale)
  local left = state.value and state.value ~= stale and state.dies - now or 0
  if left > math.min(state.life or 0, LONGEST_LIFE) then return 0 end -- stored by another clock
  return left
end

-- The token, where it need not be renewed yet.
local function at_hand(state, now)
  return left_of(state, now) > 0 and now < state.renew and state.value or nil
end

-- The failure that a caller shares which has waited `since`, or which anybody shares; and
-- its age.
local function failure_of(state, now, since)
  local at, till = state.failed_at, state.failed_until
  if not state.failure or not at or at > now then return nil end
  if (since and at >= since) or (till and now < till and till <= now + HOLD) then return state.failure, now - at end
end

-- A token that may be used; or nil, how long somebody else's renewal may take, and the
-- time; or nil, a failure that is shared, as a text, and its age; or false, the number of a
-- turn, in which the caller is to renew, and seconds that the old one still serves.
-- `since`: the time at which the caller began to wait.
local function look(state, now, lease, stale, need, since)
  local left = left_of(state, now, stale)
  -- a token must serve for half its life at least, or every call would renew it
  local enough = left > 0 and left >= math.min(need, state.life / 2)
  if enough and now < state.renew then return state.value end
  local failure, age = failure_of(state, now, since)
  if failure then
    if left > 0 then return state.value end
    return nil, failure, age
  end
  if state.lease and state.lease > now and state.lease <= now + lease then
    if enough then return state.value end -- the old one, while it lives
    return nil, state.lease - now, now
  end
  state.lease, state.turn = now + lease, (state.turn or 0) % 1e6 + 1 -- of few digits, whatever is kept
  return false, state.turn, left > 0 and left or nil
end

-- Of one who is late, and whose turn was taken by another, nothing more is taken.

local function keep(state, now, turn, lease)
  if state.turn == turn then state.lease = now + lease end
end

local function put(state, now, turn, value, life)
  if state.turn ~= turn then return end
  state.value, state.life, state.dies, state.renew, state.lease = value, life, now + life, now + life - lead(life), nil
  state.failure, state.failed_at, state.failed_until = nil, nil, nil
end

-- A renewal that failed: the old one serves while it lives. `failure` is shared by those
-- who wait for this renewal, and for `hold` seconds by all; nil for none that is.
local function give_up(state, now, turn, stale, failure, hold)
  if state.turn == turn then
    state.lease = nil
    if failure then state.failure, state.failed_at, state.failed_until = failure, now, hold and now + hold end
  end
  if state.value and state.value ~= stale and now < state.dies then
    state.renew = math.max(state.renew, now + HOLD)
    return state.value
  end
end

-- Keeps what `fetch(deadline, await, once)` gives: a token and seconds it lives (nil:
-- not to be kept). With `await`, as wait.wait, a lease that is shorter is kept alive.
-- `once`: it may fail, for there is another. `limit`: the time at which the caller has
-- waited long enough, for others too. A third result says that it failed for want of the
-- caller's own time.
--
-- Callers that wait for a renewal share its failure: else each would take its turn, one
-- after another, at an endpoint that is down. `traits`: `raised`, what others share if
-- `fetch` raises; `remembers`, whether rejected credentials are remembered.
local function cached(keeper, key, lease, fetch, traits)
  local function renew(deadline, stale, turn, left, limit)
    local function await(transfer, till)
      while true do
        local now = wait.now()
        local news, err = wait.wait(transfer, math.min(till, now + BEAT))
        if news ~= false then return news, err end
        keeper:update(key, till, keep, turn, lease)
        if wait.now() >= till then return false end
      end
    end
    if left then -- the old one is to serve after this fails, within the same call
      local now = wait.now()
      deadline = now + math.min(left, deadline and deadline - now or left) / 2
    end
    local ran, fresh, life, is_own = pcall(fetch, deadline, await, left ~= nil, limit)
    if ran and fresh and life then
      keeper:update(key, deadline, put, turn, fresh, life) -- a store that fails takes no token away
      if fresh == stale then return nil end
      return fresh
    end
    local failure, hold
    if not ran then
      failure = traits.raised and not errors.is_out_of_memory(fresh) and failure_text(traits.raised)
    elseif not fresh and not OWN[life.kind] and (left or not is_own) then
      failure, hold = failure_text(life), traits.remembers and life.kind == "unauthorized" and HOLD or nil
    end
    local old = keeper:update(key, deadline, give_up, turn, stale, failure or nil, hold)
    if not ran then error(fresh, 0) end
    if fresh then
      if fresh == stale then return nil end
      return fresh
    end
    if old then return old end
    return nil, life
  end
  return function(deadline, stale, need)
    local began, since = wait.now(), nil
    while true do
      local value, left, third = keeper:update(key, deadline, look, lease, stale, need or 0, since)
      if value then return value end
      if value == false then
        -- who has waited for others does not wait as long again
        local limit = since and math.max(began + LONGEST_RENEWAL, wait.now() + LEASE)
        return renew(deadline, stale, left, third, limit or math.huge)
      end
      if type(left) == "table" then return nil, left end -- the store failed
      if type(left) == "string" then return nil, failure_read_text(left, third) end
      since = since or third
      local now = wait.now()
      if deadline and now >= deadline then
        return nil, { kind = "timeout", reason = "token_wait", operation = "token" }
      end
      local waited, err = wait.wait(nil, math.min(now + math.min(left, POLL), deadline or math.huge))
      if waited == nil then return nil, err end
    end
  end, function()
    return (keeper:update(key, wait.now(), at_hand))
  end
end

-- Seconds as a number or as digits; nil where it is neither. (tonumber() knows a locale.)
local function seconds_of(value)
  if type(value) == "string" then value = tonumber(value:match("^([0-9]+)%.?[0-9]*$")) end
  return type(value) == "number" and value > 0 and value or nil
end

--- Ask a function for `token, expires_in`; without `expires_in` for every request.
-- What it gives never enters a store that is shared.
function token.from_function(ask)
  return cached(store.memory(), "token", LONGEST_RENEWAL, function()
    local value, life = ask()
    if value == nil or value == false then
      return nil, { kind = "unauthorized", reason = "token_function", operation = "token",
                    detail = type(life) == "string" and life or nil }
    end
    if not token.is_valid(value) then
      return nil, { kind = "unauthorized", reason = "token_function", operation = "token" }
    end
    life = seconds_of(life)
    return value, life and math.min(life, LONGEST_LIFE)
  end, { raised = { kind = "unauthorized", reason = "token_function" } })
end

local function reply_read(reply)
  if not reply or not token.is_valid(reply.access_token) then return nil end
  local kind = reply.token_type
  if type(kind) == "string" and core.lower(kind) ~= "bearer" then return nil end
  return reply.access_token, math.min(seconds_of(reply.expires_in) or DEFAULT_LIFE, LONGEST_LIFE)
end

local function failure_read(err, reply)
  -- the endpoint's 400 is about the credentials (RFC 6749, 5.2)
  if err.status == 400 then err.kind = "unauthorized" end
  if reply and type(reply.error) == "string" then
    err.code = reply.error
    err.detail = type(reply.error_description) == "string" and reply.error_description or nil
  end
  return err
end

-- Tell the script of a token request, as of any other; an error raised in it goes on.
local function tell(env, transfer, err, try, waited, seconds)
  local _, bytes_sent, bytes_received = transfer:counts()
  env.on_event {
    operation = "token", status = err and err.status or transfer:head() or nil, kind = err and err.kind,
    attempt = try, waited = waited, seconds = seconds, bytes_sent = bytes_sent, bytes_received = bytes_received,
  }
end

-- One token request (RFC 6749, 4.4). It counts as no attempt of the call.
local function request(env, deadline, await, try, waited)
  local transfer, err = core.token(env.client)
  if not transfer then
    err.operation = "token"
    return nil, err
  end
  local began = wait.now()
  local function drive()
    local done, value, life
    repeat
      done, err = transfer:result()
      if done == false and not await(transfer, deadline) then call.end_late(transfer) end
    until done ~= false
    local reply, problem = json.decode_response(transfer:body())
    if not done then
      err = failure_read(err, reply)
    else
      value, life = reply_read(reply)
      if not value then
        if problem ~= "response_too_long" then problem = "token_response" end
        err = { kind = "protocol", reason = problem, status = 200 }
      end
    end
    if env.on_event then tell(env, transfer, err, try, waited, wait.now() - began) end
    return value, life
  end
  local ran, value, life = pcall(drive)
  wait.close(transfer)
  if not ran then error(value, 0) end
  if err then
    err.operation = "token"
    return nil, err
  end
  return value, life
end

--- OAuth 2.0 client credentials, which the client userdata holds. A request that
-- changes nothing is repeated as any other, as often as a call may be.
-- @tparam table env the client's environment
-- @param keeper the store that keeps the token
-- @tparam string key under which it is kept there
function token.from_credentials(env, keeper, key)
  return cached(keeper, key, LEASE, function(deadline, await, once, limit)
    -- where pace and quota cannot be kept, no token is asked for either
    local usable, problem = true, nil
    if keeper ~= env.store then usable, problem = pace.look(env, deadline) end
    if env.closed then return nil, { kind = "canceled", reason = "closed" } end
    if not usable then return nil, problem end
    local try, waited = 1, 0
    while true do
      local till = math.min(wait.now() + LONGEST_RENEWAL, limit)
      if deadline and deadline < till then till = deadline end
      local value, life = request(env, till, await, try, waited) -- life: or what is known of a failure
      if not value and life.reason == "deadline" then
        if till == deadline then return nil, life, true end
        life.reason = "token_wait"
        return nil, life
      end
      -- who waits does so for one timeout, not for several
      if value or once or try >= env.max_attempts or life.kind == "timeout" or not call.is_passing(life) then
        return value, life
      end
      waited = call.backoff(try, life)
      if deadline and wait.now() + waited >= deadline then return nil, life, true end
      local again = wait.now() + waited
      repeat
        await(nil, math.min(again, wait.now() + BEAT))
        if env.closed then return nil, { kind = "canceled", reason = "closed" } end
      until wait.now() >= again
      try = try + 1
    end
  end, { remembers = true })
end

return token
