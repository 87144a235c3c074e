-- SPDX-License-Identifier: MIT
-- The handlers of nginx.conf: they stream a patient's documents between the client and the
-- service.

local cjson = require("cjson").new()
local nymbl = require "nymbl"

-- Maximum number of bytes read from a client at once.
local CHUNK = 65536

-- Timeouts in seconds: for a transfer to or from a client, for any other call, and for
-- discarding the rest of an unwanted body. nginx.conf has the idle timeouts.
local TRANSFER = 900
local CALL = 60
local LINGER = 30

-- Number of documents in a listing that are sent to the client at once.
local PAGE = 100

-- false for tests against a service without limits; nil for the library's defaults.
local limits
if os.getenv "GATEWAY_LIMITS" == "off" then limits = false end

-- Created before the workers start; it connects on first use in a worker.
local client = assert(nymbl.client {
  base_url = os.getenv "NYMBL_BASE_URL",
  api_key = os.getenv "NYMBL_API_KEY",
  ca_file = os.getenv "NYMBL_CA_FILE",
  credentials = {
    token_url = os.getenv "NYMBL_TOKEN_URL",
    client_id = os.getenv "NYMBL_CLIENT_ID",
    client_secret = os.getenv "NYMBL_CLIENT_SECRET",
    scope = os.getenv "NYMBL_SCOPE",
  },
  timeout = CALL,
  max_connections = 64, -- a slow client keeps a connection busy
  store = nymbl.store.shdict "nymbl",
  rate = limits,
  monthly_quota = limits,
})

-- Failures -----------------------------------------------------------------------------------------

-- The caller's mistakes keep their status. Problems between gateway and service are a bad
-- gateway, and so are wrong credentials (401, 403).
local STATUS = {
  bad_request = 400, not_found = 404, too_large = 413, unsupported_type = 415,
  throttled = 429, quota = 429, timeout = 504, context = 500, internal = 500,
}

-- A failure found by the gateway, in the shape of the library's errors.
local refusal = {}

function refusal.__tostring(err)
  return "gateway: " .. err.kind
end

local function refusal_new(kind, status)
  return setmetatable({ kind = kind, http_status = status }, refusal)
end

local function refuse(kind, status)
  error(refusal_new(kind, status), 0)
end

-- Make an error safe to log: an error table is returned unchanged, a Lua error is reduced to its
-- file and line, because its text may contain anything.
local function to_safe_error(err)
  if type(err) == "table" then return err end
  local location = debug.traceback("", 2):match "[%w_]+%.lua:%d+"
  return setmetatable({ kind = "internal", location = location }, {
    __tostring = function(self) return "gateway: internal, " .. tostring(self.location) end,
  })
end

local function respond(status, value)
  local text = cjson.encode(value) .. "\n"
  ngx.status = status
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #text
  ngx.print(text)
end

local function fail(err)
  ngx.var.problem = tostring(err)
  -- a response that has begun must not look complete
  if ngx.headers_sent then return ngx.exit(ngx.ERROR) end
  local status = err.http_status or STATUS[err.kind] or 502
  if err.retry_after then
    ngx.header.retry_after = math.ceil(err.retry_after)
    if err.kind == "timeout" then status = 503 end -- the rate limit allows the call only after its timeout
  end
  respond(status, {
    kind = err.kind, status = err.status, retry_after = err.retry_after, outcome_unknown = err.outcome_unknown,
  })
end

-- Arguments ----------------------------------------------------------------------------------------

-- The query's arguments. `patterns` maps each name to the pattern that its value must match.
local function arguments(patterns)
  local given = ngx.req.get_uri_args()
  for name, value in pairs(given) do
    local pattern = patterns[name]
    if not pattern or type(value) ~= "string" or not value:find(pattern) then refuse "bad_request" end
  end
  return given
end

local TEXT, NAME, WHOLE_NUMBER = "^[^%z]+$", "^[^%c]+$", "^%d" .. ("%d?"):rep(14) .. "$"
local UPLOAD = { file_name = NAME, document_type = NAME, description = TEXT }
local LIST = { filter = TEXT, orderby = TEXT, top = WHOLE_NUMBER, skip = WHOLE_NUMBER }

local function patient()
  return client:patient(ngx.var.patient)
end

-- Uploads ------------------------------------------------------------------------------------------

-- A source that reads the client's body.
local function body_source(length)
  local self = { left = length }
  local deadline = ngx.now() + TRANSFER
  local socket
  local function receive()
    if ngx.now() > deadline then return nil, "timeout" end
    if not socket then socket = ngx.req.socket() end
    if not socket then return nil, "closed" end
    return socket:receiveany(math.min(CHUNK, self.left))
  end
  function self.pull()
    if self.left == 0 then return nil end
    local chunk, problem = receive()
    if not chunk then
      self.fault = problem -- reading from the client failed
      return nil, problem
    end
    self.left = self.left - #chunk
    return chunk
  end
  -- After a refusal, discard the rest of the body, so that it is not parsed as the next
  -- request. If it does not end in time, cut the connection.
  function self.discard()
    if not socket then return end -- nginx discards the body
    deadline = math.min(deadline, ngx.now() + LINGER)
    repeat until self.fault or not self.pull()
    if self.left > 0 then ngx.exit(ngx.ERROR) end
  end
  return self
end

local function upload()
  local given = arguments(UPLOAD)
  local media = ngx.var.http_content_type
  if not given.file_name or (media and not media:find(NAME)) then refuse "bad_request" end
  local length = tonumber(ngx.var.http_content_length)
  if not length then refuse("bad_request", 411) end
  local body, target_patient = body_source(length), patient()
  local ran, document, err = xpcall(target_patient.upload, to_safe_error, target_patient, body.pull, {
    file_name = given.file_name, document_type = given.document_type, description = given.description,
    content_type = media, size = length, timeout = TRANSFER,
  })
  if ran and document then
    ngx.header.location = ("/patients/%s/documents/%s"):format(ngx.escape_uri(ngx.var.patient),
      ngx.escape_uri(document.id))
    return respond(201, document:metadata())
  end
  if not ran then err = document end
  if body.fault == "timeout" then
    err = refusal_new("timeout", 408)
  elseif body.fault then
    err = refusal_new("canceled", 499) -- nginx's status for a client that closed the connection
  end
  fail(err)
  ngx.flush(true)
  body.discard()
end

-- Downloads ----------------------------------------------------------------------------------------

-- Stay one chunk behind the service. So the last chunk is sent only when the content is known
-- to be complete, and an immediate failure still gets a response of its own.
local function send(stream)
  local function next_chunk()
    local chunk, err = stream()
    if err then error(err, 0) end
    return chunk
  end
  local deadline = ngx.now() + TRANSFER
  local chunk = next_chunk()
  local following = chunk and next_chunk()
  ngx.header.content_type = stream.content_type or "application/octet-stream"
  ngx.header.content_length = stream.size
  ngx.header.content_disposition = "attachment"
  while chunk do
    if not ngx.print(chunk) or not ngx.flush(true) or ngx.now() > deadline then
      refuse "timeout" -- the client is gone, or too slow
    end
    chunk, following = following, following and next_chunk()
  end
end

local function content()
  local stream = assert(patient():document(ngx.var.document):open())
  local ran, err
  if stream.size or ngx.req.http_version() >= 1.1 then
    ran, err = xpcall(send, to_safe_error, stream)
  else
    -- without length and chunks, the client could not distinguish the end from a broken transfer
    ran, err = pcall(refuse, "protocol", 505)
  end
  stream:close()
  if not ran then error(err, 0) end
end

-- Metadata -----------------------------------------------------------------------------------------

local function list()
  local given = arguments(LIST)
  local query = {
    filter = given.filter, orderby = given.orderby, top = tonumber(given.top), skip = tonumber(given.skip),
  }
  local pieces, separator = {}, '{"documents":['
  local function send_rows()
    ngx.header.content_type = "application/json"
    if not ngx.print(separator, table.concat(pieces, ",\n")) or not ngx.flush(true) then refuse "timeout" end
    pieces, separator = {}, ",\n"
  end
  for document in patient():documents(query) do
    pieces[#pieces + 1] = cjson.encode(document:metadata())
    if #pieces == PAGE then send_rows() end
  end
  if #pieces > 0 or separator ~= ",\n" then send_rows() end
  ngx.say "]}"
end

local function get()
  respond(200, assert(patient():get(ngx.var.document)):metadata())
end

local function delete()
  assert(patient():document(ngx.var.document):delete())
  ngx.status = 204
end

-- Handlers -----------------------------------------------------------------------------------------

-- A handler of the operations by method.
local function handler(operations)
  local allowed = {}
  for method in pairs(operations) do allowed[#allowed + 1] = method end
  table.sort(allowed)
  allowed = table.concat(allowed, ", ")
  return function()
    local operation = operations[ngx.req.get_method()]
    if not operation then
      ngx.header.allow = allowed
      return fail(refusal_new("bad_request", 405))
    end
    ngx.var.operation = operation.name
    local ran, err = xpcall(operation.run, to_safe_error)
    if not ran then fail(err) end
  end
end

return {
  documents = handler { GET = { name = "list", run = list }, POST = { name = "upload", run = upload } },
  document = handler { GET = { name = "get", run = get }, DELETE = { name = "delete", run = delete } },
  content = handler { GET = { name = "download", run = content } },
  too_large = function() fail(refusal_new "too_large") end,
  unknown_path = function() fail(refusal_new "not_found") end,
}
