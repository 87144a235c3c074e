-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- Exports that are killed, run out of disk, quota or luck, again and again while the service changes.
-- Afterwards one quiet run has every document once.
--
-- NYMBL_SPEC_LARGE=1 makes some hundreds of runs; NYMBL_SEED begins with another seed, and makes only its
-- runs without that.

local helper = require "helper"

local quote = helper.quote

local SHIM = "./build/spec/core/faults.so"

local long, given_seed = os.getenv "NYMBL_SPEC_LARGE", tonumber(os.getenv "NYMBL_SEED" or "")
local FIRST = given_seed or 1
local LAST = FIRST + (long and 19 or given_seed and 0 or 3)
local ROUNDS = long and 25 or 8

-- A script that makes one run and prints the report's words.
local function script(folder, given)
  local options = helper.options()
  return helper.write_file(helper.temporary(".lua"), ([[
    local nymbl = require "nymbl"
    local client = assert(nymbl.client { base_url = %q, api_key = %q, ca_file = %q, timeout = 20, stall_timeout = 2,
      rate = false, max_attempts = 2, monthly_quota = %s,
      credentials = { token_url = %q, client_id = %q, client_secret = %q, scope = %q } })
    local report, err = client:export(%q, { concurrency = %d })
    if report then
      print(report.complete, report.stopped, report.failed)
      for _, failure in ipairs(report.errors) do io.stderr:write(tostring(failure.err), "\n") end
    else
      print(tostring(err))
    end
  ]]):format(options.base_url, options.api_key, options.ca_file, tostring(given.quota or false),
    options.credentials.token_url, options.credentials.client_id, options.credentials.client_secret,
    options.credentials.scope, folder, given.concurrency or 4))
end

-- Make a run in its own process, in which system calls have faults. Returns its output; "" if it was killed.
local function run(folder, given)
  local path = script(folder, given)
  return helper.output(("%s timeout --foreground 60 %s %s 2>/dev/null; true"):format(
    given.faults and ("env NYMBL_FAULTS=%s LD_PRELOAD=%s"):format(quote(given.faults), SHIM) or "", helper.interpreter(), path))
end

local function random_of(seed)
  local state = seed * 7919 + 17
  return function(count) -- from 1 to count
    state = (state * 1103515245 + 12345) % 2147483648
    return math.floor(state / 65536) % count + 1
  end
end

describe("an export #slow", function()
  local folder

  before_each(function()
    helper.reset()
    folder = helper.temporary()
  end)

  local function is_supported()
    if os.getenv "ASAN_OPTIONS" then return false, "the sanitizers' runtime has to be loaded first" end
    if not helper.exists(SHIM) then return false, "the C tests are not built" end
    return true
  end

  -- By patient and document: the digests of all versions that the service has had.
  local function add(versions, patient, id, size, fields)
    local added = helper.add_document({ patient = patient, id = id, size = size, file_name = id .. ".pdf",
      content = ("%%PDF-%d-%s"):format(size, tostring(fields and fields.uploaded_at)) .. ("x"):rep(size) }, fields)
    local key = patient .. "/" .. id
    versions[key] = versions[key] or {}
    versions[key][added.sha256] = true
    versions[key].current = added.sha256
  end

  -- Every file that has its final name is a whole version of a document.
  local function check_files(versions, message)
    local known = {}
    for _, digests in pairs(versions) do
      for digest in pairs(digests) do known[digest] = true end
    end
    for line in helper.output(("cd %s 2>/dev/null && find . -mindepth 2 -type f ! -name '.nymbl-tmp-*' -exec sha256sum {} +")
      :format(quote(folder))):gmatch("[^\n]+") do
      assert.is_truthy(known[line:match("^\\?(%x+)")], message .. ": " .. line)
    end
  end

  -- The folder is the service's documents, and those that have gone; the manifest agrees.
  local function check_whole(versions, message)
    local records, count = {}, 0
    for line in io.lines(folder .. "/manifest.jsonl") do
      local record = helper.json.decode(line)
      local key = record.patient_id .. "/" .. record.id
      if not records[key] then count = count + 1 end
      records[key] = record -- the last line counts
    end
    for key, record in pairs(records) do
      local path = folder .. "/" .. record.path
      assert.equal(record.sha256, helper.sha256(path), message)
      assert.equal(record.size, #helper.read_file(path), message)
      if not versions[key].has_gone then assert.equal(versions[key].current, record.sha256, message) end
    end
    for key, version in pairs(versions) do
      assert.is_truthy(records[key] or version.has_gone, message)
    end
    local files = helper.output(("find %s -mindepth 2 -type f | wc -l"):format(quote(folder)))
    assert.equal(count, tonumber(files), message)
    assert.equal("", helper.output(("find %s -name '.nymbl-*' ! -path %s/.nymbl-export"):format(quote(folder), quote(folder))))
  end

  -- Faults of the service, each once or twice.
  local ACTIONS = {
    { operation = "download", action = { cut = 100 } },
    { operation = "download", action = { before = "reset" } },
    { operation = "download", action = { lost_reply = "reset" } },
    { operation = "download", action = { status = 500 } },
    { operation = "download", action = { status = 404 } },
    { operation = "list", action = { lost_reply = "reset" } },
    { operation = "list", action = { status = 503 } },
    { operation = "patients", action = { before = "reset" } },
    { operation = "download", action = { truncate = 50 } },
  }

  it("killed or failing at any moment, continues and is complete after a quiet run", function()
    local supported, why = is_supported()
    if not supported then return pending(why) end
    local killed, runs = 0, 0
    for seed = FIRST, LAST do
      helper.reset()
      folder = helper.temporary()
      local random = random_of(seed)
      local versions, stamp = {}, 0
      for i = 1, 12 do add(versions, "p" .. random(4), "d" .. i, 100 * random(400), { uploaded_at = "0" }) end
      for round = 1, ROUNDS do
        local message = ("seed %d, round %d"):format(seed, round)
        for _ = 1, random(3) - 1 do
          stamp = stamp + 1
          local key = "p" .. random(4) .. "/d" .. random(16)
          local patient, id = key:match("(.*)/(.*)")
          -- an id belongs to one patient
          for other in pairs(versions) do if other:match("/(.*)") == id then patient = other:match("(.*)/") end end
          key = patient .. "/" .. id
          if random(4) == 1 and versions[key] and not versions[key].has_gone then
            helper.admin("DELETE", ("documents?patient=%s&id=%s"):format(patient, id))
            versions[key].has_gone = true
          else
            add(versions, patient, id, 100 * random(400), { uploaded_at = tostring(stamp) })
            versions[key].has_gone = nil
          end
        end
        local given, kind = { concurrency = random(4) }, random(8)
        if kind <= 4 then
          given.faults = "kill=" .. random(random(2) == 1 and 150 or 700)
          if random(2) == 1 then given.faults = given.faults .. " tmpfile=ENOTSUP" end
        elseif kind == 5 then
          given.faults = ("fail=%d:%s"):format(random(1500), ({ "ENOSPC", "EIO", "EMFILE" })[random(3)])
        elseif kind == 6 then
          given.quota = random(20)
        elseif kind == 7 then
          given.faults = "short=" .. random(1000)
        end
        helper.faults(ACTIONS[random(#ACTIONS)], ACTIONS[random(#ACTIONS)])
        local output = run(folder, given)
        if output == "" then killed = killed + 1 end
        runs = runs + 1
        check_files(versions, message .. " " .. tostring(given.faults))
      end
      helper.faults()
      local message = ("seed %d"):format(seed)
      assert.equal("true\tnil\t0", run(folder, {}), message)
      check_whole(versions, message)
    end
    helper.tried(runs, "killed or failing runs", ("%d killed, seeds %d to %d"):format(killed, FIRST, LAST))
    assert.is_true(given_seed ~= nil or (killed * 5 > runs and killed < runs), ("%d of %d killed"):format(killed, runs))
  end)

  it("on a full disk ends at once, leaves nothing half-written, and continues", function()
    local supported, why = is_supported()
    if not supported then return pending(why) end
    local versions = {}
    for i = 1, 20 do add(versions, "p" .. i, "d" .. i, 5000, { uploaded_at = "0" }) end
    assert.equal("true\tnil\t0", run(folder, {}))
    for i = 1, 20 do add(versions, "p" .. i, "e" .. i, 5000, { uploaded_at = "0" }) end
    helper.admin("DELETE", "journal")
    local output = run(folder, { faults = "write=ENOSPC", concurrency = 1 })
    assert.matches("^false\tno_space\t1$", output)
    assert.is_true(#helper.journal() <= 3)
    check_files(versions, "full")
    assert.equal("true\tnil\t0", run(folder, {}))
    check_whole(versions, "after")
  end)
end)
