-- SPDX-License-Identifier: MIT
-- Listings: OData queries, and walking their pages without losing a document.

local core = require "nymbl.core"
local call = require "nymbl.call"
local check = require "nymbl.check"
local adopt = require("nymbl.document").adopt
local errors = require "nymbl.errors"

local listing = {}

-- The service caps a page at 100 without a word (facts, section 6).
local LARGEST_PAGE = 100

-- More documents than there can be: less one it is less, which infinity is not.
local ENDLESS = 2^53

-- Pages in a row that bring nothing new, beyond those that a fallen count
-- explains, before a listing is given up as endless.
local MOST_FRUITLESS = 3

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
    if item:match("^%s*(%S+)") == "id" then return text end
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
  if type(rows) ~= "table" or type(next(rows)) == "string" then return nil, "shape" end
  local link = reply["@odata.nextLink"]
  if type(link) == "string" and link:find("\0", 1, true) then return nil, "next_link" end
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
    drive = read_page,
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
  return errors.new { kind = "protocol", status = 200, reason = problem, attempts = attempts }
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

-- Where a walk stands: rows of the page at hand, the place of the next one, the ids
-- that were given out; `half` is the row at which the next page is asked for, and
-- `next` are the steps of that call. The walk raises errors: it is stepped by a `for`.
local walk = {}
walk.__index = walk

-- What the reply says about where to go on. Rows that others (or the loop's own
-- body) deleted since the page before have moved all behind them up: the count
-- tells, and the next request starts that many rows before this one did.
function walk:place(page)
  local fallen = 0
  if page.count and self.count and page.count < self.count then
    fallen = self.count - page.count
  end
  self.count = page.count or self.count
  local linked = self.next_link ~= nil
  self.next_link = nil
  self.half = math.huge -- none, but where rows stand still
  if fallen > 0 then -- a link would pass rows over, too
    local back = math.min(fallen, self.skip)
    self.skip = self.skip - back
    self.allowance = self.allowance + math.ceil(back / self.query.size)
    self.more = true
    return
  end
  self.skip = self.skip + #page.rows
  if page.next_link then
    self.next_link, self.more = page.next_link, true
  elseif linked or #page.rows == 0 then -- the last one has no link (OData JSON 4.01, 4.5.5)
    self.more = false
  elseif page.count then
    self.more = self.skip < page.count
  else
    self.more = #page.rows >= self.query.size
  end
  if self.more then self.half = #page.rows / 2 end
end

-- The next request.
function walk:steps()
  return page_steps(self.env, self.patient_id, self.query, self.query.size, self.skip, self.next_link)
end

-- Half-way through a page the next one is asked for, if it will be wanted for certain:
-- not in a page of one row, which has no half, and not while rows are being deleted:
-- it would come before those of this page are gone, and be asked for again.
function walk:look_ahead()
  local rest = #self.rows - self.at
  self.half = math.huge
  if rest > 0 and self.left > rest then
    self.next = self:steps()
    call.ahead(self.env, "list", self.next)
  end
end

function walk:fetch()
  local steps = self.next or self:steps()
  self.next = nil
  local page, err = page_fetch(self.env, self.query, steps)
  -- rows that hold much may be too many for one response: then half as many are asked for
  while not page and err.reason == "too_long" and self.query.size > 1 and not self.next_link do
    self.query.size = math.ceil(self.query.size / 2)
    page, err = page_fetch(self.env, self.query, self:steps())
  end
  if not page then error(err, 0) end
  self.rows, self.at, self.left_before, self.attempts = page.rows, 0, self.left, page.attempts
  self:place(page)
end

-- A page without a document that is new brings the walk nearer to giving up.
function walk:judge()
  self.fruitless = self.left < self.left_before and 0 or self.fruitless + 1
  if self.fruitless > MOST_FRUITLESS + self.allowance then
    error(wrong_row("endless", self.attempts), 0)
  end
end

-- What a step ends with after one in which an error was raised between a row and its
-- document (no memory): that one is lost, and the rest must not look like all.
local LOST = errors.new { kind = "canceled", reason = "raised" }

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
  if self.next then call.advance(self.next) end
  local seen = self.seen
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
      if not seen[id] then
        seen[id] = true
        self.left = self.left - 1
        if at >= self.half then self:look_ahead() end
        self.taking = false
        return found
      end
      self.taking = false
    end
    if not self.more then break end
    self:judge()
    self:fetch()
  end
  self:close()
  return nil
end

-- Let go the page that was asked for ahead.
function walk:abandon()
  if self.next then call.abandon(self.next) end
  self.next = nil
end

function walk:close()
  self:abandon()
  self.closed, self.rows, self.seen = true, nil, nil
end

--- An iterator over all pages: step, nil, nil, closer. The step needs no argument,
-- so that `nymbl.each(patient:documents(), …)` works; Lua 5.4 closes the last. The
-- walk itself stays behind functions: it holds an id and a filter.
function listing.documents(env, patient_id, query)
  local self = setmetatable({
    env = env, patient_id = patient_id, query = query, skip = query.skip,
    left = query.top or ENDLESS, left_before = math.huge, seen = {}, fruitless = 0, allowance = 0,
    rows = {}, at = 0, half = math.huge, more = true, taking = false,
  }, walk)
  query.count = true -- without it nobody can tell that rows have moved
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
