-- SPDX-License-Identifier: MIT
-- Runs of patient:upload_all() that are killed, run out of disk, quota or luck, again and again while
-- files change. Afterwards every file is on the service exactly once.
--
-- NYMBL_SPEC_LARGE=1 makes some hundreds of runs; NYMBL_SEED begins with another seed, and makes only its
-- runs without that.
local helper = require "helper"

local SHIM = "./build/spec/core/faults.so"

local long, given_seed = os.getenv "NYMBL_SPEC_LARGE", tonumber(os.getenv "NYMBL_SEED" or "")
local FIRST = given_seed or 1
local LAST = FIRST + (long and 19 or given_seed and 0 or 3)
local ROUNDS = long and 25 or 8

-- The script of a process that makes one run, and prints the report as JSON.
local SCRIPT = [[
  local helper, nymbl = require "helper", require "nymbl"
  local client = helper.client { timeout = 20, stall_timeout = 2, max_attempts = 2, monthly_quota = %s }
  local paths = {}
  for path in io.lines(%q) do paths[#paths + 1] = path end
  local report, err = client:patient("p"):upload_all(paths, { journal = %q, concurrency = %d, settle = %d })
  if report then
    for _, item in ipairs(report.errors) do item.err, item.is_unknown = tostring(item.err), item.err.outcome_unknown end
    print(helper.json.encode(report))
  else
    print(helper.json.encode { err = tostring(err) })
  end
]]

local function random_of(seed)
  local state = seed * 7919 + 31
  return function(count) -- from 1 to count
    state = (state * 1103515245 + 12345) % 2147483648
    return math.floor(state / 65536) % count + 1
  end
end

-- Faults of the service, each once.
local ACTIONS = {
  { operation = "upload", action = { lost_reply = "reset" } },
  { operation = "upload", action = { lost_reply = "close" } },
  { operation = "upload", action = { head_cut = 20 } },
  { operation = "upload", action = { cut = 10 } },
  { operation = "upload", action = { status = 500, effect = true } },
  { operation = "upload", action = { status = 500 } },
  { operation = "upload", action = { before = "reset" } },
  { operation = "upload", action = { after = "reset" } },
  { operation = "upload", action = { during = { bytes = 1000, how = "reset" } } },
  { operation = "upload", action = { status = 429, message = "Too Many Requests" } },
  { operation = "upload", action = { status = 401, body_kind = "gateway" } },
  { operation = "upload", action = { status = 400, body_kind = "service" } },
  { operation = "list", action = { status = 500 } },
  { operation = "list", action = { lost_reply = "reset" } },
  { operation = "download", action = { cut = 100 } },
  { operation = "download", action = { status = 500 } },
}

describe("patient:upload_all() #slow", function()
  local folder, journal, list

  -- A world has, by path, the `content` of the file and its `twin`, another path with the same name and
  -- content; and by name and content, how many documents there must not be more of (`most`).
  local world

  local function put(path, text)
    local content = "%PDF-1.4 " .. text
    world.content[path] = content
    helper.write_file(path, content)
  end

  local function key_of(name, digest)
    return name .. " " .. digest
  end

  local function change(random, path, size)
    world.version = world.version + 1
    -- often of the same size, so that only the digest tells versions apart
    local text = ("%08d"):format(world.version) .. ("x"):rep(size or 100 * random(3))
    put(path, text)
    local key = key_of(path:match("[^/]+$"), helper.sha256(path))
    world.most[key] = 1
    local twin = world.twin[path]
    if twin then
      put(twin, text)
      world.most[key] = 2
    end
  end

  local function begin(random)
    helper.reset()
    folder, journal, list = helper.directory(), helper.temporary ".journal", helper.temporary()
    world = { content = {}, twin = {}, most = {}, version = 0 }
    assert(os.execute("mkdir " .. folder .. "/a " .. folder .. "/b"))
    for i = 1, 6 do
      local path = ("%s/a/%d.pdf"):format(folder, i)
      if i <= 2 then world.twin[path] = ("%s/b/%d.pdf"):format(folder, i) end
      change(random, path, i == 6 and 300000 or nil)
    end
  end

  -- How many documents the service has of each name and content.
  local function counts()
    local found = {}
    for _, entry in ipairs(helper.stored "p") do
      local key = key_of(entry.metadata.file_name, entry.sha256)
      found[key] = (found[key] or 0) + 1
    end
    return found
  end

  local function check_most(message)
    for key, count in pairs(counts()) do
      local most = world.most[key]
      if most then assert.is_true(count <= most, message .. ": " .. key .. " is there " .. count .. " times") end
    end
  end

  -- Make a run in a process of its own. Returns its report, or nil if it was killed.
  local function run(given)
    local paths = {}
    for path in pairs(world.content) do paths[#paths + 1] = path end
    table.sort(paths)
    helper.write_file(list, table.concat(paths, "\n") .. "\n")
    local path = helper.write_file(helper.temporary(".lua"),
      SCRIPT:format(tostring(given.quota or false), list, journal, given.concurrency or 2, given.settle or 900))
    local output = helper.output(("%s NYMBL_SPEC_SANDBOX=%s timeout --foreground 60 %s %s 2>/dev/null; true"):format(
      given.faults and ("NYMBL_FAULTS=%s LD_PRELOAD=%s"):format(helper.quote(given.faults), SHIM) or "",
      helper.quote(helper.sandbox().path), helper.interpreter(), path))
    return output ~= "" and helper.json.decode(output) or nil
  end

  local function faults_of(random)
    local kind = random(8)
    if kind <= 4 then return { faults = "kill=" .. random(random(2) == 1 and 200 or 1500) } end
    if kind == 5 then return { faults = ("fail=%d:%s"):format(random(800), ({ "ENOSPC", "EIO", "EMFILE" })[random(3)]) } end
    if kind == 6 then return { quota = random(8) } end
    if kind == 7 then return { faults = "short=" .. random(1000) } end
    return {}
  end

  it("killed or failing at any moment, sends every file exactly once", function()
    if os.getenv "ASAN_OPTIONS" then return pending "the sanitizers' runtime has to be loaded first" end
    if not helper.exists(SHIM) then return pending "the C tests are not built" end
    local killed, runs, unknown = 0, 0, 0
    for seed = FIRST, LAST do
      local random = random_of(seed)
      begin(random)
      for round = 1, ROUNDS do
        local message = ("NYMBL_SEED=%d, round %d"):format(seed, round)
        for _ = 1, random(3) - 1 do change(random, ("%s/a/%d.pdf"):format(folder, random(8))) end
        if random(3) == 1 then -- another program's document
          helper.add_document { patient = "p", file_name = random(6) .. ".pdf", size = 9 + 8 + 100 * random(3) }
        end
        local given = faults_of(random)
        given.concurrency = random(3)
        helper.faults(ACTIONS[random(#ACTIONS)], ACTIONS[random(#ACTIONS)])
        local report = run(given)
        runs = runs + 1
        if not report then killed = killed + 1 end
        check_most(message .. " " .. tostring(given.faults))
      end
      helper.faults()

      local message = ("NYMBL_SEED=%d"):format(seed)
      local report = run {}
      assert.same({ failed = 0 }, { failed = report.failed, stopped = report.stopped }, message)
      assert.equal(#report.errors, report.unknown)
      unknown = unknown + report.unknown
      local missing = {}
      for _, item in ipairs(report.errors) do
        assert.is_true(item.is_unknown)
        local key = key_of(item.path:match("[^/]+$"), helper.sha256(item.path))
        missing[key] = (missing[key] or 0) + 1
      end
      local found = counts()
      for path in pairs(world.content) do
        local key = key_of(path:match("[^/]+$"), helper.sha256(path))
        assert.equal(world.most[key], (found[key] or 0) + (missing[key] or 0), message .. ": " .. key)
      end

      report = run { settle = 0 }
      assert.same({ true, 0, 0 }, { report.complete, report.failed, report.unknown }, message)
      found = counts()
      for path in pairs(world.content) do
        local key = key_of(path:match("[^/]+$"), helper.sha256(path))
        assert.equal(world.most[key], found[key], message .. ": " .. key)
      end
      check_most(message)
      assert.same({ true, 0, 0 }, (function(last) return { last.complete, last.uploaded, last.requests } end)(run {}))
      assert.equal("600", helper.output("stat -c %a " .. journal))
    end
    helper.tried(runs, "killed or failing runs", ("%d killed, %d files unknown, seeds %d to %d"):format(
      killed, unknown, FIRST, LAST))
    assert.is_true(given_seed ~= nil or (killed * 5 > runs and killed < runs and unknown > 0),
      ("%d of %d killed, %d unknown"):format(killed, runs, unknown))
  end)

  it("on a full disk ends at once, sends nothing, and continues", function()
    if os.getenv "ASAN_OPTIONS" then return pending "the sanitizers' runtime has to be loaded first" end
    if not helper.exists(SHIM) then return pending "the C tests are not built" end
    begin(random_of(1))
    local files = 8 -- two of them are twins
    assert.same({ true, files }, (function(report) return { report.complete, report.uploaded } end)(run {}))
    for i = 1, 6 do change(random_of(i), ("%s/a/%d.pdf"):format(folder, i)) end
    helper.admin("DELETE", "journal")
    local report = run { faults = "write=ENOSPC", concurrency = 1 }
    assert.same({ false, "no_space", 0, 1 }, { report.complete, report.stopped, report.uploaded, report.failed })
    assert.equal(0, #helper.journal "upload")
    assert.same({ true, files }, (function(last) return { last.complete, last.uploaded } end)(run {}))
    check_most "after"
  end)
end)
