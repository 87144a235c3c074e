-- SPDX-License-Identifier: MIT

--- A document: its metadata as fields, and its methods. Made by @{patient:get},
-- @{patient:documents}, @{patient:page}, @{patient:upload} and @{patient:document}.
--
-- A field that the service did not send, or sent as null, is nil. The fields below are those
-- that its documentation names; others can be read in the same way. They are read-only. Ids
-- and names are data from outside: never use them as file names.
-- @classmod document

--- Metadata.
-- @table metadata
-- @tfield string id
-- @tfield string patient_id
-- @tfield ?string file_name
-- @tfield ?string content_type media type
-- @tfield ?integer file_size_bytes
-- @tfield ?string document_type
-- @tfield ?string description
-- @tfield ?string uploaded_by_id
-- @tfield ?string uploaded_at such as `"2026-02-03T10:00:00Z"`

local core = require "nymbl.core"
local call = require "nymbl.call"
local check = require "nymbl.check"
local errors = require "nymbl.errors"
local lazy = require "nymbl.lazy"

-- These modules are loaded on first use (see lazy.lua).
local function stream() return lazy.load "nymbl.stream" end
local function target() return lazy.load "nymbl.target" end

local FIELDS = core.FIELDS

local CLASS = "nymbl.document"
local methods, metatable = core.class(CLASS)

-- The state of a document (see lua/object.h):
--   1 (FIELDS)  the metadata as the server sent it, but normalised
--   patient_id
--   id
--   is_complete  true if the metadata was fetched for this document alone: lists may leave out fields

local document = { CLASS = CLASS }

-- How metadata is checked and normalised (core.adopter): ids become strings, whole sizes integers.
local RULES = {
  key = "id", owner = "patient_id", owner_mismatch = "patient_mismatch", ids = { "uploaded_by_id" },
  integers = { "file_size_bytes" },
}

-- The documents of a patient, for listings (see page.lua). Also has
--   adopt(fields)   turns decoded metadata into a document, which keeps that table. Returns the
--                   document; or nil and the reason why this is not the metadata of a document of
--                   the patient
--   adopt_complete(fields)   the same, if they were fetched for this document alone
function document.collection(env, patient_id)
  local adopt, adopt_page = core.adopter(CLASS, { env = env, patient_id = patient_id }, RULES)
  local adopt_complete = core.adopter(CLASS, { env = env, patient_id = patient_id, is_complete = true }, RULES)
  return {
    env = env, operation = "list", path = { "Patients", patient_id, "Documents", false }, key = "id",
    adopt = adopt, adopt_complete = adopt_complete, adopt_page = adopt_page,
  }
end

-- Create a document of which only the ids are known.
function document.from_id(env, patient_id, id)
  return core.object(metatable, {
    { id = id, patient_id = patient_id }, env = env, patient_id = patient_id, id = id,
  })
end

local CALL_OPTIONS = call.options {}

-- Waits for the metadata of the document that a request names.
local read_document = call.json_reader(function(response, _, request)
  local found_id = core.id(response.id)
  if not found_id then return nil, "bad_id" end
  local found, problem = request.adopt(response)
  if found and found_id ~= request[4] then return nil, "document_mismatch" end
  return found, problem
end)

-- Fetch a document of a collection by its id.
function document.get(collection, id, options)
  local path = collection.path
  local ok, result = call.perform(collection.env, "get", options, {
    path[1], path[2], path[3], id,
    run = read_document, adopt = collection.adopt_complete,
  })
  if not ok then return nil, result end
  return result
end

--- Fetch the metadata again. Sends one request and waits for the response.
-- @function refresh
-- @tparam[opt] table options
-- @tparam[opt] number options.timeout seconds (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] document itself
-- @treturn[2] nil
-- @treturn[2] table the error; the fields are unchanged
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local document = patient:document "doc-abc123"
-- assert(document:refresh())
-- print(document.file_size_bytes)
function methods.refresh(self, options)
  local state = check.object(self, CLASS, "refresh")
  options = check.options(options, CALL_OPTIONS, 1, "refresh")
  local found, err = document.get(document.collection(state.env, state.patient_id), state.id, options)
  if not found then return nil, err end
  state[FIELDS], state.is_complete = core.state(found, CLASS)[FIELDS], true
  return self
end

--- Delete the document. Sends one request and waits for the response.
-- @function delete
-- @tparam[opt] table options
-- @tparam[opt] number options.timeout seconds (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error; with `outcome_unknown` the document may have been deleted anyway
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local ok, err = doc:delete()
-- if not ok and err.outcome_unknown then
--   ok, err = doc:delete() -- safe: it can only answer "not_found"
-- end
-- print(ok or err.kind == "not_found")
function methods.delete(self, options)
  local state = check.object(self, CLASS, "delete")
  options = check.options(options, CALL_OPTIONS, 1, "delete")
  local env = state.env
  local ok, err = call.perform(env, "delete", options, {
    "Patients", state.patient_id, "Documents", state.id,
    method = "DELETE",
    run = call.wait_until_ended,
  })
  if not ok then return nil, err end
  return true
end

local SAFE_NAME_OPTIONS = { unique = check.boolean }

local function text_or_nil(value)
  return type(value) == "string" and value or nil
end

--- Make a file name that any common file system can have. Sends no request.
--
-- A name without separators, control characters and names that a system reserves is unchanged.
-- Otherwise `_` replaces separators, controls, invisible characters and bytes that are not
-- valid UTF-8; dots and spaces at the end are removed; and a long name is cut to 255 bytes.
-- If the service accepts the document's type, the name has the extension of that type.
-- @function safe_name
-- @tparam[opt] table options
-- @tparam[opt=false] boolean options.unique whether to add 16 hexadecimal digits derived from the
--   ids of patient and document, so that no two documents share a name, even on a file system
--   that ignores case
-- @treturn string the name
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local name = doc:safe_name { unique = true }
-- print(name)
function methods.safe_name(self, options)
  local state = check.object(self, CLASS, "safe_name")
  options = check.options(options, SAFE_NAME_OPTIONS, 1, "safe_name")
  local fields = state[FIELDS]
  return lazy.load("nymbl.safe_name").file(text_or_nil(fields.file_name), text_or_nil(fields.content_type),
    options.unique and state.patient_id or nil, options.unique and state.id or nil)
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = copy(item) end
  return result
end

--- Get the metadata that the service sent. Sends no request.
-- @function metadata
-- @treturn table a new copy; JSON null is `nymbl.null`
-- @raise on a closed client
-- @usage
-- for name, value in pairs(doc:metadata()) do
--   print(name, value)
-- end
function methods.metadata(self)
  return copy(check.object(self, CLASS, "metadata")[FIELDS])
end

-- The type and the size that the metadata (or the script) states, or nil. The core compares
-- the received bytes with them.
local function expected_type(state, options)
  local value = state[FIELDS].content_type
  if type(value) ~= "string" or value == "" or value:find("\0", 1, true) then return options.content_type end
  return value
end

local function expected_size(state, options)
  local size = state[FIELDS].file_size_bytes
  if options.check_size == false or type(size) ~= "number" then return nil end
  return size >= 0 and size % 1 == 0 and size < 2^53 and size or nil
end

-- Whether the service refused a range, or sent another one. If it was the rest of a partial
-- file, the core has removed that by then, and the next attempt starts from the first byte.
local function is_range_refused(err)
  return err.reason == "range_refused" or err.reason == "content_range"
end

-- The `should_continue` of a request: it calls `progress` with 0 bytes, which may cancel the call.
local function should_continue_by(options)
  return options.progress and function() return options.progress(0) end
end

local DOWNLOAD_OPTIONS = call.options {
  progress = check["function"],
  mode = check.integer(1, 511), -- 0777
  overwrite = check.boolean,
  resume = check.boolean,
  check_size = check.boolean,
  content_type = check.header,
  sha256 = check.boolean,
}

-- Download to an open target (target.lua).
local function download_to(state, opened, options)
  local env = state.env
  local receive, digest = opened.receiver(options.progress), nil
  local ok, bytes, content_type = call.perform(env, "download", options, {
    "Patients", state.patient_id, "Documents", state.id, "$value", false,
    download = {
      path = opened.path, directory = opened.directory, mode = options.mode,
      no_overwrite = options.overwrite == false, resume = options.resume,
      content_type = expected_type(state, options), size = expected_size(state, options),
      progress = options.progress ~= nil, sha256 = options.sha256,
    },
    run = function(transfer, deadline)
      local done, received, received_type = receive(transfer, deadline)
      if done then digest = transfer:sha256() end
      return done, received, received_type
    end,
    should_restart = options.resume and is_range_refused or nil,
    rewind = opened.rewind,
    should_continue = should_continue_by(options),
  })
  if not ok then
    if opened.report_failure then opened.report_failure(bytes) end
    return nil, bytes
  end
  if options.sha256 then return bytes, content_type, digest end
  return bytes, content_type
end

--- Download the content. Waits until it is complete.
--
-- The download fails if the bytes contradict the metadata. If the metadata has neither type
-- nor size, the response's type or its first bytes must be of an accepted type. A path ends
-- up holding the complete document, or is unchanged.
-- @function download
-- @param destination a path, a file handle opened for writing, or an LTN12 sink
-- @tparam[opt] table options
-- @tparam[opt=384] integer options.mode permissions of the file (default: octal 600)
-- @tparam[opt=true] boolean options.overwrite false: an existing file is an error (`io`, reason `exists`)
-- @tparam[opt=false] boolean options.resume keep an interrupted download beside the path, and continue
--   from it if the service confirms that the document is the same
-- @tparam[opt=true] boolean options.check_size the number of bytes must be `file_size_bytes`
-- @tparam[opt] string options.content_type the expected media type, if the metadata has none
-- @tparam[opt=false] boolean options.sha256 compute the SHA-256 of the document while it arrives
-- @tparam[opt] function options.progress called as `progress(done, total)` in bytes, `total` nil if
--   unknown; return false to cancel
-- @tparam[opt] number options.timeout seconds (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] integer bytes written
-- @treturn[1] ?string media type
-- @treturn[1] ?string with `sha256`: 64 hexadecimal digits, of the whole document even if it is resumed
-- @treturn[2] nil
-- @treturn[2] table the error
-- @raise on a wrong argument, an unknown option or a closed client; and what a sink or
--   `progress` raised
-- @usage
-- local bytes, content_type = assert(doc:download("copy.pdf"))
-- print(bytes, content_type)
-- @usage
-- local hash = {}
-- assert(doc:download(function(chunk)
--   hash[#hash + 1] = chunk and #chunk
--   return true -- continue
-- end))
function methods.download(self, destination, options)
  local state = check.object(self, CLASS, "download")
  local opened, problem = target().open(destination)
  if problem then check.raise_argument(1, "download", problem) end
  options = check.options(options, DOWNLOAD_OPTIONS, 2, "download")
  if opened.path then
    local found, err = core.target_check(opened.path, options.overwrite == false)
    if not found then
      return nil, errors.new(err, "download")
    end
  end
  return download_to(state, opened, options)
end

-- Download to a file in a directory. No link is followed.
-- @param directory its descriptor (lua/descriptor.c)
-- @tparam string name of the file
-- @tparam table options as for `doc:download`; they are not checked
function document.save(self, directory, name, options)
  return download_to(check.object(self, CLASS, "download"), target().in_directory(directory, name), options)
end

-- Open the content, or a range of it. Returns a stream, or nil and the error.
-- @tparam table options those of @{document:open}
-- @tparam ?function should_continue see call.lua
local function open(state, options, should_continue)
  local env, size = state.env, expected_size(state, options)
  local is_range = options.offset ~= nil or options.length ~= nil
  local download = {
    content_type = expected_type(state, options), size = size,
    offset = options.offset, length = options.length, if_match = options.if_match,
  }
  local function should_restart(err)
    if not is_range_refused(err) then return false end
    download.no_range_request = true -- the core then cuts the range out of the whole document
    return true
  end
  local ok, transfer, _, attempts, pending = call.perform(env, "download", options, {
    "Patients", state.patient_id, "Documents", state.id, "$value", false,
    download = download,
    run = stream().wait_for_response,
    should_restart = is_range and should_restart or nil,
    should_continue = should_continue,
    keep_open = true,
  })
  if not ok then return nil, transfer end
  return stream().new(env, transfer, attempts, not is_range and size or nil, options.progress, pending)
end

local OPEN_OPTIONS = call.options {
  progress = check["function"],
  check_size = check.boolean,
  offset = check.integer(0, 2^53),
  length = check.integer(0, 2^53),
  if_match = check.strong_etag,
}

--- Open the content, or a range of it, for reading. Waits until the response has begun. The bytes
-- arrive as they are read.
-- @function open
-- @tparam[opt] table options
-- @tparam[opt] number options.timeout seconds until the response begins (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @tparam[opt] function options.progress called as `progress(done, total)` in bytes, `total` nil if
--   unknown; return false to cancel
-- @tparam[opt=true] boolean options.check_size the number of bytes must be `file_size_bytes`
-- @tparam[opt=0] integer options.offset first byte of a range; it is empty if it begins behind the end
-- @tparam[opt] integer options.length bytes of the range (default: to the end)
-- @tparam[opt] string options.if_match a strong entity-tag (`stream.etag`): if the document has another
--   one, or none, the error is `corrupt`, reason `changed`
-- @treturn[1] stream close it, or let a to-be-closed variable do so
-- @treturn[2] nil
-- @treturn[2] table the error
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local stream = assert(doc:open())
-- local bytes = assert(stream:read("a"))
-- stream:close()
-- print(#bytes)
function methods.open(self, options)
  local state = check.object(self, CLASS, "open")
  options = check.options(options, OPEN_OPTIONS, 1, "open")
  return open(state, options, should_continue_by(options))
end

-- What a copy has in common with its original. It can be sent if there is no control character in
-- what becomes a part of a header, and no NUL in the other texts.
local COPIED = { "file_name", "content_type", "document_type", "description" }
local UNUSABLE = {
  file_name = "[%z\1-\31\127]", content_type = "[%z\1-\8\10-\31\127]", document_type = "%z", description = "%z",
}

-- The metadata for a copy. It is fetched if a field is missing that the options do not replace.
-- Returns its fields, or nil and the error.
local function fields_to_copy(state, options)
  local fields = state[FIELDS]
  local is_missing = fields.file_size_bytes == nil
  for _, name in ipairs(COPIED) do
    is_missing = is_missing or (fields[name] == nil and options[name] == nil)
  end
  if state.is_complete or not is_missing then return fields end
  local fetched, err = document.get(document.collection(state.env, state.patient_id), state.id, options)
  if not fetched then return nil, err end
  return core.state(fetched, CLASS)[FIELDS]
end

local function unusable()
  return nil, errors.new({ kind = "protocol", reason = "bad_metadata" }, "upload")
end

-- Open a document as the source of an upload (see source.lua).
-- @tparam document self
-- @tparam table options those of the upload
-- @tparam ?number deadline of the whole upload
-- @tparam integer max_bytes the largest upload
-- @treturn[1] table the source
-- @treturn[2] nil
-- @treturn[2] table the error
local function open_as_source(self, options, deadline, max_bytes)
  local state = check.object(self, CLASS, "copy_to")
  local function steps() -- options of a call that is a step of this one
    return { timeout = call.time_left(deadline), headers = options.headers, tag = options.tag }
  end
  local call_options = steps()
  for _, name in ipairs(COPIED) do call_options[name] = options[name] end
  local fields, err = fields_to_copy(state, call_options)
  if not fields then return nil, err end
  local original = { fields, env = state.env, patient_id = state.patient_id, id = state.id }
  local should_continue = should_continue_by(options)
  local size = options.size or expected_size(original, {})
  local opened = lazy.load("nymbl.source").from_document(size, max_bytes, function()
    return open(original, steps(), should_continue)
  end)
  for _, name in ipairs(COPIED) do
    local text = options[name] or text_or_nil(fields[name])
    if text and text:find(UNUSABLE[name]) then return unusable() end
    opened[name] = text
  end
  opened.name = opened.file_name
  if not opened.name or opened.name == "" then return unusable() end
  return opened
end

-- Upload to a collection: see upload.lua.
function document.upload(collection, method, what, options)
  return lazy.load("nymbl.upload").run(collection, method, what, options, open_as_source)
end

--- Copy the document to a patient, perhaps of another client. It is streamed from one place to the
-- other, in bounded memory. Waits until the copy is complete.
--
-- The copy has the same file name, content type, document type and description, unless the options
-- say otherwise. The request to download the document is sent once more if the upload must be
-- repeated. If a part of the copy fails, `err.operation` says which one: `"get"` (of the metadata, if
-- it is not complete), `"download"` or `"upload"`.
-- @function copy_to
-- @tparam patient patient where the copy goes
-- @tparam[opt] table options as for @{patient:upload}
-- @tparam[opt] string options.file_name
-- @tparam[opt] string options.content_type
-- @tparam[opt] string options.document_type
-- @tparam[opt] string options.description
-- @tparam[opt] integer options.size bytes (default: those of the document)
-- @tparam[opt=true] boolean options.check_type
-- @tparam[opt=false] boolean|table options.reconcile
-- @tparam[opt] function options.progress
-- @tparam[opt] number options.timeout seconds for the whole copy (default: that of the patient's client)
-- @tparam[opt] table options.headers request headers, added to the clients'
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] document the copy
-- @treturn[2] nil
-- @treturn[2] table the error; with `outcome_unknown` the copy may have been created anyway
-- @raise on a wrong argument, an unknown option or a closed client; and what `progress` raised
-- @usage
-- local copy = assert(doc:copy_to(client:patient(54321), { description = "moved" }))
-- print(copy.id, copy.file_size_bytes)
function methods.copy_to(self, patient, options)
  check.object(self, CLASS, "copy_to")
  local to = core.state(patient, "nymbl.patient")
  if not to then check.raise_argument(1, "copy_to", check.expected("nymbl.patient", patient)) end
  if to.env.closed then check.raise_argument(1, "copy_to", "closed client") end
  return document.upload(document.collection(to.env, to.id), "copy_to", self, options)
end

return document
