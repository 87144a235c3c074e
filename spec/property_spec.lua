-- SPDX-License-Identifier: MIT
-- Random calls with random faults: the client's results agree with the service's documents, or the
-- client reports an unknown outcome.
local helper = require "helper"

local unpack = table.unpack or unpack -- luacheck: ignore

-- Runs (LuaJIT has different ones), and calls in each. To repeat a failed run alone, set NYMBL_SEED.
local FIRST, LAST = 1, 100
if rawget(_G, "jit") then FIRST, LAST = 101, 200 end
local CALLS = 8

-- Random numbers that are the same on every Lua.
local function generator(seed)
  local state = (seed * 48271 + 11) % 2147483647
  return function(most)
    state = (state * 16807) % 2147483647
    return math.floor(state / 7) % most + 1
  end
end

local OPERATIONS = { "upload", "upload", "list", "get", "download", "download", "delete", "token" }

-- Faults of any request, of uploads, and of responses with a body.
local FAULTS = {
  { before = "reset" }, { before = "close" }, { after = "reset" }, { after = "close" }, { lost_reply = "reset" },
  { lost_reply = "close" }, { head_cut = 30 }, { head_cut = 0 }, { reset_idle = true }, { close_idle = 0.001 },
  { status = 401, body_kind = "gateway" }, { status = 403, body_kind = "gateway" },
  { status = 404, body_kind = "service" }, { status = 413, body_kind = "html" },
  { status = 429, body_kind = "gateway", message = "Too Many Requests" },
  { status = 429, body_kind = "empty", headers = { { "Retry-After", "3" } } },
  { status = 500, body_kind = "service" }, { status = 500, body_kind = "empty", effect = true },
  { status = 502, body_kind = "html" }, { status = 503, body_kind = "empty" },
  { status = 504, body_kind = "gateway", effect = true }, { length = "chunked" }, { drip = 200000 },
}
local UPLOAD_FAULTS = {
  { during = { bytes = 1, how = "reset" } }, { during = { bytes = 900, how = "close" } },
  { early_status = 413, drain = true }, { raw = "HTTP/1.1 201 Created\r\n\r\nno JSON" },
}
local BODY_FAULTS = {
  { cut = 40 }, { close_notify = 40 }, { reset = 40 }, { chunk_cut = 40 }, { length = "none" }, { remapped_length = true },
}
local DOWNLOAD_FAULTS = {
  { truncate = 40 }, { append = "more" }, { length_delta = 5 }, { length_delta = -5 }, { gzip = true },
  { json_instead = true }, { base64 = true },
}

local function pick(random, list) return list[random(#list)] end

local function plan_new(random)
  local operation = pick(random, OPERATIONS)
  local list = FAULTS
  if operation == "upload" and random(3) == 1 then
    list = UPLOAD_FAULTS
  elseif operation == "download" and random(2) == 1 then
    list = random(2) == 1 and DOWNLOAD_FAULTS or BODY_FAULTS
  elseif operation ~= "delete" and operation ~= "token" and random(4) == 1 then
    list = BODY_FAULTS
  end
  return { operation = operation, skip = random(3) - 1, times = random(3), action = pick(random, list) }
end

-- Distinct bytes for each document.
local function bytes_new(random, name)
  return "%PDF-1.4 " .. name .. ("\n%d"):rep(random(400)):format(unpack((function()
    local numbers = {}
    for i = 1, 400 do numbers[i] = random(1000000) end
    return numbers
  end)()))
end

local SOURCES = {
  function(bytes) return helper.write_file(helper.temporary(".pdf"), bytes) end,
  function(bytes) return { data = bytes } end,
  function(bytes) return assert(io.open(helper.write_file(helper.temporary(".pdf"), bytes), "rb")) end,
  function(bytes) return assert(io.popen("cat " .. helper.write_file(helper.temporary(".pdf"), bytes))) end,
  function(bytes)
    local at = 1
    return function()
      local chunk = bytes:sub(at, at + 99)
      at = at + 100
      return chunk ~= "" and chunk or nil
    end
  end,
}

-- The expected documents by name, { bytes =, state =, id = }. States: "there", "gone", "unknown" (an
-- upload with unknown outcome), "maybe" (a delete with unknown outcome).
local world = {}
world.__index = world

local function known(self, state)
  local found = {}
  for _, item in ipairs(self.items) do
    if item.state == state then found[#found + 1] = item end
  end
  return found
end

function world:upload()
  local name = ("%d.pdf"):format(#self.items + 1)
  local item = { name = name, bytes = bytes_new(self.random, name) }
  self.items[#self.items + 1] = item
  local source = pick(self.random, SOURCES)(item.bytes)
  local document, err = self.patient:upload(source, { file_name = name, reconcile = self.random(3) == 1 })
  if io.type(source) == "file" then source:close() end
  if document then
    item.state, item.id = "there", document.id
    assert(document.file_name == name and document.file_size_bytes == #item.bytes, "another document came back")
  else
    item.state = err.outcome_unknown and "unknown" or "gone"
  end
  return err
end

function world:list()
  local seen = {}
  local ok, err = pcall(function()
    for document in self.patient:documents { page_size = 2 } do
      assert(not seen[document.id], "listed twice")
      seen[document.id] = true
    end
  end)
  if not ok then
    assert(type(err) == "table", err)
    return err
  end
  for _, item in ipairs(known(self, "there")) do assert(seen[item.id], "not listed: " .. item.name) end
end

-- A document that should exist, and the result of a call for it.
function world:with_one(act)
  local items = known(self, "there")
  if #items == 0 then return nil end
  local item = pick(self.random, items)
  return act(item)
end

function world:get()
  return self:with_one(function(item)
    local document, err = self.patient:get(item.id)
    if document then assert(document.file_name == item.name, "another document") end
    return err
  end)
end

local TARGETS = {
  function(document)
    local path = helper.temporary()
    local count, err = document:download(path)
    local file = io.open(path, "rb")
    assert((count ~= nil) == (file ~= nil), "a file that should not be, or should")
    if file then file:close() end
    return count and helper.read_file(path), not count and err or nil
  end,
  function(document)
    local path = helper.temporary()
    local file = assert(io.open(path, "wb"))
    local count, err = document:download(file)
    file:close()
    return count and helper.read_file(path), not count and err or nil
  end,
  function(document)
    local parts = {}
    local count, err = document:download(function(chunk)
      parts[#parts + 1] = chunk
      return 1
    end)
    return count and table.concat(parts), not count and err or nil
  end,
  function(document)
    local stream, err = document:open()
    if not stream then return nil, err end
    local all
    all, err = stream:read("a")
    stream:close()
    return all, err
  end,
}

function world:download()
  return self:with_one(function(item)
    local document = self.patient:document(item.id)
    if self.random(2) == 1 then document = self.patient:get(item.id) or document end
    local size = document.file_size_bytes
    local bytes, err = pick(self.random, TARGETS)(document)
    -- without its size and type some of these faults cannot be distinguished from the document
    if bytes and (size or not self.lies) then assert(bytes == item.bytes, "other bytes") end
    return err
  end)
end

function world:delete()
  return self:with_one(function(item)
    local done, err = self.patient:document(item.id):delete()
    if done then
      item.state = "gone"
    elseif err.outcome_unknown then
      item.state = "maybe"
    end
    return err
  end)
end

-- Compare the expected documents with the stored ones.
function world:compare()
  local stored = {}
  for _, document in ipairs(helper.stored("p")) do
    local name = document.metadata.file_name
    assert(not stored[name], "two copies of " .. name)
    stored[name] = document
  end
  for _, item in ipairs(self.items) do
    local document = stored[item.name]
    if item.state == "there" then
      assert(document and document.id == item.id, "not there: " .. item.name)
    elseif item.state == "gone" then
      assert(not document, "there after all: " .. item.name)
    end
    if document then
      assert(document.size == #item.bytes, "not whole: " .. item.name)
      assert(document.sha256 == helper.sha256(helper.write_file(helper.temporary(), item.bytes)), "not it: " .. item.name)
    end
    stored[item.name] = nil
  end
  assert(next(stored) == nil, "a document that was not sent")
end

local function check_error(err)
  if err == nil then return end
  assert(type(err) == "table" and type(err.kind) == "string" and err.kind ~= "protocol" or err.status, tostring(err))
  assert(err.attempts >= 0 and err.attempts <= 3, "attempts")
end

local function run(seed, log)
  local random = generator(seed)
  helper.reset()
  local plans, lies = {}, false
  for i = 1, 2 + random(5) do
    plans[i] = plan_new(random)
    for _, action in ipairs(DOWNLOAD_FAULTS) do lies = lies or plans[i].action == action end
  end
  log[1] = helper.json.encode(plans)
  helper.faults(unpack(plans))
  local client = helper.client { max_attempts = 3, store = nil, timeout = false, stall_timeout = 5 }
  local self = setmetatable({ random = random, items = {}, patient = client:patient("p"), lies = lies }, world)
  local ok, problem = pcall(function()
    for _ = 1, CALLS do
      local name = random(3) == 1 and "upload" or pick(random, OPERATIONS)
      if name == "token" then
        name = "list"
        if random(3) == 1 then helper.admin("POST", "settings", { expire_tokens = true }) end
      end
      log[#log + 1] = name
      local err = self[name](self)
      log[#log] = name .. ": " .. tostring(err)
      check_error(err)
    end
    self:compare()
  end)
  client:close()
  if not ok then error(problem, 0) end
end

describe("random calls with random faults #slow", function()
  local clock

  before_each(function() clock = helper.clock() end)
  after_each(function() clock.restore() end)

  it("leave client and service in agreement, and no temporary files", function()
    local only = tonumber(os.getenv("NYMBL_SEED") or "")
    for seed = only or FIRST, only or LAST do
      local log = {}
      local ok, problem = pcall(run, seed, log)
      if not ok then error(("NYMBL_SEED=%d: %s\n%s"):format(seed, tostring(problem), table.concat(log, "\n")), 0) end
      assert.equal(0, helper.object_count(), "seed " .. seed)
    end
    helper.tried(only and 1 or LAST - FIRST + 1, "series of random calls", ("seeds %d to %d"):format(FIRST, LAST))
    assert.equal("", helper.output("ls -A " .. helper.folder .. " | grep nymbl")) -- temporary files
  end)
end)
