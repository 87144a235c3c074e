-- SPDX-License-Identifier: MIT
-- One page of a collection: its request and its response.
--
-- A collection describes an entity of the service for listings:
--   env         the client's environment
--   operation   the name of the call, for events and errors
--   path        the path of the collection: a name, its key or false, the next name, …
--   key         the name of the field that identifies a row
--   adopt_page(rows)
--               replaces the valid rows at the beginning of an array by the objects for the script.
--               Returns an array of the ids of all rows (strings; false if a row has no valid
--               one), the number of objects, and the reason why the next row is invalid, or nil

local call = require "nymbl.call"
local errors = require "nymbl.errors"

local page = {}

local function whole_number(value)
  if type(value) ~= "number" or value < 0 or value % 1 ~= 0 or value >= 2^53 then return nil end
  return math.tointeger and math.tointeger(value) or value
end

-- Reads a page from a response.
local read_page = call.json_reader(function(response, transfer)
  local rows = response.value
  -- an object's keys are strings; an array's are not, and it has no gaps
  if type(rows) ~= "table" or type(next(rows)) == "string" then return nil, "unexpected_json" end
  local link = response["@odata.nextLink"]
  if type(link) == "string" and link:find("\0", 1, true) then return nil, "bad_next_link" end
  return {
    rows = rows,
    count = whole_number(response["@odata.count"]),
    next_link = type(link) == "string" and link ~= "" and link or nil,
    request_id = transfer:request_id(),
  }
end)

-- The query of one page: an array of names and values.
local function query_of(plan, top, skip)
  local query = {}
  for i, value in ipairs(plan.pairs) do query[i] = value end
  local function add(name, value)
    query[#query + 1] = name
    query[#query + 1] = value
  end
  add("$top", top)
  if skip > 0 then add("$skip", skip) end
  if plan.count then add("$count", true) end
  return query
end

-- The request for a page (see call.lua).
-- @tparam ?string next_link the URL to request instead of the plan's query
function page.request(collection, plan, top, skip, next_link)
  local request = { query = query_of(plan, top, skip), next_link = next_link, run = read_page }
  for i, item in ipairs(collection.path) do request[i] = item end
  return request
end

-- Fetch a page.
-- @treturn[1] table `rows`, `ids`, `valid` and `problem` (the rows after `adopt_page`, and its
--   results), `count` and `next_link` (or nil), and `attempts`
-- @treturn[2] nil
-- @treturn[2] table the error
function page.fetch(collection, plan, request)
  local ok, result, _, attempts = call.perform(collection.env, collection.operation, plan.options, request)
  if not ok then return nil, result end
  result.ids, result.valid, result.problem = collection.adopt_page(result.rows)
  result.attempts = attempts
  return result
end

-- Create the error for a response that cannot be used.
-- @tparam table found the page, as `fetch` returned it
function page.protocol_error(collection, reason, found)
  return errors.new({
    kind = "protocol", status = 200, reason = reason, attempts = found.attempts, request_id = found.request_id,
  }, collection.operation)
end

return page
