-- SPDX-License-Identifier: MIT
-- JSON with ordered objects and empty arrays, which cjson alone cannot write.

local cjson = require "cjson".new()

local json = { null = cjson.null }

local object_mt, array_mt, raw_mt = {}, {}, {}

--- An object whose members are encoded in the order of `members`, a list of `{ name, value }`.
function json.object(members)
  return setmetatable(members, object_mt)
end

--- A list that stays `[]` when it is empty.
function json.array(list)
  return setmetatable(list, array_mt)
end

--- Text that is JSON already and is encoded unchanged.
function json.raw(text)
  return setmetatable({ text = text }, raw_mt)
end

function json.is_object(value)
  return getmetatable(value) == object_mt
end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function string_encode(s)
  return '"' .. s:gsub('[%c"\\]', function(c)
    return escapes[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function number_encode(n)
  if n == math.floor(n) and math.abs(n) < 2 ^ 53 then
    return ("%d"):format(n)
  end
  return ("%.17g"):format(n)
end

local function array_encode(list)
  local out = {}
  for i, value in ipairs(list) do
    out[i] = json.encode(value)
  end
  return "[" .. table.concat(out, ",") .. "]"
end

local function members_encode(members)
  local out = {}
  for i, member in ipairs(members) do
    out[i] = string_encode(member[1]) .. ":" .. json.encode(member[2])
  end
  return "{" .. table.concat(out, ",") .. "}"
end

local function table_encode(t)
  local class = getmetatable(t)
  if class == raw_mt then
    return t.text
  elseif class == object_mt then
    return members_encode(t)
  elseif class == array_mt or t[1] ~= nil or next(t) == nil then
    return array_encode(t)
  end
  local members = {}
  for name, value in pairs(t) do
    members[#members + 1] = { tostring(name), value }
  end
  table.sort(members, function(a, b) return a[1] < b[1] end)
  return members_encode(members)
end

function json.encode(value)
  local kind = type(value)
  if value == json.null or value == nil then
    return "null"
  elseif kind == "table" then
    return table_encode(value)
  elseif kind == "string" then
    return string_encode(value)
  elseif kind == "number" then
    return number_encode(value)
  end
  return tostring(value)
end

--- An id as text: numbers keep all their digits.
function json.id(value)
  return type(value) == "number" and number_encode(value) or tostring(value)
end

--- Decode `text`. Returns the value, or nil and a problem.
function json.decode(text)
  local ok, value = pcall(cjson.decode, text)
  if not ok then
    return nil, value
  end
  return value
end

return json
