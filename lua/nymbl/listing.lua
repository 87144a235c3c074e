-- SPDX-License-Identifier: MIT
-- Listings: OData queries, and walking their pages without losing a document.

local core = require "nymbl.core"
local call = require "nymbl.call"
local check = require "nymbl.check"
local document = require "nymbl.document"
local errors = require "nymbl.errors"

local adopt, row_id = document.adopt, document.row_id

local listing = {}

-- The service caps a page at 100 without a word (facts, section 6).
local LARGEST_PAGE = 100

-- More documents than there can be: less one it is less, which infinity is not.
local ENDLESS = 2^53

-- Pages in a row that bring nothing new, beyond those that going back explains, before a
-- listing is given up as endless; and how often in a row a walk goes back in vain.
local MOST_FRUITLESS = 3
local MOST_RETREATS = 16

-- Blanks beside commas and at the ends go, others become one: the service would take them
-- for part of a name. What stands in quotes stays as it is. (No %s: it knows a locale.)
local function tidy(text)
  local pieces, quoted = {}, false
  for piece in (text .. "'"):gmatch("([^']*)'") do
    if not quoted then piece = piece:gsub("[ \t\r\n]+", " "):gsub(" ?, ?", ",") end
    pieces[#pieces + 1] = piece
    quoted = not quoted
  end
  return (table.concat(pieces, "'"):gsub("^ ", ""):gsub(" $", ""))
end

local function text_or_list(value)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" then return check.expected("string or array", value) end
  if #value == 0 then return "empty array" end
  for _, item in ipairs(value) do
    local problem = check.nonempty(item)
    if problem then return problem end
    if ("," .. tidy(item) .. ","):find(",,", 1, true) then return "empty name" end
  end
end

local whole = check.integer(0, 2^53)

local QUERY_OPTIONS = {
  filter = check.nonempty,
  select = text_or_list,
  orderby = text_or_list,
  top = whole,
  skip = whole,
  page_size = check.integer(1, LARGEST_PAGE),
  count = check.boolean,
  timeout = check.seconds,
}

-- Join an array, and add `id` unless one of its items is about it.
local function with_id(value, default)
  if value == nil then return default end
  local text = tidy(type(value) == "table" and table.concat(value, ",") or value)
  for item in text:gmatch("[^,]+") do
    if item:match("^ *([^ ]+)") == "id" then return text end
  end
  return text .. ",id"
end

--- Check a query and make it a plan of requests.
function listing.query(options, name)
  options = check.options(options, QUERY_OPTIONS, 1, name)
  return {
    options = options,
    filter = options.filter,
    select = with_id(options.select, nil),
    orderby = with_id(options.orderby, "id"),
    top = options.top,
    skip = options.skip or 0,
    size = options.page_size or LARGEST_PAGE,
    count = options.count ~= false,
  }
end

local function whole_number(value)
  if type(value) ~= "number" or value < 0 or value % 1 ~= 0 or value >= 2^53 then return nil end
  return math.tointeger and math.tointeger(value) or value
end

-- What a page's reply holds. Gives nil and a word for what is wrong.
local function page_read(reply)
  local rows = reply.value
  -- an object's keys are strings, an array's are not and have no gaps
  if type(rows) ~= "table" or type(next(rows)) == "string" then return nil, "unexpected_json" end
  local link = reply["@odata.nextLink"]
  if type(link) == "string" and link:find("\0", 1, true) then return nil, "bad_next_link" end
  return {
    rows = rows,
    count = whole_number(reply["@odata.count"]),
    next_link = type(link) == "string" and link ~= "" and link or nil,
  }
end

local read_page = call.read_json(page_read)

-- The request for a page, as `call` takes it.
local function page_steps(env, patient_id, query, top, skip, next_link)
  return {
    start = function(bearer)
      return core.list(env.client, bearer, patient_id, query.filter, query.select, query.orderby,
        top, skip, query.count, next_link)
    end,
    run = read_page,
  }
end

-- A page: `rows` (plain tables), `count` and `next_link` or nil; or nil and the error.
local function page_fetch(env, query, steps)
  local ok, page, _, attempts = call.perform(env, "list", query.options, steps)
  if not ok then return nil, page end
  page.attempts = attempts
  return page
end

local function wrong_row(problem, attempts)
  return errors.new({ kind = "protocol", status = 200, reason = problem, attempts = attempts }, "list")
end

--- One request: an array of documents with `count` and `has_more`.
function listing.page(env, patient_id, query)
  local size = query.size
  if query.top and query.top < size then size = query.top end
  if size == 0 then return { has_more = false } end
  local page, err = page_fetch(env, query, page_steps(env, patient_id, query, size, query.skip))
  if not page then return nil, err end
  local documents = {}
  for i, row in ipairs(page.rows) do
    local problem
    documents[i], problem = adopt(env, patient_id, row)
    if not documents[i] then return nil, wrong_row(problem, page.attempts) end
  end
  documents.count = page.count
  if page.next_link then
    documents.has_more = true
  elseif page.count then
    documents.has_more = #documents > 0 and query.skip + #documents < page.count
  else
    documents.has_more = #documents >= size
  end
  return documents
end

-- A walk over all pages. While it runs, others (and the loop's own body) add and delete
-- rows, which moves all rows behind them. So every page but the first begins one row
-- early, and its first row must be known already: all that stand before a known row were
-- known too, or are new. Otherwise rows may have moved past the walk, and it goes back.
--
-- State (positions count all rows of the list as the service has it, from 0):
--   rows, at   the page at hand, and the row of it that was looked at last
--   from       the position of its first row
--   place      the position behind its last row: where new rows are expected
--   back       how many rows before `place` the next page begins: 0 for the first page of
--              a pass, 1 as a rule, more while rows in front of it are being deleted
--   known      by id: true for a row that was returned, false for one that `skip` excludes
--   width      rows of the largest page: the service may have a limit of its own
--   fresh      rows of the page at hand that were not known
--   fewest     the smallest count that any page reported
--   half       the row at which the next page is prefetched, and `next` are its steps
-- The walk raises errors: it is stepped by a `for`.
local walk = {}
walk.__index = walk

-- Where the next page begins. The rows in front of `skip` are asked for only if the walk
-- has lost its place (`floor` is 0 then).
function walk:position()
  return math.max(self.place - self.back, math.min(self.floor, self.place - 1), 0)
end

-- A link that counts rows as `$skip` does, changed so that it begins one row early; nil
-- for any other. (A link that names a key instead is not upset by rows that move.)
local function link_earlier(link, place)
  for _, name in ipairs { "$skip=", "%24skip=" } do
    local first, last = link:find(("%s%.0f"):format(name, place), 1, true)
    if first and link:find("^[?&]", first - 1) and (last == #link or link:find("^[&#]", last + 1)) then
      return ("%s%s%.0f%s"):format(link:sub(1, first - 1), name, place - 1, link:sub(last + 1))
    end
  end
end

-- The next request.
function walk:steps()
  local query, from, top = self.query, self:position(), self.query.size
  if self.back > 0 then
    -- a page's worth of new rows; and after going back, all from there to where it was lost
    top = math.min(self.most, math.max(top + self.margin, self.stride and self.place - from or 0) + 1)
  end
  local link, is_opaque = self.back <= 1 and self.next_link or nil, false
  if link then
    local earlier = self.back == 1 and link_earlier(link, self.place)
    if not earlier then from, is_opaque = self.place, true end
    link = earlier or link
    if earlier and query.size == 1 then link = nil end -- it asks for one row: the known one
  end
  local steps = page_steps(self.env, self.patient_id, query, top, from, link)
  steps.from, steps.is_linked, steps.is_opaque = from, link ~= nil, is_opaque
  return steps
end

-- Whether nothing can stand between the rows that are known and those of a page.
function walk:connects(page, steps)
  if self.back == 0 or steps.from == 0 then return true end
  if steps.is_opaque then return not (page.count and self.count and page.count < self.count) end
  local first = page.rows[1]
  if first == nil then return false end -- even the known row is gone
  local id = row_id(first)
  return id == nil or self.known[id] ~= nil -- without an id it is reported as wrong when its turn comes
end

-- Go back from a page that does not connect: a page, and twice as far each time.
function walk:go_back(steps)
  if not self.stride then
    self.retreats = self.retreats + 1
    if self.retreats > MOST_RETREATS then error(wrong_row("pagination_loop", self.attempts), 0) end
  end
  self.stride = self.stride and self.stride * 2 or self.width
  if steps.from <= self.floor then self.floor = 0 end
  self.back = self.place - steps.from + self.stride
  self.spare = self.spare + 2 * math.ceil(self.back / self.width)
  self.rows, self.at, self.next_link, self.more, self.has_moved = {}, 0, nil, true, true
end

-- Whether another page follows one that connects.
function walk:has_more(page, steps)
  local rows = page.rows
  if page.next_link then return true end
  -- the last page has no link (OData JSON 4.01, 4.5.5)
  if steps.is_linked or #rows == 0 then return false end
  -- only the known row is left
  if self.back > 0 and #rows == 1 and self.known[row_id(rows[1]) or false] ~= nil then return false end
  if page.count then return steps.from + #rows < page.count end
  return #rows >= self.query.size
end

-- The position behind the last row of a page that is known.
function walk:known_end(rows, from)
  for at = #rows, 1, -1 do
    if self.known[row_id(rows[at]) or false] ~= nil then return from + at end
  end
  return from
end

-- Take in a page that was fetched.
function walk:take(page, steps)
  self.half = math.huge
  self.fewest = math.min(page.count or math.huge, self.fewest)
  self.width = math.max(self.width, math.min(#page.rows, self.query.size))
  local connects = self:connects(page, steps)
  self.count = page.count or self.count
  if not connects then return self:go_back(steps) end
  local rows, overlap = page.rows, self.place - steps.from
  if steps.is_opaque or (overlap > 0 and row_id(rows[1]) ~= self.last) then self.has_moved = true end
  self.more, self.next_link = self:has_more(page, steps), page.next_link
  local known_end = self:known_end(rows, steps.from)
  local gone, fresh = math.max(0, self.place - known_end), steps.from + #rows - known_end
  self.rows, self.at, self.from = rows, 0, steps.from
  self.place, self.back, self.stride = steps.from + #rows, 1, nil
  self.margin = 0
  if gone > 0 then
    -- The next page begins as early as if this one's rows went at the rate of the last
    -- one's, with a margin: a page that begins too late is of no use.
    gone = math.min(fresh, math.ceil(fresh * gone / math.max(self.fresh, 1)))
    self.margin = math.ceil(gone / 10)
    self.back = 1 + gone + self.margin
  end
  self.fresh = fresh
  self.floor = math.max(0, self.query.skip - 1)
  self.is_inside = self.query.skip == 0 or (steps.is_opaque and self.is_inside)
  self.last = row_id(rows[#rows])
  if self.more then self.half = (#rows + math.min(overlap, 1)) / 2 end
end

-- Halfway through a page the next one is prefetched if it will be wanted for certain. Not
-- in a page of one row, which has no half, and not while rows are being deleted: it would
-- be answered before those of this page are gone, and would have to be repeated.
function walk:look_ahead()
  local rest = #self.rows - self.at
  self.half = math.huge
  if rest > 0 and self.left > rest and self.back == 1 then
    self.next = self:steps()
    call.prefetch(self.env, "list", self.next)
  end
end

function walk:fetch()
  local steps = self.next or self:steps()
  self.next = nil
  local page, err = page_fetch(self.env, self.query, steps)
  -- rows that hold much may be too many for one response: then half as many are asked for
  while not page and err.reason == "response_too_long" and self.query.size > 1 and not steps.is_linked do
    self.query.size = math.ceil(self.query.size / 2)
    self.most = self.query.size + 1
    steps = self:steps()
    page, err = page_fetch(self.env, self.query, steps)
  end
  if not page then error(err, 0) end
  self.left_before, self.attempts = self.left, page.attempts
  self:take(page, steps)
end

-- A page without a document that is new brings the walk nearer to giving up.
function walk:judge()
  if self.left < self.left_before then
    self.spare, self.retreats = math.max(self.spare, MOST_FRUITLESS), 0
    return
  end
  self.spare = self.spare - 1
  if self.spare < 0 then error(wrong_row("pagination_loop", self.attempts), 0) end
end

-- Whether a row is to be returned. `skip` excludes what stands in front of all that was
-- returned, at a position that it covers.
function walk:is_wanted(id, at)
  local known, position = self.known[id], self.from + at - 1
  if known then self.is_inside = true end
  if known ~= nil then return false end
  if not self.is_inside and position < self.query.skip then
    self.known[id] = false
    return false
  end
  self.is_inside, self.known[id], self.is_fruitful = true, true, true
  self.left = self.left - 1
  return true
end

-- At the end: whether to walk once more. Fewer rows than each page has counted are too few,
-- unless others have added some behind the walk while it ran: those are looked for.
function walk:is_short()
  local returned = (self.query.top or ENDLESS) - self.left
  if self.fewest == math.huge or returned >= self.fewest - self.query.skip then return false end
  if not (self.has_moved and self.is_fruitful) then error(wrong_row("rows_missing", self.attempts), 0) end
  self.place, self.back, self.next_link, self.is_fruitful = self.query.skip, 0, nil, false
  self.spare = self.spare + 2 * math.ceil(returned / self.width)
  return true
end

-- What a step ends with after one in which an error was raised between a row and its
-- document (no memory): that one is lost, and the rest must not look like all.
local LOST = errors.new { kind = "canceled", reason = "raised", operation = "list" }

function walk:step()
  if self.closed then return nil end
  if self.taking then
    self:abandon()
    error(LOST, 0)
  end
  if self.env.closed then
    self:abandon()
    check.raise("attempt to use a closed client")
  end
  if self.next then call.poll_prefetch(self.next) end
  while self.left > 0 do
    local rows = self.rows
    for at = self.at + 1, #rows do
      local row = rows[at]
      self.taking = true -- nothing waits from here on
      self.at, rows[at] = at, false -- the document owns it now
      local found, id = adopt(self.env, self.patient_id, row)
      if not found then
        self.taking = false
        self:abandon()
        error(wrong_row(id, self.attempts), 0)
      end
      if self:is_wanted(id, at) then
        if at >= self.half then self:look_ahead() end
        self.taking = false
        return found
      end
      self.taking = false
    end
    if not self.more and not self:is_short() then break end
    self:judge()
    self:fetch()
  end
  self:close()
  return nil
end

-- Let go the page that was asked for ahead.
function walk:abandon()
  if self.next then call.discard_prefetch(self.next) end
  self.next = nil
end

function walk:close()
  self:abandon()
  self.closed, self.rows, self.known = true, nil, nil
end

--- An iterator over all pages: step, nil, nil, closer. The step needs no argument,
-- so that `nymbl.each(patient:documents(), …)` works; Lua 5.4 closes the last. The
-- walk itself stays behind functions: it holds an id and a filter.
function listing.documents(env, patient_id, query)
  local self = setmetatable({
    env = env, patient_id = patient_id, query = query, place = query.skip, back = 0, floor = 0,
    left = query.top or ENDLESS, left_before = math.huge, known = {}, fewest = math.huge,
    width = 1, fresh = 0, margin = 0,
    spare = MOST_FRUITLESS, retreats = 0, rows = {}, at = 0, half = math.huge, more = true,
    most = LARGEST_PAGE, taking = false,
  }, walk)
  query.count = true -- without it nobody can tell that rows are missing
  -- no page larger than what is wanted in all
  if query.top and query.top > 0 and query.top < query.size then query.size = query.top end
  local closer = setmetatable({}, { __close = function() self:close() end })
  return function() return self:step() end, nil, nil, closer
end

--- How many documents match a filter.
function listing.count(env, patient_id, query)
  local page, err = page_fetch(env, query, page_steps(env, patient_id, query, 1, 0))
  if not page then return nil, err end
  if page.count then return page.count end
  -- the service did not count: so we do
  local total = 0
  query.size = LARGEST_PAGE
  local ok, problem = pcall(function()
    for _ in listing.documents(env, patient_id, query) do total = total + 1 end
  end)
  if not ok then
    if errors.is(problem) then return nil, problem end
    error(problem, 0)
  end
  return total
end

return listing
