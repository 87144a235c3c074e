-- SPDX-License-Identifier: MIT
-- The option `headers`: request headers that a program adds for tracing.

local check = require "nymbl.check"
local core = require "nymbl.core"

local headers = {}

-- The headers that a program may add, in the order in which they are sent.
local NAMES = { "traceparent", "tracestate", "baggage", "x-request-id", "x-correlation-id" }

local IS_NAME = {}
for _, name in ipairs(NAMES) do IS_NAME[name] = true end

-- Bytes of the longest value, as in core/api/request.c.
local MAX_VALUE = 8192

local function value_problem(value)
  if type(value) ~= "string" then return check.expected("string", value) end
  if #value > MAX_VALUE then return "too long" end
  if not value:find("^[!-~][ -~]*$") or value:sub(-1) == " " then
    return "visible ASCII expected, spaces only inside"
  end
end

-- A checker (see check.lua) of a table of headers.
function headers.checker(value)
  if type(value) ~= "table" then return check.expected("table", value) end
  local found = {}
  for name, text in pairs(value) do
    local lower = type(name) == "string" and core.lower(name)
    if not IS_NAME[lower] then return ("header '%s' is not allowed"):format(tostring(name)) end
    if found[lower] then return ("header '%s' is given twice"):format(lower) end
    found[lower] = true
    local problem = value_problem(text)
    if problem then return ("header '%s': %s"):format(lower, problem) end
  end
end

-- A checker of the client's option: a table, or a function that returns one.
function headers.client_checker(value)
  if type(value) == "function" then return nil end
  if type(value) ~= "table" then return check.expected("table or function", value) end
  return headers.checker(value)
end

local function add_all(to, value)
  for name, text in pairs(value or {}) do to[core.lower(name)] = text end
  return to
end

-- Copy the client's option, because the program may change its table later.
function headers.copy(of_client)
  return type(of_client) == "table" and add_all({}, of_client) or of_client
end

-- The headers of one request.
-- @param of_client the client's option: a table, a function of the operation, or nil
-- @tparam string operation
-- @tparam ?table of_call the call's option
-- @treturn table `{ name, value, … }`, as core.start takes them
-- @raise an error of the function, or that its result is not a table of headers
function headers.list(of_client, operation, of_call)
  if type(of_client) == "function" then
    of_client = of_client(operation)
    local problem = of_client ~= nil and headers.checker(of_client)
    if problem then check.raise(("bad result of the function 'headers' (%s)"):format(problem)) end
  end
  local values = {}
  add_all(values, of_client)
  add_all(values, of_call)
  local list = {}
  for _, name in ipairs(NAMES) do
    if values[name] then
      list[#list + 1] = name
      list[#list + 1] = values[name]
    end
  end
  return list
end

return headers
