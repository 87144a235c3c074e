-- SPDX-License-Identifier: MIT
-- nymbl quota

local FIELDS = { "month", "requests", "throttled", "remaining" }

local function run(session, given)
  local client, err = session:open()
  if not client then return session:fail(err) end
  local usage
  usage, err = client:usage()
  if not usage then return session:fail(err) end
  if given.json then
    session.out:json(usage)
    return 0
  end
  for _, name in ipairs(FIELDS) do
    local value = usage[name]
    session.out:row(name, type(value) == "number" and ("%.0f"):format(value) or value or "-")
  end
  return 0
end

return {
  summary = "Show how many requests this month has left",
  text = { "It sends no request: the count is that of the store, which all runs of this user share." },
  example = "nymbl quota",
  run = run,
}
