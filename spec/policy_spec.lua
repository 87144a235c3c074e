-- SPDX-License-Identifier: MIT
-- Calls stay within the service's limits, and nothing is sent twice. The clock is simulated: sleeping
-- advances it, waiting for the network does not.
local helper = require "helper"
local store = require "nymbl.store"
local wait = require "nymbl.wait"

describe("policy", function()
  local nymbl = require "nymbl"
  local clock, client, patient, began

  before_each(function()
    helper.reset()
    clock = helper.clock()
  end)

  after_each(function()
    if client then client:close() end
    client, patient = nil, nil
    clock.restore()
    assert.equal(0, helper.object_count())
  end)

  local function begin(options)
    options.store = options.store or store.memory()
    client = helper.client(options)
    patient = client:patient("p")
    began = clock.now()
  end

  -- Seconds since begin(), for lower bounds. They count what the limiter counts: the sleeps, and the
  -- real time of the requests, which shortens the sleeps on a busy machine.
  local function elapsed()
    return clock.now() - began
  end

  describe("rate limiting", function()
    -- The times at which requests were sent, by bucket, from the events of all clients.
    local function recorder()
      local sent = { read = {}, download = {} }
      return sent, function(event)
        local times = sent[event.operation == "download" and "download" or "read"]
        if event.operation ~= "token" then times[#times + 1] = clock.now() - event.seconds end
      end
    end

    -- Any time span has at most burst + rate x time requests.
    local function keeps_to(times, rate, burst)
      for i = 1, #times do
        for j = i, #times do
          assert.is_true(j - i + 1 <= burst + rate * (times[j] - times[i]) + 1e-6, i .. " to " .. j)
        end
      end
    end

    it("keeps reads within burst and rate, by default", function()
      local sent, on_event = recorder()
      begin { rate = {}, on_event = on_event }
      for _ = 1, 30 do assert(patient:page()) end
      assert.equal(30, #sent.read)
      keeps_to(sent.read, 2, 4.2)
      assert.is_true(elapsed() > 12.5 and clock.offset < 13.1, clock.offset)
    end)

    it("keeps downloads within their burst and rate", function()
      helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
      local sent, on_event = recorder()
      begin { rate = {}, on_event = on_event }
      for _ = 1, 10 do assert(patient:document("a"):download(function() return 1 end)) end
      assert.equal(10, #sent.download)
      keeps_to(sent.download, 1, 2.2)
      assert.is_true(elapsed() > 7.5 and clock.offset < 8.1, clock.offset)
    end)

    it("shares one rate between two clients of an account, but not of two accounts", function()
      local shared = store.memory()
      begin { rate = {}, store = shared }
      local second = helper.client { rate = {}, store = shared }
      for _ = 1, 10 do
        assert(patient:page())
        assert(second:patient("p"):page())
      end
      assert.is_true(elapsed() > 7.5, clock.offset)
      second:close()
      local before = clock.offset
      local other = helper.client { rate = {}, store = shared, api_key = "another" }
      other:patient("p"):page()
      assert.equal(before, clock.offset)
      other:close()
    end)

    local function all_keep_to(sent)
      table.sort(sent.read)
      table.sort(sent.download)
      keeps_to(sent.read, 2, 4.2)
      keeps_to(sent.download, 1, 2.2)
    end

    it("is shared by eight coroutines and two clients with one key, whatever they call", function()
      helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
      local shared = store.memory()
      local sent, on_event = recorder()
      begin { rate = {}, store = shared, on_event = on_event, timeout = false }
      local second = helper.client { rate = {}, store = shared, on_event = on_event, timeout = false }
      local items = {}
      for i = 1, 48 do items[i] = i end
      local count = nymbl.each(items, nil, function(i)
        local of = (i % 2 == 0 and client or second):patient("p")
        if i % 3 == 0 then return of:document("a"):download(function() return 1 end) end
        if i % 3 == 1 then return of:get("a") end
        return of:upload({ data = "%PDF-1.4" }, { file_name = i .. ".pdf" })
      end)
      second:close()
      assert.equal(48, count)
      assert.equal(32, #sent.read)
      assert.equal(16, #sent.download)
      all_keep_to(sent)
      assert.is_true(elapsed() > 13.5 and clock.offset < 16, clock.offset) -- and no slower than allowed
    end)

    it("continues after a 429, for all callers that waited", function()
      local sent, on_event = recorder()
      begin { rate = {}, max_attempts = 2, on_event = on_event, timeout = false }
      helper.faults { operation = "list", skip = 6,
                      action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "20" } } } }
      local items = {}
      for i = 1, 24 do items[i] = i end
      assert.equal(24, (nymbl.each(items, { concurrency = 12 }, function() return patient:page() end)))
      assert.equal(25, #sent.read)
      all_keep_to(sent)
      assert.is_true(elapsed() > 24, clock.offset) -- a pause of 20, then at the normal rate
    end)

    it("applies if a token is needed first, after the wait", function()
      local sent, on_event = recorder()
      local asked, good = 0, helper.token()
      begin { rate = {}, max_attempts = 2, on_event = on_event, timeout = false, token = function()
        asked = asked + 1
        wait.wait(nil, wait.now() + 2)
        return good, 10
      end }
      local items = {}
      for i = 1, 30 do items[i] = i end
      assert.equal(30, (nymbl.each(items, { concurrency = 12 }, function() return patient:page() end)))
      assert.is_true(asked > 1)
      all_keep_to(sent)
    end)

    it("sends within the service's own limits without a 429", function()
      helper.admin("POST", "settings", { limits = true })
      helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
      clock.restore() -- in real time
      local shared = store.memory()
      begin { rate = {}, store = shared, monthly_quota = 10000 }
      local second = helper.client { rate = {}, store = shared, monthly_quota = 10000 }
      local items = {}
      for i = 1, 16 do items[i] = i end
      local count = nymbl.each(items, nil, function(i)
        local of = (i % 2 == 0 and client or second):patient("p")
        if i % 4 == 0 then return of:document("a"):download(function() return 1 end) end
        if i % 4 == 1 then return of:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" }) end
        return of:page()
      end)
      second:close()
      assert.equal(16, count)
      local journal = helper.journal()
      assert.equal(16, #journal)
      for _, entry in ipairs(journal) do assert.is_true(entry.status < 300) end
      -- both sides have the same count
      assert.equal(16, client:usage().requests)
      assert.equal(16, helper.admin("GET", "settings").quota_used)
    end)

    it("fails at once if the reservation is due after the deadline", function()
      begin { rate = { read = { 0.1, 1 } }, timeout = 5 }
      assert(patient:page())
      local page, err = patient:page()
      assert.is_nil(page)
      assert.equal("timeout", err.kind)
      assert.equal("rate_limit", err.reason)
      assert.equal(0, err.attempts)
      assert.is_true(err.retry_after > 9)
    end)

    it("makes no reservation for a request that is never sent", function()
      begin { rate = { read = { 0.01, 2 } }, monthly_quota = 100 }
      for _ = 1, 3 do
        assert.error(function()
          patient:upload(function() error("mine") end, { file_name = "a.pdf" })
        end)
        assert.is_nil((patient:upload(function() return nil, "mine" end, { file_name = "a.pdf" })))
        assert.is_nil((patient:upload({ data = "no PDF" }, { file_name = "a" })))
      end
      local sent = 0
      client:close()
      begin { rate = { read = { 0.01, 2 } }, monthly_quota = 100, token = function()
        sent = sent + 1
        if sent < 4 then error("mine") end
        return helper.token()
      end }
      for _ = 1, 3 do assert.error(function() patient:page() end) end
      assert.equal(0, clock.offset)
      assert.equal(0, client:usage().requests)
    end)
  end)

  describe("a waiting call", function()
    it("for its reservation or a retry ends if progress says so", function()
      local options = { rate = { read = { 0.01, 1 }, download = { 0.01, 1 } }, max_attempts = 3, timeout = false }
      local reported = {}
      local function progress(done, total)
        reported[#reported + 1] = { done, total }
        return #reported < 3
      end
      local calls = {
        function() return patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf", progress = progress }) end,
        function() return patient:document("a"):download(helper.temporary(), { progress = progress }) end,
        function() return patient:document("a"):open { progress = progress } end,
      }
      for i, call in ipairs(calls) do
        begin(options)
        patient:page()
        patient:document("a"):open()
        helper.admin("DELETE", "journal")
        reported = {}
        local before = clock.offset
        local result, err = call()
        assert.is_nil(result)
        assert.equal("canceled", err.kind)
        assert.equal("progress", err.reason)
        assert.equal(0, err.attempts)
        assert.is_nil(err.outcome_unknown)
        assert.same(i == 1 and { 0, 8 } or { 0 }, reported[3])
        assert.is_true(clock.offset - before < 4)
        assert.equal(0, #helper.journal())
        client:close()
        options.store = nil

        begin { max_attempts = 3, timeout = false }
        reported = {}
        patient:count()
        helper.faults { operation = i == 1 and "upload" or "download", times = -1,
                        action = { status = 429, headers = { { "Retry-After", "100" } } } }
        helper.admin("DELETE", "journal")
        before = clock.offset
        result, err = call()
        assert.is_nil(result)
        assert.equal("canceled", err.kind)
        assert.equal(1, err.attempts)
        assert.is_true(clock.offset - before < 5)
        assert.equal(1, #helper.journal())
        client:close()
      end
    end)

    it("for its reservation ends if the client is closed", function()
      begin { rate = { read = { 0.01, 1 } }, timeout = false }
      patient:page()
      local before, errs = clock.offset, {}
      nymbl.each({ 1, 2 }, nil, function(i)
        if i == 2 then
          wait.wait(nil, wait.now() + 5)
          return client:close()
        end
        local page, err = patient:page()
        errs[1] = err
        return page
      end)
      assert.equal("canceled", errs[1].kind)
      assert.equal("closed", errs[1].reason)
      assert.is_true(clock.offset - before < 7)
    end)

    it("past its deadline returns the last known error at once", function()
      begin { max_attempts = 5, timeout = 20, rate = { read = { 0.02, 1 } } }
      helper.faults { operation = "list", times = -1, action = { status = 503, body_kind = "empty" } }
      local page, err = patient:page()
      assert.is_nil(page)
      assert.equal("server", err.kind)
      assert.equal(503, err.status)
      assert.equal(1, err.attempts)
      assert.is_true(err.retry_after > 40)
      assert.is_true(clock.offset < 1)
    end)
  end)

  describe("the monthly quota", function()
    it("is counted, and calls stop at its end before anything is sent", function()
      begin { monthly_quota = 3 }
      assert.same({ month = "2026-02", requests = 0, throttled = 0, remaining = 3 }, client:usage())
      for _ = 1, 3 do assert(patient:page()) end
      local page, err = patient:page()
      assert.is_nil(page)
      assert.equal("quota", err.kind)
      assert.equal(0, err.attempts)
      assert.is_true(err.retry_after > 0)
      assert.same({ month = "2026-02", requests = 3, throttled = 0, remaining = 0 }, client:usage())
      assert.equal(3, #helper.journal("list"))
    end)

    it("starts anew each month", function()
      begin { monthly_quota = 1 }
      assert(patient:page())
      local _, err = patient:page()
      clock.offset = clock.offset + err.retry_after + 1
      assert(patient:page())
      assert.equal("2026-03", client:usage().month)
    end)

    it("counts a request in the month in which it is sent, and what becomes of it there too", function()
      local march = 1772323200
      -- The counts of February and of March.
      local function counts()
        local both = {}
        for i, wall_time in ipairs { march - 1, march + 1 } do
          clock.wall_time = wall_time - clock.offset
          local usage = client:usage()
          both[i] = ("%s %d %d"):format(usage.month, usage.requests, usage.throttled)
        end
        return both
      end
      begin { monthly_quota = 100, rate = { read = { 0.1, 1 } } }
      clock.wall_time = march - 5 - clock.offset
      for _ = 1, 2 do assert(patient:page()) end -- the second one waits for 10 s
      assert.same({ "2026-02 1 0", "2026-03 1 0" }, counts())
      client:close()
      local function counts_if_march_begins(options)
        begin(options)
        clock.wall_time = march - 5 - clock.offset
        local real = clock.wait
        function clock.wait(transfer, ...)
          local is_counted = client:usage().requests > 0 -- not while it waits for a token
          if transfer and is_counted then clock.wall_time = march + 5 - clock.offset end
          return real(transfer, ...)
        end
        patient:page()
        clock.wait = real
        return counts()
      end
      helper.faults { operation = "list", action = { status = 429 } }
      assert.same({ "2026-02 0 1", "2026-03 0 0" }, counts_if_march_begins { monthly_quota = 100, max_attempts = 1 })
      client:close()
      assert.same({ "2026-02 0 0", "2026-03 0 0" },
        counts_if_march_begins { monthly_quota = 100, max_attempts = 1, base_url = "https://localhost:1" })
    end)

    it("counts no 429, and no request that was not sent", function()
      begin { monthly_quota = 100, max_attempts = 2 }
      helper.faults { operation = "list", action = { status = 429, body_kind = "gateway", message = "Too Many Requests" } }
      assert(patient:page())
      assert.same({ month = "2026-02", requests = 1, throttled = 1, remaining = 99 }, client:usage())
      client:close()
      begin { monthly_quota = 100, base_url = "https://localhost:1" }
      assert.is_nil((patient:page()))
      assert.equal(0, client:usage().requests)
    end)

    it("counts a request whose call cannot be repeated without a token", function()
      local asked = 0
      begin { monthly_quota = 100, max_attempts = 3, token = function()
        asked = asked + 1
        if asked == 1 then return "dead" end
        return nil, "no more"
      end }
      local _, err = patient:page()
      assert.equal("unauthorized", err.kind)
      assert.equal(1, err.attempts)
      assert.equal(1, client:usage().requests)
    end)

    it("is counted like the service counts, whatever it responds", function()
      helper.admin("POST", "settings", { limits = true, rate = { read = { 2, 3 }, download = { 1, 1 } } })
      helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
      begin { monthly_quota = 100, timeout = false }
      for _ = 1, 3 do
        patient:page() -- the fourth request without a pause is one too many
        patient:get("a")
        patient:get("none")
        patient:document("a"):download(function() return 1 end)
        patient:upload({ data = "%PDF-1.4" }, { file_name = "a.pdf" })
      end
      local usage = client:usage()
      assert.equal(helper.admin("GET", "settings").quota_used, usage.requests)
      local throttled = 0
      for _, entry in ipairs(helper.journal()) do
        if entry.status == 429 then throttled = throttled + 1 end
      end
      assert.equal(throttled, usage.throttled)
      assert.is_true(throttled > 0)
      assert.equal(15, usage.requests + usage.throttled)
      assert.equal(100 - usage.requests, usage.remaining)
    end)

    it("is probed by the next call if a probe had no response", function()
      begin { max_attempts = 2 }
      helper.faults({ operation = "list", action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } },
        { operation = "list", action = { status = 503, body_kind = "empty" } })
      local _, err = patient:page()
      assert.equal("quota", err.kind)
      clock.offset = clock.offset + 3601
      assert(patient:page()) -- the second attempt sends a new probe
      helper.faults { operation = "list", action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
      assert.is_nil((patient:page()))
      clock.offset = clock.offset + 3601
      local other_error = err -- of another call, passed on by a sink
      helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
      assert.is_nil((patient:document("a"):download(function() return nil, other_error end)))
      assert(patient:page())
      assert.equal(5, #helper.journal("list"))
    end)

    it("is exhausted if the service says so, and probed after an hour", function()
      begin { max_attempts = 5 }
      helper.faults { operation = "list", times = 2,
                      action = { status = 429, body_kind = "gateway", message = "Limit Exceeded" } }
      local _, err = patient:page()
      assert.equal("quota", err.kind)
      assert.equal(1, err.attempts)
      _, err = patient:page()
      assert.equal("quota", err.kind)
      assert.equal(0, err.attempts)
      clock.offset = clock.offset + 3601
      _, err = patient:page() -- one call sends a probe
      assert.equal(1, err.attempts)
      _, err = patient:page()
      assert.equal(0, err.attempts)
      clock.offset = clock.offset + 3601
      assert(patient:page())
      assert(patient:page())
      assert.equal(4, #helper.journal("list"))
    end)
  end)

  describe("a 429", function()
    it("pauses all clients that share the store", function()
      local shared = store.memory()
      begin { store = shared, max_attempts = 2, rate = {} }
      local second = helper.client { store = shared, rate = {} }
      helper.faults { operation = "list",
                      action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "30" } } } }
      assert(patient:page())
      assert.is_true(elapsed() > 29.9)
      helper.faults { operation = "list",
                      action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "30" } } } }
      assert.is_nil((second:patient("p"):page()))
      local before = clock.offset
      assert(patient:page())
      assert.is_true(clock.offset - before > 29)
      second:close()
    end)

    it("is obeyed in both forms of Retry-After, within plausible values", function()
      local function waited(value)
        begin { max_attempts = 2, timeout = false }
        helper.faults { operation = "list", action = { status = 429, headers = { { "Retry-After", value } } } }
        local before = clock.offset
        local page, err = patient:page()
        client:close()
        return clock.offset - before, page, err
      end
      assert.equal(120, math.floor(waited("120") + 0.5))
      assert.is_true(waited("0") <= 0.5)
      local seconds = waited(os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + 60))
      assert.is_true(seconds > 50 and seconds <= 60)
      assert.is_true(waited("Sun, 06 Nov 1994 08:49:37 GMT") <= 0.5)
      for _, value in ipairs { "-5", "soon", "", "1e3", "nan", ("9"):rep(400) } do -- as if there were none
        local page, err
        seconds, page, err = waited(value)
        assert.is_true(seconds <= 0.5, value)
        assert.is_true(page ~= nil or err.retry_after > 120, value)
      end
      local far, page, err = waited(os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + 86400))
      assert.equal(0, far)
      assert.is_nil(page)
      assert.is_true(err.retry_after > 86300)
    end)

    it("compares a date with the service's clock, not with the local one", function()
      begin { max_attempts = 2, timeout = false }
      for _, dates in ipairs { { { "Date", "Sun, 06 Nov 1994 08:49:37 GMT" },
                                 { "Retry-After", "Sun, 06 Nov 1994 08:50:07 GMT" } },
                               { { "Retry-After", "Fri, 06 Nov 2099 08:50:07 GMT" },
                                 { "Date", "Fri, 06 Nov 2099 08:49:37 GMT" } } } do
        helper.faults { operation = "list", action = { status = 429, headers = dates } }
        local before = clock.offset
        assert(patient:page())
        assert.is_true(clock.offset - before > 29.9 and clock.offset - before < 30.1)
      end
    end)

    it("uses the normal backoff if Retry-After is 0 or in the past", function()
      local random = math.random
      finally(function() math.random = random end) -- luacheck: ignore
      math.random = function() return 1 end -- luacheck: ignore
      for _, operation in ipairs { "list", "token" } do
        for _, status in ipairs { 429, 503 } do
          for _, value in ipairs { "0", "Sun, 06 Nov 1994 08:49:37 GMT", "0, 0" } do
            if client then client:close() end
            begin { max_attempts = 5, timeout = false }
            helper.admin("DELETE", "journal")
            helper.faults { operation = operation, times = 4,
                            action = { status = status, body_kind = "empty", headers = { { "Retry-After", value } } } }
            local before = clock.offset
            assert(patient:page())
            assert.equal(5, #helper.journal(operation))
            assert.is_true(math.abs(clock.offset - before - (0.5 + 1 + 2 + 4)) < 0.1, clock.offset - before)
          end
        end
      end
    end)

    it("returns a long Retry-After to the caller", function()
      begin { max_attempts = 5 }
      helper.faults { operation = "list",
                      action = { status = 429, body_kind = "gateway", headers = { { "Retry-After", "121" } } } }
      local _, err = patient:page()
      assert.equal("throttled", err.kind)
      assert.equal(121, err.retry_after)
      assert.equal(1, err.attempts)
    end)
  end)

  -- outcomes_spec.lua has every call with every failure.
  describe("retries", function()
    it("repeat an upload that was not sent", function()
      begin { max_attempts = 3, base_url = "https://localhost:1" }
      local _, err = patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf" })
      assert.equal("network", err.kind)
      assert.equal(0, err.attempts)
      assert.is_nil(err.outcome_unknown)
      assert.equal(2, #clock.slept)
    end)

    it("repeat an upload without a connection in time", function()
      local url, stop = helper.unresponsive_server("silent")
      begin { max_attempts = 3, base_url = url, token = "t", connect_timeout = 0.05 }
      local _, err = patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf" })
      stop()
      assert.equal("timeout", err.kind)
      assert.equal(0, err.attempts)
      assert.is_nil(err.outcome_unknown)
      assert.equal(2, #clock.slept)
    end)

    it("wait longer each time, even if nothing was sent", function()
      begin { max_attempts = 8, base_url = "https://localhost:1", timeout = false }
      local longest = 0
      for _ = 1, 4 do
        assert.is_nil((patient:page()))
        for _, seconds in ipairs(clock.slept) do longest = math.max(longest, seconds) end
      end
      assert.is_true(longest > 0.5)
    end)

    it("stop at max_attempts", function()
      begin { max_attempts = 4 }
      helper.faults { operation = "list", times = -1, action = { status = 503, body_kind = "empty" } }
      local _, err = patient:page()
      assert.equal("server", err.kind)
      assert.equal(4, err.attempts)
      assert.equal(4, #helper.journal("list"))
      for i, seconds in ipairs(clock.slept) do assert.is_true(seconds <= 0.5 * 2 ^ (i - 1)) end
    end)

    it("never exceed the deadline", function()
      begin { max_attempts = 100, timeout = 20 }
      helper.faults { operation = "list", times = -1,
                      action = { status = 503, body_kind = "empty", headers = { { "Retry-After", "9" } } } }
      local _, err = patient:page()
      assert.equal("server", err.kind)
      assert.equal(3, err.attempts)
    end)

    it("accept a 404 as success if an earlier delete may have succeeded", function()
      begin { max_attempts = 3 }
      helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4" })
      helper.faults { operation = "delete", action = { lost_reply = "reset" } }
      assert.is_true(patient:document("a"):delete())
      assert.equal(2, #helper.journal("delete"))
      local _, err = patient:document("a"):delete()
      assert.equal("not_found", err.kind)
    end)

    it("rewind a file handle to its position", function()
      begin { max_attempts = 3 }
      local made = helper.admin("POST", "documents", { patient = "p", size = 300000 })
      helper.faults { operation = "download", times = 2, action = { cut = 200000 } }
      local path = helper.temporary()
      local handle = assert(io.open(path, "wb"))
      handle:write("before")
      assert(patient:document(made.id):download(handle))
      handle:close()
      local bytes = helper.read_file(path)
      assert.equal("before", bytes:sub(1, 6))
      helper.write_file(path, bytes:sub(7))
      assert.equal(made.sha256, helper.sha256(path))
    end)

    it("pass no byte to a file handle twice, however early the response ends", function()
      begin { max_attempts = 2 }
      local made = helper.admin("POST", "documents", { patient = "p", size = 300000 })
      local path = helper.temporary()
      for _, cut in ipairs { 100, 1500, 5000, 10000, 17000, 100000, 131072 } do
        helper.faults { operation = "download", action = { cut = cut } }
        local handle = assert(io.open(path, "wb"))
        assert(patient:document(made.id):download(handle))
        handle:close()
        assert.equal(300000, #helper.read_file(path), cut)
        assert.equal(made.sha256, helper.sha256(path))

        helper.faults { operation = "download", action = { cut = cut } }
        local pipe = assert(io.popen("cat >" .. helper.quote(path), "w")) -- cannot be rewound
        local bytes, err = patient:document(made.id):download(pipe)
        pipe:close()
        assert.is_true(bytes == nil and err.kind == "truncated" or helper.sha256(path) == made.sha256, cut)
      end
    end)

    it("leave no byte of an older, longer version in a file handle that looks whole", function()
      begin { max_attempts = 3 }
      local made = helper.admin("POST", "documents", { patient = "p", size = 300000 })
      helper.faults({ operation = "download", action = { cut = 200000 } }, { operation = "download", action = {
        raw = "HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\nContent-Length: 14\r\n\r\n%PDF-1.4 short",
      } })
      local handle = assert(io.open(helper.temporary(), "wb"))
      local bytes, err = patient:document(made.id):download(handle)
      handle:close()
      assert.is_nil(bytes)
      assert.equal("corrupt", err.kind)
      assert.equal("changed", err.reason)
      assert.equal(2, err.attempts)
    end)

    it("pass no byte to a sink twice", function()
      begin { max_attempts = 3 }
      local made = helper.admin("POST", "documents", { patient = "p", size = 300000 })
      helper.faults { operation = "download", action = { cut = 200000 } }
      local _, err = patient:document(made.id):download(function() return 1 end)
      assert.equal("truncated", err.kind)
      assert.equal(1, err.attempts)
      helper.faults { operation = "download", action = { status = 503, body_kind = "empty" } }
      assert(patient:document(made.id):download(function() return 1 end))
    end)
  end)

  describe("on_event", function()
    local events

    local function watch(options)
      events = {}
      options.on_event = function(event) events[#events + 1] = event end
      options.token = helper.token()
      begin(options)
      helper.admin("POST", "documents", { patient = "p", id = "a", content = "%PDF-1.4 and more" })
    end

    it("receives every request: its operation, result, wait and duration", function()
      watch { rate = { read = { 0.5, 1 }, download = { 0.5, 1 } }, max_attempts = 3 }
      helper.faults({ operation = "get", action = { status = 503, headers = { { "Retry-After", "7" } } } },
        { operation = "upload", action = { lost_reply = "reset" } }, { operation = "download", action = { cut = 9 } })
      assert(patient:get("a"))
      patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf" })
      assert(patient:document("a"):download(helper.temporary()))
      assert(patient:page())
      assert(patient:document("a"):delete())
      local reported = {}
      for i, event in ipairs(events) do
        reported[i] = ("%s %s %s %d, waited %.0f, %d up, %d down"):format(event.operation, event.status or "-",
          event.kind or "-", event.attempt, event.waited, event.bytes_sent, event.operation == "download"
            and event.bytes_received or 0)
        assert.is_true(event.seconds >= 0 and event.seconds < 5)
      end
      assert.same("get 503 server 1, waited 0, 0 up, 0 down", reported[1])
      assert.same("get 200 - 2, waited 7, 0 up, 0 down", reported[2])
      assert.truthy(reported[3]:find("^upload %- network 1, waited 2"))
      assert.same("download 200 truncated 1, waited 0, 0 up, 9 down", reported[4])
      assert.truthy(reported[5]:find("^download 200 %- 2, waited 2, 0 up, 17 down$"))
      assert.truthy(reported[6]:find("^list 200 %- 1, waited [01], 0 up"))
      assert.truthy(reported[7]:find("^delete 204 %- 1, waited 2"))
      assert.equal(7, #events)
      for _, event in ipairs(events) do
        for key, value in pairs(event) do
          assert.truthy(key == "operation" or key == "kind" or key == "request_id" or key == "outcome_unknown"
            or type(value) == "number", key)
        end
      end
    end)

    -- libcurl rewinds the body after a broken connection
    it("receives the bytes of an upload whose response was lost", function()
      watch {}
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf" })
      assert.equal(12, events[1].bytes_sent)
    end)

    it("receives a request that was never sent as attempt 0, and one that the script ended as canceled", function()
      watch { base_url = "https://localhost:1" }
      patient:page()
      assert.same({ "list", "network", 0 }, { events[1].operation, events[1].kind, events[1].attempt })
      client:close()
      watch {}
      assert.has_error(function() patient:document("a"):download(function() error("mine") end) end)
      assert.same({ "download", "canceled", 1 }, { events[1].operation, events[1].kind, events[1].attempt })
      assert.equal(1, #events)
    end)

    it("passes on errors that it raises, and the request counts", function()
      begin { monthly_quota = 10, token = helper.token(), on_event = function() error("mine", 0) end }
      local ok, problem = pcall(patient.upload, patient, { data = "%PDF-1.4" }, { file_name = "a.pdf" })
      assert.is_false(ok)
      assert.equal("mine", problem)
      assert.equal(1, #helper.stored("p"))
      assert.equal(1, client:usage().requests)
      client:close()
      begin { monthly_quota = 10, token = helper.token(), on_event = function() error("mine", 0) end,
              base_url = "https://localhost:1" }
      assert.is_false((pcall(patient.page, patient)))
      assert.equal(0, client:usage().requests)
    end)
  end)

  describe("reconcile", function()
    it("finds the document if the response was lost, and sends it once", function()
      begin {}
      helper.admin("POST", "documents", { patient = "p", file_name = "new.pdf", content = "%PDF-1.4 new" })
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local document = assert(patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf", reconcile = true }))
      assert.equal("new.pdf", document.file_name)
      assert.equal(1, #helper.journal("upload"))
      assert.equal(2, #helper.stored("p"))
    end)

    it("stays within the call's timeout", function()
      begin { timeout = 5 }
      helper.faults { operation = "upload", action = { after = "reset" } }
      local start = clock.now()
      local _, err = patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf", reconcile = true })
      assert.is_true(err.outcome_unknown)
      assert.is_true(clock.now() - start < 5)
      assert.equal(3, #helper.journal("list")) -- before the upload, at once and after 2 seconds
    end)

    it("reports the pauses between its searches to on_wait", function()
      local waits = {}
      begin { on_wait = function(event) waits[#waits + 1] = event end }
      helper.faults { operation = "upload", action = { after = "reset" } }
      local _, err = patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf", reconcile = true, tag = "t" })
      assert.is_true(err.outcome_unknown)
      assert.same({
        { operation = "upload", reason = "retry", seconds = 2, tag = "t" },
        { operation = "upload", reason = "retry", seconds = 5, tag = "t" },
      }, waits)
    end)

    it("leaves the outcome unknown if the client is closed meanwhile", function()
      begin {}
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local ran, document, err = pcall(patient.upload, patient, { data = "%PDF-1.4 new" }, {
        file_name = "new.pdf", reconcile = true, progress = function(done) if done > 0 then client:close() end end,
      })
      assert.is_true(ran, document)
      assert.is_nil(document)
      assert.equal("canceled", err.kind)
      assert.is_true(err.outcome_unknown)
      assert.equal(1, #helper.journal("list")) -- before the upload
    end)

    it("leaves the outcome unknown if it finds no document, or more than one", function()
      begin {}
      helper.faults { operation = "upload", action = { after = "reset" } }
      local _, err = patient:upload({ data = "%PDF-1.4 new" }, { file_name = "new.pdf", reconcile = true })
      assert.is_true(err.outcome_unknown)
      assert.equal(4, #helper.journal("list"))
      assert.equal(1, #helper.journal("upload"))
    end)

    local NAME, BYTES = "o'new.pdf", "%PDF-1.4 new"

    local function upload(reconcile)
      return patient:upload({ data = BYTES }, { file_name = NAME, reconcile = reconcile })
    end

    local function add(fields)
      fields = fields or {}
      fields.patient, fields.file_name = fields.patient or "p", fields.file_name or NAME
      fields.content = BYTES
      return helper.admin("POST", "documents", fields).id
    end

    -- The names of the requests that were sent, in order.
    local function requests()
      local names = {}
      for _, entry in ipairs(helper.journal()) do
        if entry.operation ~= "token" then names[#names + 1] = entry.operation end
      end
      return table.concat(names, " ")
    end

    it("costs one request before the upload, however many other documents exist", function()
      begin { rate = false }
      for i = 1, 250 do add { file_name = i .. ".pdf" } end
      local old = add()
      local first = assert(upload(true))
      assert.equal("list upload", requests())
      helper.admin("DELETE", "journal")
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      local second = assert(upload(true))
      assert.equal("list upload list", requests())
      assert.not_equal(old, second.id)
      assert.not_equal(first.id, second.id)
    end)

    it("takes the documents that the caller has listed instead of a listing", function()
      begin { rate = false }
      local old = add()
      local listed = assert(patient:page())
      helper.admin("DELETE", "journal")
      assert(upload(listed))
      assert.equal("upload", requests())
      listed = {}
      for document in patient:documents() do listed[#listed + 1] = document end
      for _, reply in ipairs { "after", "lost_reply" } do
        helper.admin("DELETE", "journal")
        helper.faults { operation = "upload", action = { [reply] = "reset" } }
        local document, err = upload(listed)
        if reply == "after" then -- the service did not carry it out
          assert.is_true(err.outcome_unknown)
          assert.equal("upload list list list", requests())
        else
          assert.equal("upload list", requests())
          assert.not_equal(old, document.id)
          assert.equal(#BYTES, document.file_size_bytes)
        end
      end
    end)

    it("takes an empty array for what it says, and a page only if it is the last one", function()
      begin { rate = false }
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      assert(upload {})
      assert.equal("upload list", requests())
      add()
      local listed = assert(patient:page { page_size = 1 })
      assert.is_true(listed.has_more)
      helper.admin("DELETE", "journal")
      helper.faults { operation = "upload", action = { lost_reply = "reset" } }
      assert(upload(listed))
      assert.equal("list upload list", requests())
    end)

    it("lists without a filter if the service refuses it, and then always", function()
      begin { rate = false }
      add()
      helper.faults({ operation = "list", action = { status = 400, body_kind = "service" } },
        { operation = "upload", action = { after = "reset" } })
      local _, err = upload(true)
      assert.is_true(err.outcome_unknown) -- the document of that name existed before
      assert.equal("list list upload list list list", requests())
      for i, entry in ipairs(helper.journal("list")) do
        assert.equal(i == 1, entry.path:find("filter", 1, true) ~= nil, entry.path)
      end
    end)

    it("searches without a filter if the service refuses it after the caller's own listing", function()
      begin { rate = false }
      local old = add()
      local listed = assert(patient:page())
      helper.admin("DELETE", "journal")
      helper.faults({ operation = "upload", action = { lost_reply = "reset" } },
        { operation = "list", action = { status = 400, body_kind = "service" } })
      local document = assert(upload(listed))
      assert.equal("upload list list", requests())
      assert.is_nil(helper.journal("list")[2].path:find("filter", 1, true))
      assert.not_equal(old, document.id)
    end)

    it("refuses an array of anything but this patient's documents", function()
      begin { rate = false }
      local other = client:patient("other"):document("a")
      for _, case in ipairs {
        { 1, "boolean or array of documents expected, got number" },
        { { other, "b" }, "item 2: nymbl.document expected, got string" },
        { { client }, "item 1: nymbl.document expected, got nymbl.client" },
        { { other }, "item 1: document of another patient" },
      } do
        local ran, problem = pcall(upload, case[1])
        assert.is_false(ran)
        assert.truthy(problem:find("bad argument #2 to 'upload' (option 'reconcile': " .. case[2] .. ")", 1, true), problem)
      end
      assert.equal("", requests())
    end)
  end)

  describe("tokens", function()
    it("are refreshed early, so that no 401 occurs", function()
      helper.admin("POST", "settings", { token_life = 100 })
      begin {}
      for _ = 1, 50 do
        assert(patient:page())
        clock.offset = clock.offset + 10 -- the sandbox's clock does not follow the simulated one
      end
      local refreshes = 0
      for _, entry in ipairs(helper.admin("GET", "journal").requests) do
        if entry.operation == "token" then refreshes = refreshes + 1 end
        assert.not_equal(401, entry.status)
      end
      assert.equal(7, refreshes) -- 80 of 100 seconds each: the refresh margin is a fifth
    end)
  end)
end)
