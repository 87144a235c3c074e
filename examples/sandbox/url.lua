-- SPDX-License-Identifier: MIT
-- Paths, queries and forms, parsed strictly, so that a client's mistakes are detected.

local url = {}

local PATH = "^[%w%-._~!$&'()*+,;=:@%%/]*$"
local QUERY = "^[%w%-._~!$&'()*+,;=:@%%/?]*$"

local function decode(text)
  if text:gsub("%%%x%x", ""):find("%", 1, true) then
    return nil
  end
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

--- Name and value pairs of a query or form, or nil if they are malformed or repeated.
function url.parameters(text)
  local found = {}
  for pair in text:gmatch "[^&]+" do
    local name, value = pair:match "^([^=]*)=?(.*)$"
    name, value = decode((name:gsub("+", " "))), decode((value:gsub("+", " ")))
    if not name or not value or found[name] then
      return nil
    end
    found[name] = value
  end
  return found
end

--- The path and the parameters of a request target; nil if it has characters that must be encoded.
function url.target(text)
  local path, query = text:match "^([^?]*)%??(.*)$"
  if path:sub(1, 1) ~= "/" or not path:find(PATH) or not query:find(QUERY) then
    return nil
  end
  local parameters = url.parameters(query)
  if not parameters then
    return nil
  end
  return path, parameters
end

--- The key in parentheses of a path segment such as `Patients(123)`: ids are unquoted and percent-encoded.
function url.key(segment, collection)
  local key = segment:match("^" .. collection .. "%((.+)%)$")
  return key and decode(key)
end

return url
