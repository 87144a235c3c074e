-- SPDX-License-Identifier: MIT
-- An index with little memory: about 20 bytes for each entry, and its value. Of a key it keeps 76 bits
-- of a hash. The entries are lines in strings, one string for each value of the hash's first 12 bits.

local core = require "nymbl.core"

local index = {}
index.__index = index

-- Make an empty index.
function index.new()
  return setmetatable({ buckets = {} }, index)
end

-- The bucket of a key, and how its entries begin. A key is an array of texts without NUL.
local function locate(key)
  local digits = core.sha256(table.concat(key, "\0"))
  return digits:sub(1, 3), "\n" .. digits:sub(4, 19)
end

-- The value is what follows up to the end of the line: control characters are escaped.
local function escape(value)
  return (value:gsub("[%z\1-\31%%]", function(char) return ("%%%02X"):format(char:byte()) end))
end

local function unescape(value)
  return (value:gsub("%%([0-9A-F][0-9A-F])", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- All values of a key, in the order in which they were added.
-- @tparam table key an array of texts
-- @treturn table an array of strings
function index:values(key)
  local bucket, beginning = locate(key)
  local lines, values, from = self.buckets[bucket], {}, 1
  while lines do
    local _, last = lines:find(beginning, from, true)
    if not last then break end
    values[#values + 1] = unescape(lines:match("^[^\n]*", last + 1))
    from = last + 1
  end
  return values
end

-- Add a value to those of a key.
-- @tparam table key
-- @tparam string value
function index:add(key, value)
  local bucket, beginning = locate(key)
  self.buckets[bucket] = (self.buckets[bucket] or "") .. beginning .. escape(value)
end

-- The only value of a key, or nil.
function index:get(key)
  return self:values(key)[1]
end

-- Set the only value of a key.
function index:set(key, value)
  local bucket, beginning = locate(key)
  local lines = self.buckets[bucket] or ""
  local first, last = lines:find(beginning, 1, true)
  if first then
    local after = lines:find("\n", last + 1, true)
    lines = lines:sub(1, first - 1) .. (after and lines:sub(after) or "")
  end
  self.buckets[bucket] = lines .. beginning .. escape(value)
end

return index
