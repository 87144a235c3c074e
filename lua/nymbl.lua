-- SPDX-License-Identifier: MIT
--- Documents of the Nymbl Customer API: upload, list, get, download, delete.
-- @module nymbl

local core = require "nymbl.core"
local client = require "nymbl.client"
local each = require "nymbl.each"
local filter = require "nymbl.filter"

return {
  _VERSION = "nymbl " .. core.version,
  null = core.null,
  client = client.new,
  filter = filter.filter,
  datetime = filter.datetime,
  each = each,
}
