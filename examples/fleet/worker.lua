-- SPDX-License-Identifier: MIT
-- One worker of a fleet: count a patient's documents again and again.
-- luajit worker.lua NAME TIMES
local nymbl = require "nymbl"

local client = assert(nymbl.client(assert(nymbl.from_env { user_agent = arg[1] })))
for _ = 1, tonumber(arg[2]) do assert(client:patient("12345"):count()) end
client:close()
