-- SPDX-License-Identifier: MIT
-- What HTTP says about ranges, entity-tags, file names and request ids. No input or output.

local http = {}

--- The range that a request asks for (RFC 9110, section 14).
-- @param value the header Range, or nil
-- @param size bytes of the content
-- @return[1] the first byte, and the number of bytes
-- @return[2] false: the range has no byte of the content
-- @return[3] nil: the header is absent, invalid, of another unit or has several ranges. A
--   server may ignore it then, and send everything
function http.range(value, size)
  local first, last = (value or ""):match "^[Bb][Yy][Tt][Ee][Ss]=[ \t]*(%d*)%-(%d*)[ \t]*$"
  first, last = tonumber(first), tonumber(last)
  if not first and not last then return nil end
  if not first then -- the last bytes
    first, last = math.max(0, size - last), size - 1
  elseif last and last < first then
    return nil
  end
  if first >= size then return false end
  return first, math.min(last or size, size - 1) - first + 1
end

--- Whether a list of entity-tags has one of the content. `W/"a"` matches `"a"` in If-None-Match, but
-- not in If-Match (RFC 9110, section 13.1).
-- @param list the value of the header
-- @param etag a strong entity-tag, or nil if the content has none
-- @param is_if_match whether the header is If-Match
function http.has_etag(list, etag, is_if_match)
  if list == "*" then return true end
  if is_if_match then list = list:gsub('W/"[^"]*"', "") end
  for tag in list:gmatch '"[^"]*"' do
    if tag == etag then return true end
  end
  return false
end

-- Bytes that need no encoding in RFC 8187.
local NOT_ATTR_CHAR = "[^%w!#$&+.^_`|~-]"

--- The header Content-Disposition (RFC 6266).
-- @param kind "inline" or "attachment"
-- @param name a safe file name in UTF-8. Browsers that know `filename*` prefer it
function http.disposition(kind, name)
  -- a browser may decode "%" or "\" in `filename`
  local ascii = name:gsub("[^ -~]+", "_"):gsub('["%%\\]', "_")
  local text = ('%s; filename="%s"'):format(kind, ascii)
  if ascii == name then return text end
  return text .. "; filename*=UTF-8''" .. name:gsub(NOT_ATTR_CHAR, function(byte)
    return ("%%%02X"):format(byte:byte())
  end)
end

--- A caller's request id that may be passed on, or nil.
function http.request_id(value)
  return value and #value <= 64 and value:match "^[%w._-]+$" or nil
end

return http
