-- SPDX-License-Identifier: MIT
-- JSON of the service and of stores, by a codec of our own: lua-cjson's settings belong to
-- the host program.

local core = require "nymbl.core"
local errors = require "nymbl.errors"

local json = {}

local codec

-- Loaded when it is first needed: half of a short script is start-up.
local function codec_get()
  if not codec then
    local made = require("cjson").new()
    made.decode_max_depth(32)
    made.decode_invalid_numbers(false)
    codec = made
  end
  return codec
end

local found = false

-- Whether `require` would find lua-cjson in the usual places.
local function is_installed()
  local search = package.searchpath -- luacheck: ignore (not in Lua 5.1, but in LuaJIT)
  return package.loaded.cjson ~= nil or package.preload.cjson ~= nil
    or search ~= nil and (search("cjson", package.cpath) or search("cjson", package.path)) ~= nil
end

--- Look whether responses can be decoded, before anything is sent.
-- @tparam ?boolean later it is needed only if the call fails: then it is not loaded yet
-- @raise where lua-cjson is not installed, in the words of `require`
function json.ready(later)
  if codec then return end
  if later then found = found or is_installed() end
  if not (later and found) then codec_get() end
end

--- Decode a text.
-- @treturn[1] table an object or array
-- @treturn[2] nil the text is none
-- @treturn[2] string "json"
function json.decode(text)
  if not text or text:find("\0", 1, true) then return nil, "json" end -- lua-cjson takes a NUL for the end
  local ok, value = pcall(codec_get().decode, text)
  if ok and type(value) == "table" then return value end
  if not ok then errors.pass_memory(value) end
  return nil, "json"
end

-- A value takes two bytes at least, with its comma or its end: shorter texts need no count.
local SHORT = 2 * core.reply_values

--- Decode a response. Its values are counted before: 8 MB of `[[],[],…` would become 254 MB
-- of tables.
-- @treturn[1] table an object or array
-- @treturn[2] nil the text is none, or too many values
-- @treturn[2] string "json" or "too_long"
function json.response(text)
  if text and #text >= SHORT and core.json_values(text, core.reply_values) > core.reply_values then
    return nil, "too_long"
  end
  return json.decode(text)
end

--- Encode a table.
-- @treturn[1] string
-- @treturn[2] nil it holds what JSON has no form for
function json.encode(value)
  local ok, text = pcall(codec_get().encode, value)
  if ok then return text end
  errors.pass_memory(text)
  return nil
end

return json
