-- SPDX-License-Identifier: MIT
-- Failed requests: what their responses say, and whether another attempt may succeed.

local check = require "nymbl.check"
local errors = require "nymbl.errors"
local json = require "nymbl.json"

local failure = {}

local function string_or_nil(value)
  return type(value) == "string" and value or nil
end

-- The gateway's messages with status 403, and the reasons that they stand for.
local GATEWAY_REASONS = { ["Forbidden"] = "api_key", ["Missing Authentication Token"] = "unknown_route" }

-- Add the fields that a decoded error response determines. The service sends {error = {code,
-- message, details}}, a gateway a flat {message} (lua/README.md, "Facts about the service").
local function add_error_response(err, response)
  if not response then return end
  local inner = type(response.error) == "table" and response.error or response
  local details = inner.details
  if type(details) == "table" then
    local parts = {}
    for _, item in ipairs(details) do
      parts[#parts + 1] = string_or_nil(item) or (type(item) == "table" and string_or_nil(item.message)) or nil
    end
    details = table.concat(parts, "; ")
  end
  err.code = string_or_nil(inner.code) or string_or_nil(response.error)
  local words = { string_or_nil(inner.message) or string_or_nil(inner.Message) }
  if string_or_nil(details) and details ~= "" then words[#words + 1] = details end
  err.detail = #words > 0 and table.concat(words, ": ") or nil
  -- a 429 for the quota differs from one for the rate only by its message
  if err.status == 429 and inner.message == "Limit Exceeded" then err.kind = "quota" end
  if err.status == 403 then err.reason = err.reason or GATEWAY_REASONS[response.message] end
end

-- Turn an error table (call.lua) into the error that the program gets.
-- @tparam ?userdata transfer that failed, unless the request could not be started
function failure.to_error(err, operation, requests_sent, transfer)
  if err.user_error then return err.user_error end
  if err.kind == "misuse" then check.raise("wrong " .. tostring(err.reason)) end
  if transfer then
    err.request_id = transfer:request_id()
    if err.status and err.status >= 300 then add_error_response(err, json.decode_response(transfer:body())) end
  end
  err.attempts = requests_sent
  return errors.new(err, operation)
end

-- Failures that may not occur again.
local TRANSIENT = { network = true, timeout = true, truncated = true }
local TRANSIENT_STATUS = { [500] = true, [502] = true, [503] = true, [504] = true }

-- The longest Retry-After that is waited for. A longer one is left to the caller.
local MAX_RETRY_AFTER = 120

-- Whether the same request may succeed later.
function failure.is_transient(err)
  if errors.is_from_proxy(err) and err.status then return TRANSIENT_STATUS[err.status] end
  return err.reason ~= "deadline"
    and (TRANSIENT[err.kind] or TRANSIENT_STATUS[err.status] or err.kind == "throttled")
    and (err.retry_after or 0) <= MAX_RETRY_AFTER
end

-- Whether the same request may be sent again: it may succeed later, and it does no harm if it
-- is carried out twice.
function failure.is_retryable(operation, err, was_sent)
  if not failure.is_transient(err) then return false end
  return operation ~= "upload" or err.kind == "throttled" or not was_sent
end

-- Seconds to wait after an attempt: exponential backoff with full jitter, and at least as
-- long as the service asks for.
function failure.backoff(attempts_made, err)
  return math.max(err.retry_after or 0, math.random() * math.min(30, 2 ^ (attempts_made - 2)))
end

return failure
