-- SPDX-License-Identifier: MIT
-- The handlers of nginx.conf: they stream a patient's documents between the client and the
-- service.

local cjson = require("cjson").new()
local form = require "form"
local http = require "http"
local lrucache = require "resty.lrucache"
local nymbl = require "nymbl"
local session = require "session"

-- Maximum number of bytes read from a client at once.
local CHUNK = 32768

-- Timeouts in seconds: for a transfer to or from a client, for any other call, and for
-- discarding the rest of an unwanted body. nginx.conf has the idle timeouts.
local TRANSFER = 900
local CALL = 60
local LINGER = 30

-- Number of documents in a listing that are sent to the client at once.
local PAGE = 100

-- Types that a browser may show in place. Others could contain scripts, or cannot be shown.
local SHOWN = { ["application/pdf"] = true, ["image/png"] = true, ["image/jpeg"] = true }

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
  headers = function()
    return { ["x-request-id"] = http.request_id(ngx.var.http_x_request_id) or ngx.var.request_id }
  end,
})

-- Failures -----------------------------------------------------------------------------------------

-- The caller's mistakes keep their status. Problems between gateway and service are a bad
-- gateway, and so are wrong credentials (401, 403).
local STATUS = {
  bad_request = 400, not_found = 404, too_large = 413, unsupported_type = 415,
  throttled = 429, quota = 429, timeout = 504, context = 500, internal = 500,
  not_signed_in = 401, wrong_password = 401, cross_site = 403, -- the gateway's own
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
  -- RFC 9110 wants a challenge with 401; browsers show a password prompt for "Basic"
  if status == 401 then ngx.header.www_authenticate = 'Cookie realm="documents"' end
  respond(status, {
    kind = err.kind, reason = err.reason, status = err.status, retry_after = err.retry_after,
    outcome_unknown = err.outcome_unknown,
  })
end

-- Arguments ----------------------------------------------------------------------------------------

-- Check texts by name: `patterns` maps each name to the pattern that its value must match.
local function check(given, patterns)
  for name, value in pairs(given) do
    local pattern = patterns[name]
    if not pattern or type(value) ~= "string" or not value:find(pattern) then refuse "bad_request" end
  end
  return given
end

local function arguments(patterns)
  return check(ngx.req.get_uri_args(), patterns)
end

local TEXT, NAME, WHOLE_NUMBER = "^[^%z]+$", "^[^%c]+$", "^%d" .. ("%d?"):rep(14) .. "$"
local FIELDS = { document_type = NAME, description = TEXT }
local UPLOAD = { file_name = NAME, document_type = NAME, description = TEXT }
local LIST = { filter = TEXT, orderby = TEXT, top = WHOLE_NUMBER, skip = WHOLE_NUMBER }
local CONTENT = { inline = "^1$" }

local function patient()
  return client:patient(ngx.var.patient)
end

-- Documents whose metadata arrived less than KEPT seconds ago, in this worker. A download needs
-- the metadata for file name, size and type, and often follows a listing: this saves a request
-- of the quota.
local KEPT = 60
local recent = assert(lrucache.new(1000))

local function key(id)
  return ngx.var.patient .. "/" .. id -- neither has a "/": see nginx.conf
end

-- The document's size, or nil if the service did not say it.
local function size_of(document)
  local size = document.file_size_bytes
  return type(size) == "number" and size >= 0 and size % 1 == 0 and size or nil
end

local function remember(document)
  if document.file_name and size_of(document) then recent:set(key(document.id), document, KEPT) end
  return document
end

local function find_document()
  return recent:get(key(ngx.var.document)) or remember(assert(patient():get(ngx.var.document)))
end

-- For the log, if the client disconnects from here on, so that it does not learn the outcome.
local UNKNOWN = "gateway: canceled, outcome unknown"

-- Uploads ------------------------------------------------------------------------------------------

-- The client's body. `read()` returns the next bytes; nil at the end; or nil and a problem.
local function body_new(length)
  local self = { left = length }
  local deadline = ngx.now() + TRANSFER
  local socket
  local function receive()
    if ngx.now() > deadline then return nil, "timeout" end
    if not socket then socket = ngx.req.socket() end
    if not socket then return nil, "closed" end
    return socket:receiveany(math.min(CHUNK, self.left))
  end
  function self.read()
    if self.left == 0 then return nil end
    local chunk, problem = receive()
    if not chunk then
      self.fault = problem -- reading from the client failed
      return nil, problem
    end
    self.left = self.left - #chunk
    if self.left == 0 then ngx.var.problem = UNKNOWN end -- the service may soon have all of it
    return chunk
  end
  -- After a refusal, discard the rest of the body, so that it is not parsed as the next
  -- request. If it does not end in time, cut the connection.
  function self.discard()
    if not socket then return end -- nginx discards the body
    local problem = ngx.var.problem
    deadline = math.min(deadline, ngx.now() + LINGER)
    repeat until self.fault or not self.read()
    ngx.var.problem = problem
    if self.left > 0 then ngx.exit(ngx.ERROR) end
  end
  return self
end

-- A browser's form: its file and its text fields.
local function upload_form(body, boundary)
  arguments {}
  local given, file = form.open(body.read, body.left, boundary, FIELDS)
  if not given then refuse "bad_request" end
  for name, value in pairs(given) do
    if value == "" then given[name] = nil end -- a browser also sends fields that are empty
  end
  given.file_name = file.name
  check(given, UPLOAD)
  given.size = file.size
  return given, function()
    local piece, problem = file.read()
    if problem == "malformed" then body.malformed = true end
    return piece, problem
  end
end

-- A document alone, with the rest in the query.
local function upload_plain(body, media)
  local given = arguments(UPLOAD)
  if not given.file_name or (media and not media:find(NAME)) then refuse "bad_request" end
  given.content_type, given.size = media, body.left
  return given, body.read
end

local function upload_from(body)
  local media = ngx.var.http_content_type
  local is_form = media and media:lower():find "^multipart/"
  local boundary = is_form and form.boundary(media)
  if is_form and not boundary then refuse "bad_request" end
  local given, read
  if is_form then
    given, read = upload_form(body, boundary)
  else
    given, read = upload_plain(body, media)
  end
  given.timeout = TRANSFER
  return patient():upload(read, given)
end

local function upload()
  local length = tonumber(ngx.var.http_content_length)
  if not length then refuse("bad_request", 411) end
  local body = body_new(length)
  local ran, document, err = xpcall(upload_from, to_safe_error, body)
  if ran and document then
    ngx.var.problem = "-"
    remember(document)
    ngx.header.location = ("/patients/%s/documents/%s"):format(ngx.escape_uri(ngx.var.patient),
      ngx.escape_uri(document.id))
    return respond(201, document:metadata())
  end
  if not ran then err = document end
  if body.fault == "timeout" then
    err = refusal_new("timeout", 408)
  elseif body.fault then
    err = refusal_new("canceled", 499) -- nginx's status for a client that closed the connection
  elseif body.malformed then
    err = refusal_new "bad_request"
  end
  fail(err)
  ngx.flush(true)
  body.discard()
end

-- Downloads ----------------------------------------------------------------------------------------

-- Set what HEAD and GET have in common.
local function set_headers(document, given)
  local media = document.content_type
  if type(media) ~= "string" or not media:find "^[!-~][ -~]*$" then media = "application/octet-stream" end
  local is_shown = given.inline and SHOWN[media:lower():match "^[^; ]*"]
  ngx.header.content_type = media
  ngx.header.content_disposition = http.disposition(is_shown and "inline" or "attachment", document:safe_name())
  if size_of(document) then ngx.header.accept_ranges = "bytes" end
end

-- Open a range of the content that the request asks for, or all of it. Returns the stream, and
-- the first byte and the number of bytes of a range; false if no byte is in the range.
local function open(document)
  local size = size_of(document)
  local condition = ngx.var.http_if_range
  local first, length
  -- only a strong entity-tag proves that the bytes are of one version
  if size and (not condition or condition:find '^"') then first, length = http.range(ngx.var.http_range, size) end
  if first then
    local stream = assert(document:open { offset = first, length = length })
    if not condition or condition == stream.etag then return stream, first, length end
    stream:close() -- the client has a part of another version
  elseif first == false and not condition then
    return false
  end
  return assert(document:open())
end

-- Stay one chunk behind the service. So the last chunk is sent only when the content is known
-- to be complete, and an immediate failure still gets a response of its own.
local function send(stream, begin)
  local function next_chunk()
    local chunk, err = stream()
    if err then error(err, 0) end
    return chunk
  end
  local deadline = ngx.now() + TRANSFER
  local chunk = next_chunk()
  local following = chunk and next_chunk()
  begin()
  while chunk do
    if not ngx.print(chunk) or not ngx.flush(true) or ngx.now() > deadline then
      refuse "timeout" -- the client is gone, or too slow
    end
    chunk, following = following, following and next_chunk()
  end
end

local function respond_with(document, given, if_match, stream, first, length)
  if if_match and not http.has_etag(if_match, stream.etag, true) then refuse("bad_request", 412) end
  if ngx.var.http_if_none_match and http.has_etag(ngx.var.http_if_none_match, stream.etag) then
    ngx.status = 304
    ngx.header.etag = stream.etag
    return
  end
  if length and stream.size and stream.size ~= length then refuse "corrupt" end
  -- without length and chunks, the client could not distinguish the end from a broken transfer
  if not (length or stream.size) and ngx.req.http_version() < 1.1 then refuse("protocol", 505) end
  send(stream, function()
    set_headers(document, given)
    ngx.header.content_length = length or stream.size
    ngx.header.etag = stream.etag
    if first then
      ngx.status = 206
      ngx.header.content_range = ("bytes %d-%d/%d"):format(first, first + length - 1, size_of(document))
    end
  end)
end

local function content(if_match)
  local given = arguments(CONTENT)
  local document = find_document()
  local stream, first, length = open(document)
  if not stream then
    ngx.header.content_range = "bytes */" .. size_of(document)
    refuse("bad_request", 416)
  end
  local ran, err = xpcall(respond_with, to_safe_error, document, given, if_match, stream, first, length)
  stream:close()
  if not ran then error(err, 0) end
end

-- HEAD: from the metadata, without a request for the content.
local function content_head()
  local document = find_document()
  set_headers(document, arguments(CONTENT))
  ngx.header.content_length = size_of(document)
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
    pieces[#pieces + 1] = cjson.encode(remember(document):metadata())
    if #pieces == PAGE then send_rows() end
  end
  if #pieces > 0 or separator ~= ",\n" then send_rows() end
  ngx.say "]}"
end

local function get()
  respond(200, remember(assert(patient():get(ngx.var.document))):metadata())
end

local function delete()
  recent:delete(key(ngx.var.document))
  ngx.var.problem = UNKNOWN
  assert(patient():document(ngx.var.document):delete())
  ngx.var.problem = "-"
  ngx.status = 204
end

-- Sessions -----------------------------------------------------------------------------------------

local function sign_in()
  session.begin(ngx.var.remote_user)
  ngx.status = 204
end

local function sign_out()
  session.finish()
  ngx.status = 204
end

local function show_user()
  respond(200, { user = session.user() })
end

-- Handlers -----------------------------------------------------------------------------------------

-- Whether the request may come from this server's page. Browsers say where a request comes from;
-- another program has to say it, too, if it changes something.
local function is_same_site(changes)
  local site, origin = ngx.var.http_sec_fetch_site, ngx.var.http_origin
  if site and site ~= "same-origin" and (changes or site ~= "none") then return false end
  if not changes then return true end
  if origin then return origin == ngx.var.origin end
  return site == "same-origin"
end

local READS = { GET = true, HEAD = true }

-- Take the condition If-Match from the request. nginx would evaluate it, and conditions on times,
-- while a response begins; but no time is known, and If-Match must prevent changes.
local function take_if_match()
  local condition = ngx.var.http_if_match
  ngx.req.clear_header "If-Match"
  ngx.req.clear_header "If-Modified-Since"
  ngx.req.clear_header "If-Unmodified-Since"
  return condition
end

-- A handler of the operations by method. Each has a name for the log, and a function. `open` ones
-- need no session; if one is not `conditional`, nothing fulfils an If-Match.
local function handler(operations)
  local allowed = {}
  for method in pairs(operations) do allowed[#allowed + 1] = method end
  table.sort(allowed)
  allowed = table.concat(allowed, ", ")
  return function()
    local method = ngx.req.get_method()
    local operation = operations[method]
    if not operation then
      ngx.header.allow = allowed
      return fail(refusal_new("bad_request", 405))
    end
    ngx.var.operation = operation.name
    if not is_same_site(not READS[method]) then return fail(refusal_new "cross_site") end
    if not operation.open and not session.user() then return fail(refusal_new "not_signed_in") end
    local if_match = take_if_match()
    if if_match and not operation.conditional then return fail(refusal_new("bad_request", 412)) end
    local ran, err = xpcall(operation.run, to_safe_error, if_match)
    if not ran then fail(err) end
  end
end

-- What nginx itself refuses.
local REFUSED = { [401] = "wrong_password", [404] = "not_found", [413] = "too_large", [429] = "throttled" }

return {
  login = handler { POST = { name = "login", run = sign_in, open = true } },
  session = handler {
    GET = { name = "session", run = show_user }, DELETE = { name = "logout", run = sign_out, open = true },
  },
  documents = handler { GET = { name = "list", run = list }, POST = { name = "upload", run = upload } },
  document = handler { GET = { name = "get", run = get }, DELETE = { name = "delete", run = delete } },
  content = handler {
    GET = { name = "download", run = content, conditional = true }, HEAD = { name = "head", run = content_head },
  },
  refused = function() fail(refusal_new(REFUSED[ngx.status] or "bad_request", ngx.status)) end,
  unknown_path = function() fail(refusal_new "not_found") end,
}
