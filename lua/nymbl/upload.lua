-- SPDX-License-Identifier: MIT
-- Uploads: the source is opened and inspected, then its bytes are sent, at most once.

local core = require "nymbl.core"
local call = require "nymbl.call"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local lazy = require "nymbl.lazy"
local media_type = require "nymbl.media_type"
local source = require "nymbl.source"

-- This module is loaded on first use (see lazy.lua).
local function reconcile() return lazy.load "nymbl.reconcile" end

local upload = {}

-- A checker (see check.lua): a file name becomes part of a multipart header.
function upload.file_name(value)
  local problem = check.nonempty(value)
  if problem then return problem end
  if value:find("[%z\1-\31\127]") then return "control character" end
end

upload.OPTIONS = call.options {
  file_name = upload.file_name,
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
local function send(collection, opened, fields, options, deadline)
  local env, patient_id = collection.env, collection.path[2]
  local search, list_err
  if options.reconcile then
    search, list_err = reconcile().prepare(collection, fields.file_name, deadline, options)
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
    timeout = call.time_left(deadline), headers = options.headers, tag = options.tag,
  }, {
    prepare = opened.prepare or opened.fill,
    start = function(bearer, _, headers)
      local content_type = fields.content_type
      if opened.fill then
        local problem
        content_type, problem = source.determine_type(opened, content_type, options.check_type ~= false)
        if problem then return nil, problem end
      end
      return core.start(env.client, bearer, {
        "Patients", patient_id, "Documents", false,
        method = "POST", headers = headers,
        upload = {
          body = opened.body, file_name = fields.file_name, content_type = content_type,
          document_type = fields.document_type, description = fields.description,
          is_rewindable = without_expect, progress = options.progress ~= nil,
        },
      })
    end,
    run = function(transfer, till)
      local done, err = fill_and_wait(opened, options, transfer, till)
      sent = transfer:bytes_sent()
      if not done then return nil, err end
      return call.json_reader(collection.adopt, true)(transfer, till)
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

-- The texts to send: those of the options, or else those of the source.
local function fields_of(opened, options)
  local file_name = options.file_name or opened.name
  return {
    file_name = file_name,
    content_type = options.content_type or opened.content_type or media_type.by_name(file_name),
    document_type = options.document_type or opened.document_type,
    description = options.description or opened.description,
  }
end

-- Inspect an open source before it is sent. Its media type depends on bytes that are read only
-- within the call, unless the core reads the source or the type is not accepted.
-- @treturn[1] table the texts to send: file name, media type (or nil if it is not yet known), document
--   type and description
-- @treturn[2] nil the source must not be sent
-- @treturn[2] table the error
function upload.inspect(env, opened, options)
  local fields = fields_of(opened, options)
  local size, declared = opened.body:size(), fields.content_type
  local problem
  if size and size > core.max_upload_bytes(env.client) then
    problem = { kind = "too_large" }
  elseif not opened.fill or (declared and not media_type.is_accepted(declared)) then
    fields.content_type, problem = source.determine_type(opened, declared, options.check_type ~= false)
  end
  if problem then return nil, errors.new(problem, "upload") end
  return fields
end

-- Upload an open source, and close it. Returns the document, or nil and an error.
-- @tparam table collection the patient's documents (see page.lua)
-- @tparam table opened the source (see source.lua)
-- @tparam table options those of `upload.OPTIONS`, already checked
-- @tparam ?number deadline of the whole call
function upload.send(collection, opened, options, deadline)
  local ran, created, err = pcall(function()
    local fields, refusal = upload.inspect(collection.env, opened, options)
    if not fields then return nil, refusal end
    return send(collection, opened, fields, options, deadline)
  end)
  source.close(opened) -- it may hold a file open, which the garbage collector would close late
  if not ran then error(created, 0) end
  return created, err
end

-- `patient:upload(what, options)` and `document:copy_to(patient, options)`.
-- @tparam table collection the patient's documents (see page.lua)
-- @tparam string method the name of the script's method, for messages
-- @param what the source
-- @tparam ?table options as the script gave them
-- @tparam function open_document opens a document as a source, as document.lua describes
function upload.run(collection, method, what, options, open_document)
  local env = collection.env
  options = check.options(options, upload.OPTIONS, 2, method)
  local deadline = call.deadline(env, options)
  local opened, problem
  if core.state(what, "nymbl.document") then
    opened, problem = open_document(what, options, deadline, core.max_upload_bytes(env.client))
    if not opened then return nil, problem end
  else
    opened, problem = source.open(what, options.size, core.max_upload_bytes(env.client))
    if problem then check.raise_argument(1, method, problem) end
    local name = options.file_name or opened.name or (type(what) == "string" and what:match("[^/]+$"))
    if not name and type(what) ~= "string" then
      check.raise_argument(2, method, "option 'file_name' is required for this source")
    end
    if opened.err then return nil, errors.new(opened.err, "upload") end
    problem = upload.file_name(name)
    if problem then check.raise_argument(1, method, "file name: " .. problem) end
  end
  return upload.send(collection, opened, options, deadline)
end

return upload
