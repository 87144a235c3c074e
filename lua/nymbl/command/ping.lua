-- SPDX-License-Identifier: MIT
-- nymbl ping

local status = require "nymbl.command.status"

local STEPS = { "settings", "name", "connection", "certificate", "clock", "token", "key", "quota" }

-- The steps if there is no client.
local function without_client(err)
  local steps = {}
  for i, name in ipairs(STEPS) do
    steps[i] = { step = name, state = i == 1 and "failed" or "skipped", err = i == 1 and err or nil }
  end
  return steps
end

-- A step as a line: its name, its state, and what is known.
local function line(step)
  local words = step.state
  if step.days then words = ("%s (%d days left)"):format(words, step.days) end
  if step.skew then words = ("%s (%d s)"):format(words, math.floor(step.skew + 0.5)) end
  if step.err then words = words .. ": " .. tostring(step.err) end
  return ("%-11s %s"):format(step.step, words)
end

local function run(session, given)
  local client, err = session:open()
  local steps = client and client:check { patient = given.patient } or without_client(err)
  local result = 0
  for _, step in ipairs(steps) do
    if given.json then
      session.out:json {
        step = step.step, state = step.state, days = step.days, skew = step.skew,
        err = step.err and session.error_fields(step.err),
      }
    elseif not given.quiet then
      session.out:write(line(step) .. "\n")
    end
    if step.err then
      if given.quiet or given.json then session:fail(step.err) end
      if result == 0 then result = status.of(step.err) end
    end
  end
  return result
end

return {
  summary = "Check settings, connection, certificate, clock, token, key and quota",
  text = {
    "A line for each step begins with its name: 'ok', 'failed' and what to do, 'unknown', or 'skipped' after a "
      .. "failed one. It costs one request for a token and one listing of one row.",
  },
  operands = { { name = "PATIENT", args = "?",
                 help = "List this patient's documents, if you may not list the patients." } },
  example = "nymbl ping",
  run = run,
}
