-- SPDX-License-Identifier: MIT
-- The list of patients. The service's documentation has two names for a patient's id, `id` and
-- `patient_id` (lua/README.md, "Facts about the service"). The first request of a listing shows
-- which of them the service knows.

local entity = require "nymbl.entity"
local errors = require "nymbl.errors"
local patient = require "nymbl.patient"

local KEYS = { "id", "patient_id" }

local by_key = {}
for _, key in ipairs(KEYS) do
  by_key[key] = entity.define { name = "patients", path = "Patients", key = key, create = patient.from_fields }
end

-- Names of fields (a string or an array) in which `id` is replaced by the key's name. Each may have
-- a direction ("id desc").
local function with_key(names, key)
  if key == "id" or (type(names) ~= "table" and type(names) ~= "string") then return names end
  local renamed = {}
  for i, item in ipairs(type(names) == "table" and names or { names }) do
    if type(item) ~= "string" then return names end -- query.lua refuses it
    renamed[i] = (("," .. item):gsub("(, *)id%f[^A-Za-z0-9_]", "%1" .. key):sub(2))
  end
  return renamed
end

-- An iterator, as of listing.iterate(), with one of the keys.
local function iterate(env, options, key)
  local changed = {}
  for name, value in pairs(options or {}) do changed[name] = value end
  changed.select, changed.orderby = with_key(changed.select or key, key), with_key(changed.orderby, key)
  return by_key[key].list(env, changed)
end

-- Iterate over all patients (client:patients). If the service refuses the first request with 400,
-- it is repeated with the other key.
local function list(env, options)
  if options ~= nil and type(options) ~= "table" then return by_key.id.list(env, options) end -- this raises
  local key = env.patient_key or KEYS[1] -- which one an earlier listing has found
  local step, _, _, closer = iterate(env, options, key)
  local is_first = true

  local function next_patient()
    if not is_first then return step() end
    is_first = false
    local ran, found = pcall(step)
    if not ran and errors.is(found) and found.status == 400 then
      key = key == KEYS[1] and KEYS[2] or KEYS[1]
      step, _, _, closer = iterate(env, options, key)
      local ran_again, found_again = pcall(step)
      -- with neither key: something else is wrong with the query
      if ran_again or not (errors.is(found_again) and found_again.status == 400) then
        ran, found = ran_again, found_again
      end
    end
    if not ran then error(found, 0) end
    if found then env.patient_key = key end
    return found
  end
  return next_patient, nil, nil, setmetatable({}, { __close = function() getmetatable(closer).__close() end })
end

return { list = list }
