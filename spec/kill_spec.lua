-- SPDX-License-Identifier: MIT
-- A process that is killed during a download leaves no file, or only files that the next one removes.
local helper = require "helper"

local SIZE = 300000

describe("a process that is killed during a download", function()
  local client, document, folder, sum

  before_each(function()
    helper.reset()
    sum = helper.admin("POST", "documents", { patient = "12345", id = "d-7700", size = SIZE,
      content_type = "application/pdf" }).sha256
    client = helper.client()
    document = client:patient("12345"):document("d-7700")
    folder = helper.directory()
  end)

  after_each(function()
    client:close()
    client, document = nil, nil
    assert.equal(0, helper.object_count())
  end)

  local function names()
    return helper.names(folder)
  end

  -- Start a process that downloads to `name`, and kill it when bytes have arrived and the service stalls.
  local function killed(signal, name, resume, environment)
    local given = helper.options()
    helper.faults { operation = "download", action = { stall = 200000 } }
    local script = helper.write_file(helper.temporary(".lua"), ([[
      local client = assert(require("nymbl").client { base_url = %q, api_key = %q, ca_file = %q, timeout = 30, rate = false,
        credentials = { token_url = %q, client_id = %q, client_secret = %q, scope = %q }, monthly_quota = false,
        max_attempts = 1 })
      client:patient("12345"):document("d-7700"):download(%q, { resume = %s, progress = function(done)
        if done >= 100000 then
          print "there"
          io.stdout:flush()
        end
      end })
    ]]):format(given.base_url, given.api_key, given.ca_file, given.credentials.token_url, given.credentials.client_id,
      given.credentials.client_secret, given.credentials.scope, folder .. "/" .. name, tostring(resume or false)))
    -- the shell prints its pid and is then replaced by the process
    local said = helper.temporary(".said")
    helper.write_file(said, "")
    os.execute(("%s sh -c 'echo $$; exec %s %s' > %s 2>&1 &"):format(environment or "",
      helper.interpreter():gsub("'", "'\\''"), script, said))
    for _ = 1, 500 do
      if helper.read_file(said):find("there", 1, true) then break end
      os.execute "sleep 0.01"
    end
    local pid = helper.read_file(said):match "^%d+"
    assert.truthy(helper.read_file(said):find("there", 1, true), helper.read_file(said))
    os.execute(("kill -%s %s; while [ -e /proc/%s/exe ]; do sleep 0.01; done"):format(signal, pid, pid))
  end

  local function whole(name, options)
    assert.equal(SIZE, (assert(document:download(folder .. "/" .. name, options))))
    assert.equal(sum, helper.sha256(folder .. "/" .. name))
  end

  for _, signal in ipairs { "TERM", "HUP", "KILL" } do
    it("by " .. signal .. " leaves nothing", function()
      helper.write_file(folder .. "/b", "mine")
      killed(signal, "a")
      killed(signal, "b")
      assert.equal("mine", helper.read_file(folder .. "/b"))
      if names() ~= "b" then -- a file system without unnamed files
        assert.is_nil(names():find("^a$"))
      end
      whole("a")
      assert.equal("a\nb", names())
    end)
  end

  it("leaves the partial file if requested, with no name, id or key beside it", function()
    killed("KILL", "a", true)
    assert.equal("a.nymbl-meta\na.nymbl-part", names())
    local meta = helper.read_file(folder .. "/a.nymbl-meta")
    local options = helper.options()
    for _, word in ipairs { "12345", "7700", "http", options.api_key, options.credentials.client_id,
                            options.credentials.client_secret, options.credentials.scope } do
      assert.is_nil(meta:find(word, 1, true))
    end
    helper.admin("DELETE", "journal")
    whole("a", { resume = true })
    assert.equal(206, helper.journal("download")[1].status)
    assert.equal("a", names())
  end)

  it("leaves a partial file that a download without resume to that path removes", function()
    killed("KILL", "a", true)
    whole("a")
    assert.equal("a", names())
  end)

  it("leaves a named file, if unnamed ones are not supported, that the next process removes", function()
    if os.getenv "ASAN_OPTIONS" then pending("the sanitizers' runtime has to be loaded first") return end
    local shim = "./build/spec/core/faults.so"
    local there = io.open(shim)
    if not there then pending("the C tests are not built") return end
    there:close()
    killed("KILL", "a", false, ("NYMBL_FAULTS=tmpfile=ENOTSUP LD_PRELOAD=%s"):format(shim))
    assert.equal(".nymbl-tmp-00", names())
    assert.equal("600", helper.output("stat -c %a " .. folder .. "/.nymbl-tmp-00"))
    whole("a")
    assert.equal("a", names())
  end)
end)
