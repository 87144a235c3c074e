-- SPDX-License-Identifier: MIT

--- Documents of the Nymbl Customer API: upload, list, get, download, delete.
--
-- A call that fails at run time returns nil and an error, which is a table (@{err}). An
-- iterator raises that table. Misuse raises a string: a wrong argument, an unknown option or
-- a closed object.
--
-- Times are seconds, sizes are bytes, and ids are strings or integers. A call that sends a
-- request waits for its result. In nginx, cqueues, luv and @{each} it yields: only the
-- calling coroutine waits. If it may not wait there, its error has the kind `context`.
-- @module nymbl
-- @usage
-- local nymbl = require "nymbl"
-- print(nymbl._VERSION)

--- An error: the second result of a call that failed. `tostring(err)` is one line of fixed
-- words that is safe to log: it contains no id, name, URL, secret or text of the service.
-- @table err
-- @tfield string kind what a program can do about it, such as `"not_found"`; all kinds are
--   in the guide, "Errors"
-- @tfield ?string reason the cause, such as `"connect"`; all reasons are in the guide, "Errors"
-- @tfield ?integer status HTTP status of the response, or of the proxy that refused the request
-- @tfield ?string code the service's error code
-- @tfield ?string detail the service's own words. They may identify a patient
-- @tfield ?string operation `"upload"`, `"list"`, `"get"`, `"download"`, `"delete"`,
--   `"patients"`, or `"token"` if the token request failed
-- @tfield ?string request_id the service's id of the request, for its support
-- @tfield integer attempts requests sent for this call, token requests not counted
-- @tfield ?number retry_after seconds after which another try makes sense
-- @tfield ?boolean outcome_unknown true if an upload or delete may have been carried out

--- The argument of the client option `on_event`: after each request, and for a stream when it has
-- ended or is closed. A stream that was left to the garbage collector is reported at its client's
-- next call. Nothing in it identifies a patient, unless `tag` does.
-- @table event
-- @tfield string operation `"upload"`, `"list"`, `"get"`, `"download"`, `"delete"`, `"patients"` or `"token"`
-- @tfield ?integer status HTTP status; nil if no response arrived
-- @tfield ?string kind the kind of the failure; nil if the request succeeded
-- @tfield integer attempt number of the request within its call; 0 if nothing was sent
-- @tfield number waited seconds that the call waited before the request, as `on_wait` reports it
-- @tfield number seconds duration of the request
-- @tfield integer bytes_sent bytes of the request's body
-- @tfield integer bytes_received bytes of the response's body
-- @tfield ?string request_id the service's id of the request
-- @tfield ?boolean outcome_unknown true if a failed upload or delete may have been carried out
-- @tfield ?number retry_after seconds after which the service accepts another request
-- @tfield ?any tag the call's option `tag`

--- The argument of the client option `on_wait`: when a call begins to wait for anything but bytes.
-- @table wait_event
-- @tfield string operation as in an @{event}
-- @tfield string reason `"rate_limit"`; `"pause"` after a 429 or a Retry-After; `"retry"`;
--   `"token"`: another caller refreshes it; `"connection"`: `max_connections` are in use;
--   `"store"`: it is locked, or on another machine and slow
-- @tfield ?number seconds as far as they are known
-- @tfield ?any tag the call's option `tag`

--- A step of @{client:check}.
-- @table step
-- @tfield string step `"settings"`, `"name"`, `"connection"`, `"certificate"`, `"clock"`, `"token"`, `"key"` or
--   `"quota"`
-- @tfield string state `"ok"`, `"failed"`, `"unknown"`, or `"skipped"` after a failed step
-- @tfield ?err err the error of a failed step; `tostring(err)` says what to do
-- @tfield ?integer days of the certificate: days until it expires
-- @tfield ?number skew of the clock: seconds by which this machine's clock is ahead of the service's

--- What @{client:export} has done.
-- @table export_report
-- @tfield boolean complete whether everything was visited, and nothing failed
-- @tfield ?string stopped why the run has ended early: the kind of an error that would occur again
--   (`"unauthorized"`, `"forbidden"`, `"quota"`, `"network"`, …), `"budget"`, `"no_space"` or `"canceled"`
-- @tfield integer patients how many were visited
-- @tfield integer downloaded documents
-- @tfield integer unchanged documents, which were not downloaded
-- @tfield integer failed documents and patients
-- @tfield integer gone documents that the service has no more; they stay in the folder
-- @tfield integer requests to the service
-- @tfield integer bytes downloaded
-- @tfield table errors an array of at most 1,000 failures: `patient_id`, `id` of the document, `err`
-- @tfield ?table would after a dry run: `requests`, `downloads` and `bytes` of a run, if nothing changes or fails

local core = require "nymbl.core"
local check = require "nymbl.check"
local client = require "nymbl.client"
local errors = require "nymbl.errors"
local lazy = require "nymbl.lazy"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

-- A function of a module that is loaded on first use.
local function on_first_use(module, name)
  return function(...) return lazy.load(module)[name](...) end
end

local function use(loop)
  if loop ~= "luv" then
    check.raise_argument(1, "use", type(loop) == "string" and ("unknown loop '%s'"):format(loop)
      or check.expected("string", loop))
  end
  wait.use(loop)
end

return {
  --- `"nymbl 0.1.0"`: the name and the version.
  -- @field _VERSION
  _VERSION = "nymbl " .. core.version,

  --- JSON null: in filters, and in what `document:metadata` returns. It is the value that
  -- lua-cjson uses.
  -- @field null
  null = core.null,

  --- Create a client. Sends no request.
  -- @function client
  -- @tparam table options
  -- @tparam string options.base_url the service's address: `https://host[:port][/prefix]`
  -- @tparam string options.api_key the API key
  -- @tparam[opt] table options.credentials OAuth 2.0 client credentials (RFC 6749, section 4.4);
  --   required unless `token` is set
  -- @tparam string options.credentials.token_url address of the token endpoint
  -- @tparam string options.credentials.client_id
  -- @tparam string options.credentials.client_secret
  -- @tparam[opt] string options.credentials.scope such as `"nymbl-customer-api/acme-corp"`
  -- @tparam[opt] string|function options.token instead of `credentials`: a token, or a
  --   function that returns `token, expires_in` (seconds) or `nil, err`
  -- @tparam[opt] string options.ca_file file of trusted certificates (default: the system's)
  -- @tparam[opt] string options.ca_path directory of trusted certificates
  -- @tparam[opt] string options.proxy URL of a proxy, as libcurl accepts it; `""` for none (default:
  --   from the environment)
  -- @tparam[opt=false] boolean options.allow_http whether URLs may be `http://` on a loopback address
  -- @tparam[opt] string options.user_agent appended to the library's own
  -- @tparam[opt=10] number options.connect_timeout seconds until a connection must be established
  -- @tparam[opt=30] number options.stall_timeout seconds without a byte moving; 120 for the response
  --   once an upload was sent
  -- @tparam[opt] number options.timeout seconds for one call in total, waits and retries included;
  --   each call can override it
  -- @tparam[opt=5] integer options.max_attempts requests per call, retries included
  -- @tparam[opt=16] integer options.max_connections transfers at once; further ones wait
  -- @tparam[opt=26214400] integer options.max_upload_bytes larger documents are refused before anything
  --   is sent
  -- @tparam[opt] table|boolean options.rate requests per second and burst (default
  --   `{ read = { 2, 4 }, download = { 1, 2 } }`); false turns the rate limiter off
  -- @tparam[opt=10000] integer|boolean options.monthly_quota requests per calendar month
  --   (UTC); false turns it off
  -- @tparam[opt] table options.store a store (@{nymbl.store}) where rate limit, quota and token are
  --   shared (default: one in this process)
  -- @tparam[opt] table|function options.headers request headers for tracing: `traceparent`,
  --   `tracestate`, `baggage`, `x-request-id` and `x-correlation-id`; or a function of the
  --   operation that returns such a table or nil, called before each request
  -- @tparam[opt] function options.on_event called with an @{event} after each request
  -- @tparam[opt] function options.on_wait called with a @{wait_event} when a call begins to wait
  -- @treturn[1] client
  -- @treturn[2] nil `ca_file` or `ca_path` cannot be read
  -- @treturn[2] table the error
  -- @raise on a wrong or unknown option; the message never contains the value of a secret
  -- @usage
  -- local client = assert(nymbl.client {
  --   base_url = os.getenv "NYMBL_BASE_URL",
  --   api_key = os.getenv "NYMBL_API_KEY",
  --   ca_file = os.getenv "NYMBL_CA_FILE", -- only for the sandbox
  --   credentials = {
  --     token_url = os.getenv "NYMBL_TOKEN_URL",
  --     client_id = os.getenv "NYMBL_CLIENT_ID",
  --     client_secret = os.getenv "NYMBL_CLIENT_SECRET",
  --     scope = os.getenv "NYMBL_SCOPE",
  --   },
  --   timeout = 60,
  -- })
  client = client.new,

  --- Fill in a filter template: each `?` outside quotes is replaced by a literal, so that no
  -- value can change the meaning of the filter.
  -- @function filter
  -- @tparam string template such as `"document_type eq ? and uploaded_at ge ?"`
  -- @param ... strings, numbers, booleans, `nymbl.null` or values of @{datetime}
  -- @treturn string a value for the query option `filter`
  -- @raise if there are too few or too many values, or a value has another type
  -- @usage
  -- local filter = nymbl.filter("document_type eq ?", "Referral")
  -- for document in patient:documents { filter = filter } do
  --   print(document.id)
  -- end
  filter = on_first_use("nymbl.filter", "filter"),

  --- A date and time for a filter, as an OData literal in UTC.
  -- @function datetime
  -- @tparam number|table|string t seconds since 1970-01-01T00:00:00Z; or UTC fields as
  --   `os.date "!*t"` returns them (fields out of range are normalised); or a text as the
  --   service sends (`document.uploaded_at`)
  -- @return a value for @{filter}; `tostring` returns the literal. It has the digits of the
  --   text's fraction, or milliseconds if a number has a fraction
  -- @raise on a wrong argument, and on a text that is not a date and time with a zone
  -- @usage
  -- local february = nymbl.datetime { year = 2026, month = 2, day = 1 }
  -- print(assert(patient:count(nymbl.filter("uploaded_at ge ?", february))))
  datetime = on_first_use("nymbl.datetime", "datetime"),

  --- The time that a text states.
  -- @function time
  -- @tparam ?string text ISO 8601 with `Z` or an offset, as the service sends it
  --   (`document.uploaded_at`)
  -- @treturn[1] number seconds since 1970-01-01T00:00:00Z
  -- @treturn[2] nil the text is not a date and time with a zone, or nil or `nymbl.null`
  -- @raise on a value of another type
  -- @usage
  -- assert(nymbl.time "1970-01-02T00:00:00.5Z" == 86400.5)
  time = on_first_use("nymbl.datetime", "time"),

  --- Read client options from the environment: `NYMBL_BASE_URL`, `NYMBL_API_KEY` and others
  -- (in the guide, "Settings from the environment"). In nginx, the directive `env` must name
  -- each variable.
  -- @function from_env
  -- @tparam[opt] table overrides client options that win; their variables are not read
  -- @treturn[1] table options for @{client}
  -- @treturn[2] nil
  -- @treturn[2] table the error, of kind `settings`; `detail` is the name of the variable
  -- @raise on a wrong argument
  -- @usage
  -- local settings = assert(nymbl.from_env { timeout = 60 })
  -- local client = assert(nymbl.client(settings))
  from_env = on_first_use("nymbl.settings", "from_env"),

  --- Make an error like those that the library returns, for a program's own tests.
  -- @function error
  -- @tparam table fields see @{err}; `kind` is required, and `attempts` is 0 by default. The table
  --   is copied
  -- @treturn table the error
  -- @raise on an unknown field or kind, or a field of the wrong type
  -- @usage
  -- local err = nymbl.error { kind = "throttled", status = 429, retry_after = 2 }
  -- assert(tostring(err):find("retry after 2 s", 1, true))
  error = errors.error,

  --- Run a function for every item, several items at once. While one call waits for the
  -- service, the others continue. It returns when all items have finished.
  -- @function each
  -- @param items an array, or an iterator; an item is taken only when it can start
  -- @tparam ?table options may be nil or left out
  -- @tparam ?integer options.concurrency the number of items at once (default 8)
  -- @tparam function fn called with each item, in a coroutine; the item succeeded if `fn` returned a
  --   true value
  -- @treturn integer the number of items that succeeded
  -- @treturn table an array of `{ item =, err = }` for the others; `err` is what `fn` raised,
  --   or its second result
  -- @raise on a wrong argument; and what the iterator raised, after the running items have
  --   finished
  -- @usage
  -- local ids = { "doc-abc123", "doc-def456" }
  -- local succeeded, failed = nymbl.each(ids, { concurrency = 2 }, function(id)
  --   return patient:get(id)
  -- end)
  -- print(succeeded, #failed)
  each = on_first_use("nymbl.each", "each"),

  store = store, -- see nymbl.store

  --- Name the event loop of this process if nymbl cannot detect it. Calls made in coroutines
  -- of that loop then yield to it. Without this, they block.
  -- @function use
  -- @tparam string loop `"luv"`
  -- @raise on another name, or if luv is not installed
  -- @usage
  -- local uv = require "luv"
  -- nymbl.use "luv"
  -- coroutine.wrap(function()
  --   local count, err = patient:count()
  --   print(count or tostring(err))
  -- end)()
  -- uv.run()
  use = use,
}
