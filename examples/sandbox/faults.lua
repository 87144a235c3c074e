-- SPDX-License-Identifier: MIT
-- Fault plans: how they match requests, and how they change the status, headers and content of a response.
-- What happens on the wire is in wire.lua and exchange.lua.

local body = require "body"
local content = require "content"
local json = require "json"
local responses = require "responses"

local faults = {}
faults.__index = faults

local function words(text)
  local set = {}
  for word in text:gmatch "%S+" do
    set[word] = true
  end
  return set
end

local plan_keys = words "name operation method path_contains listener skip times action"

local action_keys = words [[
  delay delay_effect status effect body body_kind content_type message headers remove_headers
  before during after lost_reply early_status drain accept reset_idle close_idle
  cut close_notify reset stall chunk_cut unclean head_cut head_drip drip header_flood
  informational informational_every length length_delta hold remapped_length endless
  truncate append gzip base64 json_instead raw body_patch redirect
  etag no_validators ignore_range bad_range ignore_if_match
]]

local body_kinds = words "service gateway html empty token"

function faults.new(folder)
  return setmetatable({ plans = {}, folder = folder }, faults)
end

local function action_name(action)
  local names = {}
  for name in pairs(action) do
    names[#names + 1] = name
  end
  table.sort(names)
  return table.concat(names, "+")
end

-- Whether a member of a JSON object has a value.
local function has_value(value)
  return value ~= nil and value ~= json.null
end

-- The problem of a plan, or nil. A test whose fault never matches proves nothing, so misspelt plans are refused.
local function plan_problem(plan)
  if type(plan) ~= "table" or type(plan.action) ~= "table" or not next(plan.action) then
    return "there is no action"
  end
  for key in pairs(plan) do
    if not plan_keys[key] then
      return "unknown key " .. tostring(key)
    end
  end
  for key in pairs(plan.action) do
    if not action_keys[key] then
      return "unknown action " .. tostring(key)
    end
  end
  local kind = plan.action.body_kind
  return kind ~= nil and not body_kinds[kind] and "unknown body_kind" or nil
end

--- Replace the plans. Returns true, or nil and a problem.
function faults:set(plans)
  if type(plans) ~= "table" then
    return nil, "an array of plans is expected"
  end
  for i, plan in ipairs(plans) do
    local problem = plan_problem(plan)
    if problem then
      return nil, ("plan %d: %s"):format(i, problem)
    end
    plan.name = has_value(plan.name) and plan.name or action_name(plan.action)
    plan.times = has_value(plan.times) and plan.times or 1
    plan.skip = has_value(plan.skip) and plan.skip or 0
  end
  self.plans = plans
  return true
end

function faults:clear()
  self.plans = {}
end

local function matches(plan, properties)
  return (not has_value(plan.operation) or plan.operation == properties.operation)
    and (not has_value(plan.method) or plan.method == properties.method)
    and (not has_value(plan.path_contains) or properties.path:find(plan.path_contains, 1, true) ~= nil)
    and (not has_value(plan.listener) or plan.listener == properties.listener)
end

-- Take the first plan that matches and has times left. `for_connection` selects the plans for connections
-- instead of those for requests.
local function take(self, properties, for_connection)
  for _, plan in ipairs(self.plans) do
    if plan.times ~= 0 and (plan.action.accept ~= nil) == for_connection and matches(plan, properties) then
      if plan.skip > 0 then
        plan.skip = plan.skip - 1
      else
        plan.times = plan.times - (plan.times > 0 and 1 or 0)
        return plan
      end
    end
  end
end

--- The plan for a request, or nil.
function faults:take(request)
  return take(self, {
    operation = request.operation, method = request.method, path = request.target,
    listener = request.connection.listener.name,
  }, false)
end

--- The plan for a new connection, or nil. Only its listener is known.
function faults:take_connection(listener)
  return take(self, { path = "", listener = listener.name }, true)
end

--- The plans that have times left, as JSON.
function faults:list()
  local remaining = json.array {}
  for _, plan in ipairs(self.plans) do
    if plan.times ~= 0 then
      remaining[#remaining + 1] = plan
    end
  end
  return remaining
end

local bodies = {
  service = function(status, message)
    return responses.service(status, "InternalError", message)
  end,
  gateway = responses.gateway,
  html = responses.html,
  empty = responses.empty,
  token = responses.token,
}

--- The response that an action substitutes for the real one, or nil.
function faults.substitute(action)
  if action.redirect then
    local response = responses.empty(action.redirect.status or 302)
    response.headers[1] = { "Location", action.redirect.location }
    return response
  elseif action.json_instead then
    return responses.gateway(200, action.message or "Internal server error")
  elseif action.status and action.body then
    return responses.new(action.status, action.content_type or "application/json", action.body)
  elseif action.status then
    local kind = action.body_kind or "gateway"
    return bodies[kind](action.status, action.message or (kind == "token" and "invalid_client")
      or "Internal server error")
  end
end

local function patched(object, patch)
  local members = json.object {}
  local added = {}
  local function add(name, value)
    added[name] = true
    if type(value) == "table" and value["$raw"] then
      value = json.raw(value["$raw"])
    end
    if type(value) ~= "table" or not value["$remove"] then
      members[#members + 1] = { name, value }
    end
  end
  for _, member in ipairs(object) do
    local new = patch[member[1]]
    if new == nil then
      new = member[2]
    end
    add(member[1], new)
  end
  for name, value in pairs(patch) do
    if not added[name] then
      add(name, value)
    end
  end
  return members
end

local function filtered(self, source, command)
  local output = content.filter(self.folder, command, source)
  local result = body.of(output)
  os.remove(output.path) -- the open file stays readable
  return result
end

--- Change the content of a response as the action says.
function faults:apply(response, action)
  if action.body_patch and response.object then
    response.object = patched(response.object, action.body_patch)
    response.body = body.new(json.encode(response.object))
  end
  if action.base64 then
    response.body = filtered(self, response.body, "base64 -w 0")
  end
  if action.gzip then
    response.body = filtered(self, response.body, "gzip -c -n")
    table.insert(response.headers, { "Content-Encoding", "gzip" })
  end
  if action.truncate then
    response.body:truncate(action.truncate)
  end
  if action.append then
    response.body:append(action.append)
  end
end

return faults
