-- SPDX-License-Identifier: MIT
-- JSON of the service, by a decoder of our own: lua-cjson's settings belong to
-- the host program.

local json = {}

local decoder

-- lua-cjson is loaded with the first reply: a script that uploads nothing and
-- lists nothing does without it.
local function decoder_get()
  if not decoder then
    decoder = require("cjson").new()
    decoder.decode_max_depth(32)
    decoder.decode_invalid_numbers(false)
  end
  return decoder
end

--- Decode a text.
-- @treturn[1] table an object or array
-- @treturn[2] nil the text is none
function json.decode(text)
  if not text or text:find("\0", 1, true) then return nil end -- lua-cjson takes a NUL for the end
  local ok, value = pcall(decoder_get().decode, text)
  if ok and type(value) == "table" then return value end
  return nil
end

return json
