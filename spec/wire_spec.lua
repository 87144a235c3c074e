-- SPDX-License-Identifier: MIT
-- Each operation over TLS, with the connection cut, reset, stalled or delayed at some byte of what
-- client or server send, the handshake included; then a second exchange of the same client. Without
-- NYMBL_SPEC_LARGE only some of the bytes are tried; NYMBL_SEED selects others.
local helper = require "helper"

local SIZE = 3000
local SEED = tonumber(os.getenv "NYMBL_SEED" or "") or rawget(_G, "jit") and 2 or 1
local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil
local SAMPLES = 10 -- of each operation
-- Bytes that each side sends at most, over both exchanges; one of so many is chosen.
local BYTES, STRIDE = { client = 4500, server = 6500 }, 11

local function generator(seed)
  local state = (seed * 48271 + 11) % 2147483647
  return function(most)
    state = (state * 16807) % 2147483647
    return math.floor(state / 7) % most + 1
  end
end

describe("a connection that breaks at any byte #slow", function()
  local relay, random, folder, sum, bytes
  local id, ids = nil, 0 -- of the patient, another one each time: a request may be handled late

  setup(function() relay = require("relay").start(tonumber(helper.sandbox().base_url:match ":(%d+)")) end)
  teardown(function() relay.stop() end)

  before_each(function()
    random = generator(SEED)
    bytes = "%PDF-1.4 " .. ("y"):rep(SIZE)
  end)

  local operations = {}

  function operations.upload(patient)
    local document, err = patient:upload({ data = bytes }, { file_name = "a.pdf" })
    local stored = {}
    for _, item in ipairs(helper.stored(id)) do
      if item.id ~= "d" then stored[#stored + 1] = item end
    end
    assert(helper.sent("upload", id) <= 1 and #stored <= 1, "sent twice")
    if document then
      assert(#stored == 1 and stored[1].size == #bytes and stored[1].id == document.id, "not stored as it was sent")
    elseif not err.outcome_unknown then
      assert(#stored == 0, "stored, but reported as failed")
    end
    return document, err
  end

  local function check_file(done, name)
    local path = folder .. "/" .. name
    local is_whole = helper.exists(path) and helper.sha256(path) == sum
    assert((done ~= nil) == is_whole, "a file that is not whole, or not reported")
  end

  function operations.download(patient)
    local done, err = patient:document("d"):download(folder .. "/doc")
    check_file(done, "doc")
    if not done then assert(helper.names(folder) == "", "left behind") end
    return done, err
  end

  -- An interrupted download is continued.
  function operations.resume(patient)
    local done, err = patient:document("d"):download(folder .. "/doc", { resume = true })
    check_file(done, "doc")
    if not done then
      relay.plan()
      done = assert(patient:document("d"):download(folder .. "/doc", { resume = true }))
      check_file(done, "doc")
      assert(helper.names(folder) == "doc", "left behind")
      return nil, err
    end
    return done
  end

  -- What is done before, without a fault.
  local prepare = {}

  -- A download that was interrupted before: the exchange of the rest.
  function prepare.continued(options)
    local client = assert(require("nymbl").client(options))
    helper.faults { operation = "download", times = 1, action = { cut = SIZE / 2 } }
    local done, err = client:patient(id):document("d"):download(folder .. "/doc", { resume = true })
    assert(not done and err.kind == "truncated", tostring(err))
    client:close()
    helper.admin("DELETE", "journal")
  end

  function operations.continued(patient)
    local done, err = operations.resume(patient)
    local request = helper.journal("download")[1]
    assert(not request or helper.header(request, "range") == ("bytes=%d-"):format(SIZE / 2), "not continued")
    return done, err
  end

  function operations.stream(patient)
    local stream, err = patient:document("d"):open()
    if not stream then return nil, err end
    local all
    all, err = stream:read "a"
    stream:close()
    if all then
      assert(helper.sha256(helper.write_file(helper.temporary(), all)) == sum, "other bytes")
    end
    return all, err
  end

  -- By a redirect within the service, which the client follows on a connection of its own or the same.
  function operations.redirected(patient)
    helper.faults { operation = "download", times = 1,
                    action = { redirect = { location = "$value?again=1" } } }
    return operations.download(patient)
  end

  -- By a redirect to another origin, which has a connection of its own.
  function operations.elsewhere(patient)
    helper.faults { operation = "download", times = 1,
                    action = { redirect = { location = ("https://127.0.0.1:%d/blob/d"):format(relay.port) } } }
    return operations.download(patient)
  end

  -- With a token that must be requested first.
  function operations.token(patient)
    return operations.list(patient)
  end

  function operations.count(patient)
    local count, err = patient:count()
    if count then assert(count == 1, "another number") end
    return count, err
  end

  function operations.patients(_, client)
    local found = 0
    local ok, err = pcall(function()
      for item in client:patients() do found = found + (item.id == id and 1 or 0) end
    end)
    if not ok then return nil, err end
    assert(found == 1, "another patient")
    return true
  end

  -- A run that was interrupted is continued by the next one.
  local function complete(run)
    local report = assert(run())
    if not report.complete then
      relay.plan()
      assert(report.errors[1], "not complete, without an error")
      assert(assert(run()).complete, "the next run is not complete")
      return nil, report.errors[1].err
    end
    return true
  end

  function operations.export(_, client)
    local done, err = complete(function() return client:export(folder, { patients = { id } }) end)
    local paths = helper.output(("find %s -type f ! -name manifest.jsonl ! -name .nymbl-export"):format(folder))
    assert(not paths:find "\n" and helper.sha256(paths) == sum, "not the document, or something was left behind")
    return done, err
  end

  function operations.upload_all(patient)
    local path = helper.write_file(folder .. "/a.pdf", bytes)
    local done, err = complete(function()
      return patient:upload_all({ path }, { journal = folder .. "/journal", settle = 0 })
    end)
    local stored = 0
    for _, item in ipairs(helper.stored(id)) do
      if item.id ~= "d" then
        stored = stored + 1
        assert(item.sha256 == helper.sha256(path), "not stored as it was sent")
      end
    end
    assert(stored == 1, "not stored once")
    return done, err
  end

  function operations.list(patient)
    local page, err = patient:page()
    if page then assert(#page == 1 and page[1].id == "d", "other rows") end
    return page, err
  end

  function operations.get(patient)
    local document, err = patient:get "d"
    if document then assert(document.file_size_bytes == SIZE, "another document") end
    return document, err
  end

  function operations.delete(patient)
    local done, err = patient:document("d"):delete()
    local is_there = #helper.stored(id) == 1
    assert(helper.sent("delete", id) <= 1, "sent twice")
    if done then assert(not is_there, "still there") end
    if err and not err.outcome_unknown then assert(is_there, "deleted, but reported as failed") end
    return done, err
  end

  local KINDS = { network = true, timeout = true, truncated = true, tls = true, protocol = true }

  -- One client, two exchanges. Returns whether the first one succeeded.
  local function try(name, number, side, offset, action)
    helper.reset()
    folder = helper.directory()
    ids = ids + 1
    id = "p" .. ids
    sum = helper.admin("POST", "documents", { patient = id, id = "d", size = SIZE, content_type = "application/pdf" }).sha256
    local options = helper.options { base_url = helper.sandbox().base_url:gsub(":%d+", ":" .. relay.port) }
    options.credentials.token_url = options.credentials.token_url:gsub(":%d+", ":" .. relay.port)
    if name ~= "token" then options.credentials, options.token = nil, helper.token() end
    -- only a stall takes time; 120 seconds, once an upload was sent
    if action == "stall" then options.stall_timeout, options.connect_timeout, options.timeout = 2, 2, 6 end
    if prepare[name] then
      relay.plan()
      prepare[name](options)
    end
    relay.plan(number, side, offset, action)
    local client = assert(require("nymbl").client(options))
    local patient = client:patient(id)
    local ok, done, err = pcall(operations[name], patient, client)
    if not ok then error(done, 0) end
    if not done then
      assert(KINDS[err.kind], tostring(err))
      assert(action ~= "delay", "a delay is no failure: " .. tostring(err))
    end
    if name == "token" and not done then -- all calls of some seconds share the failure of a token request
      client:close()
      options.store = require("nymbl.store").memory()
      client = assert(require("nymbl").client(options))
      patient = client:patient(id)
    end
    -- the second exchange has its own response, or fails by what is left of the fault
    local page, second = patient:page()
    local expected = #helper.stored(id)
    if page then
      assert(#page == expected, "another response")
      for _, document in ipairs(page) do assert(document.id, "another response") end
    else
      assert(done and KINDS[second.kind] and action ~= "delay", "second exchange: " .. tostring(second))
    end
    client:close()
    relay.plan()
    return done ~= nil
  end

  local ACTIONS = { "fin", "reset", "delay", "stall" }

  -- A stall takes the client's time limit, so there are few of them.
  local function faults()
    local list = { { side = "server", offset = 100, action = "reset", number = 1 } }
    local function add(side, offset, action)
      list[#list + 1] = { side = side, offset = offset, action = action, number = random(6) == 1 and 2 or 1 }
    end
    for _, side in ipairs { "client", "server" } do
      if long then
        for offset = 0, BYTES[side], STRIDE do
          add(side, offset + random(STRIDE) - 1, ACTIONS[random(random(10) == 1 and 4 or 3)])
        end
      else
        for _ = 1, SAMPLES / 2 do
          add(side, random(random(2) == 1 and 2500 or BYTES[side]), ACTIONS[random(random(8) == 1 and 4 or 3)])
        end
      end
    end
    return list
  end

  for _, name in ipairs { "upload", "download", "resume", "continued", "stream", "redirected", "elsewhere", "list", "get", "count",
                            "patients", "token", "delete", "export", "upload_all" } do
    it("loses, doubles and mixes up nothing: " .. name, function()
      assert(try(name), "without a fault")
      local succeeded, failed = 0, 0
      for _, fault in ipairs(faults()) do
        local what = ("%s at byte %d of the %s, connection %d"):format(fault.action, fault.offset, fault.side, fault.number)
        local ok, done = pcall(try, name, fault.number, fault.side, fault.offset, fault.action)
        if not ok then error(("%s, seed %d: %s"):format(what, SEED, tostring(done)), 0) end
        if done then succeeded = succeeded + 1 else failed = failed + 1 end
      end
      helper.tried(succeeded + failed, "broken connections", ("%s, seed %d: %d succeeded, %d failed"):format(name, SEED,
        succeeded, failed))
      assert(failed > 0, "the faults do not reach the connection")
      assert.equal(0, helper.object_count())
    end)
  end
end)
