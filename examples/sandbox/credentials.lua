-- SPDX-License-Identifier: MIT
-- Access to the API: the key, the OAuth 2.0 client, and the tokens issued to it.

local json = require "json"
local monotime = require "cqueues".monotime
local rand = require "openssl.rand"
local responses = require "responses"

local credentials = {}
credentials.__index = credentials

local function random_hex(bytes)
  return (rand.bytes(bytes):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function random_text(length)
  local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
  local out = {}
  for i = 1, length do
    local at = rand.uniform(#letters) + 1
    out[i] = letters:sub(at, at)
  end
  return table.concat(out)
end

function credentials.new(settings)
  return setmetatable({
    settings = settings,
    api_key = random_text(40),
    client_id = random_text(26):lower(),
    client_secret = random_text(51):lower(),
    scope = "nymbl-customer-api/sandbox",
    admin_key = random_hex(24),
    expiries = {},
  }, credentials)
end

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

local function base64url(bytes)
  local out = {}
  for a, b, c in (bytes .. "\0\0"):gmatch "(.)(.)(.)" do
    local bits = a:byte() * 65536 + b:byte() * 256 + c:byte()
    for shift = 18, 0, -6 do
      local at = math.floor(bits / 2 ^ shift) % 64 + 1
      out[#out + 1] = alphabet:sub(at, at)
    end
  end
  return table.concat(out):sub(1, math.ceil(#bytes * 4 / 3))
end

-- The token only looks like one of the service: its signature is random.
local function token_new(self, life)
  local head = json.object { { "kid", random_hex(16) }, { "alg", "RS256" } }
  local now = os.time()
  local claims = json.object {
    { "sub", self.client_id }, { "token_use", "access" }, { "scope", self.scope },
    { "iat", now }, { "exp", now + math.floor(life) }, { "jti", random_hex(16) },
  }
  return table.concat({
    base64url(json.encode(head)), base64url(json.encode(claims)), base64url(rand.bytes(256)),
  }, ".")
end

--- The response to a token request with the form fields `form`.
function credentials:grant(form)
  if not form or not form.grant_type then
    return responses.token(400, "invalid_request")
  elseif form.grant_type ~= "client_credentials" then
    return responses.token(400, "unsupported_grant_type")
  elseif form.client_id ~= self.client_id or form.client_secret ~= self.client_secret then
    return responses.token(400, "invalid_client")
  elseif form.scope and form.scope ~= self.scope then
    return responses.token(400, "invalid_scope")
  end
  local life = self.settings.token_life
  local token = token_new(self, life)
  self.expiries[token] = monotime() + life
  return responses.json(200, json.object {
    { "access_token", token }, { "expires_in", life }, { "token_type", "Bearer" },
  })
end

--- The gateway's refusal of a request, or nil. Like the real gateway, it checks the token before the key.
function credentials:refusal(request)
  local token = (request:header "authorization" or ""):match "^Bearer ([%w._~+/-]+=*)$"
  local expiry = token and self.expiries[token]
  if not expiry then
    return responses.gateway(401, "Unauthorized")
  elseif expiry <= monotime() then
    return responses.gateway(401, "The incoming token has expired")
  elseif request:header "x-api-key" ~= self.api_key then
    return responses.gateway(403, "Forbidden")
  end
end

--- Expire all tokens. They are still recognized as expired tokens.
function credentials:expire_tokens()
  for token in pairs(self.expiries) do
    self.expiries[token] = 0
  end
end

--- Delete all tokens. They are then unknown.
function credentials:delete_tokens()
  self.expiries = {}
end

return credentials
