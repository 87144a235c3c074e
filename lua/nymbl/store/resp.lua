-- SPDX-License-Identifier: MIT
-- Commands and replies of Redis (RESP2), as bytes.

local resp = {}

-- A command, from a list of its words.
function resp.command(words)
  local pieces = { ("*%d\r\n"):format(#words) }
  for _, word in ipairs(words) do
    pieces[#pieces + 1] = ("$%d\r\n"):format(#word)
    pieces[#pieces + 1] = word
    pieces[#pieces + 1] = "\r\n"
  end
  return table.concat(pieces)
end

-- Read the reply to a script that returns a string.
-- @treturn[1] string that string
-- @treturn[2] nil
-- @treturn[2] ?string the message of an error; nil if it is another reply
function resp.read(reply)
  local size, from = reply:match("^%$(%d+)\r\n()")
  if size and #reply == from - 1 + tonumber(size) + 2 then return reply:sub(from, -3) end
  return nil, reply:match("^%-(.*)\r\n$")
end

-- Reasons of errors, by the first word of the message.
local REASONS = {
  LOADING = "store_down", BUSY = "store_down", UNKILLABLE = "store_down", MASTERDOWN = "store_down",
  CLUSTERDOWN = "store_down", TRYAGAIN = "store_down",
  NOAUTH = "store_auth", WRONGPASS = "store_auth", NOPERM = "store_auth", DENIED = "store_auth",
  OOM = "store_full",
  READONLY = "store_readonly", MISCONF = "store_readonly", NOREPLICAS = "store_readonly",
  MOVED = "cluster", ASK = "cluster", CROSSSLOT = "cluster",
}

-- Texts in messages that begin with ERR.
local PHRASES = {
  { "max number of clients", "store_down" },
  { "AUTH", "store_auth" },
  { "unauthenticated", "store_auth" }, -- without a password, no command may be as long as the script
  { "user executing the script", "store_auth" },
  { "cluster mode", "cluster" },
}

-- The reason (errors.lua) that the message of an error stands for.
function resp.reason(message)
  local reason = REASONS[message:match("^[A-Z]+")]
  if reason then return reason end
  -- Redis 6 puts an error within a script behind words of its own
  for word in message:gmatch("%-([A-Z]+) ") do
    if REASONS[word] then return REASONS[word] end
  end
  for _, phrase in ipairs(PHRASES) do
    if message:find(phrase[1], 1, true) then return phrase[2] end
  end
  return "store_protocol"
end

-- Whether the message says that the script must be sent again.
function resp.is_no_script(message)
  return message:find("^NOSCRIPT") ~= nil
end

return resp
