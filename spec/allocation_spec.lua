-- SPDX-License-Identifier: MIT
-- Each memory allocation by Lua fails in turn (allocations.lua). Each call then returns the right result
-- or raises "not enough memory", and stored data is not lost. allocation_calls_spec.lua has the calls
-- that write.
local allocations = require "allocations"
local helper = require "helper"

local run = allocations.run

describe("without memory", function()
  if not allocations.is_supported then
    pending "this Lua takes no allocator"
    return
  end

  before_each(function() helper.reset() end)

  for name, code in pairs {
    ["the file store"] = "local store = nymbl.store.file(PATH)",
    ["the file store with tokens"] = "local store = nymbl.store.file(PATH, { token = true })",
    ["a store of the process"] = "local store = nymbl.store.memory()",
    ["a dictionary"] = [[
      local dictionary = require "dictionary"
      local it = dictionary.new()
      dictionary.pretend_nginx { it = it }
      local store = nymbl.store.shdict "it"
      locked = function() -- others would wait for this worker
        for name in pairs(it.kept) do if name:find " lock$" then return name end end
      end
    ]],
  } do
    it(name .. " loses no account's count", function()
      local path = helper.temporary(".store")
      local result = run("local function locked() end\n" .. code:gsub("PATH", ("%q"):format(path)) .. [[

        local rate_state = require "nymbl.rate_state"
        local MONTH = "2026-02"
        local LIMITS = { bucket = "read", rate = 2, burst = 4, quota = 1000000 }
        local function count(key)
          local usage, err = store:update(key, nil, rate_state.usage, MONTH)
          if not usage then error("no count of " .. key .. ": " .. tostring(err and err.reason), 0) end
          if usage.month ~= MONTH then error("wrong month of " .. key, 0) end
          return usage.requests
        end
        for _ = 1, 7 do assert(store:update("other", nil, rate_state.reserve, LIMITS, MONTH)) end
        assert(store:update("this", nil, rate_state.reserve, LIMITS, MONTH))
        local least = 1
        local total = each_allocation(function()
          return store:update("this", nil, rate_state.reserve, LIMITS, MONTH)
        end, function(ok, at)
          if ok and not at then return "no reservation" end
          if locked() then return "still locked" end
          if ok then least = least + 1 end
          local now = count "this"
          if now < least or now > least + 1 then return ("%d instead of %d"):format(now, least) end
          least = now
          if count "other" ~= 7 then return ("the other has %d"):format(count "other") end
        end)
        -- a new account
        local new = 0
        total = total + each_allocation(function()
          new = new + 1
          return store:update("new" .. new, nil, rate_state.reserve, LIMITS, MONTH)
        end, function(ok, at)
          if ok and not at then return "no reservation" end
          if ok and count("new" .. new) ~= 1 then return "not counted" end
          if count "this" ~= least or count "other" ~= 7 then return "others are gone" end
        end, { most = 40 }) -- each one extends the file
        return ("%d"):format(total)
      ]])
      assert.is_true(tonumber(result) > 5, result)
    end)
  end

  it("a listing has the service's rows, or raises", function()
    helper.admin("POST", "seed", { patient = "p", count = 3 })
    local result = run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      assert(patient:page())
      local total = each_allocation(function() return patient:page() end, function(ok, page, err)
        if ok and not page then return tostring(err) end
        if ok and (#page ~= 3 or page.count ~= 3 or page.has_more) then return "wrong page" end
      end)
      client:close()
      return ("%d"):format(total)
    ]]
    assert.is_true(tonumber(result) > 10, result)
  end)

  it("an iteration that continues after a failure skips no document", function()
    helper.admin("POST", "seed", { patient = "p", count = 5 })
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      for _ in patient:documents { page_size = 3 } do end
      each_allocation(function()
        local step = patient:documents { page_size = 3 }
        local count, failed = 0, 0
        while true do
          local ok, doc = pcall(step)
          if ok and not doc then return count end
          if ok then count = count + 1 else failed = failed + 1 end
          if failed > 3 then error("not enough memory", 0) end
        end
      end, function(ok, count)
        if ok and count ~= 5 then return ("%d documents"):format(count) end
      end)
      client:close()
    ]]
  end)

  it("a set of ids gets all of a page's, or none", function()
    local result = run [[
      local core = require "nymbl.core"
      local ids, set = {}, nil
      for i = 1, 100 do ids[i] = ("%d"):format(i):rep(50) end
      local total = each_allocation(function()
        set = nil
        set = core.id_set()
        assert(set:add(ids, 1, 10) == 10)
        return set:add(ids, 11, 100)
      end, function(ok, last)
        if ok and last ~= 100 then return "too few" end
        for i = 11, 100 do
          if set and set:get(ids[i]) ~= (ok or nil) then return "wrong: " .. i end
        end
      end)
      return ("%d"):format(total)
    ]]
    assert.is_true(tonumber(result) > 5, result)
  end)

  it("a token is requested and read, or raises", function()
    local result = run [[
      local total, client = 0, nil
      local function call()
        client = assert(nymbl.client(options { store = nymbl.store.memory() }))
        return client:patient("p"):count()
      end
      total = each_allocation(call, function(ok, count, err)
        if client then client:close() end
        client = nil
        if ok and count ~= 0 then return tostring(err) end
      end)
      return ("%d"):format(total)
    ]]
    assert.is_true(tonumber(result) > 10, result)
  end)

  it("an error of the service is returned, or raises", function()
    helper.faults { operation = "get", times = -1,
                    action = { status = 400, body = '{"error":{"code":"X","message":"m","details":["a","b"]}}' } }
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      assert(not patient:get "d")
      each_allocation(function() return patient:get "d" end, function(ok, doc, err)
        if ok and (doc or err.kind ~= "bad_request" or err.code ~= "X" or err.detail ~= "m: a; b") then
          return tostring(err) .. tostring(err and err.detail)
        end
      end)
      client:close()
    ]]
  end)

  it("a stream is read completely, or raises and ends", function()
    helper.admin("POST", "documents", { patient = "p", id = "d", size = 100000, content_type = "application/pdf" })
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      assert(patient:document("d"):open()):close()
      local stream
      each_allocation(function()
        stream = nil
        stream = assert(patient:document("d"):open())
        return stream:read("a")
      end, function(ok, bytes)
        if ok and #bytes ~= 100000 then return "a short file" end
        if not ok and stream then
          local rest, err = stream:read("a")
          if rest and #rest ~= 100000 then return ("%d bytes look like the whole"):format(#rest) end
          if not rest and not err then return "no error" end
        end
        if stream then stream:close() end
      end)
      client:close()
    ]]
  end)

  it("nymbl.each ends and reports what failed", function()
    run [[
      local client = assert(nymbl.client(options()))
      local patient = client:patient "p"
      each_allocation(function()
        return nymbl.each({ 1, 2, 3 }, { concurrency = 2 }, function() return patient:count() end)
      end, function(ok, good, failed)
        if not ok then return end
        if good + #failed ~= 3 then return "items are missing" end
        for _, entry in ipairs(failed) do
          if not tostring(entry.err):find("not enough memory", 1, true) then return tostring(entry.err) end
        end
      end)
      assert(nymbl.each({ 1 }, nil, function() return patient:count() end) == 1)
      client:close()
    ]]
  end)
end)
