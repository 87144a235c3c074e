-- SPDX-License-Identifier: MIT
-- Operands, those from standard input included, and their results.

local nymbl = require "nymbl"
local signals = require "nymbl.command.signals"
local status = require "nymbl.command.status"

local operands = {}

-- Read operands from standard input, up to its end: a call that runs meanwhile would stall.
local function read(items, is_nul)
  local text = {}
  repeat
    local bytes, _, code = io.stdin:read(65536)
    -- half a list is none: after a signal there may be more
    if signals.caught() then error(nymbl.error { kind = "canceled" }) end
    if code then error(nymbl.error { kind = "io", reason = "io_error" }) end
    text[#text + 1] = bytes
  until not bytes
  text = table.concat(text)
  local separator = is_nul and "\0" or "\n"
  if text ~= "" and text:sub(-1) ~= separator then text = text .. separator end
  for item in text:gmatch(is_nul and "(%Z*)%z" or "([^\n]*)\n") do
    if item ~= "" then items[#items + 1] = item end
  end
end

-- The operands of the command line; those from standard input replace "-".
-- @tparam table given an array of words
-- @tparam boolean is_nul
-- @treturn table an array
-- @treturn boolean whether standard input was read
function operands.expand(given, is_nul)
  local items, was_read = {}, false
  for _, word in ipairs(given) do
    if word ~= "-" then
      items[#items + 1] = word
    elseif not was_read then
      was_read = true
      read(items, is_nul)
    end
  end
  return items, was_read
end

-- Failures that would be those of all other operands, too.
local FATAL = { unauthorized = true, quota = true, context = true, canceled = true, settings = true }
local FATAL_IN_A_ROW = { forbidden = 3, network = 10 }

-- Watches failures. Returns a function of an error, or nil after a success, that returns true if the
-- others need not be tried.
local function stopper()
  local last, count = nil, 0
  return function(err)
    local kind = err and err.kind
    count = kind and kind == last and count + 1 or 1
    last = kind
    return err ~= nil and (FATAL[kind] or err.reason == "no_space" or count >= (FATAL_IN_A_ROW[kind] or math.huge))
  end
end

-- What a call raised because of its operand, as an error: a file name with a control character cannot
-- be sent, for example.
function operands.raised(problem)
  if type(problem) == "table" then return problem end
  local words = tostring(problem):match "bad argument.*" or signals.caught() and "stopped"
  if not words then error(problem, 0) end
  return nymbl.error { kind = signals.caught() and "canceled" or "bad_request", detail = words }
end

-- Run a function for each operand, several at once, and print its result. An operand that is not
-- tried, because another one's failure is that of all, fails likewise.
-- @tparam table session
-- @tparam table items an array
-- @tparam integer jobs how many at once
-- @tparam function fn called with the operand; returns an array, the columns after the operand, and
--   a table for --json; or nil and the error
-- @treturn integer the exit status
function operands.run(session, items, jobs, fn)
  local statuses, is_spent = {}, false
  local done, failed, unknown = 0, 0, 0
  local must_stop, fatal = stopper(), nil
  local at, progress = 0, session.progress
  progress.operands = #items

  local function next_item()
    if signals.caught() or session.out.reason then return nil end
    at = at + 1
    return items[at]
  end

  local function process(operand)
    if fatal then return nil, fatal end
    local ran, columns, extra = pcall(fn, operand)
    if ran then return columns, extra end
    return nil, operands.raised(columns)
  end

  local _, raised = nymbl.each(next_item, { concurrency = session.given.jobs or jobs }, function(operand)
    local columns, extra = process(operand)
    progress.operands_done = progress.operands_done + 1
    local err = not columns and extra or nil
    if signals.caught() and err and not err.outcome_unknown then return true end -- it is left
    local is_first_fatal = not fatal and must_stop(err)
    if is_first_fatal then fatal = err end
    if not err then
      done = done + 1
      session:print_result(operand, columns, extra)
      return true
    end
    if err.outcome_unknown then
      unknown = unknown + 1
    else
      failed = failed + 1
    end
    is_spent = is_spent or err.kind == "quota"
    statuses[status.of(err)] = true
    session:print_failure(operand, err, err ~= fatal or is_first_fatal)
    return true
  end)

  if raised[1] then error(raised[1].err, 0) end -- a mistake in this program, or lack of memory

  session.left = {
    done = done, failed = failed, unknown = unknown, left = #items - done - failed - unknown,
  }
  if #items == 1 then return next(statuses) or status.DONE end
  if failed + unknown > 0 and not signals.caught() then
    session:note(("nymbl: %d done, %d failed"):format(done, failed + unknown))
  end
  return status.of_several(statuses, done > 0, is_spent)
end

return operands
