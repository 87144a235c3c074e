-- SPDX-License-Identifier: MIT
-- The options of a listing, and the OData query that they become.

local call = require "nymbl.call"
local check = require "nymbl.check"

local query = {}

-- The service reduces a larger page to 100 rows, without an error (lua/README.md, "Facts about the
-- service").
query.LARGEST_PAGE = 100

-- Remove the spaces beside commas and at both ends, and replace others by one space: the service
-- would treat them as a part of a name. Text in quotes is not changed. (The pattern %s is not
-- used, because it depends on the locale.)
local function normalise_spaces(text)
  local pieces, quoted = {}, false
  for piece in (text .. "'"):gmatch("([^']*)'") do
    if not quoted then piece = piece:gsub("[ \t\r\n]+", " "):gsub(" ?, ?", ",") end
    pieces[#pieces + 1] = piece
    quoted = not quoted
  end
  return (table.concat(pieces, "'"):gsub("^ ", ""):gsub(" $", ""))
end

-- A checker (see check.lua): a string or an array of names.
local function names(value)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" then return check.expected("string or array", value) end
  if #value == 0 then return "empty array" end
  for _, item in ipairs(value) do
    local problem = check.nonempty(item)
    if problem then return problem end
    if ("," .. normalise_spaces(item) .. ","):find(",,", 1, true) then return "empty name" end
  end
end

-- An encoder is a function of a value and of the key's name. It returns the text that is sent, or
-- nil to send nothing.

-- Join an array, and append the key unless one of the items names it.
local function with_key(value, key)
  if value == nil then return nil end
  local text = normalise_spaces(type(value) == "table" and table.concat(value, ",") or value)
  for item in text:gmatch("[^,]+") do
    if item:match("^ *([^ ]+)") == key then return text end
  end
  return text .. "," .. key
end

-- Append the key to an order, or sort by it alone: without a total order, pages could overlap.
local function total_order(value, key)
  return with_key(value, key) or key
end

-- The options that are sent with every page, in this order: the name in Lua, the name in the
-- request, a checker (see check.lua) and, if the value is not sent as it is, an encoder. To add
-- a query option, add its line.
query.OPTIONS = {
  { "filter", "$filter", check.nonempty },
  { "select", "$select", names, with_key },
  { "orderby", "$orderby", names, total_order },
}

local whole_number = check.integer(0, 2^53)

-- The other options. From them, $top, $skip and $count are computed for each page.
local PAGE_OPTIONS = call.options {
  top = whole_number,
  skip = whole_number,
  page_size = check.integer(1, query.LARGEST_PAGE),
  count = check.boolean,
}

-- All options with their checkers.
local function checkers()
  local known = {}
  for name, checker in pairs(PAGE_OPTIONS) do known[name] = checker end
  for _, option in ipairs(query.OPTIONS) do known[option[1]] = option[3] end
  return known
end

-- Check the options of a listing.
-- @tparam ?table options as the script gave them
-- @tparam string method the script's method, for messages
-- @tparam string key the name of the field that identifies a row
-- @treturn table the plan of a listing: `options`; `pairs` (names and values that are sent with
--   every page); `top`, `skip`, `page_size` and `count`
function query.plan(options, method, key)
  options = check.options(options, checkers(), 1, method)
  local pairs_sent = {}
  for _, option in ipairs(query.OPTIONS) do
    local name, sent_name, encode = option[1], option[2], option[4]
    local value = options[name]
    if encode then value = encode(value, key) end
    if value ~= nil and value ~= false then
      pairs_sent[#pairs_sent + 1] = sent_name
      pairs_sent[#pairs_sent + 1] = value
    end
  end
  return {
    options = options,
    pairs = pairs_sent,
    top = options.top,
    skip = options.skip or 0,
    page_size = options.page_size or query.LARGEST_PAGE,
    count = options.count ~= false,
  }
end

return query
