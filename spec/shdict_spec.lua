-- SPDX-License-Identifier: MIT
-- State shared by the workers of an nginx: with a fake dictionary, and with nginx's.
local blocking = require "nymbl.wait.blocking"
local core = require "nymbl.core"
local dictionaries = require "dictionary"
local helper = require "helper"
local nginx = require "nginx"
local nymbl = require "nymbl"

local function count(state)
  state.count = (state.count or 0) + 1
  return state.count
end

describe("nymbl.store.shdict()", function()
  local clock, real, ngx

  before_each(function()
    clock = helper.clock()
    real = clock.real
    ngx = package.loaded.ngx
    dictionaries.pretend_nginx {}
  end)

  after_each(function()
    package.loaded.ngx = ngx
    blocking.runtime = real
  end)

  local function shdict_new(before)
    package.loaded.ngx.shared.nymbl = dictionaries.new(before)
    return nymbl.store.shdict("nymbl"), package.loaded.ngx.shared.nymbl
  end

  it("raises on a wrong argument, an unknown dictionary and outside nginx", function()
    assert.error_matches(function() nymbl.store.shdict() end, "bad argument #1 to 'shdict' %(string expected")
    assert.error_matches(function() nymbl.store.shdict("") end, "bad argument #1 to 'shdict' %(empty string")
    assert.error_matches(function() nymbl.store.shdict("other") end,
      "bad argument #1 to 'shdict' %(no lua_shared_dict 'other'")
    package.loaded.ngx = nil
    assert.error_matches(function() nymbl.store.shdict("nymbl") end,
      "bad argument #1 to 'shdict' %(only nginx has shared dictionaries")
  end)

  it("shows nothing of its content", function()
    assert.equal("nymbl.store.shdict", tostring((shdict_new())))
  end)

  it("stores states by their keys, and leaves no lock behind", function()
    local shared, dictionary = shdict_new()
    assert.equal(1, shared:update("a", nil, count))
    assert.equal(2, nymbl.store.shdict("nymbl"):update("a", nil, count))
    assert.equal(1, shared:update("b", nil, count))
    local names = {}
    for key in pairs(dictionary.kept) do names[#names + 1] = key end
    table.sort(names)
    assert.same({ "a", "b" }, names)
  end)

  it("starts over if its content is malformed", function()
    local shared, dictionary = shdict_new()
    for _, text in ipairs { "", "x", "5", "\0", [[{"count":"x"}]], [[{"count":{}}]] } do
      dictionary.kept.a = text
      assert.equal(1, shared:update("a", nil, count))
    end
  end)

  it("keeps the counts of a state that another version stored, and nothing else", function()
    local rate_state = require "nymbl.rate_state"
    local shared, dictionary = shdict_new()
    local function get_all(state)
      local copy = {}
      for name, value in pairs(state) do copy[name] = value end
      return copy
    end
    -- as version 1 wrote it, and a newer one
    for _, text in ipairs { [[{"seen":2864000,"throttled":3,"resume":2864100,"other_throttled":0,"read":2864020.5,]]
                              .. [["requests":38,"month":"2026-02","other":"2026-01","other_requests":7}]],
                            [[{"version":3,"month":"2026-02","requests":38,"throttled":3,"other_month":"2026-01",]]
                              .. [["other_requests":7,"other_throttled":0,"read_tat":"x","token":"secret"}]] } do
      dictionary.kept.a = text
      assert.same({ month = "2026-02", requests = 38, throttled = 3 }, shared:update("a", nil, rate_state.usage, "2026-02"))
      assert.same({ version = 2, month = "2026-02", requests = 38, throttled = 3, other_month = "2026-01",
                    other_requests = 7, other_throttled = 0 }, shared:update("a", nil, get_all))
    end
    -- a token is not among them
    dictionary.kept.a = [[{"life":300,"turn":1,"dies":2864300,"value":"old-token","renew":2864240}]]
    assert.same({ version = 2 }, shared:update("a", nil, get_all))
  end)

  it("passes on errors that a change raises, and is not modified", function()
    local shared = shdict_new()
    shared:update("a", nil, count)
    assert.error_matches(function() shared:update("a", nil, function() error("mine", 0) end) end, "mine")
    assert.equal(2, shared:update("a", nil, count))
  end)

  it("fails if it is full, and keeps its content", function()
    local shared, dictionary = shdict_new()
    shared:update("a", nil, count)
    local safe_set, safe_add, full = dictionary.safe_set, dictionary.safe_add, true
    dictionary.safe_set = function(self, key, value)
      if not full then return safe_set(self, key, value) end
      full, self.kept[key] = false, nil -- nginx removes the old value before it allocates space
      return false, "no memory"
    end
    local result, err = shared:update("a", nil, count)
    assert.is_nil(result)
    assert.same({ kind = "io", reason = "no_space" }, err)
    assert.equal(2, shared:update("a", nil, count))
    dictionary.safe_add = function() return false, "no memory" end
    result, err = shared:update("a", nil, count)
    assert.is_nil(result)
    assert.same({ kind = "io", reason = "no_space" }, err)
    dictionary.safe_add = safe_add
    assert.equal(3, shared:update("a", nil, count))
  end)

  it("waits for another worker's change no longer than the call's deadline", function()
    local shared, dictionary = shdict_new()
    dictionary.kept["a lock"] = 1
    local before = clock.now()
    local result, err = shared:update("a", before + 0.5, count)
    assert.is_nil(result)
    assert.same({ kind = "timeout", reason = "store_locked" }, err)
    assert.is_true(clock.now() - before < 0.6)
  end)

  it("does not wait for another worker with a change that need not: it follows later", function()
    local rate_state, store = require "nymbl.rate_state", require "nymbl.store"
    local shared, dictionary = shdict_new()
    dictionary.kept["a lock"] = 1
    local before = clock.now()
    store.tell(shared, "a", rate_state.quota_exceeded, "2026-02")
    store.tell(shared, "a", rate_state.quota_exceeded, "2026-02")
    store.tell(shared, "b", rate_state.quota_exceeded, "2026-02")
    assert.is_true(clock.now() - before < 0.1)
    assert.is_nil(dictionary.kept.a)
    assert.is_truthy(dictionary.kept.b)
    dictionary.kept["a lock"] = nil
    assert.equal(2, store.ask(shared, "a", nil, rate_state.usage, "2026-02").throttled)
    store.tell(shared, "a", rate_state.quota_exceeded, "2026-02")
    assert.equal(3, store.ask(nymbl.store.shdict "nymbl", "a", nil, rate_state.usage, "2026-02").throttled)
  end)

  it("continues after a second if the worker in a change was killed", function()
    local shared, dictionary = shdict_new()
    shared:update("a", nil, count)
    dictionary.kept["a lock"] = 1
    local before = clock.now()
    assert.equal(2, shared:update("a", nil, count))
    local waited = clock.now() - before
    assert.is_true(waited >= 1 and waited < 1.1, waited)
    assert.equal(3, shared:update("a", nil, count))
    assert.equal(4, nymbl.store.shdict("nymbl"):update("a", nil, count))
    assert.is_true(clock.now() - before - waited < 0.5)
    for key in pairs(dictionary.kept) do dictionary.kept[key] = nil end -- flush_all()
    assert.equal(1, shared:update("a", nil, count))
  end)

  -- Workers as coroutines that stop before every operation on the dictionary. They are resumed in a
  -- random order; some never are, and some only after some time.
  describe("whatever the order in which workers run", function()
    local state

    local function draw(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return math.floor(state / 65536) % n + 1
    end

    -- Returns the stored count, the counts reported to callers, and the number of workers that slept.
    local function play(seed, killed, slow)
      state = seed
      local playing = true
      local shared = shdict_new(function()
        if playing then coroutine.yield() end
      end)
      clock.wait = function(_, deadline)
        clock.offset = math.max(clock.offset, clock.offset + deadline - clock.now())
        if playing then coroutine.yield() end
        return false
      end
      local reported, sleeping = 0, 0
      local workers = {}
      for i = 1, 4 do
        workers[i] = { thread = coroutine.create(function()
          for _ = 1, 5 do
            assert(shared:update("a", nil, count))
            reported = reported + 1
          end
        end) }
      end
      local steps = 0
      while #workers > 0 do
        steps = steps + 1
        assert(steps < 100000)
        local i = draw(#workers)
        local worker = workers[i]
        if not worker.till or clock.offset >= worker.till or #workers == sleeping then
          if worker.till then
            worker.till, sleeping = nil, sleeping - 1
          end
          assert(coroutine.resume(worker.thread))
          if coroutine.status(worker.thread) == "dead" or (killed and draw(60) == 1) then
            table.remove(workers, i)
          elseif slow and draw(30) == 1 then
            worker.till, sleeping = clock.offset + 3, sleeping + 1
          end
        end
      end
      playing = false
      return shared:update("a", nil, function(last) return last.count or 0 end), reported
    end

    it("each change counts once", function()
      for seed = 1, 200 do
        local kept, reported = play(seed)
        assert.equal(20, reported)
        assert.equal(20, kept, seed)
      end
    end)

    it("no change is lost if some are killed", function()
      local most = 0
      for seed = 1, 200 do
        local kept, reported = play(seed, true)
        assert.is_true(kept >= reported and kept <= reported + 4, seed .. ": " .. kept .. " of " .. reported)
        most = math.max(most, kept - reported)
      end
      assert.is_true(most > 0) -- some were killed between a change and its end
    end)

    it("no change is lost or overwritten if some are stopped for long", function()
      for seed = 1, 200 do
        local kept, reported = play(seed, false, true)
        assert.equal(20, reported)
        assert.is_true(kept >= reported, seed .. ": " .. kept .. " of " .. reported)
        kept, reported = play(seed, true, true)
        assert.is_true(kept >= reported, seed .. ": " .. kept .. " of " .. reported)
      end
    end)
  end)
end)

-- Code runs in the worker that it is meant for: each worker polls for its code, in a timer.
local WORKERS = [[
  lua_shared_dict nymbl 1m;
  lua_shared_dict other 1m;
  lua_shared_dict small 64k;
  lua_shared_dict jobs 1m;
  init_worker_by_lua_block {
    local jobs, id = ngx.shared.jobs, ngx.worker.id()
    ngx.timer.at(0, function()
      while not ngx.worker.exiting() do
        local name = jobs:lpop("for " .. id)
        if name then
          ngx.thread.spawn(function()
            local ran, result = pcall(assert(loadstring(jobs:get(name))))
            jobs:set("done " .. name, tostring(result) .. (ran and "" or " raised"))
          end)
        end
        ngx.sleep(0.005)
      end
    end)
  }
]]

local RUN = [[
  ngx.req.read_body()
  ngx.shared.jobs:set(ngx.var.arg_name, ngx.req.get_body_data())
  ngx.shared.jobs:rpush("for " .. ngx.var.arg_worker, ngx.var.arg_name)
]]

local DONE = [[ ngx.print(ngx.shared.jobs:get("done " .. ngx.var.arg_name) or "") ]]

describe("nymbl.store.shdict() in nginx #nginx", function()
  local server

  before_each(helper.reset)

  after_each(function()
    if server then
      local log = server:log()
      server:stop()
      assert.is_nil(log:match("%[alert%] [^\n]*worker process %d+ exited on signal [^9]"))
      assert.is_nil(log:match("%[error%][^\n]*"))
    end
    server = nil
  end)

  local function start(workers, options)
    options = options or {}
    options.workers, options.http = workers, WORKERS
    options.locations = options.locations or {}
    options.locations["/run"], options.locations["/done"] = RUN, DONE
    server = nginx.start(options)
  end

  local wait_for = helper.wait_for

  -- Start code in a worker. Returns a function that waits for its result.
  local names = 0
  local function run(worker, code)
    names = names + 1
    local name = names
    assert.equal("", server:get(("/run?worker=%d&name=%d"):format(worker, name),
      "--data-binary @" .. helper.write_file(helper.temporary(".job"), code)))
    return function()
      return wait_for(function() -- the worker may be killed meanwhile
        local text = server:get("/done?name=" .. name)
        return text ~= "" and not text:find("^curl:") and text
      end)
    end
  end

  it("shares one rate, one count and one token between the workers #time", function()
    helper.admin("POST", "settings", { limits = true, rate = { read = { 20, 5 }, download = { 1, 3 } }, token_life = 1 })
    start(2, { init = [[one = client { store = nymbl.store.shdict "nymbl", rate = { read = { 20, 4 } }, monthly_quota = 100 }]] })
    local code = [[
      local nymbl = require "nymbl"
      local items = {}
      for i = 1, 20 do items[i] = i end
      local succeeded, failed = nymbl.each(items, { concurrency = 4 }, function() return one:patient("p"):page() end)
      return failed[1] and tostring(failed[1].err) or succeeded]]
    local first, second = run(0, code), run(1, code)
    assert.equal("20", first())
    assert.equal("20", second())
    local sent = helper.journal()
    assert.equal(40, #sent)
    for i = 1, #sent do
      assert.equal(200, sent[i].status)
      for j = i, #sent do -- one more, because of network jitter
        assert.is_true(j - i + 1 <= 5 + 20 * (sent[j].time - sent[i].time) + 1e-6, i .. " to " .. j)
      end
    end
    -- each token is used for 0.8 seconds
    local seconds = sent[#sent].time - sent[1].time
    local tokens = #helper.journal("token")
    assert.is_true(tokens >= math.floor(seconds) and tokens <= math.floor(seconds / 0.8) + 1, tokens .. " in " .. seconds)
    local usage = [[
      local usage = one:usage()
      return usage.requests .. " " .. usage.throttled .. " " .. usage.remaining]]
    assert.equal("40 0 60", run(0, usage)())
    assert.equal("40 0 60", run(1, usage)())
    server:signal("HUP")
    wait_for(function() return run(0, usage)() == "40 0 60" end)
  end)

  it("pauses all workers if one receives a 429", function()
    start(2, { init = [[one = client { store = nymbl.store.shdict "nymbl", rate = { read = { 100, 10 } } }]] })
    local code = [[
      local page, err = one:patient("p"):page()
      return page and "a page" or err.kind]]
    assert.equal("a page", run(0, code)())
    helper.faults { operation = "list",
                    action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "1" } } } }
    assert.equal("throttled", run(0, code)())
    assert.equal("a page", run(1, code)())
    local sent = helper.journal()
    assert.equal(3, #sent)
    assert.is_true(sent[3].time - sent[2].time >= 0.9)
  end)

  it("shares the failure of a token request between callers in all workers", function()
    start(2, { init = [[one = client { store = nymbl.store.shdict "nymbl", max_attempts = 5 }]] })
    local code = [[
      local nymbl = require "nymbl"
      local count, failed = nymbl.each({ 1, 2, 3, 4 }, nil, function() return one:patient("p"):page() end)
      local kinds = {}
      for i, entry in ipairs(failed) do kinds[i] = entry.err.kind .. " " .. entry.err.status end
      return count .. " " .. table.concat(kinds, " ")]]
    helper.faults { operation = "token", action = { delay = 1.5, status = 404, body_kind = "empty" } }
    local first = run(0, code)
    wait_for(function() return #helper.journal("token") == 1 end)
    local second = run(1, code)
    assert.equal("0" .. (" not_found 404"):rep(4), first())
    assert.equal("0" .. (" not_found 404"):rep(4), second())
    assert.equal(1, #helper.journal("token"))
    helper.faults { operation = "token", action = { status = 400, body_kind = "token" } }
    assert.equal("0" .. (" unauthorized 400"):rep(4), run(0, code)())
    assert.equal("0" .. (" unauthorized 400"):rep(4), run(1, code)()) -- the rejection is remembered for a few seconds
    assert.equal(2, #helper.journal("token"))
  end)

  it("takes over a refresh from a killed worker, and from an aborted request", function()
    start(3, { init = [[
        one = client { store = nymbl.store.shdict "nymbl" }
        two = client { store = nymbl.store.shdict "other" }]],
      server = "lua_check_client_abort on;",
      locations = { ["/two"] = [[ngx.say(tostring(two:patient("p"):page()))]] } })
    local function page(client) return ("return type(assert(%s:patient('p'):page()))"):format(client) end
    helper.faults({ operation = "token", times = 2, action = { delay = 20 } })
    local pid = tonumber(run(0, "return ngx.worker.pid()")())
    run(0, page "one")
    os.execute(server:command("/two", "--max-time 0.3") .. " >" .. helper.temporary() .. " 2>&1")
    wait_for(function() return #helper.journal("token") == 2 end)
    local began = core.now()
    os.execute("kill -KILL " .. pid)
    local first, second, third = run(1, page "one"), run(2, page "one"), run(1, page "two")
    assert.equal("table", first())
    assert.equal("table", second())
    assert.equal("table", third())
    local seconds = core.now() - began
    assert.is_true(seconds < 10, seconds) -- 3, and the machine's delays
    assert.equal("table", run(0, page "one")()) -- in the worker that replaced it
    assert.equal(4, #helper.journal("token"))
  end)

  -- Workers change one state as fast as they can. One of them is killed during a change, and its
  -- replacement is stopped during another.
  it("loses and overwrites no change if workers are killed and stopped during one", function()
    start(3, { init = [[
      local ffi = require "ffi"
      ffi.cdef "int kill(int, int);"
      shared = nymbl.store.shdict "nymbl"
      local function count(state)
        state.count = (state.count or 0) + 1
        return state.count
      end
      local jobs = ngx.shared.jobs
      function hammer(times)
        while times > 0 and not jobs:get("enough") do
          for _ = 1, 100 do assert(shared:update("key", nil, count)) end
          jobs:incr("reported", 100, 0)
          times = times - 1
          ngx.sleep(0.001)
        end
      end
      function hit(signal)
        shared:update("key", nil, function(state)
          if signal then ffi.C.kill(ngx.worker.pid(), signal) end
          signal = nil
          return count(state)
        end)
        jobs:incr("reported", 1, 0)
      end]], locations = { ["/reported"] = "ngx.print(ngx.shared.jobs:get('reported'))" } })
    local pid = tonumber(run(0, "return ngx.worker.pid()")())
    local first, second = run(1, "hammer(1e9)"), run(2, "hammer(1e9)")
    run(0, "hammer(10) hit(9)")
    wait_for(function() return server:log():find("exited on signal 9", 1, true) end)
    local again = tonumber(run(0, "return ngx.worker.pid()")())
    assert.not_equal(pid, again)
    local third = run(0, "hit(19) hammer(10)")
    wait_for(function() return helper.read_file(("/proc/%d/stat"):format(again)):match("%) (%u)") == "T" end)
    local function reported() return tonumber(server:get("/reported")) or 0 end
    local before = reported()
    wait_for(function() return reported() > before + 1000 end)
    os.execute("kill -CONT " .. again)
    third()
    run(1, "ngx.shared.jobs:set('enough', true)")
    first()
    second()
    assert.equal("true", run(1, [[return ngx.shared.jobs:get("reported") == shared:update("key", nil, function(state)
      return state.count
    end)]])())
  end)

  it("fails with io if the dictionary is full, before anything is sent", function()
    start(1, { init = [[one = client { store = nymbl.store.shdict "small" }]] })
    assert.equal("nymbl: list: io (no_space): no space is left: make room there", run(0, [[
      local small, i = ngx.shared.small, 0
      for size = 3000, 0, -500 do
        repeat i = i + 1 until not small:safe_set(i, ("x"):rep(size))
      end
      local page, err = one:patient("p"):page()
      return tostring(err)]])())
    assert.same({}, helper.journal())
    assert.equal("table", run(0, [[
      ngx.shared.small:flush_all()
      ngx.shared.small:flush_expired()
      return type(assert(one:patient("p"):page()))]])())
  end)

  it("raises if the dictionary does not exist, and works in init and in phases that cannot wait", function()
    start(1, { server = "log_by_lua_block { logged = one:usage().requests }", init = [[
      one = client { store = nymbl.store.shdict "nymbl" }
      problem = select(2, pcall(nymbl.store.shdict, "misspelt"))
      assert(one:patient("p"):page())]] })
    assert.matches("bad argument #1 to 'shdict' %(no lua_shared_dict 'misspelt'%)", run(0, "return problem")())
    assert.equal("1", run(0, "return one:usage().requests")())
    assert.equal("2", run(0, "assert(one:patient('p'):page()) return one:usage().requests")())
    assert.equal("2", run(0, "return logged")())
    assert.equal(1, #helper.journal("token"))
  end)
end)
