-- SPDX-License-Identifier: MIT
-- The paginator without a service: what happens between two pages is decided here.
local call = require "nymbl.call"
local page = require "nymbl.page"
local paginator = require "nymbl.paginator"
local prefetch = require "nymbl.prefetch"

local ROWS, PAGE_SIZE = 12, 5

-- Iterate over ROWS rows whose ids are their numbers.
local function iterate(with_count)
  page.request = function(_, _, top, skip) return { top = top, skip = skip } end
  page.fetch = function(_, _, request)
    local rows, ids = {}, {}
    for i = request.skip + 1, math.min(ROWS, request.skip + request.top) do
      rows[#rows + 1], ids[#ids + 1] = i, tostring(i)
    end
    return { rows = rows, ids = ids, valid = #ids, count = with_count and ROWS or nil }
  end
  return paginator.iterate({ env = {}, operation = "list", path = {} },
    { skip = 0, page_size = PAGE_SIZE, pairs = {}, options = {} })
end

-- Iterate, and raise an error before the n-th instruction. Go on with the same iterator. Returns the
-- number of times that each row was returned, how the iteration has ended, and whether it was interrupted.
local function interrupted_at(n, with_count)
  local seen, interruptions, next_row = {}, 0, iterate(with_count)
  local function interrupt()
    n = n - 1
    if n > 0 then return end
    debug.sethook()
    interruptions = interruptions + 1
    error("interrupted!", 0)
  end
  local function step()
    if interruptions == 0 then debug.sethook(interrupt, "", 1) end
    local row = next_row()
    debug.sethook()
    return row
  end
  while true do
    local ran, row = pcall(step)
    debug.sethook()
    if ran and row == nil then return seen, "end", interruptions > 0 end
    if not ran and row ~= "interrupted!" then return seen, row, true end
    if ran then seen[row] = (seen[row] or 0) + 1 end
  end
end

describe("the paginator", function()
  local saved

  before_each(function()
    saved = { page.request, page.fetch, prefetch.start, call.add_headers }
    prefetch.start, call.add_headers = function() end, function() end
    if jit then jit.off() end -- luacheck: ignore (compiled code calls no hooks)
  end)

  after_each(function()
    page.request, page.fetch, prefetch.start, call.add_headers = saved[1], saved[2], saved[3], saved[4]
    if jit then jit.on() end -- luacheck: ignore
  end)

  for _, with_count in ipairs { true, false } do
    it("loses no row silently if a hook interrupts it, " .. (with_count and "with" or "without") .. " a count", function()
      local n = 0
      repeat
        n = n + 1
        local seen, ended, was_interrupted = interrupted_at(n, with_count)
        local where, missing = "at instruction " .. n, 0
        for i = 1, ROWS do
          if not seen[i] then missing = missing + 1 end
          assert.is_true((seen[i] or 0) <= 1, where)
        end
        assert.is_nil(seen[false], where)
        if ended == "end" then
          -- the row that was about to be returned is lost in any case
          assert.is_true(missing <= (was_interrupted and 1 or 0), ("%s: %d rows are missing"):format(where, missing))
        else
          assert.matches("attempt to use an iterator that was interrupted", ended, 1, true)
        end
      until not was_interrupted
    end)
  end

  it("ends if it is closed while the headers of the next page are made", function()
    local next_row, _, _, closer = iterate(true)
    call.add_headers = function() getmetatable(closer).__close() end
    local count = 0
    for _ in next_row do count = count + 1 end
    assert.is_true(count > 0 and count < PAGE_SIZE)
    assert.is_nil((next_row()))
  end)
end)
