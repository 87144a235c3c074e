-- SPDX-License-Identifier: MIT
-- Read-only entities of the service: each is defined by one call.

local call = require "nymbl.call"
local check = require "nymbl.check"
local core = require "nymbl.core"
local listing = require "nymbl.listing"
local query = require "nymbl.query"

local entity = {}

local CALL_OPTIONS = call.options {}

-- Define a read-only entity.
-- @tparam table definition `name`: of the call, for events, errors and messages; `path`: the name in the
--   URL; `key`: the field that identifies a row (default `id`); `one`: the name of the method
--   that gets one row, for messages (default `get`); `create`: a function of the
--   client's environment, the fields and the id that returns an object (default: the fields,
--   a plain table)
-- @treturn table functions of the client's environment:
--   `list(env, options)`: an iterator over all pages;
--   `page(env, options)`: one page;
--   `count(env, options)`: how many rows match;
--   `get(env, id, options)`: one row.
--   Their options and results are those of a patient's documents
--
-- For example:
-- local practitioners = entity.define { name = "practitioners", path = "Practitioners" }
-- for row in practitioners.list(env, { select = "name" }) do print(row.name) end
function entity.define(definition)
  local name, key, one = definition.name, definition.key or "id", definition.one or "get"
  local create = definition.create or function(_, fields) return fields end

  local function adopt(env, row, id)
    if type(row) ~= "table" then return nil, "unexpected_json" end
    if not id then return nil, "bad_id" end
    row[key] = id
    return create(env, row, id)
  end

  local function adopt_page(env, rows)
    local ids, valid, problem = {}, 0, nil
    for i, row in ipairs(rows) do
      local id, object = type(row) == "table" and core.id(row[key]) or false, nil
      ids[i] = id
      if not problem then object, problem = adopt(env, row, id) end
      if object then rows[i], valid = object, i end
    end
    return ids, valid, problem
  end

  local function collection(env)
    return {
      env = env, operation = name, path = { definition.path, false }, key = key,
      adopt_page = function(rows) return adopt_page(env, rows) end,
    }
  end

  local self = {}

  function self.list(env, options)
    return listing.iterate(collection(env), query.plan(options, name, key))
  end

  function self.page(env, options)
    return listing.page(collection(env), query.plan(options, name, key))
  end

  function self.count(env, options)
    return listing.count(collection(env), query.plan(options, name, key))
  end

  function self.get(env, id, options)
    id = check.id(id, 1, one)
    options = check.options(options, CALL_OPTIONS, 2, one)
    local ok, object = call.perform(env, name, options, {
      definition.path, id,
      run = call.json_reader(function(response)
        local found_id = core.id(response[key])
        if found_id and found_id ~= id then return nil, "bad_id" end
        return adopt(env, response, found_id)
      end),
    })
    if not ok then return nil, object end
    return object
  end

  return self
end

return entity
