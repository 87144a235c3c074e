-- SPDX-License-Identifier: MIT
-- The error table: what is known of a failure, and one line that may be logged.

local core = require "nymbl.core"

local errors = {}

local metatable = { __name = "nymbl.error" }

-- Fixed words only: no URL, id, name, secret or text of the server's.
function metatable.__tostring(err)
  local words = { "nymbl: ", err.kind }
  if err.status then
    words[#words + 1] = " " .. string.format("%d", err.status)
  end
  if err.reason then
    words[#words + 1] = " (" .. err.reason .. ")"
  end
  if err.operation == "download" and (err.reason == "not_a_file" or err.reason == "mount_point") then
    words[#words + 1] = ": no file can be put there: pass a file handle or a sink"
  elseif err.reason == "url_too_long" then
    words[#words + 1] = ": an id, a filter or a link is too long for a URL: check it"
  else
    words[#words + 1] = ": " .. (core.kinds[err.kind] or "")
  end
  if err.outcome_unknown then
    words[#words + 1] = "; it may have been carried out all the same: look before you repeat it"
  end
  return table.concat(words)
end

function metatable.__concat(a, b)
  return tostring(a) .. tostring(b)
end

--- Make a table of fields (see the contract) an error.
-- @tparam table fields `kind` at least; becomes the error itself
-- @treturn table the error
function errors.new(fields)
  fields.attempts = fields.attempts or 0
  return setmetatable(fields, metatable)
end

--- Whether a value is an error of ours.
function errors.is(value)
  return getmetatable(value) == metatable
end

local NO_MEMORY = "not enough memory"

--- Whether a caught error says that an allocation failed.
function errors.is_memory(err)
  return type(err) == "string" and err:find(NO_MEMORY, 1, true) ~= nil
end

--- Raise a caught error again if it says that an allocation failed: that tells nothing
-- of what was at work, and Lua's own message passes through every call of ours. `require`
-- puts words before it, the buffers of Lua 5.3 put some behind it.
-- @param err what `pcall` caught
function errors.pass_memory(err)
  if errors.is_memory(err) then error(NO_MEMORY, 0) end
end

return errors
