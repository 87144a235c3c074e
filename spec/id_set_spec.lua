-- SPDX-License-Identifier: MIT
-- Sets of ids: which rows of a listing a script has got.

local core = require "nymbl.core"
local helper = require "helper"

describe("a set of ids", function()
  local set

  before_each(function() set = core.id_set() end)

  -- The ids of a random history, most of them known already.
  local function random_id()
    return ("id-%d"):format(math.random(400)):rep(math.random(3))
  end

  it("has members, excluded ids, and no others", function()
    assert.equal(2, set:add({ "a", "b", "c" }, 1, 2))
    set:exclude "x"
    assert.is_true(set:get "a")
    assert.is_true(set:get "b")
    assert.is_false(set:get "x")
    assert.is_nil(set:get "c")
    assert.is_nil(set:get "")
  end)

  it("tells ids apart that differ in one byte, or in their length", function()
    set:add({ "", "\0", "\0\0", "a\0", "a" }, 1, 3)
    assert.same({ true, true, true }, { set:get "", set:get "\0", set:get "\0\0" })
    assert.is_nil(set:get "a")
    assert.is_nil(set:get "a\0")
    local long = ("x"):rep(100000)
    assert.equal(1, set:add({ long .. "1" }, 1, 1))
    assert.is_nil(set:get(long .. "2"))
    assert.is_true(set:get(long .. "1"))
  end)

  it("adds ids in their order, up to one that it knows", function()
    set:exclude "x"
    assert.equal(1, set:add({ "a", "x", "b" }, 1, 3))
    assert.is_nil(set:get "b")
    assert.equal(4, set:add({ "a", "x", "b", "c", "b", "d" }, 3, 6)) -- the second "b"
    assert.is_nil(set:get "d")
    assert.equal(0, set:add({ "a" }, 1, 1))
    assert.equal(2, set:add({ "e", "f" }, 1, 100))
    assert.equal(0, set:add({ false, "g" }, 1, 2))
  end)

  it("takes back what was added last, and adds it again", function()
    local ids = { "a", "b", "c" }
    set:add(ids, 1, 3)
    set:take_back(ids, 2)
    assert.same({ true, n = 3 }, { set:get "a", set:get "b", set:get "c", n = 3 })
    assert.equal(3, set:add(ids, 2, 3))
    assert.is_true(set:get "c")
    set:take_back(ids, 4)
    set:take_back(ids, 1) -- there is no more to take back
    assert.is_true(set:get "a")
    assert.equal(3, set:count())
  end)

  it("takes back no id that was a member before", function()
    set:add({ "b" }, 1, 1)
    local ids = { "a", "b", "c" }
    assert.equal(1, set:add(ids, 1, 3))
    set:take_back(ids, 1)
    assert.is_nil(set:get "a")
    assert.is_true(set:get "b")
    assert.equal(0, set:add({ "b" }, 1, 1))
    set:take_back({ "b" }, 1)
    assert.is_true(set:get "b")
    assert.equal(1, set:count())
  end)

  it("finds the last id of an array that it knows", function()
    set:add({ "a", "b" }, 1, 2)
    set:exclude "x"
    assert.equal(0, set:last_known {})
    assert.equal(0, set:last_known { "c", "d" })
    assert.equal(3, set:last_known { "a", "c", "b", "d" })
    assert.equal(2, set:last_known { "a", "x", "c" })
    set:add({ "z" }, 1, 1)
    set:take_back({ "z" }, 1)
    assert.equal(1, set:last_known { "x", "z" })
    assert.equal(1, set:last_known { "a", "c", false })
  end)

  it("agrees with a table, whatever happens", function()
    local seed = tonumber(os.getenv "NYMBL_SEED") or 1
    math.randomseed(seed)
    for _ = 1, 20 do
      local model, last, count = {}, nil, 0
      set = core.id_set()
      for step = 1, 1000 do
        local id, what = random_id(), math.random(10)
        if what == 1 then
          set:exclude(id)
          if model[id] then count = count - 1 end
          model[id] = false
        elseif what == 2 then
          set:take_back({ last }, 1)
          if last and model[last] then model[last], count = nil, count - 1 end
          last = nil
        else
          assert.equal(model[id] == nil and 1 or 0, set:add({ id }, 1, 1), ("seed %d, step %d"):format(seed, step))
          last = model[id] == nil and id or nil
          if last then model[id], count = true, count + 1 end
        end
        assert.equal(count, set:count(), ("seed %d, step %d"):format(seed, step))
        id = random_id()
        assert.equal(model[id], set:get(id), ("seed %d, step %d"):format(seed, step))
      end
    end
  end)

  it("takes at most 64 bytes for an id of 12, and none of Lua's memory #memory", function()
    local function resident() -- bytes
      return tonumber(helper.read_file("/proc/self/statm"):match "^%d+ (%d+)") * 4096
    end
    local function collect()
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local ids, lua_before, before = {}, collect(), resident()
    for i = 1, 200000 do
      ids[1] = ("doc-%08d"):format(i)
      set:add(ids, 1, 1)
      if i % 1000 == 0 then collectgarbage() end
    end
    assert.is_true(collect() - lua_before < 200)
    local each = (resident() - before) / 200000
    assert.is_true(each < 64, ("%.0f bytes for each id"):format(each))
    assert.is_true(set:get "doc-00000001")
  end)
end)
