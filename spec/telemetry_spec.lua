-- SPDX-License-Identifier: MIT
-- examples/telemetry, started as its README says: its metrics agree with the sandbox's journal.
local helper = require "helper"

local quote = helper.quote

local PATIENT, NAME = "patient-7531", "anna-marlowe.pdf"
local COUNT, DOCUMENTS = "/patients/" .. PATIENT .. "/count", "/patients/" .. PATIENT .. "/documents"
local PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
local SETTINGS = { "BASE_URL", "API_KEY", "CA_FILE", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "SCOPE" }

-- Parse the text format strictly. Returns the samples by name with labels, and the types.
local function parse(text)
  assert.equal("\n", text:sub(-1))
  local samples, types, helped = {}, {}, {}
  local current
  for line in text:gmatch "([^\n]*)\n" do
    local word, name, rest = line:match "^# (%u+) ([a-z_]+) (.+)$"
    if word == "HELP" then
      assert.is_nil(helped[name], line)
      helped[name] = true
    elseif word == "TYPE" then
      assert(helped[name] and not types[name], line)
      assert(rest == "counter" or rest == "gauge" or rest == "histogram", line)
      types[name], current = rest, name
    else
      local key, value = line:match "^(%S+) (%-?[%d.]+e?[-+]?%d*)$"
      assert(key and tonumber(value), line)
      local base, labels = key:match "^([a-z_]+)(.*)$"
      for _, suffix in ipairs { "_bucket", "_sum", "_count" } do
        if types[current] == "histogram" and base == current .. suffix then base = current end
      end
      assert.equal(current, base)
      if types[base] == "counter" then assert.matches("_total$", base) end
      if labels ~= "" then
        for label in labels:match("^{(.+)}$"):gmatch "[^,]+" do
          assert(label:find '^[a-z]+="[a-z_]+"$' or label:find '^le="[%d.+Inf]+"$', line)
        end
      end
      assert.is_nil(samples[key], key)
      samples[key] = tonumber(value)
    end
  end
  return samples, types
end

describe("examples/telemetry #nginx", function()
  local pipe, logs, socket, out

  local function curl(path, arguments)
    return helper.output(("curl -s --max-time 60 --unix-socket %s %s 'http://localhost%s'"):format(socket,
      arguments or "", path))
  end

  local function status(path, arguments)
    return curl(path, "-o /dev/null -w '%{http_code}' " .. (arguments or ""))
  end

  local function metrics()
    local file = helper.temporary ".txt" -- helper.output() removes the last line's end
    curl("/metrics", "-o " .. file)
    return parse(helper.read_file(file))
  end

  -- The increases while a function runs.
  local function increases(call)
    local before = metrics()
    call()
    local changes = {}
    for key, value in pairs((metrics())) do
      if value ~= (before[key] or 0) then changes[key] = value - (before[key] or 0) end
    end
    return changes
  end

  setup(function()
    helper.reset()
    local sandbox = helper.sandbox()
    out, socket = helper.temporary ".out", helper.temporary ".sock"
    local words = { "exec env" }
    for _, name in ipairs(SETTINGS) do
      words[#words + 1] = ("NYMBL_%s=%s"):format(name, quote(sandbox[name:lower()]))
    end
    words[#words + 1] = ("%s --stdin --limits off --listen unix:%s >%s 2>&1"):format(
      quote(helper.path "examples/telemetry/run"), socket, out)
    pipe = assert(io.popen(table.concat(words, " "), "w")) -- it ends with the pipe
    for _ = 1, 400 do
      local text = helper.exists(out) and helper.read_file(out) or ""
      logs = text:match "Its logs are in (%S+),"
      if logs or text:find "\ngateway: " then break end
      os.execute "sleep 0.025"
    end
    assert(logs, helper.read_file(out))
  end)

  teardown(function() if pipe then pipe:close() end end)

  before_each(function()
    helper.admin("DELETE", "faults")
    helper.admin("DELETE", "journal")
  end)

  -- A worker that has made a call has started its I/O thread.
  local function threads(pid)
    return tonumber(helper.read_file("/proc/" .. pid .. "/status"):match "Threads:%s*(%d+)")
  end

  it("adds up the requests of two workers, as the journal has them", function()
    local workers = {}
    for pid in helper.output("pgrep -P " .. helper.read_file(logs .. "/nginx.pid")):gmatch "%d+" do
      workers[#workers + 1] = pid
    end
    assert.equal(2, #workers)
    local rounds = 0
    repeat
      rounds = rounds + 1
      assert(rounds <= 50, "one worker handled all requests")
      local one = ("curl -s --max-time 60 --unix-socket %s http://localhost%s >%s &"):format(socket, COUNT, "/dev/null")
      helper.output(one:rep(8) .. " wait")
    until threads(workers[1]) > 1 and threads(workers[2]) > 1
    local samples = metrics()
    assert.equal(8 * rounds, #helper.journal "list")
    assert.equal(8 * rounds, samples['nymbl_requests_total{operation="list"}'])
    assert.equal(#helper.journal "token", samples['nymbl_requests_total{operation="token"}'])
    assert.equal(8 * rounds, samples['nymbl_request_duration_seconds_count{operation="list"}'])
    assert.equal(8 * rounds, samples['nymbl_request_duration_seconds_bucket{operation="list",le="+Inf"}'])
    assert(samples['nymbl_request_duration_seconds_sum{operation="list"}'] > 0)
    assert.equal(0, samples.nymbl_telemetry_lost_total)
  end)

  it("counts failures by kind, and waits by reason", function()
    helper.faults { operation = "list", action = { status = 503, headers = { { "Retry-After", "0" } } } }
    local found = increases(function() assert.equal("200", status(COUNT)) end)
    assert.equal(2, found['nymbl_requests_total{operation="list"}'])
    assert.equal(1, found['nymbl_failures_total{operation="list",kind="server"}'])
    helper.faults { operation = "list", action = { status = 503 } }
    found = increases(function() assert.equal("200", status(COUNT)) end)
    assert.equal(1, found['nymbl_waits_total{operation="list",reason="retry"}'])
    assert(found['nymbl_waited_seconds_total{operation="list"}'] > 0)
    found = increases(function() assert.equal("404", status(DOCUMENTS .. "/none")) end)
    assert.equal(1, found['nymbl_failures_total{operation="download",kind="not_found"}'])
  end)

  it("counts an upload whose outcome is unknown", function()
    helper.faults { operation = "upload", action = { lost_reply = "reset" } }
    local found = increases(function()
      assert.equal("502", status(DOCUMENTS .. "?file_name=" .. NAME, "-T spec/fixtures/referral.pdf -X POST"))
    end)
    assert.equal(1, found['nymbl_outcomes_unknown_total{operation="upload"}'])
  end)

  it("counts bytes, in buckets that are cumulative", function()
    local size = 100000
    local file = helper.write_file(helper.temporary ".pdf", "%PDF-1.4\n" .. ("x"):rep(size - 9))
    local id
    local count = 'nymbl_received_bytes_count{operation="download"}'
    local before = metrics()[count] or 0
    local found = increases(function()
      id = curl(DOCUMENTS .. "?file_name=" .. NAME, ("-T %s -X POST"):format(file)):match "%S+"
      assert.equal(tostring(size), curl(DOCUMENTS .. "/" .. id, "-o /dev/null -w '%{size_download}'"))
      -- a stream is counted when it is closed, which is after its last byte
      assert.is_true((helper.eventually(5, function() return (metrics()[count] or 0) > before end)))
    end)
    assert.equal(size, found['nymbl_sent_bytes_sum{operation="upload"}'])
    assert.equal(size, found['nymbl_received_bytes_sum{operation="download"}'])
    assert.is_nil(found['nymbl_received_bytes_bucket{operation="download",le="65536"}'])
    for _, bound in ipairs { "262144", "1048576", "67108864", "+Inf" } do
      assert.equal(1, found[('nymbl_received_bytes_bucket{operation="download",le="%s"}'):format(bound)])
    end
    assert.equal(1, found['nymbl_received_bytes_count{operation="download"}'])
    local text = curl "/metrics"
    for _, secret in ipairs { PATIENT, "7531", NAME, "marlowe", id } do
      assert.is_nil(text:find(secret, 1, true), secret)
    end
  end)

  it("shows the remaining quota, and has the format's type", function()
    local before = metrics().nymbl_quota_remaining
    status(COUNT)
    assert.equal(before - 1, metrics().nymbl_quota_remaining)
    local _, types = metrics()
    assert.equal("gauge", types.nymbl_quota_remaining)
    assert.equal("histogram", types.nymbl_sent_bytes)
    assert.equal("text/plain; version=0.0.4", curl("/metrics", "-o /dev/null -w '%{content_type}'"))
  end)

  it("passes a valid traceparent on", function()
    local later = PARENT:gsub("^00", "cc") .. "-what-comes"
    for _, value in ipairs { PARENT, later } do
      helper.admin("DELETE", "journal")
      assert.equal("200", status(COUNT, "-H 'traceparent: " .. value .. "'"))
      assert.equal(value, (helper.header(helper.journal "list"[1], "traceparent")))
    end
  end)

  it("does not pass an invalid traceparent on", function()
    local both = ("%s' -H 'traceparent: %s"):format(PARENT, PARENT)
    for _, value in ipairs { "x", PARENT:upper(), PARENT .. "-00", PARENT .. "0", (PARENT:gsub("^00", "ff")),
                             (PARENT:gsub("%-0a[^-]+", "-" .. ("0"):rep(32))), (PARENT:gsub("%-b7[^-]+", "-" .. ("0"):rep(16))),
                             (PARENT:gsub("^00", "cc")) .. "x", (PARENT:gsub("0af", "af")), PARENT:sub(1, -2), both } do
      helper.admin("DELETE", "journal")
      assert.equal("200", status(COUNT, "-H 'traceparent: " .. value .. "'"))
      assert.is_nil(helper.header(helper.journal "list"[1], "traceparent"), value)
    end
  end)

  it("prints commands that work", function()
    local count = 0
    for command in helper.read_file(out):gmatch "\n  (curl [^\n]+)" do
      assert.matches("0$", helper.output(("cd %s && %s -s -f -o /dev/null; echo $?"):format(quote(helper.path "."), command)))
      count = count + 1
    end
    assert.equal(3, count)
  end)

  it("logs no id", function()
    local log = helper.output(("cat %s/*"):format(logs))
    for _, secret in ipairs { PATIENT, NAME } do assert.is_nil(log:find(secret, 1, true)) end
  end)
end)

describe("telemetry.lua in a full dictionary #nginx", function()
  local server

  setup(function()
    helper.reset()
    server = require("nginx").start {
      http = "lua_shared_dict small 12k;",
      init = ("metrics = dofile(%q).new 'small'"):format(helper.path "examples/telemetry/telemetry.lua"),
      locations = { ["/fill"] = [[
        for _ = 1, 100 do
          for _, operation in ipairs { "upload", "list", "get", "download", "delete", "patients", "token" } do
            for _, reason in ipairs { "rate_limit", "pause", "retry", "token", "connection", "store" } do
              metrics.on_wait { operation = operation, reason = reason }
            end
          end
        end
        ngx.print(metrics.render())
      ]] },
    }
  end)

  teardown(function() if server then server:stop() end end)

  it("counts what it loses, and keeps the other values", function()
    local samples = parse(server:get "/fill" .. "\n")
    local total, lost = 0, samples.nymbl_telemetry_lost_total
    for key, value in pairs(samples) do
      if key ~= "nymbl_telemetry_lost_total" then
        assert.equal(100, value, key)
        total = total + value
      end
    end
    assert(total > 0 and lost > 0)
    assert.equal(100 * 7 * 6, total + lost)
  end)
end)

-- The module alone, in a table that stands for a shared dictionary.
describe("telemetry.lua", function()
  local values, telemetry

  local dict = {}
  function dict:safe_add(key, value) -- luacheck: ignore self
    if values[key] ~= nil then return false, "exists" end
    values[key] = value
    return true
  end
  function dict:incr(key, value) -- luacheck: ignore self
    if values[key] == nil then return nil, "not found" end
    values[key] = values[key] + value
    return values[key]
  end
  function dict:get(key) -- luacheck: ignore self
    return values[key]
  end

  local function event(fields)
    local all = { operation = "list", attempt = 1, waited = 0, seconds = 0.01, bytes_sent = 0, bytes_received = 10, tag = "a-tag" }
    for name, value in pairs(fields or {}) do all[name] = value end
    return all
  end

  before_each(function()
    values = {}
    local globals = { ngx = { shared = { metrics = dict } }, unpack = rawget(table, "unpack") or rawget(_G, "unpack") }
    local environment = setmetatable(globals, { __index = _G })
    local path = helper.path "examples/telemetry/telemetry.lua"
    local set_environment = rawget(_G, "setfenv") -- Lua 5.1
    local chunk = assert(loadfile(path, "t", environment))
    if set_environment then set_environment(chunk, environment) end
    telemetry = chunk().new "metrics"
  end)

  it("knows all words of the guide", function()
    local guide = helper.read_file(helper.path "lua/README.md")
    local kinds = guide:match "\n### Kinds\n(.-)\n### "
    local reasons = guide:match "\n| reason | the call waits |\n(.-)\n\n"
    local count = 0
    for kind in kinds:gmatch "\n| `([a-z_]+)`" do
      telemetry.on_event(event { kind = kind })
      assert.equal(1, values[('nymbl_failures_total{operation="list",kind="%s"}'):format(kind)], kind)
      count = count + 1
    end
    for reason in reasons:gmatch "| `([a-z_]+)` |" do
      telemetry.on_wait { operation = "get", reason = reason }
      assert.equal(1, values[('nymbl_waits_total{operation="get",reason="%s"}'):format(reason)], reason)
      count = count + 1
    end
    assert.equal(21 + 6, count)
  end)

  it("replaces unknown words, and shows no tag", function()
    telemetry.on_event(event { operation = "anna", kind = 'marlowe"} 1\n' })
    telemetry.on_wait { operation = "anna", reason = "marlowe", tag = "a-tag" }
    local text = telemetry.render()
    local samples = parse(text)
    assert.equal(1, samples['nymbl_failures_total{operation="other",kind="other"}'])
    assert.equal(1, samples['nymbl_waits_total{operation="other",reason="other"}'])
    for _, secret in ipairs { "anna", "marlowe", "a-tag" } do assert.is_nil(text:find(secret, 1, true)) end
  end)

  it("does not count a failure before anything was sent as a request", function()
    telemetry.on_event(event { attempt = 0, kind = "context" })
    local samples = parse(telemetry.render())
    assert.equal(1, samples['nymbl_failures_total{operation="list",kind="context"}'])
    assert.is_nil(samples['nymbl_requests_total{operation="list"}'])
  end)

  it("writes large numbers exactly", function()
    telemetry.on_event(event { bytes_received = 123456789012345 })
    assert.matches('nymbl_received_bytes_sum{operation="list"} 123456789012345\n', telemetry.render(), 1, true)
  end)
end)
