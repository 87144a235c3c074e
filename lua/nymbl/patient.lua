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
local lazy = require "nymbl.lazy"

-- These modules are loaded on first use (see lazy.lua).
local function listing() return lazy.load "nymbl.listing" end
local function query() return lazy.load "nymbl.query" end

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

-- The documents of a patient.
local function documents_of(state)
  local documents = state.documents or document.collection(state.env, state.id)
  state.documents = documents
  return documents
end

local CALL_OPTIONS = call.options {}

local COMPARE_OPTIONS = call.options { verify = check.boolean }

--- Upload a document. Waits for the response.
--
-- The document is uploaded at most once. It is sent again only if the service cannot have
-- accepted it (for example after a 401 because the token has expired).
-- @function upload
-- @param what a path; a file handle, read from its current position; `{ data = bytes }`; an
--   LTN12 source; a stream; or a document, which is copied as by @{document:copy_to}
-- @tparam[opt] table options
-- @tparam[opt] string options.file_name required unless `what` is a path (default: the last
--   component of the path) or a document (default: its own)
-- @tparam[opt] string options.content_type media type (default: by the extension, otherwise by the
--   bytes; for a document its own)
-- @tparam[opt] string options.document_type such as `"Referral"` (default for a document: its own)
-- @tparam[opt] string options.description text for the metadata (default for a document: its own)
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
  return document.upload(documents_of(state), "upload", what, options)
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
-- @raise on a wrong argument, an unknown option or a closed client; the iterator also if two coroutines use it
--   at once, or if it is used again after a hook's error has interrupted it
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

--- Upload each of some files once, whatever happens. Waits until the run has ended.
--
-- A file is identified by the service, the patient, its name as sent and the SHA-256 of its bytes: what
-- was uploaded under these before is unchanged, even if its path or time is another. A journal remembers
-- what was sent. If a run is killed, or the outcome of an upload is unknown, the document is looked
-- for, and sent again only if it is not listed `settle` seconds later.
-- @function upload_all
-- @param files an array or iterator of paths, or of tables `{ path =, document_type =, description =,
--   file_name = }`
-- @tparam table options
-- @tparam string options.journal path of the journal, a file that other runs and patients of the service may
--   share. It contains names and ids
-- @tparam[opt=2] integer options.concurrency uploads at once
-- @tparam[opt=false] boolean options.dry_run send reads only, and write nothing; the report has `would = { requests =,
--   uploads =, bytes = }`, what a run would then cost
-- @tparam[opt=900] number options.settle seconds after which an upload that is not listed was not carried out
-- @tparam[opt] string options.document_type of files that have none
-- @tparam[opt] string options.description of files that have none
-- @tparam[opt] function options.progress called as `progress(report)` a few times per second and once at the end;
--   return false to end the run
-- @tparam[opt] function options.on_file called as `on_file(path, document, err)` for each file once its outcome is
--   known, in no particular order: with its document, or with nil and the error of a file that failed or is
--   unknown; in a dry run with neither, if it would be uploaded. Of a document that an earlier run has uploaded
--   only the ids, the name and the size are known
-- @tparam[opt] number options.timeout seconds for each call (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of all calls
-- @treturn[1] table the report: `complete` (every file was tried, none failed or is unknown), `stopped` (why the
--   run ended early, or nil), `uploaded`, `unchanged`, `failed`, `unknown`, `requests`, `bytes` and `errors`, an array
--   of `{ path =, err = }` for files that failed or are unknown
-- @treturn[2] nil
-- @treturn[2] table the error: nothing was begun
-- @raise on a wrong argument, an unknown option or a closed client; and what `progress`, `on_file` or the iterator
--   raised
-- @usage
-- local report = assert(patient:upload_all({ "referral.pdf" }, { journal = "outbox.journal" }))
-- print(report.uploaded, report.unchanged, report.complete)
function methods.upload_all(self, files, options)
  local state = check.object(self, CLASS, "upload_all")
  return lazy.load("nymbl.upload_all").run(documents_of(state), files, options)
end

--- Compare the files of a folder with the patient's documents. Reads the folder and lists the
-- documents; waits for both.
--
-- A file belongs to the document whose file name, safe name or unique safe name
-- (@{document:safe_name}) it has; among several documents of one name, to that of its size. Only
-- regular files count: subfolders and symbolic links are ignored, and so are incomplete files of
-- this library.
-- @function compare
-- @tparam string folder path of the folder
-- @tparam[opt] table options
-- @tparam[opt=false] boolean options.verify compare digests, too: every document whose file has its size is
--   downloaded
-- @tparam[opt] number options.timeout seconds for the whole comparison (default: the client's)
-- @tparam[opt] table options.headers request headers, added to the client's
-- @tparam[opt] any options.tag for the events of this call
-- @treturn[1] table four arrays of `{ name =, size =, document = }`, sorted by name: `same`; `different` (in size, or
--   with `verify` in bytes); `missing_here` (documents without a file: `name` is the safe name, `size` the
--   document's); `missing_there` (files without a document)
-- @treturn[2] nil
-- @treturn[2] table the error: the folder or a file cannot be read, or a request failed
-- @raise on a wrong argument, an unknown option or a closed client
-- @usage
-- local found = assert(patient:compare(".", { timeout = 600 }))
-- for _, item in ipairs(found.missing_there) do
--   print(item.name, item.size)
-- end
function methods.compare(self, folder, options)
  local state = check.object(self, CLASS, "compare")
  local problem = check.nonempty(folder)
  if problem then check.raise_argument(1, "compare", problem) end
  options = check.options(options, COMPARE_OPTIONS, 2, "compare")
  return lazy.load("nymbl.compare").run(documents_of(state), folder, options,
    call.deadline(state.env, options))
end

return patient
