-- SPDX-License-Identifier: MIT
-- Exit statuses.

local status = {
  DONE = 0, FAILED = 1, USAGE = 2, NOT_FOUND = 3, SETTINGS = 4, LATER = 5, SPENT = 6, UNKNOWN = 7, SOME = 8,
}

local BY_KIND = {
  not_found = status.NOT_FOUND,
  settings = status.SETTINGS, unauthorized = status.SETTINGS, forbidden = status.SETTINGS, tls = status.SETTINGS,
  network = status.LATER, timeout = status.LATER, throttled = status.LATER, server = status.LATER,
  quota = status.SPENT, budget = status.SPENT,
}

local BY_REASON = { store_down = status.LATER, store_auth = status.SETTINGS, store_certificate = status.SETTINGS }

-- The status of a failure: an error table, or nil and the word with which a run has ended early.
function status.of(err, stopped)
  if not err then return BY_KIND[stopped] or status.FAILED end
  if err.outcome_unknown then return status.UNKNOWN end
  return BY_REASON[err.reason] or BY_KIND[err.kind] or status.FAILED
end

-- The status of several operands.
-- @tparam table statuses a set of the statuses of those that failed
-- @tparam boolean is_any_done whether any succeeded
-- @tparam boolean is_spent whether the quota or the budget has ended the run
function status.of_several(statuses, is_any_done, is_spent)
  if statuses[status.UNKNOWN] then return status.UNKNOWN end
  if is_spent then return status.SPENT end
  local first = next(statuses)
  if not first then return status.DONE end
  if is_any_done or next(statuses, first) then return status.SOME end
  return first
end

-- The status of the report of an export or of upload_all.
-- @tparam table report
-- @tparam integer done how many documents or files succeeded
function status.of_report(report, done)
  if report.complete then return status.DONE end
  local statuses, last = {}, nil
  for _, failure in ipairs(report.errors) do
    last = status.of(failure.err)
    statuses[last] = true
  end
  if (report.unknown or 0) > 0 then statuses[status.UNKNOWN] = true end
  local stopped = report.stopped
  if not last and stopped then statuses[status.of(nil, stopped)] = true end
  if not next(statuses) then statuses[status.FAILED] = true end
  return status.of_several(statuses, done > 0, stopped == "quota" or stopped == "budget")
end

return status
