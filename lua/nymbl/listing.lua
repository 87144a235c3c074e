-- SPDX-License-Identifier: MIT
-- Listings of a collection (see page.lua): all rows, one page, or their count.

local call = require "nymbl.call"
local errors = require "nymbl.errors"
local page = require "nymbl.page"
local paginator = require "nymbl.paginator"
local query = require "nymbl.query"

local listing = {}

-- Iterate over all rows, on all pages.
listing.iterate = paginator.iterate

-- Call a function for every row, as a step of another call.
-- @tparam table collection see page.lua
-- @tparam table plan see query.lua
-- @tparam ?number deadline of that call, for all pages together; without one, the plan's timeout is
--   for each page
-- @tparam function fn called with each object
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
-- @raise what `fn` raised, and errors that are none of the service's
function listing.visit(collection, plan, deadline, fn)
  local ran, problem = pcall(function()
    if deadline then plan.options.timeout = call.time_left(deadline) end
    for object in listing.iterate(collection, plan) do
      fn(object)
      if deadline then plan.options.timeout = call.time_left(deadline) end
    end
  end)
  if ran then return true end
  errors.rethrow_out_of_memory(problem)
  if collection.env.closed then
    return nil, errors.new({ kind = "canceled", reason = "closed" }, collection.operation)
  end
  if errors.is(problem) then return nil, problem end
  error(problem, 0)
end

-- Fetch one page.
-- @tparam table collection see page.lua
-- @tparam table plan see query.lua
-- @treturn[1] table an array of objects with `count` and `has_more`
-- @treturn[2] nil
-- @treturn[2] table the error
function listing.page(collection, plan)
  local size = plan.page_size
  if plan.top and plan.top < size then size = plan.top end
  if size == 0 then return { has_more = false } end
  local found, err = page.fetch(collection, plan, page.request(collection, plan, size, plan.skip))
  if not found then return nil, err end
  if found.problem then return nil, page.protocol_error(collection, found.problem, found) end
  local objects = found.rows
  objects.count = found.count
  if found.next_link then
    objects.has_more = true
  elseif found.count then
    objects.has_more = #objects > 0 and plan.skip + #objects < found.count
  else
    objects.has_more = #objects >= size
  end
  return objects
end

-- Count the rows that match the plan's filter.
-- @treturn[1] integer
-- @treturn[2] nil
-- @treturn[2] table the error
function listing.count(collection, plan)
  local found, err = page.fetch(collection, plan, page.request(collection, plan, 1, 0))
  if not found then return nil, err end
  if found.count then return found.count end
  -- The service did not count, so the rows are counted here.
  local total = 0
  plan.page_size = query.LARGEST_PAGE
  local ok, problem = pcall(function()
    for _ in listing.iterate(collection, plan) do total = total + 1 end
  end)
  if not ok then
    if errors.is(problem) then return nil, problem end
    error(problem, 0)
  end
  return total
end

return listing
