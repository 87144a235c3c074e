-- SPDX-License-Identifier: MIT
-- JSON of the service and of stores, by a codec of our own: lua-cjson's settings belong to
-- the host program.

local core = require "nymbl.core"
local errors = require "nymbl.errors"

local json = {}

local codec

-- lua-cjson keeps the decimal point of the locale in which it was loaded, or `new` was
-- called, in one place for the whole process (its fpconv.c), and is wrong in any other. So it
-- never works for us in the locale of the moment, but in C's (in_c), where it writes
-- every number right, whatever it keeps, and reads every number but, at worst, fractions
-- (core.json_mend). What it keeps is the host program's, and stays.

-- Call a function as pcall does, in the C locale. Between the two nothing raises: a call of
-- a C function of ours has just found room.
local function in_c(fn, argument)
  core.locale(true)
  local ok, value = pcall(fn, argument)
  core.locale(false)
  return ok, value
end

local half = 1 / 2

-- Whether a codec reads fractions, called so.
local function reads(call, module)
  local ok, value = call(module.decode, "0.5")
  if not ok then errors.pass_memory(value) end
  return ok and value == half
end

-- A new codec from a loaded lua-cjson, which then keeps the point that it has: that of the
-- locale of the moment, or C's. (In a locale whose point is not one byte `new` ends the
-- process.) Where it keeps that of a third locale there is none to be had: false.
local function renewed(module)
  local call = reads(pcall, module) and pcall or reads(in_c, module) and in_c
  if not call then return false end
  local ok, made = call(module.new)
  if not ok then error(made, 0) end
  return made
end

-- A codec from one that is not loaded. It is taken out again: with its own `require` the
-- program gets one that knows its locale.
local function loaded()
  local ok, module = in_c(require, "cjson")
  if not ok then error(module, 0) end
  package.loaded.cjson = nil
  return module
end

-- Loaded when it is first needed: half of a short script is start-up.
local function codec_get()
  if not codec then
    local module = package.loaded.cjson
    local made
    if module then made = renewed(module) else made = loaded() end
    if not made then return module end -- with the program's settings, until its locale comes back
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
-- @treturn[2] string "bad_json"
function json.decode(text)
  if not text or text:find("\0", 1, true) then return nil, "bad_json" end -- lua-cjson takes a NUL for the end
  local decode = codec_get().decode
  local ok, value = errors.try(in_c, decode, text)
  if not ok then ok, value = errors.try(in_c, decode, core.json_mend(text)) end
  if ok and type(value) == "table" then return value end
  return nil, "bad_json"
end

-- A value takes two bytes at least, with its comma or its end: shorter texts need no count.
local SHORT = 2 * core.reply_values

local MARK = "\239\187\191"

--- Decode a response. Its values are counted before: 8 MB of `[[],[],…` would become 254 MB
-- of tables.
-- @treturn[1] table an object or array
-- @treturn[2] nil the text is none, or too many values
-- @treturn[2] string "bad_json" or "response_too_long"
function json.response(text)
  -- a byte order mark says nothing more (RFC 8259, 8.1)
  if text and text:sub(1, #MARK) == MARK then text = text:sub(#MARK + 1) end
  if text and #text >= SHORT and core.json_values(text, core.reply_values) > core.reply_values then
    return nil, "response_too_long"
  end
  return json.decode(text)
end

--- Encode a table.
-- @treturn[1] string
-- @treturn[2] nil it holds what JSON has no form for
function json.encode(value)
  local ok, text = errors.try(in_c, codec_get().encode, value)
  if ok then return text end
  return nil
end

return json
