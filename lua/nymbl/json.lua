-- SPDX-License-Identifier: MIT
-- JSON of the service and of stores, by a codec of our own: lua-cjson's settings belong to
-- the host program.

local json = {}

local codec

-- lua-cjson is loaded with the first reply: a script that uploads nothing and
-- lists nothing does without it.
local function codec_get()
  if not codec then
    codec = require("cjson").new()
    codec.decode_max_depth(32)
    codec.decode_invalid_numbers(false)
  end
  return codec
end

--- Decode a text.
-- @treturn[1] table an object or array
-- @treturn[2] nil the text is none
function json.decode(text)
  if not text or text:find("\0", 1, true) then return nil end -- lua-cjson takes a NUL for the end
  local ok, value = pcall(codec_get().decode, text)
  if ok and type(value) == "table" then return value end
  return nil
end

--- Encode a table.
-- @treturn[1] string
-- @treturn[2] nil it holds what JSON has no form for
function json.encode(value)
  local ok, text = pcall(codec_get().encode, value)
  return ok and text or nil
end

return json
