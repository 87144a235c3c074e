-- SPDX-License-Identifier: MIT
-- Metrics of a client's requests and waits, in the text format of Prometheus. A shared
-- dictionary adds up the values of all workers.
--
-- Label values are the words listed here, so they identify no patient and the number of metrics is
-- limited. Any other word counts as "other".

local OPERATIONS = { "upload", "list", "get", "download", "delete", "patients", "token", "other" }
local KINDS = {
  "bad_request", "unauthorized", "forbidden", "not_found", "too_large", "unsupported_type", "throttled", "quota",
  "server", "http", "timeout", "network", "tls", "truncated", "corrupt", "protocol", "redirect", "io", "context",
  "settings", "canceled", "other",
}
local REASONS = { "rate_limit", "pause", "retry", "token", "connection", "store", "other" }

-- Upper bounds of the histograms' buckets.
local SECONDS = { 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, math.huge }
local BYTES = { 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864, math.huge }

local COUNTERS = {
  { "nymbl_requests_total", "Requests, repeated ones and failures included." },
  { "nymbl_failures_total", "Failed requests by kind.", "kind", KINDS },
  { "nymbl_outcomes_unknown_total", "Failed uploads and deletes that may have been carried out." },
  { "nymbl_waits_total", "Waits of calls by reason.", "reason", REASONS },
  { "nymbl_waited_seconds_total", "Time that calls waited before their requests." },
}
local HISTOGRAMS = {
  { "nymbl_request_duration_seconds", "Duration of requests.", SECONDS },
  { "nymbl_sent_bytes", "Bytes of uploaded documents, by request.", BYTES },
  { "nymbl_received_bytes", "Bytes of response bodies.", BYTES },
}
local LOST = "nymbl_telemetry_lost_total"

local IS_KNOWN = {}
for _, words in ipairs { OPERATIONS, KINDS, REASONS } do
  IS_KNOWN[words] = {}
  for _, word in ipairs(words) do IS_KNOWN[words][word] = true end
end

local function known(words, word)
  return IS_KNOWN[words][word] and word or "other"
end

-- LuaJIT writes a point in every locale.
local function to_text(number)
  return number == math.huge and "+Inf" or ("%.15g"):format(number)
end

-- A sample's name with its labels. The dictionary's keys are these.
local function sample(name, operation, label, value)
  local second = label and (',%s="%s"'):format(label, value) or ""
  return ('%s{operation="%s"%s}'):format(name, operation, second)
end

local telemetry = {}

--- Create the functions of a client.
-- @tparam string dict_name a `lua_shared_dict` that nothing else uses
-- @treturn table `on_event` and `on_wait`, the client's options, and `render`
function telemetry.new(dict_name)
  local dict = assert(ngx.shared[dict_name], "no such lua_shared_dict")
  dict:safe_add(LOST, 0) -- before the dictionary can be full; a reload keeps the value

  -- Add without evicting other samples, as incr() with an initial value would do. An error would
  -- end the call, so a failure is counted instead.
  local function add(key, value)
    if dict:incr(key, value) then return end
    dict:safe_add(key, 0) -- does nothing if another worker was faster
    if not dict:incr(key, value) then dict:incr(LOST, 1) end
  end

  -- Each observation is added to one bucket only. `render` makes the buckets cumulative and
  -- computes the count, so these agree even if a worker is killed between two additions.
  local function observe(histogram, operation, value)
    local name, _, bounds = unpack(histogram)
    for _, bound in ipairs(bounds) do
      if value <= bound then
        add(sample(name .. "_bucket", operation, "le", to_text(bound)), 1)
        break
      end
    end
    add(sample(name .. "_sum", operation), value)
  end

  local self = {}

  function self.on_event(event)
    local operation = known(OPERATIONS, event.operation)
    if event.kind then
      add(sample("nymbl_failures_total", operation, "kind", known(KINDS, event.kind)), 1)
      if event.outcome_unknown then add(sample("nymbl_outcomes_unknown_total", operation), 1) end
    end
    if event.waited > 0 then add(sample("nymbl_waited_seconds_total", operation), event.waited) end
    if event.attempt == 0 then return end -- nothing was sent
    add(sample("nymbl_requests_total", operation), 1)
    observe(HISTOGRAMS[1], operation, event.seconds)
    if operation == "upload" then observe(HISTOGRAMS[2], operation, event.bytes_sent) end
    observe(HISTOGRAMS[3], operation, event.bytes_received)
  end

  function self.on_wait(event)
    local operation = known(OPERATIONS, event.operation)
    add(sample("nymbl_waits_total", operation, "reason", known(REASONS, event.reason)), 1)
  end

  --- The metrics as text, of the type `text/plain; version=0.0.4`.
  -- @tparam ?table usage the result of `client:usage()`, for the remaining quota
  function self.render(usage)
    local lines = {}
    local function head(name, help, kind)
      lines[#lines + 1] = ("# HELP %s %s\n# TYPE %s %s"):format(name, help, name, kind)
    end
    local function write(key, value)
      lines[#lines + 1] = key .. " " .. to_text(value)
    end
    local function write_stored(key)
      local value = dict:get(key)
      if value then write(key, value) end
    end

    for _, counter in ipairs(COUNTERS) do
      local name, help, label, words = unpack(counter)
      head(name, help, "counter")
      for _, operation in ipairs(OPERATIONS) do
        if not label then write_stored(sample(name, operation)) end
        for _, word in ipairs(words or {}) do write_stored(sample(name, operation, label, word)) end
      end
    end

    for _, histogram in ipairs(HISTOGRAMS) do
      local name, help, bounds = unpack(histogram)
      head(name, help, "histogram")
      for _, operation in ipairs(OPERATIONS) do
        local keys, counts, count = {}, {}, 0
        for i, bound in ipairs(bounds) do
          keys[i] = sample(name .. "_bucket", operation, "le", to_text(bound))
          count = count + (dict:get(keys[i]) or 0)
          counts[i] = count
        end
        if count > 0 then
          for i, key in ipairs(keys) do write(key, counts[i]) end
          local sum = sample(name .. "_sum", operation)
          write(sum, dict:get(sum) or 0)
          write(sample(name .. "_count", operation), count)
        end
      end
    end

    head(LOST, "Additions that failed because the dictionary is full.", "counter")
    write(LOST, dict:get(LOST) or 0)
    if usage and usage.remaining then
      head("nymbl_quota_remaining", "Requests that remain of the month's quota.", "gauge")
      write("nymbl_quota_remaining", usage.remaining)
    end
    return table.concat(lines, "\n") .. "\n"
  end

  return self
end

-- Whether a header's value is a traceparent of W3C Trace Context, section 3.2. Later versions may
-- append fields.
local function is_traceparent(text)
  if type(text) ~= "string" then return false end -- missing, or sent twice
  local version, trace, parent, rest = text:match "^(%x%x)%-(%x+)%-(%x+)%-%x%x(.*)$"
  return version ~= nil and not text:sub(1, 55):find "%u" and #trace == 32 and #parent == 16
    and version ~= "ff" and trace:find "[^0]" ~= nil and parent:find "[^0]" ~= nil
    and (rest == "" or version ~= "00" and rest:find "^%-[!-~]*$" ~= nil)
end

--- The call option `headers` of the request being handled: its `traceparent`, if it is valid.
-- @treturn ?table
function telemetry.trace_headers()
  local traceparent = ngx.req.get_headers(0).traceparent
  return is_traceparent(traceparent) and { traceparent = traceparent } or nil
end

return telemetry
