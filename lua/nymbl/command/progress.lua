-- SPDX-License-Identifier: MIT
-- What the line on a terminal says: bytes, rate, time left, what is being waited for, and what is
-- left of the month.

local signals = require "nymbl.command.signals"
local system = require("nymbl.core").system

local progress = {}

local methods = {}
methods.__index = methods

-- The rate is that of the last so many seconds.
local WINDOW = 5

-- Seconds between two looks at the month's count.
local USAGE_INTERVAL = 1

-- What a call waits for, by the reason of the event `on_wait`.
local WAITS = {
  rate_limit = "waiting for the rate limit",
  pause = "the service asks for %.0f s",
  retry = "trying again in %.0f s",
  token = "waiting for the token",
  connection = "waiting for a connection",
  store = "waiting for the store",
}

-- A number of bytes, such as "4.1 MB".
function progress.bytes(count)
  if count < 1000 then return ("%.0f B"):format(count) end
  local units, i = { "kB", "MB", "GB", "TB" }, 0
  repeat
    count, i = count / 1000, i + 1
  until count < 19999 / 20 or i == #units
  return ("%.1f %s"):format(count, units[i])
end

-- A number of seconds, such as "1 min 20 s".
function progress.seconds(count)
  count = math.ceil(count)
  if count < 60 then return ("%.0f s"):format(count) end
  if count < 3600 then return ("%d min %.0f s"):format(math.floor(count / 60), count % 60) end
  return ("%d h %d min"):format(math.floor(count / 3600), math.floor(count % 3600 / 60))
end

-- Count bytes for the rate. They arrive in steps of any size.
function methods:count_bytes(count)
  local now, samples = system.now(), self.samples
  self.counting_since = self.counting_since or now
  samples[#samples + 1] = { at = now, count = count }
  while samples[1].at < now - WINDOW do table.remove(samples, 1) end
end

-- Bytes per second, or nil if too little is known.
function methods:rate()
  local now, samples, sum = system.now(), self.samples, 0
  for _, sample in ipairs(samples) do
    if sample.at >= now - WINDOW then sum = sum + sample.count end
  end
  local seconds = math.min(WINDOW, now - (self.counting_since or now))
  return sum > 0 and seconds >= 1 / 5 and sum / seconds or nil
end

-- Begin a transfer. Returns the function `progress` of its call, and a function that ends it.
-- @tparam string name shown while this is the only transfer
-- @tparam ?integer size in bytes, if known
function methods:transfer(name, size)
  local transfer = { name = name, done = 0, total = size }
  self.running[transfer], self.running_count = true, self.running_count + 1
  local is_first = true
  local function report(done, total)
    if done > transfer.done then
      self:count_bytes(is_first and 0 or done - transfer.done) -- the first bytes may be those of an earlier run
      is_first = false
    end
    transfer.done, transfer.total = done, total or transfer.total
    self:tick()
    return signals.caught() == nil
  end
  local function finish()
    if not self.running[transfer] then return end
    self.running[transfer], self.running_count = nil, self.running_count - 1
    self.finished_bytes = self.finished_bytes + transfer.done
  end
  return report, finish
end

-- The report of an export or of upload_all has changed. Returns whether the run shall go on.
function methods:report(report)
  local bytes = report.bytes or 0
  if bytes > self.finished_bytes then
    self:count_bytes(bytes - self.finished_bytes)
    self.finished_bytes = bytes
  end
  self.last_report = report
  self:tick()
  return signals.caught() == nil
end

-- The client options for events. Without a terminal, none are needed.
function methods:add_events(options)
  if not self.terminal.is_terminal then return end
  function options.on_wait(event)
    local text, seconds = WAITS[event.reason], event.seconds
    if not text then return end
    self.wait = { text = text:format(math.ceil(seconds or 1)), till = seconds and system.now() + seconds }
    self:tick()
  end
  function options.on_event()
    if self.wait and not self.wait.till then self.wait = nil end
    self:look_at_month()
  end
end

-- Ask how much of the month is left.
function methods:look_at_month()
  local now = system.now()
  if not self.terminal.is_terminal or not self.client or signals.caught() then return end
  if now - self.usage_at < USAGE_INTERVAL then return end
  self.usage_at = now
  local usage = self.client:usage()
  self.remaining = usage and usage.remaining
end

-- The parts of the line.

local function amount(self)
  local report = self.last_report
  if report then
    local words = {}
    for _, name in ipairs { "patients", "downloaded", "uploaded", "unchanged", "failed", "unknown" } do
      if (report[name] or 0) > 0 then words[#words + 1] = ("%.0f %s"):format(report[name], name) end
    end
    words[#words + 1] = progress.bytes(report.bytes or 0)
    return table.concat(words, ", ")
  end
  local done, total, only = self.finished_bytes, self.finished_bytes, nil
  for transfer in pairs(self.running) do
    done = done + transfer.done
    total = total and transfer.total and total + transfer.total
    only = transfer
  end
  if not only then return nil end
  local text = total and ("%s of %s"):format(progress.bytes(done), progress.bytes(total)) or progress.bytes(done)
  if self.operands and self.operands > 1 then
    text = ("%d of %d, %s"):format(self.operands_done, self.operands, text)
  end
  if self.running_count == 1 then text = only.name .. "  " .. text end
  local rate = self:rate()
  local seconds_left = rate and total and self.operands == 1 and (total - done) / rate
  return text, seconds_left
end

-- The line.
function methods:text()
  local parts = {}
  local done, seconds_left = amount(self)
  parts[#parts + 1] = done
  local rate = self:rate()
  if rate then parts[#parts + 1] = progress.bytes(rate) .. "/s" end
  if seconds_left and self.running_count > 0 then parts[#parts + 1] = progress.seconds(seconds_left) .. " left" end
  local wait = self.wait
  if wait and not (wait.till and system.now() >= wait.till) then parts[#parts + 1] = wait.text end
  if self.remaining then parts[#parts + 1] = ("%.0f requests left this month"):format(self.remaining) end
  return table.concat(parts, " | ")
end

-- Show the line, if it is time for it.
function methods:tick()
  if self.is_quiet or self.has_ended or not self.terminal:is_due() then return end
  local text = self:text()
  if text ~= "" then self.terminal:show(text) end
end

-- Show nothing more.
function methods:finish()
  self.has_ended, self.client = true, nil
  self.terminal:clear()
end

-- @tparam table terminal
-- @tparam boolean is_quiet whether the line is not wanted
function progress.new(terminal, is_quiet)
  return setmetatable({
    terminal = terminal, is_quiet = is_quiet, has_ended = false,
    samples = {}, usage_at = -math.huge,
    running = {}, running_count = 0, finished_bytes = 0, operands = nil, operands_done = 0,
    -- client, counting_since, last_report, remaining, wait: set later
  }, methods)
end

return progress
