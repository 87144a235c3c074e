-- SPDX-License-Identifier: MIT
-- Responses through the Lua layer: listings, documents, errors. The input is a line, "OPERATION
-- STATUS", and the body; of a listing, several bodies that are separated by a line "--". The core
-- is replaced by one whose transfers end at once with these bodies.
local nymbl = require "nymbl"
local core = require "nymbl.core"
local errors = require "nymbl.errors"

local REQUESTS_MAX = 400
local responses, request_count, status

local transfer = {}
transfer.__index = transfer

local KINDS = {
  [400] = "bad_request", [401] = "unauthorized", [403] = "forbidden", [404] = "not_found", [413] = "too_large",
  [415] = "unsupported_type", [429] = "throttled", [500] = "server", [503] = "server",
}

function transfer.result()
  if status < 300 then return true end
  return nil, { kind = KINDS[status] or "http", status = status }
end
function transfer:body() return self.text end
function transfer.response() return status, nil, "application/json" end
function transfer.request_id() return "request-1" end
function transfer.was_sent() return true end
function transfer.bytes_sent() return 8 end
function transfer.is_ready() return true end
function transfer.close() end
function transfer.cancel() end

function core.start()
  request_count = request_count + 1
  assert(request_count <= REQUESTS_MAX, "it asks without end")
  return setmetatable({ text = responses[math.min(request_count, #responses)] }, transfer)
end

local state -- of the account; new for each input
local store = { now = os.clock }
function store.update(_, _, _, change, ...)
  return change(state, 0, ...)
end

local patient = assert(nymbl.client {
  base_url = "https://api.example.org", api_key = "key", token = "token", rate = false, monthly_quota = false,
  max_attempts = 1, store = store,
}):patient "p"

local function check_error(err)
  assert(errors.is(err), tostring(err))
  local text = tostring(err)
  assert(not text:find "[%c]" and #text < 300 and not text:find "[^ -~]", "not a line of fixed words")
  assert(not text:find("SENTINEL", 1, true), "the server's words in a message")
  for _, name in ipairs { "code", "detail" } do
    assert(err[name] == nil or type(err[name]) == "string", name)
  end
  if status < 300 then
    assert(err.kind == "protocol" and err.status == 200 or err.kind == "protocol", err.kind)
    return "malformed"
  end
  assert(err.status == status, "another status")
  assert(err.kind == (KINDS[status] or "http") or (status == 429 and err.kind == "quota"), err.kind)
  return err.detail and "error with detail" or "error"
end

local function check_id(id)
  assert(type(id) == "string" and id ~= "" and not id:find("\0", 1, true), "id")
end

local function check_document(document)
  check_id(document.id)
  assert(document.patient_id == "p", "of another patient")
  assert(document.uploaded_by_id == nil or type(document.uploaded_by_id) == "string", "uploader")
  local metadata = document:metadata()
  assert(type(metadata) == "table")
  for name, value in pairs(metadata) do
    assert(type(name) == "string" and value ~= nil, "metadata")
  end
  assert(not document:safe_name():find "/", "safe name")
  assert(not tostring(document):find "SENTINEL", "data in tostring")
  if math.type and type(document.file_size_bytes) == "number" then -- luacheck: ignore
    assert(math.type(document.file_size_bytes) == "integer" or document.file_size_bytes % 1 ~= 0 -- luacheck: ignore
      or document.file_size_bytes >= 2^53 or document.file_size_bytes < 0, "size")
  end
end

local operations = {}

function operations.get()
  local document, err = patient:get "d"
  if not document then return check_error(err) end
  check_document(document)
  assert(document.id == "d", "another document")
  return "document"
end

function operations.upload()
  local document, err = patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
  if not document then
    assert(status >= 300 or err.outcome_unknown, "an outcome that is not known")
    return check_error(err)
  end
  check_document(document)
  return "document"
end

function operations.page()
  local page, err = patient:page()
  if not page then return check_error(err) end
  for _, document in ipairs(page) do check_document(document) end
  assert(page.count == nil or (page.count >= 0 and page.count % 1 == 0), "count")
  assert(type(page.has_more) == "boolean", "has_more")
  return "page"
end

function operations.list()
  local seen, count = {}, 0
  local ok, err = pcall(function()
    for document in patient:documents { page_size = 2 } do
      check_document(document)
      assert(not seen[document.id], "twice")
      seen[document.id], count = true, count + 1
    end
  end)
  if not ok then
    if not errors.is(err) then error(err, 0) end
    return check_error(err)
  end
  return count > 2 and "list of several pages" or "list"
end

function operations.count()
  local count, err = patient:count()
  if not count then return check_error(err) end
  assert(count >= 0 and count % 1 == 0, "count")
  return "count"
end

local function try(input)
  local name, number, body = input:match "^(%l+) (%d%d%d)\n(.*)$"
  if not name or not operations[name] or tonumber(number) < 200 then return nil end
  status, request_count, responses, state = tonumber(number), 0, {}, {}
  for text in (body .. "\n--\n"):gmatch "(.-)\n%-%-\n" do responses[#responses + 1] = text end
  if #responses == 0 then return nil end
  return operations[name]()
end

return {
  try = try,
  reached = { "document", "page", "list", "list of several pages", "count", "error", "error with detail", "malformed" },
}
