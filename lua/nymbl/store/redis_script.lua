-- SPDX-License-Identifier: MIT
-- The script by which Redis makes changes. It consists of the very source of the modules that
-- have the changes (rate_state.lua, token_state.lua), so there is no second version of any rule.

local core = require "nymbl.core"
local json = require "nymbl.json"
local rate_state = require "nymbl.rate_state"
local token_state = require "nymbl.token_state"

local redis_script = {}

local MODULES = { { "rate_state", rate_state }, { "token_state", token_state } }

-- Version of the stored states. It is a part of their keys.
redis_script.VERSION = 2

-- The end of the script.
--   KEYS[1]  the state, as JSON
--   KEYS[2]  the results of a change that may be asked for again; missing for one that is not
--   ARGV     the module and the name of the change; the last moment at which it may be made, in
--            units of 0.1 ms; the number of its arguments; its arguments as a JSON array, in which
--            null stands for nil
-- It returns a JSON array: the time; an array of the results of the change, or null if it is too
-- late; and the number of the change, by which the reply is recognized. The results are stored,
-- unless the change has changed nothing: then it can be repeated.
-- All times have 4 decimals, because cjson writes 14 digits.
local MAIN = [==[
local MIN_RETENTION, MAX_REPEAT = 60, 3600
local clock = redis.call("TIME")
local ticks = clock[1] * 1e4 + math.floor(clock[2] / 100)
local now = ticks / 1e4

local number = KEYS[2] and KEYS[2]:match("[0-9a-f]+:[0-9]+$") or ""

local function answer(results)
  return ('[%.4f,%s,"%s"]'):format(now, results or "null", number)
end

local known = KEYS[2] and redis.call("GET", KEYS[2])
if known then return answer(known) end
if ticks > tonumber(ARGV[3]) then return answer() end

local function without_nulls(values)
  for name, value in pairs(values) do
    if value == cjson.null then values[name] = nil end
  end
  return values
end

local function pack(...)
  local list = { ... }
  for i = 1, select("#", ...) do
    if list[i] == nil then list[i] = cjson.null end
  end
  return list
end

local function read_state()
  local text = redis.call("GET", KEYS[1])
  local ok, state = pcall(cjson.decode, text or "{}")
  return ok and type(state) == "table" and without_nulls(state) or {}
end

local function copy(state)
  local copied = {}
  for name, value in pairs(state) do copied[name] = value end
  return copied
end

local function differs(one, other)
  for name, value in pairs(one) do
    if other[name] ~= value then return true end
  end
  return false
end

local module, count, arguments = modules[ARGV[1]], tonumber(ARGV[4]), without_nulls(cjson.decode(ARGV[5]))

local function make_change(state)
  return pack(module[ARGV[2]](state, now, unpack(arguments, 1, count)))
end

-- Seconds for which results are kept. A change may be asked for again until its last moment; but what
-- a process has counted alone, as long as that process lives.
local function results_retention(state_retention)
  if ARGV[2] == "add" then return state_retention end
  return MIN_RETENTION + math.max(0, math.min(math.ceil(tonumber(ARGV[3]) / 1e4 - now), MAX_REPEAT))
end

local before = read_state()
local state = copy(before)
local ran, results = pcall(make_change, state)
if not ran then -- the state is malformed: only the month's counts are kept
  state = module.from_other_version and module.from_other_version(before) or {}
  results = make_change(state)
end
local text = cjson.encode(results)
if differs(state, before) or differs(before, state) then
  local retention = math.max(MIN_RETENTION, math.ceil(module.retention(state, now)))
  redis.call("SET", KEYS[1], cjson.encode(state), "EX", retention)
  if KEYS[2] then redis.call("SET", KEYS[2], text, "EX", results_retention(retention)) end
end
return answer(text)
]==]

-- The first thing that is asked over a connection: the time; and the digest by which Redis knows the
-- script ARGV[1], unless that is empty. The write fails on a replica.
redis_script.GREETING = [[
redis.call("DEL", KEYS[1])
local clock = redis.call("TIME")
local digest = ARGV[1] ~= "" and redis.sha1hex(ARGV[1]) or ""
return ('[%s.%04d,"%s"]'):format(clock[1], math.floor(clock[2] / 100), digest)
]]

-- The source of a module, which must not have been compiled to a file.
local function source_of(module)
  local path = debug.getinfo(module.retention, "S").source:match("^@(.+)$")
  local file = path and io.open(path, "rb")
  if not file then error("nymbl.store.redis needs the source files of nymbl", 0) end
  local source = file:read("*a")
  file:close()
  return source
end

local text

-- The text of the script.
function redis_script.text()
  if not text then
    local pieces = { "local modules = {}\n" }
    for _, module in ipairs(MODULES) do
      pieces[#pieces + 1] = ("modules.%s = (function()\n%s\nend)()\n"):format(module[1], source_of(module[2]))
    end
    pieces[#pieces + 1] = MAIN
    text = table.concat(pieces)
  end
  return text
end

-- By change: the names of its module and of the change.
local names = {}
for _, module in ipairs(MODULES) do
  for name, change in pairs(module[2]) do names[change] = { module[1], name } end
end

-- The latest time that can be a moment, and the largest number that can be a result.
local MAX_TIME = 2^53 / 1e4

-- A moment as the script gets it.
function redis_script.moment(time)
  return ("%.0f"):format(math.floor(math.max(0, math.min(time, MAX_TIME)) * 1e4))
end

-- Whether a decoded value can be the time of a server.
function redis_script.is_time(value)
  return type(value) == "number" and value >= 0 and value <= MAX_TIME
end

-- What the script needs to know of a change: two words before the last moment, and two words
-- after it.
-- @raise if the change is not one of this library's
function redis_script.words(change, ...)
  local name = names[change]
  if not name then error("a store in Redis can only make the changes of nymbl itself", 0) end
  local count, list = select("#", ...), { ... }
  for i = 1, count do
    if list[i] == nil then list[i] = core.null end
  end
  return name[1], name[2], ("%d"):format(count), count > 0 and json.encode(list) or "[]"
end

-- Types of the fields of results, by name.
local FIELD_TYPES = {}
for type_name, fields in pairs {
  number = { "time_to_act", "delay", "tat", "retry_after", "requests", "throttled", "generation", "old_ttl", "age",
             "retry_in", "now" },
  string = { "month", "reason", "failure" },
  boolean = { "refused", "is_probe", "is_paused" },
} do
  for _, name in ipairs(fields) do FIELD_TYPES[name] = type_name end
end

-- By change whose first result is a table: the fields that it has.
local REQUIRED_FIELDS = {
  reserve = { "time_to_act", "delay" }, try_reserve = { "time_to_act", "delay" }, recheck = { "time_to_act", "delay" },
  usage = { "month", "requests", "throttled" },
}

local function has_valid_values(fields)
  for name, value in pairs(fields) do
    if FIELD_TYPES[name] ~= type(value) then return false end
    if type(value) == "number" and not redis_script.is_time(value) then return false end
  end
  return true
end

local function has_fields(fields, required)
  for _, name in ipairs(required) do
    if fields[name] == nil then return false end
  end
  return true
end

-- Whether results can be those of a change. The rest of the library relies on their types.
local function are_results_of(name, first, second, third)
  local required = REQUIRED_FIELDS[name]
  if required then
    local is_refusal = type(first) == "table" and first.refused == true and name:find("reserve$") ~= nil
    return type(first) == "table" and has_valid_values(first) and (is_refusal or has_fields(first, required))
  end
  if first ~= true or (second ~= nil and type(second) ~= "string") then return false end
  if third == nil then return name ~= "acquire" or second ~= nil end
  return type(third) == "table" and has_valid_values(third)
    and (third.generation or (third.failure and third.age) or (third.retry_in and third.now)) ~= nil
end

-- Read what the script has returned.
-- @tparam string name of the change
-- @tparam string number of the change
-- @treturn[1] number the time
-- @treturn[1] ?table the results, or nil if it was too late for the change
-- @treturn[2] nil
-- @treturn[2] boolean true if it belongs to another request; false if it is malformed
function redis_script.read(name, number, answer)
  local list = json.decode(answer)
  if not list or not redis_script.is_time(list[1]) then return nil, false end
  local results = list[2]
  if list[3] ~= number then return nil, type(list[3]) == "string" or type(results) == "string" end
  if results == core.null then return list[1] end
  if type(results) ~= "table" then return nil, false end
  for i = 1, 3 do
    if results[i] == core.null then results[i] = nil end
  end
  if not are_results_of(name, results[1], results[2], results[3]) then return nil, false end
  return list[1], results
end

return redis_script
