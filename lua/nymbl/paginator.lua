-- SPDX-License-Identifier: MIT
-- The paginator: all rows of a collection, page by page, without losing one.
--
-- While it runs, other programs (and the loop's own body) may add and delete rows, which moves
-- all rows behind them. So every page but the first begins one row early, and its first row must
-- be known already: then all rows before that one are known, too, or were added meanwhile.
-- Otherwise rows may have moved past the paginator, and it goes back.
--
-- A pass is one way through all pages. Usually one is enough.

local call = require "nymbl.call"
local check = require "nymbl.check"
local core = require "nymbl.core"
local page = require "nymbl.page"
local prefetch = require "nymbl.prefetch"
local query = require "nymbl.query"

local LARGEST_PAGE = query.LARGEST_PAGE

-- How often the transfer of a prefetched page makes progress while the rest of the rows is read.
local POLLS = 4

-- More rows than a collection can have. Unlike infinity, it decreases if 1 is subtracted.
local UNLIMITED = 2^53

-- The listing fails as endless after more than so many pages in a row without a new row (pages
-- that are read again after going back are not counted), or after going back so many times in a
-- row without finding a new row.
local MAX_EMPTY_PAGES = 3
local MAX_RETREATS = 16

-- State (positions count all rows of the collection as the service has it, from 0):
--   collection, plan  what is listed (page.lua) and how (query.lua)
--   rows, ids, index  the rows of the current page as objects, their ids (page.lua), and the index
--                     of the last one processed
--   valid             how many rows are objects: the next one is invalid
--   plain_till        up to this index, rows are plain: a step has nothing to do but to return them. They
--                     are known already, as if they had been returned
--   from              the position of the page's first row
--   cursor            the position behind the page's last row: new rows are expected there
--   lookback          how many rows before `cursor` the next page begins: 0 for the first page
--                     of a pass, usually 1, more while rows in front of it are being deleted
--   margin            additional rows to request, for rows that are deleted meanwhile
--   floor             the first position to request, or 0 if the cursor may be wrong
--   stride            rows by which it last went back; nil unless it is going back
--   retreats          how often in a row it went back without finding a new row
--   known             the ids of the rows that were returned, and of those that `skip` excludes (lua/id_set.c)
--   last_id           the id of the last row of the current page
--   largest_page      rows of the largest page: the service may have a limit of its own
--   max_top           largest number of rows to request
--   new_rows          rows of the current page that were not known
--   count             the last count that a page reported, or nil
--   smallest_count    the smallest count that any page reported
--   wanted            how many rows may be returned
--   remaining         how many more of them, when the paginator last moved on to a row
--   remaining_before  the value of `remaining` before the current page
--   pass_remaining    the value of `remaining` at the beginning of the pass
--   extra_pages       how many pages without a new row are still allowed
--   has_next          whether another page follows
--   next_link         the service's link to that page, or nil
--   prefetch_at       the row at which the next page is prefetched
--   next_request      the request for it once it is prefetched, otherwise false
--   poll_interval     the rows after which its transfer makes progress; nil once it has ended
--   has_moved         whether rows have moved since the pass began
--   is_past_skip      whether a row behind those that `skip` excludes was found
--   found             what page.fetch returned for the current page
--   closed            true after the end
--   is_accepting      whether a page is being made the current one; later, whether that was interrupted
--   is_advancing      whether a coroutine moves on to another row, and perhaps waits
-- The methods raise errors, because a `for` loop calls them.
local paginator = {}
paginator.__index = paginator

-- Where the next page begins. The rows before `skip` are requested only if the cursor may be
-- wrong (`floor` is 0 then).
function paginator:next_position()
  return math.max(self.cursor - self.lookback, math.min(self.floor, self.cursor - 1), 0)
end

-- If a link contains `$skip`, change it so that the page begins one row early. Returns nil for
-- any other link. (If a link names a key instead, rows that move do no harm.)
local function link_one_earlier(link, cursor)
  for _, name in ipairs { "$skip=", "%24skip=" } do
    local first, last = link:find(("%s%.0f"):format(name, cursor), 1, true)
    if first and link:find("^[?&]", first - 1) and (last == #link or link:find("^[&#]", last + 1)) then
      return ("%s%s%.0f%s"):format(link:sub(1, first - 1), name, cursor - 1, link:sub(last + 1))
    end
  end
end

-- The request for the next page.
function paginator:request()
  local plan, from, top = self.plan, self:next_position(), self.plan.page_size
  if self.lookback > 0 then
    -- a page of new rows; or after going back, all rows up to the cursor
    top = math.min(self.max_top, math.max(top + self.margin, self.stride and self.cursor - from or 0) + 1)
  end
  local link, is_opaque = self.lookback <= 1 and self.next_link or nil, false
  if link then
    local earlier = self.lookback == 1 and link_one_earlier(link, self.cursor)
    if not earlier then from, is_opaque = self.cursor, true end
    link = earlier or link
    if earlier and plan.page_size == 1 then link = nil end -- it would return only the known row
  end
  local request = page.request(self.collection, plan, top, from, link)
  request.from, request.is_linked, request.is_opaque = from, link ~= nil, is_opaque
  return request
end

-- Whether a page follows the known rows without a gap.
function paginator:connects(found, request)
  if self.lookback == 0 or request.from == 0 then return true end
  if request.is_opaque then return not (found.count and self.count and found.count < self.count) end
  local first = found.ids[1]
  if first == nil then return false end -- even the known row was deleted
  -- a row without an id is reported as invalid when it is reached
  return first == false or self.known:get(first) ~= nil
end

-- Go back after a page that does not connect: by one page at first, then twice as far each time.
function paginator:go_back(request)
  if not self.stride then
    self.retreats = self.retreats + 1
    if self.retreats > MAX_RETREATS then
      error(page.protocol_error(self.collection, "pagination_loop", self.found), 0)
    end
  end
  self.stride = self.stride and self.stride * 2 or self.largest_page
  if request.from <= self.floor then self.floor = 0 end
  self.lookback = self.cursor - request.from + self.stride
  self.extra_pages = self.extra_pages + 2 * math.ceil(self.lookback / self.largest_page)
  self.rows, self.ids, self.index, self.next_link, self.has_next, self.has_moved = {}, {}, 0, nil, true, true
end

-- Whether another page follows a page that connects.
function paginator:is_followed_by_page(found, request)
  local rows = found.rows
  if found.next_link then return true end
  -- the last page has no link (OData JSON 4.01, 4.5.5)
  if request.is_linked or #rows == 0 then return false end
  if self.lookback > 0 and #rows == 1 and found.ids[1] and self.known:get(found.ids[1]) ~= nil then return false end
  if found.count then return request.from + #rows < found.count end
  return #rows >= self.plan.page_size
end

-- Make a fetched page the current one, or go back.
function paginator:accept(found, request)
  self.prefetch_at = math.huge
  self.smallest_count = math.min(found.count or math.huge, self.smallest_count)
  self.largest_page = math.max(self.largest_page, math.min(#found.rows, self.plan.page_size))
  local connects = self:connects(found, request)
  self.count = found.count or self.count
  if not connects then return self:go_back(request) end
  self.is_accepting = true
  local ids, overlap = found.ids, self.cursor - request.from
  if request.is_opaque or (overlap > 0 and ids[1] ~= self.last_id) then self.has_moved = true end
  self.has_next, self.next_link = self:is_followed_by_page(found, request), found.next_link
  self.rows, self.ids, self.valid, self.index, self.from = found.rows, ids, found.valid, 0, request.from
  self:update_cursor(ids)
  self.floor = math.max(0, self.plan.skip - 1)
  self.is_past_skip = self.plan.skip == 0 or (request.is_opaque and self.is_past_skip)
  self.last_id = ids[#ids]
  if self.has_next then self.prefetch_at = (#ids + math.min(overlap, 1)) / 2 end
  self.is_accepting = false
end

function paginator:update_cursor(ids)
  local known_end, page_end = self.from + self.known:last_known(ids), self.from + #ids
  local removed, new_rows = math.max(0, self.cursor - known_end), page_end - known_end
  self.cursor, self.lookback, self.stride = page_end, 1, nil
  self.margin = 0
  if removed > 0 then
    -- Other programs are deleting rows. The same share of this page's new rows as of the last
    -- page's will probably be removed, so the next page begins earlier by so many rows, and by a
    -- margin: a page that begins too late cannot be used.
    removed = math.min(new_rows, math.ceil(new_rows * removed / math.max(self.new_rows, 1)))
    self.margin = math.ceil(removed / 10)
    self.lookback = 1 + removed + self.margin
  end
  self.new_rows = new_rows
end

-- Halfway through a page the next one is prefetched if it will certainly be wanted. A page of
-- one row has no half. While rows are being deleted nothing is prefetched: the response would
-- come before the rows of this page are deleted, and the request would have to be repeated.
function paginator:prefetch_next()
  local rows, rest = self.rows, #self.ids - self.index
  local env, operation = self.collection.env, self.collection.operation
  self.prefetch_at = math.huge
  if rest > 1 and self.remaining > rest and self.lookback == 1 then
    local request = self:request()
    call.add_headers(env, operation, self.plan.options, request)
    -- meanwhile another coroutine may have stepped to the next page
    if self.rows ~= rows or self.closed or env.closed then return end
    self.next_request, self.poll_interval = request, math.max(1, math.floor(rest / POLLS))
    prefetch.start(env, operation, request, self.plan.options)
  end
end

function paginator:fetch()
  local collection, plan = self.collection, self.plan
  local request = self.next_request or self:request()
  self.next_request, self.poll_interval = false, nil
  local found, err = page.fetch(collection, plan, request)
  -- If the rows are too large for one response, half as many are requested.
  while not found and err.reason == "response_too_long" and plan.page_size > 1 and not request.is_linked do
    plan.page_size = math.ceil(plan.page_size / 2)
    self.max_top = plan.page_size + 1
    request = self:request()
    found, err = page.fetch(collection, plan, request)
  end
  if not found then error(err, 0) end
  if self.closed then return end -- meanwhile, by another coroutine
  self.remaining_before, self.found = self.remaining, found
  self:accept(found, request)
end

-- After a page: fail if too many in a row had no new row.
function paginator:check_progress()
  if self.remaining < self.remaining_before then
    self.extra_pages, self.retreats = math.max(self.extra_pages, MAX_EMPTY_PAGES), 0
    return
  end
  self.extra_pages = self.extra_pages - 1
  if self.extra_pages < 0 then error(page.protocol_error(self.collection, "pagination_loop", self.found), 0) end
end

-- Whether the row at an index of the current page is to be returned to the loop: not if it is known,
-- or if `skip` excludes it. `skip` excludes the first rows, until a row behind them was returned.
function paginator:is_wanted(index)
  local id = self.ids[index]
  local known = self.known:get(id)
  if known then self.is_past_skip = true end
  if known ~= nil then return false end
  if not self.is_past_skip and self.from + index - 1 < self.plan.skip then
    self.known:exclude(id)
    return false
  end
  self.is_past_skip = true
  return true
end

-- At the end of a pass: begin another one if rows are missing, which is the case if fewer were
-- returned than the smallest count says. Returns whether it did. If no row has moved, or if the
-- pass has found no new row, another one would not find them: then this raises.
function paginator:restart_if_incomplete()
  local plan, returned = self.plan, self.wanted - self.remaining
  if self.smallest_count == math.huge or returned >= self.smallest_count - plan.skip then return false end
  if not (self.has_moved and self.remaining < self.pass_remaining) then
    error(page.protocol_error(self.collection, "rows_missing", self.found), 0)
  end
  self.cursor, self.lookback, self.next_link, self.pass_remaining = plan.skip, 0, nil, self.remaining
  self.extra_pages = self.extra_pages + 2 * math.ceil(returned / self.largest_page)
  return true
end

-- Move on to the next row of the current page that is wanted. Returns whether there is one.
function paginator:find_wanted_row()
  for index = self.index + 1, #self.ids do
    if index > self.valid then
      self:discard_prefetch()
      error(page.protocol_error(self.collection, self.found.problem, self.found), 0)
    end
    if self:is_wanted(index) then return true end
    self.index = index
  end
  return false
end

-- Find the rows that are plain, from the wanted one on. A row is not if the next page is to be
-- prefetched or polled before it, or if it is known.
function paginator:find_plain_rows()
  local last = math.min(self.valid, self.index + self.remaining, math.ceil(self.prefetch_at) - 1)
  if self.poll_interval then last = math.min(last, self.index + self.poll_interval) end
  self.plain_till = self.known:add(self.ids, self.index + 1, math.max(last, self.index + 1))
end

-- Undo that for the rows that were not returned, if there are any: the client was closed, or a hook has
-- raised an error in `find_plain_rows`. Then count the others.
function paginator:discard_plain_rows()
  self.plain_till = 0
  self.known:take_back(self.ids, self.index + 1)
  self.remaining = self.wanted - self.known:count()
end

-- Move on to the next wanted row, on this page or a later one. Returns whether there is one.
function paginator:find_next()
  self:discard_plain_rows()
  if self.collection.env.closed then
    self:discard_prefetch()
    check.raise("attempt to use a closed client")
  end
  local request = self.next_request
  if self.poll_interval and not (request and prefetch.poll(request)) then self.poll_interval = nil end
  while self.remaining > 0 and not self.closed do
    if self.index + 1 >= self.prefetch_at then self:prefetch_next() end
    if self.closed then break end -- meanwhile, by another coroutine
    if self:find_wanted_row() then
      self:find_plain_rows()
      return true
    end
    if not self.has_next and not self:restart_if_incomplete() then break end
    self:check_progress()
    self:fetch()
  end
  self:close()
  return false
end

-- The same, marked: `advance` removes the mark if this raises an error.
function paginator:find_next_marked()
  self.is_advancing = true
  local has_found = self:find_next()
  self.is_advancing = false
  return has_found
end

-- The same, for one coroutine at a time: while one waits for a page, rows would be lost if another one
-- moved on.
function paginator:advance()
  if self.closed then return false end
  if self.is_advancing then check.raise("attempt to use an iterator in two coroutines at once") end
  if self.is_accepting then check.raise("attempt to use an iterator that was interrupted") end
  local ok, result = pcall(self.find_next_marked, self)
  if ok then return result end
  self.is_advancing = false
  error(result, 0)
end

function paginator:discard_prefetch()
  if self.next_request then prefetch.discard(self.next_request) end
  self.next_request, self.poll_interval = false, nil
end

function paginator:close()
  self:discard_prefetch()
  self.closed, self.plain_till = true, 0
  self.rows, self.known = nil, nil
end

-- Make the function that a loop calls. It needs no argument, so that
-- `nymbl.each(patient:documents(), …)` works. Most rows of a page are plain.
local function step_function(self)
  local env = self.collection.env
  return function()
    local state = self -- a local variable is read faster
    local index = state.index + 1
    if index > state.plain_till or env.closed then
      if not state:advance() then return nil end
      index = state.index + 1
    end
    local rows = state.rows
    local object = rows[index]
    state.index = index -- first: an error of a hook may end this function anywhere
    rows[index] = false -- the script owns the object now
    return object
  end
end

-- Iterate over all rows of a collection.
-- @tparam table collection see page.lua
-- @tparam table plan see query.lua; the paginator changes it
-- @treturn function returns the next object, or nil at the end. The paginator itself is hidden in
--   it, because it holds ids and a filter
-- @treturn nil
-- @treturn nil
-- @treturn table a to-be-closed value
local function iterate(collection, plan)
  local wanted = plan.top or UNLIMITED
  local self = setmetatable({
    collection = collection, plan = plan, rows = {}, ids = {}, index = 0, valid = 0, from = 0,
    cursor = plan.skip, lookback = 0,
    margin = 0, floor = 0, retreats = 0, known = core.id_set(), largest_page = 1, max_top = LARGEST_PAGE, new_rows = 0,
    smallest_count = math.huge, wanted = wanted, remaining = wanted, remaining_before = math.huge,
    pass_remaining = wanted, extra_pages = MAX_EMPTY_PAGES, has_next = true, prefetch_at = math.huge,
    next_request = false, closed = false, is_accepting = false, is_advancing = false, plain_till = 0,
  }, paginator)
  plan.count = true -- without a count, rows that are missing could not be detected
  -- no page is larger than the number of rows that are wanted
  if plan.top and plan.top > 0 and plan.top < plan.page_size then plan.page_size = plan.top end
  local closer = setmetatable({}, { __close = function() self:close() end })
  return step_function(self), nil, nil, closer
end

return { iterate = iterate }
