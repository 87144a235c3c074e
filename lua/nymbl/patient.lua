-- SPDX-License-Identifier: MIT

--- A patient: uploads documents, lists and finds them. Made by @{client:patient} and
-- @{client:patients}.
--
-- Its `id` can be read as a field, and so can the fields that a listing has selected:
-- `patient.first_name`. They are read-only, and methods win over fields of the same name.
-- @classmod patient

local core = require "nymbl.core"
local call = require "nymbl.call"
local check = require "nymbl.check"
local document = require "nymbl.document"
local errors = require "nymbl.errors"
local wait = require "nymbl.wait"

-- These modules are loaded on first use (see nymbl.lua).
local function listing() return require "nymbl.listing" end
local function query() return require "nymbl.query" end
local function reconcile() return require "nymbl.reconcile" end
local function source() return require "nymbl.source" end
local function media_type() return require "nymbl.media_type" end

local CLASS = "nymbl.patient"
local methods, metatable = core.class(CLASS)

-- The state of a patient (see lua/object.h):
--   1 (FIELDS)  the fields that can be read: at least `id`
--   id
--   documents   its documents (document.collection), once a method has needed them

local patient = {}

function patient.new(env, id)
  return core.object(metatable, { { id = id }, env = env, id = id })
end

-- Create a patient from a row of a listing (see entity.lua).
function patient.from_fields(env, fields, id)
  fields.id = id
  return core.object(metatable, { fields, env = env, id = id })
end

-- A checker (see check.lua): a file name becomes part of a multipart header.
local function file_name(value)
  local problem = check.nonempty(value)
  if problem then return problem end
  if value:find("[%z\1-\31\127]") then return "control character" end
end

-- The documents of a patient.
local function documents_of(state)
  local documents = state.documents or document.collection(state.env, state.id)
  state.documents = documents
  return documents
end

local CALL_OPTIONS = call.options {}

local UPLOAD_OPTIONS = call.options {
  file_name = file_name,
  content_type = check.header,
  document_type = check.string,
  description = check.string,
  size = check.integer(0, 2^53),
  progress = check["function"],
  reconcile = function(value) return reconcile().check(value) end,
  check_type = check.boolean,
}

-- Wait until the upload has ended. Between waits, fill the body from the source and report
-- progress. (`opened` is an open source in this file: see source.lua.)
local function fill_and_wait(opened, options, transfer, deadline)
  local filling, reported = opened.fill ~= nil, -1
  while true do
    local done, err = transfer:result()
    if done == nil then return nil, err end
    if filling and not done then
      local state, problem = opened.fill(deadline)
      if not state then
        transfer:cancel("io", "source")
        return nil, problem
      end
      filling = state ~= "end"
    end
    local sent = transfer:bytes_sent()
    if options.progress and sent ~= reported then
      reported = sent
      if options.progress(sent, opened.body:size()) == false then
        transfer:cancel("canceled", "progress")
      end
    end
    if done then return true end
    call.wait_for(transfer, deadline)
  end
end

-- Determine the media type before the call begins. Returns it; nil if it depends on bytes that
-- are read only within the call; or nil and error fields if the upload must be refused.
local function infer_type(env, opened, declared, must_match)
  local size = opened.body:size()
  if size and size > core.max_upload_bytes(env.client) then return nil, { kind = "too_large" } end
  if not opened.fill or (declared and not media_type().is_accepted(declared)) then
    return source().determine_type(opened, declared, must_match)
  end
end

-- Seconds left until a deadline, or nil without a deadline. They are the timeout of a call that
-- is one step of another call.
local function time_left(deadline)
  return deadline and math.max(0, deadline - wait.now())
end

-- The slowest expected upload, in bytes per second (1 Mbit/s). The token must not expire before
-- the upload has arrived: a server may check the token only then, and respond with 401.
local MIN_UPLOAD_RATE = 125000

-- If the source cannot be sent again, the token must be valid for at least so many seconds: a 401
-- would make the upload fail.
local ONE_SHOT_TTL = 120

-- Seconds for which the token must still be valid. token.lua limits this to half of the token's
-- lifetime, so to 150 seconds with the service's tokens of 300 seconds.
local function min_token_ttl(opened)
  local ttl = (opened.body:size() or 0) / MIN_UPLOAD_RATE
  return opened.is_rewindable and ttl or math.max(ttl, ONE_SHOT_TTL)
end

-- Upload an open source. Returns the document, or nil and an error.
local function upload_source(state, opened, name, content_type, options)
  local env, patient_id, documents = state.env, state.id, documents_of(state)
  local timeout = options.timeout or env.timeout
  local deadline = timeout and wait.now() + timeout
  local search, list_err
  if options.reconcile then
    search, list_err = reconcile().prepare(env, patient_id, name, deadline, options)
    if not search then return nil, list_err end
  end

  local sent
  -- Expect: 100-continue is sent only if the source cannot be sent again. A proxy or server
  -- that does not support it answers 417 (RFC 9110, section 10.1.1). The request is then
  -- repeated once without it, if no byte of the document was sent.
  local without_expect = opened.is_rewindable
  local function should_restart(err)
    if err.status ~= 417 or without_expect or not opened.body:can_rewind() or opened.body:size() == 0 then
      return false
    end
    without_expect = true
    return true
  end

  local ok, created = call.perform(env, "upload", {
    timeout = time_left(deadline), headers = options.headers, tag = options.tag,
  }, {
    start = function(bearer, till, headers)
      if opened.fill then
        local filled, err = opened.fill(till)
        if not filled then return nil, err end
      end
      local sent_as, problem = content_type
      if opened.fill then
        sent_as, problem = source().determine_type(opened, content_type, options.check_type ~= false)
        if problem then return nil, problem end
      end
      return core.start(env.client, bearer, {
        "Patients", patient_id, "Documents", false,
        method = "POST", headers = headers,
        upload = {
          body = opened.body, file_name = name, content_type = sent_as, document_type = options.document_type,
          description = options.description, is_rewindable = without_expect, progress = options.progress ~= nil,
        },
      })
    end,
    run = function(transfer, till)
      local done, err = fill_and_wait(opened, options, transfer, till)
      sent = transfer:bytes_sent()
      if not done then return nil, err end
      return call.json_reader(documents.adopt, true)(transfer, till)
    end,
    min_token_ttl = min_token_ttl(opened),
    rewind = opened.rewind,
    should_restart = should_restart,
    should_continue = options.progress and function() return options.progress(0, opened.body:size()) end,
  })
  if ok then return created end
  if search and created.outcome_unknown then
    local found = search:search(opened.body:size() or sent)
    if found then return found end
  end
  return nil, created
end

--- Upload a document. Waits for the response.
--
-- The document is uploaded at most once. It is sent again only if the service cannot have
-- accepted it (for example after a 401 because the token has expired).
-- @function upload
-- @param what a path; a file handle, read from its current position; `{ data = bytes }`; an
--   LTN12 source; or a stream
-- @tparam[opt] table options
-- @tparam[opt] string options.file_name required unless `what` is a path (default: the last
--   component of the path)
-- @tparam[opt] string options.content_type media type (default: by the extension, otherwise by the
--   bytes)
-- @tparam[opt] string options.document_type such as `"Referral"`
-- @tparam[opt] string options.description text for the metadata
-- @tparam[opt] integer options.size bytes that an LTN12 source will produce, if known
-- @tparam[opt=true] boolean options.check_type bytes that can be inspected before sending must be of the
--   type they are sent as, and not empty; otherwise nothing is sent, and the error is
--   `unsupported_type`, reason `signature` or `empty`
-- @tparam[opt=false] boolean|table options.reconcile if the outcome is unknown, search for the document:
--   the patient's documents of that name are listed before the upload, and up to three times
--   afterwards. An array of documents that were just listed replaces the listing before the upload
-- @tparam[opt] function options.progress called as `progress(done, total)` in bytes, `total` nil if
--   unknown; return false to cancel
-- @tparam[opt] number options.timeout seconds (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] document the new one
-- @treturn[2] nil
-- @treturn[2] table the error; with `outcome_unknown` the document may have been created
--   anyway
-- @raise on a wrong argument, an unknown option or a closed client; and what a source or
--   `progress` raised
-- @usage
-- local created = assert(patient:upload("referral.pdf", { document_type = "Referral" }))
-- print(created.id)
-- @usage
-- local bytes = "%PDF-1.4\n…"
-- assert(patient:upload({ data = bytes }, { file_name = "letter.pdf" }))
function methods.upload(self, what, options)
  local state = check.object(self, CLASS, "upload")
  local env = state.env
  options = check.options(options, UPLOAD_OPTIONS, 2, "upload")
  local opened, problem = source().open(what, options.size, core.max_upload_bytes(env.client))
  if problem then check.raise_argument(1, "upload", problem) end
  local name = options.file_name or opened.name or (type(what) == "string" and what:match("[^/]+$"))
  if not name and type(what) ~= "string" then
    check.raise_argument(2, "upload", "option 'file_name' is required for this source")
  end
  if opened.err then return nil, errors.new(opened.err, "upload") end
  problem = file_name(name)
  if problem then check.raise_argument(1, "upload", "file name: " .. problem) end
  local declared = options.content_type or media_type().by_name(name)
  local content_type, refusal = infer_type(env, opened, declared, options.check_type ~= false)
  local ran, created, err = true, nil, refusal and errors.new(refusal, "upload")
  if not refusal then
    ran, created, err = pcall(upload_source, state, opened, name, content_type or declared, options)
  end
  opened.body:close() -- it may hold a file open, which the garbage collector would close late
  if not ran then error(created, 0) end
  return created, err
end

--- Iterate over the documents of all pages. Each page is one request, sent when its first
-- document is needed or a little earlier. No document is returned twice, and none is skipped
-- if others are added or deleted meanwhile.
-- @function documents
-- @tparam[opt] table options
-- @tparam[opt] string options.filter an OData filter; make it with `nymbl.filter`
-- @tparam[opt] string|table options.select names of the fields to request (default: all); `id` is
--   always added
-- @tparam[opt="id"] string|table options.orderby names with `asc` or `desc`; `id` is always added
-- @tparam[opt] integer options.top the largest number of documents in total
-- @tparam[opt=0] integer options.skip documents to skip at the beginning
-- @tparam[opt=100] integer options.page_size documents per request, 1 to 100
-- @tparam[opt=true] boolean options.count whether to request the total number
-- @tparam[opt] number options.timeout seconds for each page (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn function an iterator for a `for` loop. It waits for each page, and raises the error
--   if a page fails
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- for document in patient:documents { orderby = "uploaded_at desc", top = 10 } do
--   print(document.id, document.file_size_bytes)
-- end
function methods.documents(self, options)
  local state = check.object(self, CLASS, "documents")
  return listing().iterate(documents_of(state), query().plan(options, "documents", "id"))
end

--- Fetch one page. Sends one request and waits for the response.
-- @function page
-- @tparam[opt] table options as for @{patient:documents}; the page has at most `page_size` documents
-- @tparam[opt] string options.filter
-- @tparam[opt] string|table options.select
-- @tparam[opt="id"] string|table options.orderby
-- @tparam[opt] integer options.top
-- @tparam[opt=0] integer options.skip
-- @tparam[opt=100] integer options.page_size
-- @tparam[opt=true] boolean options.count
-- @tparam[opt] number options.timeout
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] table an array of documents, with `count` (the total number, or nil) and
--   `has_more` (whether another page follows)
-- @treturn[2] nil
-- @treturn[2] table the error
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local page = assert(patient:page { skip = 0, page_size = 20 })
-- print(#page, page.count, page.has_more)
function methods.page(self, options)
  local state = check.object(self, CLASS, "page")
  return listing().page(documents_of(state), query().plan(options, "page", "id"))
end

--- Count documents. Sends one request and waits for the response. If the service does not
-- count, all pages are fetched.
-- @function count
-- @tparam[opt] string filter an OData filter; make it with `nymbl.filter`
-- @tparam[opt] table options
-- @tparam[opt] number options.timeout seconds (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] integer
-- @treturn[2] nil
-- @treturn[2] table the error
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- print(assert(patient:count()))
-- print(assert(patient:count(nymbl.filter("document_type eq ?", "Referral"))))
function methods.count(self, filter, options)
  local state = check.object(self, CLASS, "count")
  local problem = filter ~= nil and check.nonempty(filter)
  if problem then check.raise_argument(1, "count", problem) end
  options = check.options(options, CALL_OPTIONS, 2, "count")
  local plan = query().plan({
    filter = filter, select = "id", timeout = options.timeout, headers = options.headers, tag = options.tag,
  }, "count", "id")
  return listing().count(documents_of(state), plan)
end

--- Fetch a document by its id. Sends one request and waits for the response.
-- @function get
-- @tparam string|integer id of the document
-- @tparam[opt] table options
-- @tparam[opt] number options.timeout seconds (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] document
-- @treturn[2] nil
-- @treturn[2] table the error
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local document, err = patient:get "doc-abc123"
-- if document then
--   print(document.content_type, document.file_size_bytes)
-- elseif err.kind == "not_found" then
--   print "there is no such document"
-- end
function methods.get(self, id, options)
  local state = check.object(self, CLASS, "get")
  id = check.id(id, 1, "get")
  options = check.options(options, CALL_OPTIONS, 2, "get")
  return document.get(documents_of(state), id, options)
end

--- Create a document from its id. Sends no request.
-- @function document
-- @tparam string|integer id of the document
-- @treturn document of which only `id` and `patient_id` are known
-- @raise on a wrong argument or a closed client
-- @usage
-- assert(patient:document("doc-abc123"):download("copy.pdf"))
function methods.document(self, id)
  local state = check.object(self, CLASS, "document")
  return document.from_id(state.env, state.id, check.id(id, 1, "document"))
end

return patient
