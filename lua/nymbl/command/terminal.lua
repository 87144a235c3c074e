-- SPDX-License-Identifier: MIT
-- Standard error: messages, and on a terminal one line that is replaced as the work proceeds.

local output = require "nymbl.command.output"
local system = require("nymbl.core").system

local terminal = {}

local methods = {}
methods.__index = methods

-- Seconds between two states of the line. A terminal that cannot replace a line gets fewer.
local INTERVAL, DUMB_INTERVAL = 1 / 10, 5

local DEFAULT_WIDTH = 80

-- At most so many columns of a text. Characters that are not ASCII may be two columns wide.
local function cut(text, width)
  local used, at = 0, 1
  while at <= #text do
    local _, last = text:find("^[^\128-\191][\128-\191]*", at)
    used = used + (last > at and 2 or 1)
    if used > width then return text:sub(1, at - 1) end
    at = last + 1
  end
  return text
end

-- Whether the line may be replaced now.
function methods:is_due()
  return self.is_terminal and system.now() - self.shown_at >= (self.is_dumb and DUMB_INTERVAL or INTERVAL)
end

-- Show a state of the work. The width is asked for each time, because a terminal can be resized.
function methods:show(text)
  text = output.printable(text)
  self.shown_at = system.now()
  if self.is_dumb then
    io.stderr:write(text, "\n")
    return
  end
  local width = system.terminal_width(io.stderr) or DEFAULT_WIDTH
  io.stderr:write("\r", cut(text, width - 1), "\27[K")
  self.is_shown = true
end

-- Remove the line, so that something else can be printed.
function methods:clear()
  if not self.is_shown then return end
  self.is_shown = false
  io.stderr:write("\r\27[K")
end

-- Print a message on a line of its own.
function methods:message(text)
  self:clear()
  io.stderr:write(output.printable(text), "\n")
end

-- Print a failure. Its text identifies nothing; the service's own words do, so they are for a
-- person at a terminal only.
function methods:failure(err, is_verbose)
  self:message(tostring(err))
  if is_verbose and self.is_terminal and type(err) == "table" and err.detail and err.kind ~= "settings" then
    self:message("  the service says: " .. err.detail)
  end
end

function terminal.new()
  local kind = os.getenv "TERM"
  return setmetatable({
    is_terminal = system.is_terminal(io.stderr),
    is_dumb = kind == nil or kind == "" or kind == "dumb",
    is_shown = false, shown_at = -math.huge,
  }, methods)
end

return terminal
