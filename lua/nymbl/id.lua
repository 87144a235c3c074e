-- SPDX-License-Identifier: MIT
-- Ids in what the service sends.

local id = {}

-- U+FFFD stands for a character that was lost, here (core.json_mend) or at the service.
local REPLACEMENT = "\239\191\189"

-- An id as a string. Returns nil if the value is not an id, if the JSON decoder may have
-- rounded it, or if it has lost a character: it could then be the id of another object.
function id.text(value)
  if type(value) == "string" and value ~= "" and not value:find("\0", 1, true)
    and not value:find(REPLACEMENT, 1, true) then
    return value
  end
  if type(value) == "number" and value % 1 == 0 and math.abs(value) < 2^53 then
    return ("%.0f"):format(value)
  end
end

return id
