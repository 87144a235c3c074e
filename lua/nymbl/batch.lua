-- SPDX-License-Identifier: MIT
-- A run over many items: several at once, in every event loop, with a budget of requests, a report,
-- progress, and an early end on what would fail for all items.

local core = require "nymbl.core"
local each = require "nymbl.each"
local errors = require "nymbl.errors"
local json = require "nymbl.json"
local meter = require "nymbl.meter"
local wait = require "nymbl.wait"

local batch = {}

-- Seconds between two calls of `progress`.
local PROGRESS_INTERVAL = 1 / 4

local MAX_ERRORS = 1000

-- Kinds that end a run at once, and kinds that end it after so many failures in a row.
local FATAL = { unauthorized = true, quota = true, context = true }
local MAX_IN_A_ROW = { forbidden = 3, network = 10 }

-- Kinds that count as failures of the network.
local LIKE_NETWORK = { timeout = "network", tls = "network" }

-- State, besides that of a meter (meter.lua):
--   env, report, concurrency, progress
--   last_kind, in_a_row   the kind of the last failures, and how many in a row
--   reported_at           when `progress` was last called
--   is_reporting          whether it is running: it may yield
--   raised                a table with an error that ended the run, which is raised again
local run = {}
run.__index = run

-- Whether the run has ended early.
function run:is_stopped()
  if self.env.closed then self:stop "canceled" end
  return self.stopped ~= nil
end

-- End the run early: no item and no request is begun any more. After the budget was spent, what was
-- begun is still finished, and anything may end that, too.
-- @tparam string word the report's `stopped`
function run:stop(word)
  if not self.stopped or self.stopped == "budget" then self.stopped = word end
end

-- An error was raised that is none of the service's: end the run, and raise it at the end.
local function keep_raised(self, err)
  if self.env.closed and not errors.is_out_of_memory(err) then return self:stop "canceled" end
  self.raised = self.raised or { err }
  self:stop "canceled"
end

local function call_progress(self)
  self.is_reporting, self.reported_at = true, wait.now()
  self.report.requests = self.requests
  local ran, result = pcall(self.progress, self.report)
  self.is_reporting = false
  if not ran then keep_raised(self, result) end
  return result
end

-- Call `progress` if it is time for that. Returns false if waiting makes no sense any more, because
-- the run has ended early. (What was begun before the budget was spent is finished.)
function run:poll()
  if self.progress and not self.is_reporting and self.stopped ~= "canceled"
    and wait.now() - self.reported_at >= PROGRESS_INTERVAL and call_progress(self) == false then
    self:stop "canceled"
  end
  return not self:is_stopped() or self.stopped == "budget"
end

-- The option `progress` of a transfer that is a step of the run, or nil.
function run:transfer_progress()
  return self.progress and function()
    self:poll()
    return self.stopped ~= "canceled"
  end or nil
end

-- The word for the report if an error ends the run, or nil.
local function stop_word(self, err)
  local kind = err.kind
  if FATAL[kind] then return kind end
  if kind == "canceled" then return err.reason == "budget" and "budget" or "canceled" end
  if err.reason == "no_space" then return "no_space" end
  local family = LIKE_NETWORK[kind] or kind
  self.in_a_row = self.last_kind == family and self.in_a_row + 1 or 1
  self.last_kind = family
  if MAX_IN_A_ROW[family] and self.in_a_row >= MAX_IN_A_ROW[family] then return kind end
end

-- An item has succeeded.
function run:succeed()
  self.last_kind = nil
end

-- An item has failed, or may have: decide whether the run goes on.
-- @param err the error
function run:note(err)
  local word = errors.is(err) and stop_word(self, err)
  if word then self:stop(word) end
end

-- Add an error to the report.
-- @tparam table entry for the report's `errors`; it gets the field `err`
-- @param err the error
function run:add_error(entry, err)
  local list = self.report.errors
  if #list == MAX_ERRORS then return end
  entry.err = err
  list[#list + 1] = entry
end

-- An item has failed: add it to the report, and decide whether the run goes on. An item that was
-- only interrupted by the end of the run is not a failure.
-- @tparam table entry for the report's `errors`; it gets the field `err`
-- @param err the error
-- @treturn boolean whether it is a failure
function run:fail(entry, err)
  self:note(err)
  if errors.is(err) and err.kind == "canceled" then return false end
  self.report.failed = self.report.failed + 1
  self:add_error(entry, err)
  return true
end

-- Call a function whose requests are counted. What it raises ends the run.
-- @tparam integer credit how many of its requests were prepaid (meter.lua)
-- @return what it returned; nil if it raised an error
local function call_metered(self, credit, fn, ...)
  local outer = meter.attach(self, credit)
  local ran, result, more = pcall(fn, ...)
  meter.detach(outer)
  if ran then return result, more end
  keep_raised(self, result)
end

-- Reserve a request for the next item. Without one the run ends.
-- @treturn boolean whether there was one left
function run:prepay()
  if meter.prepay(self) then return true end
  self:stop "budget"
  return false
end

-- Process items, several at once, until there are no more or the run has ended early.
-- @tparam function next_item returns the next item, or nil at the end. It may wait
-- @tparam function process called with each item; calls `succeed` or `fail`
-- @tparam ?integer credit how many requests `next_item` has prepaid for each item
function run:each(next_item, process, credit)
  local function next_one()
    if self:is_stopped() then return nil end
    return (call_metered(self, 0, next_item))
  end
  local _, failed = each.each(next_one, { concurrency = self.concurrency }, function(item)
    call_metered(self, credit, process, item)
    self:poll()
    return true
  end)
  -- raised before `process` was called: there was no memory. The item must not be forgotten
  if failed[1] then keep_raised(self, failed[1].err) end
end

-- An id of the client's service, for files that belong to one service. It does not reveal the address.
function batch.service(env)
  return core.account(env.client, "ids")
end

-- The error if a file belongs to another service.
function batch.other_service()
  return nil, errors.new { kind = "io", reason = "other_service" }
end

-- Check that a run may begin here: that it may wait, and that lua-cjson is installed.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function batch.prepare()
  json.prepare()
  local ready, err = wait.prepare()
  wait.call_ended()
  if not ready then return nil, errors.new(err) end
  return true
end

-- Make a run.
-- @tparam table env the client's
-- @tparam table options `concurrency`, `budget` and `progress`
-- @tparam table report gets the fields `complete`, `stopped`, `failed`, `requests` and `errors`
-- @tparam function body called with the run. All requests that it makes are counted
-- @treturn table the report
-- @raise what `progress` or another function of the program raised
function batch.run(env, options, report, body)
  report.complete, report.failed, report.requests, report.errors = false, 0, 0, {}
  local self = setmetatable({
    env = env, report = report, concurrency = options.concurrency, progress = options.progress,
    requests = 0, prepaid = 0, budget = options.budget, stopped = nil,
    last_kind = nil, in_a_row = 0, reported_at = wait.now(), is_reporting = false, raised = false,
  }, run)
  call_metered(self, 0, body, self)
  report.requests, report.stopped = self.requests, self.stopped
  report.complete = not self.stopped and report.failed == 0 and (report.unknown or 0) == 0
  if self.progress and not self.raised then call_progress(self) end
  if self.raised then error(self.raised[1], 0) end
  return report
end

return batch
