-- SPDX-License-Identifier: MIT
-- Sessions: nginx checks the password once (auth_basic in nginx.conf), and a random cookie stands
-- for the user until the session ends.

local session = {}

-- Seconds until a session ends: without a request, and in any case.
local IDLE, LONGEST = 1800, 43200

local COOKIE = "nymbl_session"

local sessions = ngx.shared.sessions -- of all workers; they survive a reload, but not a restart

local function random_token()
  local file = assert(io.open("/dev/urandom", "rb"))
  file:setvbuf "no"
  local bytes = file:read(32)
  file:close()
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function set_cookie(value, seconds)
  -- a browser sends a Secure cookie only over TLS (ngx.var.origin is in nginx.conf)
  local secure = ngx.var.origin:find "^https:" and "; Secure" or ""
  ngx.header.set_cookie = ("%s=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Strict%s"):format(COOKIE, value, seconds,
    secure)
end

local function token()
  local value = ngx.var["cookie_" .. COOKIE]
  return value and value:match "^%x+$"
end

--- Begin a session of a user.
function session.begin(user)
  local new = random_token()
  assert(sessions:set(new, user, IDLE, ngx.time()))
  set_cookie(new, LONGEST)
end

--- The user of the request's session, or nil.
function session.user()
  local current = token()
  if not current then return nil end
  local user, began = sessions:get(current)
  if not user then return nil end
  if ngx.time() - began > LONGEST then
    sessions:delete(current)
    return nil
  end
  sessions:expire(current, IDLE)
  return user
end

--- End the request's session.
function session.finish()
  local current = token()
  if current then sessions:delete(current) end
  set_cookie("", 0)
end

--- Prepare a login: turn the form's user and password into the header that nginx's auth_basic
-- checks next. Runs before it, in the rewrite phase.
function session.read_login()
  ngx.req.clear_header "Authorization"
  ngx.req.read_body()
  local given = ngx.req.get_body_data() and ngx.req.get_post_args(3) or {}
  local user, password = given.user, given.password
  if type(user) ~= "string" or type(password) ~= "string" or user:find "[%z\1-\31:]" then return end
  ngx.req.set_header("Authorization", "Basic " .. ngx.encode_base64(user .. ":" .. password))
end

return session
