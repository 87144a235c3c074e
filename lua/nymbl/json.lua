-- SPDX-License-Identifier: MIT
-- JSON of the service and of stores. This module has its own instance of lua-cjson, because the
-- settings of the global instance belong to the host program.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local lazy = require "nymbl.lazy"

local json = {}

local codec

-- lua-cjson caches the decimal point of the locale that was set when it was loaded or when
-- `new` was called (in its fpconv.c). The cache is process-wide, and wrong in every locale with
-- another decimal point. It belongs to the host program, so this module does not change it, but
-- runs lua-cjson in the C locale (call_in_c_locale). In that locale lua-cjson encodes all
-- numbers correctly, whatever is cached. It decodes all numbers except fractions, which
-- core.json_mend rewrites if necessary.

-- Call a function as pcall does, but in the C locale. No error can leave the C locale set:
-- pcall catches those of the function, and the second call of core.locale needs no more
-- stack than the first.
local function call_in_c_locale(fn, argument)
  core.locale(true)
  local ok, value = pcall(fn, argument)
  core.locale(false)
  return ok, value
end

local HALF = 1 / 2

-- Whether a codec decodes fractions if it is called by `call` (pcall or call_in_c_locale).
local function decodes_fractions(call, module)
  local ok, value = call(module.decode, "0.5")
  if not ok then errors.rethrow_out_of_memory(value) end
  return ok and value == HALF
end

-- Create a codec from the lua-cjson that the program has loaded. `new` refreshes the cache, so it
-- is called in the locale whose decimal point is cached already: the current one or C. (In
-- a locale whose decimal point has more than one byte, `new` would exit the process.)
-- Returns false if the cached decimal point is that of a third locale.
local function codec_from_loaded(module)
  local call = decodes_fractions(pcall, module) and pcall
    or decodes_fractions(call_in_c_locale, module) and call_in_c_locale
  if not call then return false end
  local ok, new_codec = call(module.new)
  if not ok then error(new_codec, 0) end
  return new_codec
end

-- Load lua-cjson, and remove it from package.loaded: the program's own `require` then loads it
-- again, in the program's locale.
local function codec_from_require()
  local ok, module = call_in_c_locale(require, "cjson")
  if not ok then error(module, 0) end
  package.loaded.cjson = nil
  return module
end

-- lua-cjson is loaded on first use, because startup is half of a short script's run time.
local function get_codec()
  if not codec then
    lazy.forget_interrupted()
    local module = package.loaded.cjson
    local new_codec
    if module then new_codec = codec_from_loaded(module) else new_codec = codec_from_require() end
    -- in a third locale, use the program's codec with its settings, and try again next time
    if not new_codec then return module end
    new_codec.decode_max_depth(32)
    new_codec.decode_invalid_numbers(false)
    codec = new_codec
  end
  return codec
end

-- Whether is_installed() has returned true.
local was_found = false

-- Whether `require` would find lua-cjson on the search paths.
local function is_installed()
  local search = package.searchpath -- luacheck: ignore (not in Lua 5.1, but in LuaJIT)
  return package.loaded.cjson ~= nil or package.preload.cjson ~= nil
    or search ~= nil and (search("cjson", package.cpath) or search("cjson", package.path)) ~= nil
end

-- Ensure before a request is sent that its response can be decoded.
-- @tparam ?boolean is_lazy true if only a failed call has a JSON response: lua-cjson is
--   then searched for, but not loaded
-- @raise the error of `require` if lua-cjson is not installed
function json.prepare(is_lazy)
  if codec then return end
  if is_lazy then was_found = was_found or is_installed() end
  if not (is_lazy and was_found) then get_codec() end
end

-- Decode a JSON text.
-- @treturn[1] table an object or array
-- @treturn[2] nil the text is not JSON, or its value is neither
-- @treturn[2] string "bad_json"
function json.decode(text)
  if not text or text:find("\0", 1, true) then return nil, "bad_json" end -- a NUL ends the text for lua-cjson
  local decode = (codec or get_codec()).decode
  local ok, value = errors.try(call_in_c_locale, decode, text)
  if not ok then ok, value = errors.try(call_in_c_locale, decode, core.json_mend(text)) end
  if ok and type(value) == "table" then return value end
  return nil, "bad_json"
end

local MAX_VALUES = core.max_response_values

-- A text of fewer bytes cannot have too many values: each value takes at least two bytes, with
-- the comma or bracket after it.
local MIN_SIZE_TO_COUNT = 2 * MAX_VALUES

local BYTE_ORDER_MARK = "\239\187\191"

-- Decode the body of a response. The values in it are counted first, because 8 MB of
-- `[[],[],…` would be decoded to 254 MB of tables.
-- @treturn[1] table an object or array
-- @treturn[2] nil the text is not JSON, or it has too many values
-- @treturn[2] string "bad_json" or "response_too_long"
function json.decode_response(text)
  -- a parser may ignore a byte order mark (RFC 8259, section 8.1)
  if text and text:byte() == 239 and text:sub(1, #BYTE_ORDER_MARK) == BYTE_ORDER_MARK then
    text = text:sub(#BYTE_ORDER_MARK + 1)
  end
  if text and #text >= MIN_SIZE_TO_COUNT and core.json_values(text, MAX_VALUES) > MAX_VALUES then
    return nil, "response_too_long"
  end
  return json.decode(text)
end

-- Encode a table.
-- @treturn[1] string
-- @treturn[2] nil the table has values that JSON cannot represent
function json.encode(value)
  local ok, text = errors.try(call_in_c_locale, get_codec().encode, value)
  if ok then return text end
  return nil
end

return json
