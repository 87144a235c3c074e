-- SPDX-License-Identifier: MIT
-- Data on standard output: rows of printable text, or one JSON object per line.

local output = {}

-- The sequences of valid UTF-8 that are not ASCII (RFC 3629, section 4).
local SEQUENCES = {
  "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]", "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]", "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]", "^\244[\128-\143][\128-\191][\128-\191]",
}

-- Characters that control a terminal or reorder the rest of a line: C1 controls, separators,
-- bidirectional controls, and the byte order mark.
local CONTROLS = {
  "^\194[\128-\159]$", "^\216\156$", "^\226\128[\142\143\168-\174]$", "^\226\129[\160-\175]$", "^\239\187\191$",
}

local function matches(text, patterns, at)
  for _, pattern in ipairs(patterns) do
    local _, last = text:find(pattern, at)
    if last then return last end
  end
end

-- A text whose invalid bytes are replaced, and, if `is_shown`, its controls, too.
local function clean(text, replacement, is_shown)
  if is_shown then text = text:gsub("[%z\1-\31\127]", replacement) end
  return (text:gsub("[\128-\255]+", function(run)
    local characters, at = {}, 1
    while at <= #run do
      local last = matches(run, SEQUENCES, at)
      local character = last and run:sub(at, last) or replacement
      if is_shown and last and matches(character, CONTROLS, 1) then character = replacement end
      characters[#characters + 1] = character
      at = (last or at) + 1
    end
    return table.concat(characters)
  end))
end

-- A text that is safe to print: `?` replaces each control character and invalid byte.
function output.printable(value)
  return clean(tostring(value), "?", true)
end

-- ---- JSON ----

local ARRAY = {}

-- Mark a table as an array, because an empty one would be an object.
function output.array(items)
  return setmetatable(items, ARRAY)
end

local encode

local function encode_array(items)
  local words = {}
  for i, item in ipairs(items) do words[i] = encode(item) end
  return "[" .. table.concat(words, ",") .. "]"
end

local function encode_object(fields)
  local names, words = {}, {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do words[i] = encode(name) .. ":" .. encode(fields[name]) end
  return "{" .. table.concat(words, ",") .. "}"
end

-- lua-cjson encodes an empty array as an object, and orders the keys differently each time. So it
-- encodes only strings.
function encode(value)
  if type(value) == "table" then
    if getmetatable(value) == ARRAY or value[1] ~= nil then return encode_array(value) end
    return encode_object(value)
  elseif type(value) == "number" then
    if value % 1 == 0 and value > -2^53 and value < 2^53 then return ("%.0f"):format(value) end
    return ("%.14g"):format(value)
  end
  if type(value) == "boolean" then return tostring(value) end
  if type(value) ~= "string" then return "null" end
  return (require("cjson").encode(clean(value, "\239\191\189", false)):gsub("\\/", "/"))
end

output.encode = encode

-- ---- standard output ----

local writer = {}
writer.__index = writer

-- Errors of standard output, by the system's number. The others are "io_error".
local REASONS = { [28] = "no_space", [32] = "pipe_closed" }

-- Write a text, and what is still in memory if `is_flushed` is true.
local function write(self, text, is_flushed)
  if self.reason then return nil end
  local written, code = self.system.write(io.stdout, text, is_flushed)
  if written then return true end
  self.reason = REASONS[code] or "io_error"
end

-- Write a text. Returns true; or nil if standard output has failed, now or before.
function writer:write(text)
  if self.before_write and not self.reason then self.before_write() end
  return write(self, text, self.is_flushed)
end

-- Write a row of columns.
function writer:row(...)
  local words = { ... }
  for i, word in ipairs(words) do words[i] = output.printable(word) end
  return self:write(table.concat(words, "\t") .. "\n")
end

function writer:json(value)
  return self:write(encode(value) .. "\n")
end

-- Write what is still in memory. Returns true, or nil.
function writer:flush()
  return write(self, "", true)
end

-- Make a writer. It has `reason`, once standard output has failed; `is_flushed`, if every write
-- must arrive at once; and `before_write`, a function or nil.
function output.new()
  return setmetatable({ system = require("nymbl.core").system }, writer) -- the manual is made without it
end

-- Write a text, with which the program ends.
function output.finish(text)
  local out = output.new()
  out:write(text)
  os.exit(out:flush() and 0 or 1)
end

return output
