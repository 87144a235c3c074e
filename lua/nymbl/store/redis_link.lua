-- SPDX-License-Identifier: MIT
-- The link to a Redis: it asks for changes (redis_script.lua), and tells of changes.
--
-- Asking. A change is one round trip. Each has a number of its own, also if it is asked for again:
-- if the connection breaks, the change may have been made or not, and then Redis returns the stored
-- results instead of making it again. The reply has the number, too: if it has another one, the
-- connection is out of step, and the change is asked for over a new one. Each has a last moment, by
-- the server's clock, after which Redis does not make it: otherwise a stopped Redis would, when it
-- continues, make changes whose callers have given up.
--
-- Telling. A change that is told has no number, because it is not asked for again. If there is no
-- connection, it is kept for the next one.
--
-- Connections. All coroutines share one, and their requests are sent without waiting for each
-- other's replies. Over a new connection the first request is for the server's clock: it may be
-- another server than before.
--
-- A `connection` has
--   line      the binding's (lua/line.c)
--   server    the entry of `servers` that it leads to: what parse() of redis_options.lua returned;
--             after a failure, `failed_at` and `err`; and `silent_since` of a connection that was lost
--   caller    random digits, with which the numbers of changes begin
--   count     the number of changes that have got a number
--   offset    seconds by which the server's clock is ahead of wait.now(), at least; or nil before the
--             first reply
--   has_script   whether the server knows the script: true, false, or nil if that is not known
--   heard_at  when the last reply arrived, or nil
--   silent_since   when the first request after that was sent, or nil
--
-- A `request` is a change to ask for: what redis_script.words returned, and `key` and `number`.
--
-- An error table has, besides `kind` and `reason`,
--   is_down   the server is unreachable or silent
--   is_lost   the connection is of no use any more
--   is_next   another server may be able to make the change, or the same one after a while

local core = require "nymbl.core"
local deferred = require "nymbl.store.deferred"
local events = require "nymbl.events"
local json = require "nymbl.json"
local redis_script = require "nymbl.store.redis_script"
local resp = require "nymbl.store.resp"
local wait = require "nymbl.wait"

local unpack = table.unpack or unpack -- luacheck: ignore

local redis_link = {}
redis_link.__index = redis_link

-- Seconds for which a server that has failed is passed over, if there are others.
local PASS_OVER = 5

-- Seconds after which a server that has failed is tried again anyway, if no other one is left.
local RETRY = 1 / 2

-- Seconds without a request after which a connection is closed.
local IDLE_TIMEOUT = 60

-- Seconds that a change takes if all is well. A longer wait is reported to on_wait.
local USUAL = 1 / 20

-- Seconds between two attempts to send a request while too many have no reply.
local FULL_PAUSE = 1 / 100

-- Seconds for which a change that was told may be made.
local TELL_TIMEOUT = 60

-- The digest by which Redis knows the script. Redis computes it.
local digest

-- The options of core.line_open.
local function line_options(server, username, password, ca_file)
  local greeting, replies = "", 0
  if password then
    greeting = username and resp.command { "AUTH", username, password } or resp.command { "AUTH", password }
    replies = 1
  end
  if server.db then greeting, replies = greeting .. resp.command { "SELECT", server.db }, replies + 1 end
  return {
    host = server.host, port = server.port, tls = server.tls, unix_path = server.unix_path,
    ca_file = server.tls and ca_file or nil, idle_timeout = IDLE_TIMEOUT,
    greeting = replies > 0 and greeting or nil, greeting_replies = replies,
  }
end

-- Make a link. Connects to nothing.
-- @tparam table servers see redis_options.lua
-- @tparam table options the options of nymbl.store.redis
function redis_link.new(servers, options)
  local username, password, ca_file = options.username, options.password, options.ca_file
  return setmetatable({
    servers = servers,
    prefix = options.prefix or "nymbl:",
    timeout = options.timeout or 1,
    told = deferred.new(),
    connection = nil,
    offset = 0, -- that of the last connection
    -- a function, so that no dump of tables shows the password
    line_options = function(server) return line_options(server, username, password, ca_file) end,
  }, redis_link)
end

-- The server's time, as far as it is known.
function redis_link:now()
  return wait.now() + self.offset
end

-- ---- errors ----

local function down()
  return { kind = "io", reason = "store_down", is_down = true, is_lost = true, is_next = true }
end

-- The server has not answered, which says nothing about it: there was not enough time.
local function late()
  return { kind = "io", reason = "store_down" }
end

-- The reply belongs to another request, and so would all later ones.
local function out_of_step()
  return { kind = "io", reason = "store_protocol", is_lost = true, is_next = true }
end

-- The store's error for the failure of a transfer.
local function error_of_transfer(err)
  if err.kind == "tls" then return { kind = "io", reason = "store_certificate", is_lost = true } end
  if err.kind == "protocol" then return { kind = "io", reason = "store_protocol", is_lost = true } end
  if err.kind == "io" and err.reason then return err end
  return down()
end

-- The store's error for an unexpected reply.
-- @tparam ?string message of the server; nil if the reply makes no sense
local function error_of_reply(message)
  if not message then return { kind = "io", reason = "store_protocol", is_lost = true } end
  local reason = resp.reason(message)
  return { kind = "io", reason = reason, is_next = reason == "store_down" or reason == "store_readonly" }
end

-- ---- connections ----

-- Choose the server to connect to: the first one that has not failed of late; or if all have,
-- the one that failed first. Returns nil and the time of the next attempt if it is too early.
local function choose_server(servers, now)
  local first = servers[1]
  for _, server in ipairs(servers) do
    if not server.failed_at or (now - server.failed_at >= PASS_OVER and #servers > 1) then return server end
    if server.failed_at < first.failed_at then first = server end
  end
  if now - first.failed_at >= RETRY then return first end
  return nil, first.failed_at + RETRY, first.err
end

-- Returns 32 random hexadecimal digits; or nil and an error table.
local function random_digits()
  local file = io.open("/dev/urandom", "rb")
  local bytes = file and file:setvbuf("full", 16) and file:read(16)
  if file then file:close() end
  if not bytes or #bytes < 16 then return nil, { kind = "io", reason = "entropy" } end
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

-- The connection, opened if there is none. Returns nil, the time of the next attempt and the last
-- error if it is too early to connect again.
function redis_link:get_connection()
  local connection = self.connection
  if connection and connection.line:is_open() then return connection end
  self:disconnect()
  local server, retry_at, problem = choose_server(self.servers, wait.now())
  if not server then return nil, retry_at, problem end
  local caller, err = random_digits()
  if not caller then return nil, nil, err end
  local line
  line, err = core.line_open(self.line_options(server))
  if not line then return nil, nil, error_of_transfer(err) end
  self.connection = { line = line, server = server, caller = caller, count = 0, silent_since = server.silent_since }
  server.silent_since = nil
  return self.connection
end

function redis_link:disconnect()
  local connection = self.connection
  self.connection = nil
  if connection then connection.line:close() end
end

-- A server has failed. Nothing is known of it if the connection is not the current one.
function redis_link:server_failed(connection, err)
  if connection ~= self.connection then return end
  connection.server.failed_at, connection.server.err = wait.now(), err
  self:disconnect()
end

-- The share of the time until `till` that the current server gets, as the time when it ends: if it
-- does not answer, the others must have some time, too.
function redis_link:slice_end(till)
  local now, candidates = wait.now(), 0
  for _, server in ipairs(self.servers) do
    if not server.failed_at or now - server.failed_at >= PASS_OVER then candidates = candidates + 1 end
  end
  return now + (till - now) / math.max(1, candidates)
end

-- ---- requests ----

-- Wait for the reply to a request. Returns it; or nil and an error table; or only nil if it has not
-- arrived.
local function wait_for_reply(transfer, till)
  local report_at, is_reported, _, problem = wait.now() + USUAL, false, nil, nil
  local done, err = transfer:result()
  while done == false and not problem and wait.now() < till do
    if not is_reported and wait.now() >= report_at then
      events.begin_wait "store"
      is_reported = true
    end
    _, problem = wait.wait(transfer, is_reported and till or math.min(till, report_at))
    done, err = transfer:result()
  end
  if is_reported then events.end_wait() end
  if problem then return nil, problem end
  if done == false then -- perhaps this process was stopped, and not the server
    wait.poll()
    done, err = transfer:result()
  end
  if done then return transfer:body() end
  return nil, done == nil and error_of_transfer(err) or nil
end

-- The error if a reply has not arrived. A call with little time of its own says nothing about the
-- server.
-- @tparam number sent_at when the request was sent
function redis_link:silence(connection, sent_at)
  local now, patience = wait.now(), 19 / 20 * self.timeout / #self.servers
  local since = math.min(connection.silent_since or math.huge, math.max(sent_at, connection.heard_at or sent_at))
  return now - since >= patience and down() or late()
end

-- Send a request. While too many have no reply, this waits. Returns a transfer; or nil and an error
-- table; or only nil if the time is over.
local function send_request(line, bytes, till)
  while true do
    local transfer, err = line:request(bytes)
    if transfer then return transfer end
    if err.reason ~= "line_full" then return nil, error_of_transfer(err) end
    if wait.now() >= till then return nil end
    local waited
    waited, err = wait.wait(nil, math.min(till, wait.now() + FULL_PAUSE))
    if waited == nil then return nil, err end
  end
end

-- Send a request, and wait for its reply. Returns it; or nil and an error table.
-- @tparam ?boolean is_whole whether the request has the script
function redis_link:exchange(connection, bytes, till, is_whole)
  local sent_at = wait.now()
  local transfer, err = send_request(connection.line, bytes, till)
  if not transfer then return nil, err or self:silence(connection, sent_at) end
  if is_whole then connection.has_script = true end -- when the server gets the next request
  sent_at = wait.now()
  local silent_since = connection.silent_since
  -- the reply for which a caller gave up waiting may have arrived later: that is not known
  if not silent_since or sent_at - silent_since >= self.timeout then connection.silent_since = sent_at end
  local ran, reply
  ran, reply, err = pcall(wait_for_reply, transfer, till)
  wait.release(transfer)
  if not ran then error(reply, 0) end
  if not reply then return nil, err or self:silence(connection, sent_at) end
  connection.heard_at, connection.silent_since = wait.now(), nil
  connection.server.failed_at = nil
  return reply
end

local function state_key(self, key)
  return ("%s{%s}:v%d"):format(self.prefix, key, redis_script.VERSION)
end

-- The server's clock is at `time`, or was, when its reply was on its way.
function redis_link:set_clock(connection, time)
  connection.offset = time - wait.now()
  if connection == self.connection then self.offset = connection.offset end
end

-- The command that asks for the server's clock.
function redis_link:clock_command(key)
  local text = digest and "" or redis_script.text()
  return resp.command { "EVAL", redis_script.GREETING, "1", state_key(self, key) .. ":none", text }
end

-- Read the reply to that command. Returns true; or nil and an error table.
function redis_link:read_clock(connection, reply)
  local answer, message = resp.read(reply)
  if not answer then return nil, error_of_reply(message) end
  local list = json.decode(answer)
  local text = list and list[2]
  if not list or not redis_script.is_time(list[1]) or type(text) ~= "string" then return nil, error_of_reply() end
  if text ~= "" and not text:find("^[0-9a-f]+$") then return nil, error_of_reply() end
  digest = text ~= "" and text or digest
  if not digest then return nil, error_of_reply() end
  self:set_clock(connection, list[1])
  return true
end

-- Make a request.
-- @raise if the change is not one of this library's
function redis_link.request(key, change, ...)
  local request = { key = key }
  request.module, request.name, request.count, request.arguments = redis_script.words(change, ...)
  return request
end

-- The command for a change.
-- @tparam boolean is_whole whether it has the script, or only its digest
-- @tparam ?string number of the change
-- @tparam number last_moment in the server's time
function redis_link:change_command(request, is_whole, number, last_moment)
  local words = { is_whole and "EVAL" or "EVALSHA", is_whole and redis_script.text() or digest, number and "2" or "1",
                  state_key(self, request.key) }
  if number then words[#words + 1] = ("%s{%s}:%s"):format(self.prefix, request.key, number) end
  for _, word in ipairs { request.module, request.name, redis_script.moment(last_moment), request.count,
                          request.arguments } do
    words[#words + 1] = word
  end
  return resp.command(words)
end

-- Tell the server of a change. Returns whether it was sent.
function redis_link:send(connection, request)
  local last_moment = wait.now() + connection.offset + TELL_TIMEOUT
  local is_whole = not connection.has_script -- no reply would show that it is unknown
  local is_sent = connection.line:send(self:change_command(request, is_whole, nil, last_moment))
  if is_sent then connection.has_script = true end
  return is_sent
end

-- Tell the server what could not be told before. What cannot be sent is kept, in its order.
function redis_link:send_told(connection, key)
  local list = self.told:list(key)
  if not list then return end
  self.told:clear(key)
  local is_sent = true
  for _, item in ipairs(list) do
    is_sent = is_sent and self:send(connection, redis_link.request(key, item.change, unpack(item, 1, item.count)))
    if not is_sent then self.told:add(key, item.change, unpack(item, 1, item.count)) end
  end
end

-- Ask for a change over a connection. Returns the results; or nil and an error table; or only nil
-- if it must be asked for again, because the server thinks that it is too late, or has lost the
-- script.
function redis_link:ask_over(connection, request, till)
  local slice_end = self:slice_end(till)
  if not connection.offset then
    local reply, err = self:exchange(connection, self:clock_command(request.key), slice_end)
    if not reply then return nil, err end
    local ok
    ok, err = self:read_clock(connection, reply)
    if not ok then return nil, err end
  end
  self:send_told(connection, request.key)
  if not request.number then
    connection.count = connection.count + 1
    request.number = ("%s:%d"):format(connection.caller, connection.count)
  end
  local is_whole = connection.has_script == false
  local command = self:change_command(request, is_whole, request.number, till + connection.offset)
  local reply, err = self:exchange(connection, command, slice_end, is_whole)
  if not reply then return nil, err end
  local answer, message = resp.read(reply)
  if message and resp.is_no_script(message) then
    connection.has_script = false
    return nil
  end
  if not answer then return nil, error_of_reply(message) end
  local time, results = redis_script.read(request.name, request.number, answer)
  if not time then return nil, results and out_of_step() or error_of_reply() end
  connection.has_script = true
  self:set_clock(connection, time)
  return results
end

-- After an error: prepare for another attempt, if there may be one. Returns whether there may.
-- @tparam boolean was_good whether the connection has worked before
-- @tparam boolean is_first whether no other connection was lost during the change
function redis_link:handle_error(connection, err, was_good, is_first)
  -- the server, or something between, may have closed the connection only for being idle
  local is_excused = err.is_lost and err.is_next and was_good and is_first
  if is_excused then connection.server.silent_since = connection.silent_since end -- for the next connection
  if err.is_next and not is_excused then
    self:server_failed(connection, err)
  elseif err.is_lost and connection == self.connection then
    self:disconnect()
  end
  return err.is_next
end

-- Wait until the next attempt to connect. Returns true; or nil and an error table.
local function wait_until(time)
  events.begin_wait "store"
  local waited, err = wait.wait(nil, time)
  events.end_wait()
  if waited == nil then return nil, err end
  return true
end

-- Ask for a change until it is made, or the time is over. Returns the results; or nil and an error
-- table.
function redis_link:ask(request, till)
  local last_err, is_first = nil, true
  repeat
    local connection, retry_at, err = self:get_connection()
    if connection then
      local was_good = connection.offset ~= nil
      local results
      results, err = self:ask_over(connection, request, till)
      if results then return results end
      if err and not self:handle_error(connection, err, was_good, is_first) then return nil, err end
      if err then last_err, is_first = err, false end
    else
      last_err = err
      if not (retry_at and retry_at < till) then return nil, err end
      local ok
      ok, err = wait_until(retry_at)
      if not ok then return nil, err end
    end
  until wait.now() >= till
  return nil, last_err or late()
end

-- Tell the server of a change, or keep it for the next time that the server is asked.
function redis_link:tell(key, change, ...)
  local connection = self.connection
  local is_ready = connection and connection.offset and connection.line:is_open() and not self.told:list(key)
  if not (is_ready and self:send(connection, redis_link.request(key, change, ...))) then
    self.told:add(key, change, ...)
  end
end

-- Whether the server is back: asks it now and then, without waiting for the reply. If it answers with
-- an error that will remain, it is back: then it is time to report that error.
function redis_link:is_back(key)
  local probe = self.probe
  if not probe then
    local connection = self:get_connection()
    local transfer = connection and connection.line:request(self:clock_command(key))
    if transfer then
      self.probe = { connection = connection, transfer = transfer, till = wait.now() + self.timeout }
    end
    return false
  end
  wait.poll()
  local done = probe.transfer:result()
  if done == false and wait.now() < probe.till then return false end
  local reply, ok, err = done and probe.transfer:body(), nil, down()
  self:drop_probe()
  if reply then ok, err = self:read_clock(probe.connection, reply) end
  if ok or not err.is_next then return true end
  self:server_failed(probe.connection, err)
  return false
end

function redis_link:drop_probe()
  if self.probe then wait.release(self.probe.transfer) end
  self.probe = nil
end

-- Close the connection. It is opened again if it is needed.
function redis_link:close()
  self:drop_probe()
  self:disconnect()
end

return redis_link
