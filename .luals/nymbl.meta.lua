---@meta nymbl
-- SPDX-License-Identifier: MIT
-- The public interface for editors, in the annotations of lua-language-server (LuaCATS). It is
-- installed beside the modules, under a name that `require` cannot find: to use it, set
-- `Lua.workspace.library` to its path. spec/ldoc_spec.lua compares it with the documentation
-- and the code.

---@alias nymbl.id string|integer

---@alias nymbl.kind
---| "bad_request"
---| "unauthorized"
---| "forbidden"
---| "not_found"
---| "too_large"
---| "unsupported_type"
---| "throttled"
---| "quota"
---| "server"
---| "http"
---| "timeout"
---| "network"
---| "tls"
---| "truncated"
---| "corrupt"
---| "protocol"
---| "redirect"
---| "io"
---| "context"
---| "settings"
---| "canceled"

---@alias nymbl.operation
---| "upload"
---| "list"
---| "get"
---| "download"
---| "delete"
---| "patients"
---| "token"

---An error: the second result of a call that failed. `tostring(err)` is safe to log.
---@class nymbl.err
---@field kind nymbl.kind what a program can do about it
---@field reason? string the cause
---@field status? integer HTTP status
---@field code? string the service's error code
---@field detail? string the service's own words. They may identify a patient
---@field operation? nymbl.operation
---@field request_id? string the service's id of the request
---@field attempts integer requests sent for this call
---@field retry_after? number seconds
---@field outcome_unknown? boolean true if an upload or delete may have been carried out

---The argument of `on_event`, after each request.
---@class nymbl.event
---@field operation nymbl.operation
---@field status? integer HTTP status
---@field kind? nymbl.kind nil if the request succeeded
---@field attempt integer number of the request within its call
---@field waited number seconds
---@field seconds number duration of the request
---@field bytes_sent integer
---@field bytes_received integer
---@field request_id? string the service's id of the request
---@field outcome_unknown? boolean true if it may have been carried out in spite of its failure
---@field retry_after? number seconds
---@field tag? any the call's option

---@alias nymbl.wait_reason
---| "rate_limit"
---| "pause"
---| "retry"
---| "token"
---| "connection"
---| "store"

---The argument of `on_wait`, when a call begins to wait.
---@class nymbl.wait_event
---@field operation nymbl.operation
---@field reason nymbl.wait_reason
---@field seconds? number as far as they are known
---@field tag? any the call's option

---@alias nymbl.headers table<string, string> request headers for tracing

---@alias nymbl.progress fun(done: integer, total?: integer): boolean? return false to cancel
---@alias nymbl.source fun(): string?, nymbl.err? an LTN12 source
---@alias nymbl.sink fun(chunk?: string, err?: any): any, any an LTN12 sink

---A place where clients share rate limit, quota and token.
---@class nymbl.store
---@field now fun(self: nymbl.store): number seconds
---@field update fun(self: nymbl.store, key: string, deadline: number?, change: function, ...): any, ...
---@field token? boolean whether it keeps tokens, too

---@class nymbl.credentials
---@field token_url string
---@field client_id string
---@field client_secret string
---@field scope? string

---Requests per second and burst.
---@class nymbl.rate
---@field read? number[]
---@field download? number[]

---@class nymbl.client_options
---@field base_url string
---@field api_key string
---@field credentials? nymbl.credentials
---@field token? string|fun(): string?, any
---@field ca_file? string
---@field ca_path? string
---@field proxy? string
---@field allow_http? boolean
---@field user_agent? string
---@field connect_timeout? number seconds
---@field stall_timeout? number seconds
---@field timeout? number seconds
---@field max_attempts? integer
---@field max_connections? integer
---@field max_upload_bytes? integer
---@field rate? nymbl.rate|false
---@field monthly_quota? integer|false
---@field store? nymbl.store
---@field headers? nymbl.headers|fun(operation: nymbl.operation): nymbl.headers?
---@field on_event? fun(event: nymbl.event)
---@field on_wait? fun(event: nymbl.wait_event)

---@class nymbl.call_options
---@field timeout? number seconds
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.safe_name_options
---@field unique? boolean

---@class nymbl.each_options
---@field concurrency? integer

---@class nymbl.store_file_options
---@field token? boolean

---@class nymbl.store_redis_options
---@field url? string
---@field urls? string[] tried in order
---@field username? string
---@field password? string
---@field ca_file? string PEM file of trusted certificates
---@field prefix? string of every key
---@field token? boolean whether it keeps tokens, too
---@field timeout? number seconds for one change
---@field when_down? string "fail" or "alone"
---@field share? number fraction of rate and quota for a process that continues alone
---@field allow_plain? boolean

---@class nymbl.upload_options
---@field file_name? string
---@field content_type? string
---@field document_type? string
---@field description? string
---@field size? integer bytes
---@field check_type? boolean
---@field reconcile? boolean|nymbl.document[]
---@field progress? nymbl.progress
---@field timeout? number seconds
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.query
---@field filter? string
---@field select? string|string[]
---@field orderby? string|string[]
---@field top? integer
---@field skip? integer
---@field page_size? integer
---@field count? boolean
---@field timeout? number seconds for each page
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.download_options
---@field mode? integer
---@field overwrite? boolean
---@field resume? boolean
---@field check_size? boolean
---@field content_type? string
---@field sha256? boolean
---@field progress? nymbl.progress
---@field timeout? number seconds
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.open_options
---@field timeout? number seconds until the response begins
---@field progress? nymbl.progress
---@field check_size? boolean
---@field offset? integer
---@field length? integer
---@field if_match? string a strong entity-tag
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.usage
---@field month string such as "2026-02" (UTC)
---@field requests integer
---@field throttled integer
---@field remaining? integer

---@class nymbl.check_options
---@field patient? nymbl.patient|nymbl.id whose documents are listed
---@field timeout? number seconds

---A step of `client:check`.
---@class nymbl.step
---@field step string
---@field state "ok"|"failed"|"unknown"|"skipped"
---@field err? nymbl.err of a failed step
---@field days? integer until the certificate expires
---@field skew? number seconds by which this machine's clock is ahead of the service's

---@class nymbl.upload_item
---@field path string
---@field document_type? string
---@field description? string
---@field file_name? string

---@class nymbl.upload_all_options
---@field journal string path
---@field concurrency? integer
---@field dry_run? boolean
---@field settle? number seconds
---@field document_type? string
---@field description? string
---@field progress? fun(report: nymbl.upload_report): boolean? return false to end the run
---@field on_file? fun(path: string, document?: nymbl.document, err?: nymbl.err) called once the outcome of a file is known
---@field timeout? number seconds for each call
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.upload_cost
---@field requests integer
---@field uploads integer
---@field bytes integer

---@class nymbl.upload_failure
---@field path? string
---@field err nymbl.err

---@class nymbl.upload_report
---@field complete boolean
---@field stopped? string
---@field uploaded integer
---@field unchanged integer
---@field failed integer
---@field unknown integer
---@field requests integer
---@field bytes integer
---@field errors nymbl.upload_failure[]
---@field would? nymbl.upload_cost with `dry_run`

---@class nymbl.compare_options
---@field verify? boolean
---@field timeout? number seconds
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.compared
---@field name string
---@field size? integer bytes
---@field document? nymbl.document

---@class nymbl.comparison
---@field same nymbl.compared[]
---@field missing_here nymbl.compared[]
---@field missing_there nymbl.compared[]
---@field different nymbl.compared[]

---@class nymbl.export_options
---@field patients? (nymbl.patient|nymbl.id)[]|fun(): nymbl.patient|nymbl.id|nil
---@field filter? string
---@field concurrency? integer
---@field budget? integer requests
---@field dry_run? boolean
---@field verify? boolean
---@field progress? fun(report: nymbl.export_report): boolean? return false to cancel
---@field timeout? number seconds for each page and each document
---@field headers? nymbl.headers
---@field tag? any

---@class nymbl.export_failure
---@field patient_id? string
---@field id? string of the document
---@field err nymbl.err

---@class nymbl.export_cost
---@field requests integer
---@field downloads integer
---@field bytes integer

---What `client:export` has done.
---@class nymbl.export_report
---@field complete boolean whether everything was visited, and nothing failed
---@field stopped? string why the run has ended early
---@field patients integer
---@field downloaded integer
---@field unchanged integer
---@field failed integer
---@field gone integer
---@field requests integer
---@field bytes integer
---@field errors nymbl.export_failure[]
---@field would? nymbl.export_cost of a dry run

---@class nymbl.page
---@field [integer] nymbl.document
---@field count? integer
---@field has_more boolean

---@class nymbl.failure
---@field item any
---@field err any

---@class nymbl.datetime

---@class nymbl.client
local client = {}

---@param id nymbl.id
---@return nymbl.patient
function client:patient(id) end

---@param options? nymbl.query
---@return fun(): nymbl.patient?
function client:patients(options) end

---@return nymbl.usage? usage
---@return nymbl.err? err
function client:usage() end

---@param options? nymbl.check_options
---@return nymbl.step[] steps
---@return boolean ok whether no step failed
function client:check(options) end

---@param folder string
---@param options? nymbl.export_options
---@return nymbl.export_report? report
---@return nymbl.err? err
function client:export(folder, options) end

---@return boolean
function client:close() end

---@class nymbl.patient
---@field id string
---@field [string] any further fields that a listing has selected
local patient = {}

---@param what string|file*|{ data: string }|nymbl.source|nymbl.stream|nymbl.document
---@param options? nymbl.upload_options
---@return nymbl.document? document
---@return nymbl.err? err
function patient:upload(what, options) end

---@param options? nymbl.query
---@return fun(): nymbl.document?
function patient:documents(options) end

---@param options? nymbl.query
---@return nymbl.page? page
---@return nymbl.err? err
function patient:page(options) end

---@param filter? string
---@param options? nymbl.call_options
---@return integer? count
---@return nymbl.err? err
function patient:count(filter, options) end

---@param id nymbl.id
---@param options? nymbl.call_options
---@return nymbl.document? document
---@return nymbl.err? err
function patient:get(id, options) end

---@param id nymbl.id
---@return nymbl.document
function patient:document(id) end

---@param files (string|nymbl.upload_item)[]|fun(): string|nymbl.upload_item|nil
---@param options nymbl.upload_all_options
---@return nymbl.upload_report? report
---@return nymbl.err? err
function patient:upload_all(files, options) end

---@param folder string
---@param options? nymbl.compare_options
---@return nymbl.comparison? found
---@return nymbl.err? err
function patient:compare(folder, options) end

---@class nymbl.document
---@field id string
---@field patient_id string
---@field file_name? string
---@field content_type? string
---@field file_size_bytes? integer
---@field document_type? string
---@field description? string
---@field uploaded_by_id? string
---@field uploaded_at? string
local document = {}

---@param options? nymbl.call_options
---@return nymbl.document? document itself
---@return nymbl.err? err
function document:refresh(options) end

---@param options? nymbl.call_options
---@return true? ok
---@return nymbl.err? err
function document:delete(options) end

---@return table<string, any>
function document:metadata() end

---@param options? nymbl.safe_name_options
---@return string
function document:safe_name(options) end

---@param destination string|file*|nymbl.sink
---@param options? nymbl.download_options
---@return integer? bytes
---@return string|nymbl.err|nil content_type or the error
---@return string? sha256
function document:download(destination, options) end

---@param options? nymbl.open_options
---@return nymbl.stream? stream
---@return nymbl.err? err
function document:open(options) end

---@param patient nymbl.patient
---@param options? nymbl.upload_options
---@return nymbl.document? copy
---@return nymbl.err? err
function document:copy_to(patient, options) end

---@class nymbl.stream
---@field size? integer
---@field content_type? string
---@field etag? string
---@field last_modified? string
---@overload fun(): string?, nymbl.err?
local stream = {}

---@param ... string|integer
---@return string?
---@return string|nymbl.err|nil
---@return any ...
function stream:read(...) end

---@param ... string|integer
---@return fun(): string?, ...
function stream:lines(...) end

---@return boolean
function stream:close() end

---@class nymbl
---@field _VERSION string
---@field null lightuserdata
local nymbl = {}

---@param options nymbl.client_options
---@return nymbl.client? client
---@return nymbl.err? err
function nymbl.client(options) end

---@param template string
---@param ... string|number|boolean|lightuserdata|nymbl.datetime
---@return string
function nymbl.filter(template, ...) end

---@param t number|table|string
---@return nymbl.datetime
function nymbl.datetime(t) end

---@param text string?
---@return number? seconds
function nymbl.time(text) end

---@param overrides? table
---@return nymbl.client_options? options
---@return nymbl.err? err
function nymbl.from_env(overrides) end

---@param fields nymbl.err
---@return nymbl.err
function nymbl.error(fields) end

---@generic T
---@param items T[]|fun(): T?
---@param options nymbl.each_options?
---@param fn fun(item: T): any, any
---@return integer succeeded
---@return nymbl.failure[] failed
function nymbl.each(items, options, fn) end

---@param loop "luv"
function nymbl.use(loop) end

nymbl.store = {}

---@param path string
---@param options? nymbl.store_file_options
---@return nymbl.store
function nymbl.store.file(path, options) end

---@param name string
---@return nymbl.store
function nymbl.store.shdict(name) end

---@param options nymbl.store_redis_options
---@return nymbl.store
function nymbl.store.redis(options) end

return nymbl
