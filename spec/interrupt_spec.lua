-- SPDX-License-Identifier: MIT
-- An error raised by a hook (Ctrl-C in `lua`, a program's own time limit) is not an error in the data
-- being processed: it passes through, and no stored data is lost.
local dictionary = require "dictionary"
local helper = require "helper"
local json = require "nymbl.json"
local nymbl = require "nymbl"
local rate_state = require "nymbl.rate_state"

local MONTH, WORD = "2026-02", "interrupted!"

-- LuaJIT's compiled code calls no hooks.
if jit then jit.off() end -- luacheck: ignore

-- Run a function repeatedly. Each time the hook raises its error at the next call or return.
local function each_interrupt(what, judge)
  local n, raised = 0, nil -- luacheck: ignore
  repeat
    n, raised = n + 1, false
    local seen, armed = 0, false
    debug.sethook(function()
      if not armed then return end
      seen = seen + 1
      if seen == n then
        armed, raised = false, true
        error(WORD, 0)
      end
    end, "cr")
    local ok, a, b = pcall(function()
      armed = true
      local first, second = what()
      armed = false
      return first, second
    end)
    debug.sethook()
    if raised then
      assert.is_false(ok, "swallowed at " .. n)
      assert.equal(WORD, a)
    end
    judge(n, ok, a, b)
  until not raised
  return n
end

describe("an error of a hook", function()
  for name, make in pairs {
    ["the file store"] = function() return nymbl.store.file(helper.temporary(".store")) end,
    ["a dictionary"] = function()
      local shared = dictionary.new()
      dictionary.pretend_nginx { it = shared }
      local store = nymbl.store.shdict "it"
      return setmetatable({ clear = function() -- an interrupted caller still holds the lock
        for key in pairs(shared.kept) do
          if key:find(" lock$") then shared.kept[key] = nil end
        end
      end }, { __index = store })
    end,
  } do
    it("loses no account's count in " .. name, function()
      local store = make()
      finally(function() package.loaded.ngx = nil end)
      local function count(key)
        return store:update(key, nil, rate_state.usage, MONTH).requests
      end
      local function reserve(key)
        return store:update(key, nil, rate_state.reserve, { bucket = "read" }, MONTH)
      end
      for _ = 1, 50 do
        reserve "one"
        reserve "other"
      end
      local last = 50
      local times = each_interrupt(function() return reserve "one" end, function(n)
        if store.clear then store.clear() end
        collectgarbage() -- and a file that was open
        local now = count "one"
        assert.is_true(now >= last, ("%d at %d, after %d"):format(now, n, last))
        assert.equal(50, count "other", "at " .. n)
        last = now
      end)
      assert.is_true(times > 10)
    end)
  end

  it("does not turn valid JSON invalid", function()
    each_interrupt(function() return json.decode '{"a":[1,2]}' end, function(_, ok, value, problem)
      if ok then
        assert.same({ a = { 1, 2 } }, value)
        assert.is_nil(problem)
      end
    end)
  end)

  it("leaves invalid JSON invalid", function()
    each_interrupt(function() return json.decode '{"a":[1,2}' end, function(_, ok, value, problem)
      if ok then
        assert.is_nil(value)
        assert.equal("bad_json", problem)
      end
    end)
  end)
end)
