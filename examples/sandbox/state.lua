-- SPDX-License-Identifier: MIT
-- The whole state of one sandbox, and its reset.

local api = require "api"
local credentials = require "credentials"
local documents = require "documents"
local faults = require "faults"
local journal = require "journal"
local limits = require "limits"
local monotime = require "cqueues".monotime

local state = {}
state.__index = state

-- Set all settings to their defaults or to the options of the command line.
local function settings_reset(settings, options)
  for name in pairs(settings) do
    settings[name] = nil
  end
  settings.limits = options.limits
  settings.token_life = options.token_life
  settings.max_upload = options.max_upload
  settings.page_max = 100
  settings.next_link = false
  settings.numeric_ids = false
  settings.count = true
  settings.ranges = true
  settings.patient_key = "id"
  settings.created_status = 201
  settings.delete_status = 204
  settings.rate = { read = { 2, 5 }, download = { 1, 3 } }
  settings.quota = 10000
  settings.quota_used = 0
  settings.list_delay = 0
  settings.keep_alive = 60
  return settings
end

--- Create the state. `options` are those of the command line; files are created in `folder`.
function state.new(folder, options)
  local settings = settings_reset({}, options)
  local self = setmetatable({
    folder = folder, options = options, settings = settings, now = monotime,
    credentials = credentials.new(settings), documents = documents.new(settings),
    faults = faults.new(folder), journal = journal.new(), limits = limits.new(settings),
  }, state)
  self.api = api.new(self)
  return self
end

--- Reset everything except keys, listeners and connections.
function state:reset()
  settings_reset(self.settings, self.options)
  self.documents:clear()
  self.faults:clear()
  self.journal:clear()
  self.credentials:delete_tokens()
  self.limits:reset()
end

return state
