-- SPDX-License-Identifier: MIT
-- The outcome of every call for every single failure, as a table.
local helper = require "helper"

local unpack = table.unpack or unpack -- luacheck: ignore

local PDF = "%PDF-1.4 " .. ("x"):rep(5000)

-- The calls, by the columns of the table. `once`: sources that cannot be read twice.
local COLUMNS = {
  again = {
    path = function(patient, options)
      return patient:upload(helper.write_file(helper.temporary(".pdf"), PDF), options)
    end,
    bytes = function(patient, options) return patient:upload({ data = PDF }, options) end,
    handle = function(patient, options)
      local handle = assert(io.open(helper.write_file(helper.temporary(".pdf"), PDF), "rb"))
      local document, err = patient:upload(handle, options)
      handle:close()
      return document, err
    end,
  },
  once = {
    pipe = function(patient, options)
      local path, written = helper.write_file(helper.temporary(".pdf"), PDF), helper.temporary()
      local handle = assert(io.popen(("cat %s; : >%s"):format(path, written)))
      helper.wait_for(function() return helper.exists(written) end) -- the start of a process is not a part of the call
      local document, err = patient:upload(handle, options)
      handle:close()
      return document, err
    end,
    ["function"] = function(patient, options)
      local chunks = { PDF:sub(1, 100), PDF:sub(101) }
      return patient:upload(function() return table.remove(chunks, 1) end, options)
    end,
  },
  list = { page = function(patient) return patient:page() end },
  get = { get = function(patient, _, id) return patient:get(id) end },
  download = {
    path = function(patient, _, id)
      local path = helper.temporary()
      local bytes, err = patient:document(id):download(path)
      local file = io.open(path, "rb")
      assert.equal(bytes ~= nil, file ~= nil) -- the file is complete or does not exist
      if file then
        assert.equal(PDF, file:read("*a"))
        file:close()
      end
      return bytes, err
    end,
  },
  delete = { delete = function(patient, _, id) return patient:document(id):delete() end },
}
local ORDER = { "again", "once", "list", "get", "download", "delete" }

-- A cell: the number of sent requests, the result ("?": with outcome_unknown), and the number of copies
-- that the service stores afterwards. Three attempts are allowed.
--
-- failure                action                             status
--   again                once              list           get            download       delete
local TABLE = {
  { "no failure",         {},
    "1 ok 1",             "1 ok 1",         "1 ok 1",      "1 ok 1",      "1 ok 1",      "1 ok 0" },
  { "connect refused",    "refused",
    "0 network 0",        "0 network 0",    "0 network 1", "0 network 1", "0 network 1", "0 network 1" },
  { "connect silent",     "silent",
    "0 timeout 0",        "0 timeout 0",    "0 timeout 1", "0 timeout 1", "0 timeout 1", "0 timeout 1" },
  { "reset before",       { before = "reset" },
    "1 network? 0",       "1 network? 0",   "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "close before",       { before = "close" },
    "1 network? 0",       "1 network? 0",   "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "reset within body",  { during = { bytes = 1000, how = "reset" } },
    "1 network? 0",       "1 network? 0" },
  { "reset after body",   { after = "reset" },
    "1 network? 0",       "1 network? 0",   "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "response lost",      { lost_reply = "reset" },
    "1 network? 1",       "1 network? 1",   "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "response head cut",  { head_cut = 20 },
    "1 network? 1",       "1 network? 1",   "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "response body cut",  { cut = 10 }, status = 201,
    "1 truncated? 1",     "1 truncated? 1", "2 ok 1",      "2 ok 1",      "2 ok 1",      nil },
  { "stale connection",   "stale", -- uploads open a new connection
    "1 ok 1",             "1 ok 1",         "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "nothing for long",   { delay = 2.5 }, stall = 1,
    nil,                  nil,              "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "the call's timeout", { delay = 3 }, timeout = 1,
    "1 timeout? 1",       "1 timeout? 1",   "1 timeout 1", "1 timeout 1", "1 timeout 1", "1 timeout? 0" },
  { "400",                { status = 400, body_kind = "service" }, status = 400,
    "1 bad_request 0",    "1 bad_request 0", "1 bad_request 1", "1 bad_request 1", "1 bad_request 1",
    "1 bad_request 1" },
  { "401",                { status = 401, body_kind = "gateway" }, status = 401,
    "2 ok 1",             "2 ok 1",         "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "401 every time",     { status = 401, body_kind = "gateway" }, status = 401, times = -1,
    "2 unauthorized 0",   "2 unauthorized 0", "2 unauthorized 1", "2 unauthorized 1", "2 unauthorized 1",
    "2 unauthorized 1" },
  { "401 after the body", { status = 401, body_kind = "gateway", effect = true }, status = 401,
    nil,                  "1 unauthorized 1" },
  { "403",                { status = 403, body_kind = "gateway" }, status = 403,
    "1 forbidden 0",      "1 forbidden 0",  "1 forbidden 1", "1 forbidden 1", "1 forbidden 1", "1 forbidden 1" },
  { "404",                { status = 404, body_kind = "service" }, status = 404,
    "1 not_found 0",      "1 not_found 0",  "1 not_found 1", "1 not_found 1", "1 not_found 1", "1 not_found 1" },
  { "413",                { status = 413, body_kind = "gateway" }, status = 413,
    "1 too_large 0",      "1 too_large 0",  "1 too_large 1", "1 too_large 1", "1 too_large 1", "1 too_large 1" },
  { "429, the rate",      { status = 429, message = "Too Many Requests" }, status = 429,
    "2 ok 1",             "2 ok 1",         "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "429 after the body", { status = 429, message = "Too Many Requests", effect = true }, status = 429,
    nil,                  "1 throttled 1" },
  { "429, the quota",     { status = 429, message = "Limit Exceeded" }, status = 429,
    "1 quota 0",          "1 quota 0",      "1 quota 1",   "1 quota 1",   "1 quota 1",   "1 quota 1" },
  { "500",                { status = 500, body_kind = "service" }, status = 500,
    "1 server? 0",        "1 server? 0",    "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "500, though done",   { status = 500, body_kind = "service", effect = true }, status = 500,
    "1 server? 1",        "1 server? 1",    "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "501",                { status = 501, body_kind = "empty" }, status = 501,
    "1 server? 0",        "1 server? 0",    "1 server 1",  "1 server 1",  "1 server 1",  "1 server? 1" },
  { "502",                { status = 502, body_kind = "html" }, status = 502,
    "1 server? 0",        "1 server? 0",    "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "503",                { status = 503, body_kind = "empty" }, status = 503,
    "1 server? 0",        "1 server? 0",    "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
  { "503 every time",     { status = 503, body_kind = "empty" }, status = 503, times = -1,
    "1 server? 0",        "1 server? 0",    "3 server 1",  "3 server 1",  "3 server 1",  "3 server? 1" },
  { "504",                { status = 504, body_kind = "gateway" }, status = 504,
    "1 server? 0",        "1 server? 0",    "2 ok 1",      "2 ok 1",      "2 ok 1",      "2 ok 0" },
}

describe("a call that meets", function()
  local clock

  before_each(function()
    helper.reset()
    clock = helper.clock()
  end)

  after_each(function()
    clock.restore()
    assert.equal(0, helper.object_count())
  end)

  local refused, silent, stops -- services that do not respond

  setup(function()
    stops = {}
    refused, stops[1] = helper.unresponsive_server("refusing")
    silent, stops[2] = helper.unresponsive_server("silent")
  end)

  teardown(function()
    for _, stop in ipairs(stops) do stop() end
  end)

  -- Each upload has its own patient without documents; each other call has a document.
  local function patient_of(column, name)
    if column == "again" or column == "once" then return column .. name, "upload" end
    return column == "delete" and "gone" or "kept", column
  end

  -- Every call of a row: a list of { column, name, cell }.
  local function cells_of(row)
    local cells = {}
    for i, column in ipairs(ORDER) do
      for name in pairs(row[i + 2] and COLUMNS[column] or {}) do cells[#cells + 1] = { column, name, row[i + 2] } end
    end
    return cells
  end

  local function prepare(row, cells)
    for _, id in ipairs { "kept", "gone" } do
      helper.admin("POST", "documents", { patient = id, id = "a" .. id, content = PDF, content_type = "application/pdf" })
    end
    local plans = { { operation = "list", path_contains = "(other)", times = -1, action = { reset_idle = true } } }
    for _, cell in ipairs(type(row[2]) == "table" and next(row[2]) and cells or {}) do
      local id, operation = patient_of(cell[1], cell[2])
      plans[#plans + 1] = { operation = operation, path_contains = "(" .. id .. ")", action = row[2], times = row.times }
    end
    helper.faults(unpack(plans))
  end

  -- Make a call. Returns its result in the table's notation, and the number of sent requests.
  local function try(row, column, name, tokens)
    local asked, last = 0, nil
    local client = helper.client {
      token = function() -- a different token each time
        asked = asked + 1
        return tokens[asked % 2 + 1]
      end,
      base_url = row[2] == "refused" and refused or row[2] == "silent" and silent or nil,
      connect_timeout = row[2] == "silent" and 0.05 or nil,
      max_attempts = 3, timeout = row.timeout, stall_timeout = row.stall,
      on_event = function(event) last = event end,
    }
    if row[2] == "stale" then assert(client:patient("other"):page()) end
    local id = patient_of(column, name)
    local result, err = COLUMNS[column][name](client:patient(id), { file_name = "new.pdf" }, "a" .. id)
    client:close()
    if result then return "ok", last.attempt end
    assert.equal(row.status, err.status)
    assert.equal(last.kind, err.kind)
    assert.equal(last.attempt, err.attempts)
    return err.kind .. (err.outcome_unknown and "?" or ""), err.attempts
  end

  for _, row in ipairs(TABLE) do
    it(row[1] .. " ends as the table says", function()
      local cells, tokens = cells_of(row), { helper.token(), helper.token() }
      prepare(row, cells)
      for _, cell in ipairs(cells) do cell.word, cell.attempts = try(row, cell[1], cell[2], tokens) end
      local journal = helper.journal()
      for _, cell in ipairs(cells) do
        local column, name, expected = cell[1], cell[2], cell[3]
        local id, operation = patient_of(column, name)
        local requests = 0
        for _, entry in ipairs(journal) do
          if entry.operation == operation and entry.path:find("(" .. id .. ")", 1, true) then requests = requests + 1 end
        end
        assert.equal(column .. " " .. name .. ": " .. expected,
          ("%s %s: %d %s %d"):format(column, name, requests, cell.word, #helper.stored(id)))
        assert.equal(requests, cell.attempts, column .. " " .. name)
      end
    end)
  end
end)
