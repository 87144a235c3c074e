-- SPDX-License-Identifier: MIT
-- The subset of OData 4 query options that the service documents: $filter, $orderby, $select and paging.

local json = require "json"

local odata = {}

--- The entities' names, and the types of their properties.
odata.DOCUMENT = { name = "Document", types = {
  id = "string", patient_id = "string", file_name = "string", content_type = "string",
  file_size_bytes = "number", document_type = "string", description = "string",
  uploaded_by_id = "string", uploaded_at = "datetime",
} }
odata.PATIENT = { name = "Patient", types = {
  id = "string", active = "boolean", first_name = "string", last_name = "string",
} }
-- Some services name the key of a patient differently.
odata.PATIENT_BY_PATIENT_ID = { name = "Patient", types = {
  patient_id = "string", active = "boolean", first_name = "string", last_name = "string",
} }

local entity -- that of the query that is being parsed

local MAX_DEPTH = 50

-- Raised inside this module only, and caught in odata.query.
local function fail(details, ...)
  error({ details = details:format(...) }, 0)
end

local function property_type(name)
  return entity.types[name] or fail("Property '%s' does not exist on type '%s'", name, entity.name)
end

-- Days since 1970-01-01 in the proleptic Gregorian calendar.
local function day_number(year, month, day)
  if month <= 2 then
    year, month = year - 1, month + 12
  end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

local function offset_seconds(text)
  if text == "Z" then
    return 0
  end
  local sign, hours, minutes = text:match "^([+-])(%d%d):(%d%d)$"
  if not sign then
    return nil
  end
  return (hours * 3600 + minutes * 60) * (sign == "-" and -1 or 1)
end

--- Seconds since 1970 of a date or date-time literal, or nil.
function odata.time(text)
  local year, month, day, rest = text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)(.*)$"
  if not year or month + 0 < 1 or month + 0 > 12 or day + 0 < 1 or day + 0 > 31 then
    return nil
  end
  local midnight = day_number(year + 0, month + 0, day + 0) * 86400
  if rest == "" then
    return midnight
  end
  local hour, minute, second, zone = rest:match "^T(%d%d):(%d%d):(%d%d%.?%d*)(.*)$"
  local offset = zone and offset_seconds(zone)
  if not offset or hour + 0 > 23 or minute + 0 > 59 or second + 0 >= 61 then
    return nil
  end
  return midnight + hour * 3600 + minute * 60 + second - offset
end

-- Tokens: { kind, value }. Kinds: word, string, number, datetime, punctuation, end.
local function tokenize(text)
  local tokens, at = {}, 1
  local function add(kind, value, stop)
    tokens[#tokens + 1] = { kind = kind, value = value }
    at = stop + 1
  end
  local function literal(pattern, kind, convert)
    local start, stop = text:find(pattern, at)
    local value = start and convert(text:sub(start, stop))
    if value then
      add(kind, value, stop)
      return true
    end
  end
  while true do
    at = text:find("%S", at)
    if not at then
      break
    end
    if text:sub(at, at) == "'" then
      local stop = at + 1
      while true do
        stop = text:find("'", stop, true) or fail("Unterminated string literal at position %d", at - 1)
        if text:sub(stop + 1, stop + 1) ~= "'" then
          break
        end
        stop = stop + 2 -- a doubled quote is one in the string
      end
      add("string", (text:sub(at + 1, stop - 1):gsub("''", "'")), stop)
    elseif literal("^%d%d%d%d%-%d%d%-%d%d[%dT:.Z+-]*", "datetime", odata.time)
      or literal("^-?%d+%.?%d*[eE]?[+-]?%d*", "number", tonumber)
      or literal("^[%a_][%w_]*", "word", tostring)
      or literal("^[(),]", "punctuation", tostring) then -- luacheck: ignore 542
    else
      fail("Syntax error at position %d", at - 1)
    end
  end
  tokens[#tokens + 1] = { kind = "end", value = "end of the expression" }
  return tokens
end

local comparisons = {
  eq = function(a, b) return a == b end,
  ne = function(a, b) return a ~= b end,
  gt = function(a, b) return a > b end,
  ge = function(a, b) return a >= b end,
  lt = function(a, b) return a < b end,
  le = function(a, b) return a <= b end,
}

local functions = {
  contains = function(s, part) return s:find(part, 1, true) ~= nil end,
  startswith = function(s, part) return s:sub(1, #part) == part end,
  endswith = function(s, part) return part == "" or s:sub(-#part) == part end,
}

local constants = { ["true"] = { true, "boolean" }, ["false"] = { false, "boolean" }, null = { nil, "null" } }

-- The comparable value of a field; nil stands for null.
local function field_read(name, kind)
  return function(fields)
    local value = fields[name]
    if value == nil or value == json.null then
      return nil
    elseif kind == "datetime" then
      return odata.time(tostring(value))
    elseif kind == "string" then
      return tostring(value)
    end
    return tonumber(value)
  end
end

local parser = {}
parser.__index = parser

function parser:peek()
  return self.tokens[self.at]
end

function parser:take(kind, value)
  local token = self:peek()
  if token.kind ~= kind or (value and token.value ~= value) then
    return nil
  end
  self.at = self.at + 1
  return token
end

function parser:expect(kind, value)
  return self:take(kind, value) or fail("Expected %s, found '%s'", value or kind, tostring(self:peek().value))
end

local function require_boolean(node)
  if node.type ~= "boolean" then
    fail("Expected a boolean expression, found a %s", node.type)
  end
  return node
end

-- Nodes: { type =, read = function(fields) -> value or nil for null }.
function parser:call(name)
  self:expect("punctuation", "(")
  local subject = self:expression()
  self:expect("punctuation", ",")
  local part = self:expression()
  self:expect("punctuation", ")")
  if subject.type ~= "string" or part.type ~= "string" then
    fail("Function '%s' takes two strings", name)
  end
  local apply = functions[name]
  return { type = "boolean", read = function(fields)
    local a, b = subject.read(fields), part.read(fields)
    return a ~= nil and b ~= nil and apply(a, b)
  end }
end

function parser:operand()
  local token = self:peek()
  self.at = self.at + 1
  if token.kind == "string" or token.kind == "number" or token.kind == "datetime" then
    return { type = token.kind, read = function() return token.value end }
  elseif token.kind == "punctuation" and token.value == "(" then
    local node = self:expression()
    self:expect("punctuation", ")")
    return node
  elseif token.kind ~= "word" then
    fail("Unexpected '%s'", tostring(token.value))
  elseif constants[token.value] then
    local constant = constants[token.value]
    return { type = constant[2], read = function() return constant[1] end }
  elseif functions[token.value] then
    return self:call(token.value)
  end
  local kind = property_type(token.value)
  return { type = kind, read = field_read(token.value, kind), name = token.value }
end

local function ids_may_be_numbers(self, left, right)
  local id = left.type == "string" and left or right
  local number = left.type == "number" and left or right
  return self.numeric_ids and number.type == "number" and (id.name == "id" or id.name == "patient_id")
end

function parser:comparison()
  local left = self:operand()
  local operator = self:peek().kind == "word" and comparisons[self:peek().value]
  if not operator then
    return left
  end
  local name = self:take("word").value
  local right = self:operand()
  if left.type ~= right.type and left.type ~= "null" and right.type ~= "null"
    and not ids_may_be_numbers(self, left, right) then
    fail("Cannot compare %s with %s", left.type, right.type)
  end
  local as_text = left.type ~= right.type and left.type ~= "null" and right.type ~= "null"
  local orders = name ~= "eq" and name ~= "ne"
  if orders and (left.type == "boolean" or right.type == "boolean") then
    fail("Operator '%s' does not take booleans", name)
  end
  return { type = "boolean", read = function(fields)
    local a, b = left.read(fields), right.read(fields)
    if orders and (a == nil or b == nil) then
      return false
    elseif as_text and a ~= nil and b ~= nil then
      return operator(tostring(a), tostring(b))
    end
    return operator(a, b)
  end }
end

function parser:negation()
  if self:take("word", "not") then
    self.depth = self.depth + 1
    if self.depth > MAX_DEPTH then
      fail("The filter is nested too deeply")
    end
    local node = require_boolean(self:negation())
    self.depth = self.depth - 1
    return { type = "boolean", read = function(fields) return not node.read(fields) end }
  end
  return self:comparison()
end

local function chain(operand, word, combine)
  return function(self)
    local left = operand(self)
    while self:take("word", word) do
      left = combine(require_boolean(left), require_boolean(operand(self)))
    end
    return left
  end
end

local conjunction = chain(parser.negation, "and", function(a, b)
  return { type = "boolean", read = function(fields) return a.read(fields) and b.read(fields) end }
end)

local disjunction = chain(conjunction, "or", function(a, b)
  return { type = "boolean", read = function(fields) return a.read(fields) or b.read(fields) end }
end)

function parser:expression()
  self.depth = self.depth + 1
  if self.depth > MAX_DEPTH then
    fail("The filter is nested too deeply")
  end
  local node = disjunction(self)
  self.depth = self.depth - 1
  return node
end

local function filter_parse(text, numeric_ids)
  local self = setmetatable({ tokens = tokenize(text), at = 1, depth = 0, numeric_ids = numeric_ids }, parser)
  local node = require_boolean(self:expression())
  self:expect "end"
  return node.read
end

local function orderby_parse(text)
  local keys = {}
  for item in (text .. ","):gmatch "([^,]*)," do
    local name, direction = item:match "^ *([%w_]+) *(%a*) *$"
    if not name or (direction ~= "" and direction ~= "asc" and direction ~= "desc") then
      fail("Invalid $orderby expression '%s'", item)
    end
    keys[#keys + 1] = { read = field_read(name, property_type(name)), descending = direction == "desc" }
  end
  return keys
end

local function select_parse(text)
  local set = {}
  for item in (text .. ","):gmatch "([^,]*)," do
    local name = item:match "^ *([%w_]+) *$" or fail("Invalid $select expression '%s'", item)
    property_type(name)
    set[name] = true
  end
  return set
end

local function whole_number(name, text)
  return #text < 10 and text:find "^%d+$" and tonumber(text)
    or fail("Invalid value '%s' for %s: expected a non-negative integer", text, name)
end

local known = { ["$filter"] = true, ["$select"] = true, ["$orderby"] = true,
  ["$top"] = true, ["$skip"] = true, ["$count"] = true }

local function query_parse(parameters, numeric_ids)
  for name in pairs(parameters) do
    if name:sub(1, 1) == "$" and not known[name] then
      fail("Query option '%s' is not supported", name)
    end
  end
  local count = parameters["$count"]
  if count and count ~= "true" and count ~= "false" then
    fail("Invalid value '%s' for $count", count)
  end
  return {
    filter = parameters["$filter"] and filter_parse(parameters["$filter"], numeric_ids),
    orderby = parameters["$orderby"] and orderby_parse(parameters["$orderby"]),
    select = parameters["$select"] and select_parse(parameters["$select"]),
    top = parameters["$top"] and whole_number("$top", parameters["$top"]),
    skip = whole_number("$skip", parameters["$skip"] or "0"),
    count = count == "true",
  }
end

--- Parse the query options of a list. Returns the query, or nil and the details of the problem.
function odata.query(parameters, listed, numeric_ids)
  entity = listed
  local ok, result = pcall(query_parse, parameters, numeric_ids)
  if ok then
    return result
  elseif type(result) == "table" then
    return nil, result.details
  end
  error(result, 0)
end

local function before(keys, a, b)
  for i, key in ipairs(keys) do
    local x, y = a.keys[i], b.keys[i]
    if x ~= y then
      if key.descending then
        x, y = y, x
      end
      return x == nil or (y ~= nil and x < y) -- null sorts first
    end
  end
  return a.at < b.at
end

--- The rows of `list` that match the query, filtered and sorted, before paging.
function odata.apply(query, list)
  local rows = {}
  for at, document in ipairs(list) do
    if not query.filter or query.filter(document.fields) then
      rows[#rows + 1] = { document = document, at = at, keys = {} }
    end
  end
  if query.orderby then
    for _, row in ipairs(rows) do
      for i, key in ipairs(query.orderby) do
        row.keys[i] = key.read(row.document.fields)
      end
    end
    table.sort(rows, function(a, b) return before(query.orderby, a, b) end)
  end
  for i, row in ipairs(rows) do
    rows[i] = row.document
  end
  return rows
end

return odata
