-- SPDX-License-Identifier: MIT
-- One run of the command: its options, its client, and where it prints.

local nymbl = require "nymbl"
local output = require "nymbl.command.output"
local progress = require "nymbl.command.progress"
local signals = require "nymbl.command.signals"
local status = require "nymbl.command.status"
local terminal = require "nymbl.command.terminal"

local methods = {}
methods.__index = methods

-- Find the settings and create the client.
-- @treturn[1] client
-- @treturn[2] nil
-- @treturn[2] table the error
function methods:open()
  local settings = require "nymbl.command.settings"
  local found, options, err
  found, err = settings.find(self.given.profile)
  if not found then return nil, err end
  options, err = settings.options(found, { timeout = self.given.timeout })
  if not options then return nil, err end
  self.progress:add_events(options)
  self.client, err = nymbl.client(options)
  if not self.client then return nil, err end
  self.progress.client = self.client
  self.progress:look_at_month()
  signals.poll(self.client, function() self.progress:tick() end)
  return self.client
end

-- The metadata of a document, without the protocol's annotations. After a signal the client may be
-- closed, and only the id is certain; the result of an upload must not be lost then.
function methods.metadata(document)
  local ran, fields = pcall(document.metadata, document)
  if not ran then return { id = document.id } end
  for name in pairs(fields) do
    if name:find "^@" then fields[name] = nil end
  end
  return fields
end

-- Print what an operand led to.
-- @tparam string operand
-- @tparam table columns an array of texts
-- @tparam table fields for --json
function methods:print_result(operand, columns, fields)
  if self.given.json then
    fields.operand = operand
    self.out:json(fields)
  elseif not self.given.quiet and not self.is_silent then
    self.out:row(operand, (table.unpack or unpack)(columns)) -- luacheck: ignore
  end
end

local ERROR_FIELDS = { "kind", "status", "reason", "code", "operation", "request_id", "attempts", "retry_after",
                       "outcome_unknown" }

-- The fields of an error for --json. The service's own words are not among them.
function methods.error_fields(err)
  local fields = { message = tostring(err) }
  for _, name in ipairs(ERROR_FIELDS) do fields[name] = err[name] end
  return fields
end

-- Print that an operand failed: on standard output, where it has a name, and, if `is_explained`, on
-- standard error.
function methods:print_failure(operand, err, is_explained)
  if self.given.json then
    self.out:json { operand = operand, error = self.error_fields(err) }
  elseif self.progress.operands and self.progress.operands > 1 and not self.given.quiet then
    self.out:row(operand, err.outcome_unknown and "outcome unknown" or "failed: " .. err.kind)
  end
  if is_explained then self:fail(err) end
end

-- Print a failure on standard error. Returns its exit status. What a signal has canceled is counted
-- by the message about the signal.
function methods:fail(err)
  if not (signals.caught() and err.kind == "canceled") then self.terminal:failure(err, self.given.verbose) end
  return status.of(err)
end

-- Wrong usage that the parser has not found. Returns the exit status.
function methods:misuse(problem)
  self.terminal:message("nymbl: " .. problem)
  return status.USAGE
end

-- The field of `report.would` that replaces a field of the report after a dry run.
local PLANNED = { downloaded = "downloads", uploaded = "uploads" }

-- Print the report of an export or of upload_all.
-- @tparam table report
-- @tparam table names of the counts to print
function methods:print_report(report, names)
  self.left = report
  if self.given.json then
    self.out:json(self.plain_report(report))
  elseif not self.given.quiet then
    local would = report.would
    for _, name in ipairs(names) do
      local planned = would and PLANNED[name]
      self.out:row(planned and "would be " .. name or name, ("%.0f"):format(planned and would[planned] or report[name]))
    end
    self.out:row("requests", ("%.0f"):format((would or report).requests))
    self.out:row("bytes", ("%.0f"):format((would or report).bytes))
  end
  self:fail_report(report)
end

-- Print the failures of a report: each line once.
function methods:fail_report(report)
  local lines, counts = {}, {}
  for _, failure in ipairs(report.errors) do
    local line = tostring(failure.err)
    if not counts[line] then lines[#lines + 1] = failure.err end
    counts[line] = (counts[line] or 0) + 1
  end
  for _, err in ipairs(lines) do
    self:fail(err)
    local count = counts[tostring(err)]
    if count > 1 then self.terminal:message(("nymbl: %d failures are like that"):format(count)) end
  end
  local stopped = report.stopped
  if stopped and stopped ~= "canceled" and not (stopped == "budget" and self.given.quiet) then
    self.terminal:message(("nymbl: ended early (%s): the next run continues"):format(stopped))
  end
end

-- A report for --json.
function methods.plain_report(report)
  local fields = {}
  for name, value in pairs(report) do fields[name] = value end
  fields.errors = output.array {}
  for i, failure in ipairs(report.errors) do
    fields.errors[i] = {
      patient_id = failure.patient_id, id = failure.id, path = failure.path, err = methods.error_fields(failure.err),
    }
  end
  return fields
end

-- Print a message about the work, unless --quiet is given.
function methods:note(text)
  if not self.given.quiet then self.terminal:message(text) end
end

-- Write what is left of the data. Returns whether all of it was written. If the reader of a listing has
-- gone, as in `nymbl list 12345 | head`, that is its own wish.
function methods:finish_output()
  if self.out:flush() then return true end
  if self.out.reason ~= "pipe_closed" or self.left then
    self:fail(nymbl.error { kind = "io", reason = self.out.reason })
    if self.left then self.terminal:message("nymbl: " .. self:left_text()) end
  end
  return false
end

-- What is left, in numbers, for the message after a signal.
function methods:left_text()
  local left = self.left or self.progress.last_report
  if not left then return "nothing was changed" end
  local words = {}
  for _, name in ipairs { "done", "downloaded", "uploaded", "unchanged", "failed", "left" } do
    if left[name] then words[#words + 1] = ("%.0f %s"):format(left[name], name) end
  end
  if (left.unknown or 0) > 0 then
    words[#words + 1] = ("%.0f may have been carried out: look before you repeat it"):format(left.unknown)
  end
  if self.kept then words[#words + 1] = ("%.0f bytes are kept for --resume"):format(self.kept) end
  if left.errors then words[#words + 1] = "the next run continues" end -- it is a report
  return table.concat(words, ", ")
end

-- End what is running.
function methods:close()
  signals.stop()
  self.progress:finish()
  if self.client then pcall(self.client.close, self.client) end
end

local session = {}

-- @tparam table given the options and operands
function session.new(given)
  local screen, out = terminal.new(), output.new()
  local self = setmetatable({
    given = given, terminal = screen, out = out,
    progress = progress.new(screen, given.quiet or false),
    -- client, left; is_silent, if standard output is a document; kept, the bytes of interrupted
    -- downloads: set later
  }, methods)
  if screen.is_terminal then out.before_write = function() screen:clear() end end
  return self
end

return session
