-- SPDX-License-Identifier: MIT
-- The command `nymbl` in cron: a day in seconds. Every hour an export, and at the same time uploads of a
-- folder, with --quiet. Each process has a clock that begins at the time of that hour, and skips the time
-- that it would sleep. What they share is the time of their store, which never goes back.

local command = require "command"
local helper = require "helper"

local quote = helper.quote
local core = require "nymbl.core"

local HOUR = 3600

-- The day goes over a month's end: 28 February 2026, 12:00 UTC.
local BEGIN = 1772280000

describe("a day of cron #slow #speed", function()
  local shared, starts, env, home, folder, documents

  local began = core.now()

  -- Let the processes that are started from now on begin at this time of the day.
  local function advance_to(seconds)
    helper.write_file(shared, ("%.6f\n"):format(seconds - (core.now() - began)))
  end

  setup(function()
    helper.reset()
    home = command.home()
    shared, starts = helper.temporary(".shared"), helper.temporary(".starts")
    helper.write_file(starts, "")
    env = command.clock { ahead = shared, wall_time = BEGIN - began, starts = starts, store = home .. "/.local/state/nymbl/store" }
    folder, documents = home .. "/scans", home .. "/documents"
    os.execute("mkdir " .. quote(folder))
  end)

  local EXPORT = { "export", "--to", "documents", "--quiet" }
  local UPLOAD = { "upload", "uploads", "-", "-0", "--once", "scans.journal", "--quiet" }

  local mails, runs

  -- What cron would send: all that a run has printed.
  local function mail(status, out, err)
    runs = runs + 1
    if out .. err ~= "" then mails[#mails + 1] = { status = status, text = out .. err } end
    return status
  end

  local function paths()
    return helper.output(("find %s -type f -printf '%%p\\1'"):format(quote(folder))):gsub("\1", "\0")
  end

  -- An export in the background, and uploads beside it.
  local function hour(uploads)
    local export = command.start(EXPORT, { env = env })
    for _ = 1, uploads do mail(command.run(UPLOAD, { env = env, input = paths() })) end
    return mail(command.finish(export))
  end

  local scans = 0
  local function scan()
    scans = scans + 1
    helper.write_file(("%s/scan-%d.pdf"):format(folder, scans), "%PDF-1.4 scan " .. scans)
  end

  local function add(patient)
    helper.add_document { patient = patient, file_name = "a.pdf", content_type = "application/pdf", content = "%PDF-1.4 " .. patient }
  end

  local function exported()
    return tonumber(helper.output(("wc -l < %s/manifest.jsonl"):format(quote(documents))))
  end

  it("keeps rate and quota, leaves no lock, and sends mail only if something is wrong", function()
    mails, runs = {}, 0
    for patient = 1, 5 do
      for _ = 1, 4 do add("patient-" .. patient) end
    end
    for at = 0, 23 do
      advance_to(at * HOUR + 60)
      if at % 3 == 0 then scan() end
      if at % 4 == 1 then add "patient-9" end
      if at == 7 then helper.faults { operation = "list", action = { status = 503 }, times = -1 } end
      if at == 13 then -- a power cut
        local run = command.start(EXPORT, { env = env })
        os.execute("sleep 0.1")
        command.signal(run, "KILL")
        command.finish(run)
      end
      local before = #mails
      hour(2)
      if at == 7 then
        helper.faults()
        assert.is_true(#mails > before)
        for i = before + 1, #mails do assert.equal(5, mails[i].status, mails[i].text) end
      else
        assert.equal(before, #mails, mails[#mails] and mails[#mails].text)
      end
    end
    assert.equal(24 * 3, runs)
    -- everything is there, once
    assert.equal(scans, #helper.stored "uploads")
    assert.equal(5 * 4 + 6 + scans, exported())
    assert.equal("", helper.output(("find %s -name '*.nymbl-part' -o -name '*.nymbl-meta' -o -name '.nymbl-tmp*'"):format(quote(home))))
    -- a second export begins at once: there is no lock, and nothing to download
    local downloads = #helper.journal "download"
    assert.equal(0, (command.run(EXPORT, { env = env })))
    assert.equal(downloads, #helper.journal "download")
    -- the count is that of the month that has begun at midnight
    local _, out = command.run({ "quota", "--json" }, { env = env })
    local usage = command.objects(out)[1]
    assert.equal("2026-03", usage.month)
    -- (the killed process may have counted up to four requests that it did not live to start or send)
    local all, since_midnight, list = #helper.journal(), 0, command.starts(starts)
    local midnight = tonumber(helper.read_file(starts):match("^[%d.]+")) + 12 * HOUR - 60
    for _, start in ipairs(list) do
      if start[1] >= midnight then since_midnight = since_midnight + 1 end
    end
    assert.is_true(since_midnight > 50 and since_midnight < all - 50)
    assert.is_true(usage.requests >= since_midnight and usage.requests <= since_midnight + 4,
      ("%d of %d"):format(usage.requests, since_midnight))
    -- what the service permits: 2 per second and a burst of 5; of downloads 1 per second and 3
    local times = { read = {}, download = {} }
    for _, start in ipairs(list) do table.insert(times[start[2]], start[1]) end
    local started = #times.read + #times.download
    assert.is_true(started >= all and started <= all + 4, ("%d of %d"):format(started, all))
    for bucket, limit in pairs { read = { 2, 5 }, download = { 1, 3 } } do
      list = times[bucket]
      table.sort(list)
      for first = 1, #list do
        for last = first + 1, math.min(#list, first + 40) do
          local allowed = limit[2] + limit[1] * (list[last] - list[first])
          assert.is_true(last - first + 1 <= allowed + 0.001,
            ("%s: %d in %.3f s"):format(bucket, last - first + 1, list[last] - list[first]))
        end
      end
    end
  end)
end)
