-- SPDX-License-Identifier: MIT
-- Bearer tokens: given, asked of a function, or by client credentials.
--
-- A token source is a function `(deadline, stale, need)`: it gives a token that
-- is not `stale` and has `need` seconds left, or nil and an error, or plain nil
-- where there is no other token to be had.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local json = require "nymbl.json"
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
  end
end

-- Ahead of the end by a fifth of its life, a minute at most, so that no request
-- goes out with a token that dies on the way.
local function lead(life)
  return math.min(60, life / 5)
end

-- Keeps what `fetch(deadline)` gives: token, seconds it lives (nil: do not keep).
local function cached(fetch)
  local value, dies, renew
  return function(deadline, stale, need)
    local now = wait.now()
    if value and value ~= stale and now < renew and dies - now >= (need or 0) then
      return value
    end
    local fresh, life = fetch(deadline)
    if not fresh then
      -- the old one serves while it lives
      if value and value ~= stale and now < dies then return value end
      return nil, life
    end
    if not life then
      value = nil
      if fresh == stale then return nil end
      return fresh
    end
    if fresh == stale then return nil end
    value, dies, renew = fresh, now + life, now + life - lead(life)
    return fresh
  end
end

--- Ask a function for `token, expires_in`; without `expires_in` for every request.
function token.from_function(ask)
  return cached(function()
    local value, life = ask()
    if value == nil or value == false then
      if errors.is(life) then return nil, life end
      return nil, errors.new { kind = "unauthorized", reason = "token_function",
                               detail = type(life) == "string" and life or nil }
    end
    if not token.is_valid(value) then
      return nil, errors.new { kind = "unauthorized", reason = "token_function" }
    end
    life = tonumber(life)
    if life and not (life > 0) then life = nil end
    return value, life and math.min(life, LONGEST_LIFE)
  end)
end

local function reply_read(reply)
  if not reply or not token.is_valid(reply.access_token) then return nil end
  local kind = reply.token_type
  if type(kind) == "string" and kind:lower() ~= "bearer" then return nil end
  local life = tonumber(reply.expires_in)
  if not life or not (life > 0) then life = DEFAULT_LIFE end
  return reply.access_token, math.min(life, LONGEST_LIFE)
end

local function failure_read(err, reply)
  -- the endpoint's 400 is about the credentials (RFC 6749, 5.2)
  if err.status == 400 then err.kind = "unauthorized" end
  if reply and type(reply.error) == "string" then
    err.code = reply.error
    err.detail = type(reply.error_description) == "string" and reply.error_description or nil
  end
  return errors.new(err)
end

-- One token request (RFC 6749, 4.4). It counts as no attempt of the call.
local function request(client, deadline)
  local transfer, err = core.token(client)
  if not transfer then return nil, errors.new(err) end
  local done
  repeat
    done, err = transfer:result()
    if done == false and not wait.wait(transfer, deadline) then
      transfer:cancel("timeout", "deadline")
    end
  until done ~= false
  local reply = json.decode(transfer:body())
  transfer:close()
  if not done then return nil, failure_read(err, reply) end
  local value, life = reply_read(reply)
  if not value then
    return nil, errors.new { kind = "protocol", reason = "token", status = 200 }
  end
  return value, life
end

--- OAuth 2.0 client credentials, which the client userdata holds.
-- @tparam table env the client's environment
function token.from_credentials(env)
  return cached(function(deadline)
    return request(env.client, deadline)
  end)
end

return token
