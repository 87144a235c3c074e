-- SPDX-License-Identifier: MIT
-- Conditions that would make a call fail after its request was sent are checked before: lua-cjson,
-- the store, descriptors, a thread.
local helper = require "helper"

local PREAMBLE = [[
  local helper, nymbl = require "helper", require "nymbl"
  local asked = 0 -- how often a source was called
  local function given(options)
    options.credentials = helper.options().credentials
    return helper.client(options)
  end
  local calls = {
    upload = function(p) return p:upload({ data = "%PDF-1.4 x" }, { file_name = "a.pdf" }) end,
    source = function(p)
      return p:upload(function() asked = asked + 1 end, { file_name = "a.pdf" })
    end,
    list = function(p)
      local ok, err = pcall(p:documents())
      if not ok and type(err) == "string" then error(err, 0) end
      if ok then return err end
      return nil, err
    end,
    count = function(p) return p:count() end,
    get = function(p) return p:get("d") end,
    download = function(p) return p:document("d"):download(function() return 1 end) end,
    open = function(p) return p:document("d"):open() end,
    delete = function(p) return p:document("d"):delete() end,
  }
  local function words(ok, a, b)
    if not ok then return "raised " .. tostring(a):match("[^\n]*") end
    if a ~= nil then return "good" end
    return type(b) ~= "table" and tostring(b) or ("%s %s %d"):format(b.kind, b.reason, b.attempts)
  end
  -- the calls' distinct results
  local function all(client)
    local seen, list = {}, {}
    for _, fn in pairs(calls) do
      local result = words(pcall(fn, client:patient("p")))
      if not seen[result] then list[#list + 1] = result end
      seen[result] = true
    end
    table.sort(list)
    print(table.concat(list, ", ") .. ", asked " .. asked)
  end
]]

local function run(code, before)
  local path = helper.write_file(helper.temporary(".lua"), PREAMBLE .. code)
  return helper.output(("%s NYMBL_SPEC_SANDBOX=%s timeout 60 %s %s 2>&1"):format(before or "",
    helper.quote(helper.sandbox().path), helper.interpreter(), path))
end

local function requests()
  return #helper.admin("GET", "journal").requests -- including token requests
end

describe("before anything is sent", function()
  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "d", size = 1000, content_type = "application/pdf" })
  end)

  it("lua-cjson is loaded", function()
    assert.equal("raised module 'cjson' not found:, asked 0", (run [[
      local client = given {}
      require "nymbl.listing" require "nymbl.source" require "nymbl.stream" require "nymbl.target" require "nymbl.upload"
      package.loaded.cjson, package.path, package.cpath = nil, "", ""
      all(client)
    ]]:gsub("%S+: module", "module")))
    assert.equal(0, requests())
  end)

  it("an unusable store is detected", function()
    for _, store in ipairs { "file('/nowhere/store')", "file('/nowhere/store', { token = true })",
                             "file(helper.folder)" } do
      local reason = store:find "nowhere" and "not_found" or "directory"
      assert.equal(("io %s 0, asked 0"):format(reason), run(("all(given { store = nymbl.store.%s })"):format(store)))
    end
    assert.equal("io no_space 0, asked 0", run [[
      local failing = { now = require("nymbl.wait").now }
      function failing.update() return nil, { kind = "io", reason = "no_space" } end
      all(given { store = failing })
    ]])
    assert.equal(0, requests())
  end)

  it("a token request is sent if the store is usable", function()
    assert.equal("good", run(("print(words(pcall(calls.count, given({ store = nymbl.store.file(%q) }):patient('p'))))")
      :format(helper.temporary ".store")))
    assert.equal(2, requests())
  end)

  local FILL = [[
    local held = {}
    repeat held[#held + 1] = io.open("/dev/null") until #held > 100 or not io.open("/dev/null")
    collectgarbage() -- otherwise handles without references would be closed later
    while true do
      local handle = io.open("/dev/null")
      if not handle then break end
      held[#held + 1] = handle
    end
  ]]

  it("a lack of descriptors is detected", function()
    local code = [[
      local client = given {}
      require("nymbl.json").decode("[]")
      require "nymbl.listing" require "nymbl.source" require "nymbl.stream" require "nymbl.target" require "nymbl.upload"
    ]]
    assert.equal("io too_many_files 0, asked 0", run(code .. FILL .. "all(client)", "ulimit -n 40;"))
    assert.equal(0, requests())
  end)

  it("a connection without a descriptor is distinguished from a refused connection", function()
    local code = [[
      local client = given {}
      local refused = given { base_url = "https://127.0.0.1:1", token = "x" }
      print(words(pcall(calls.count, refused:patient("p"))))
      require "nymbl.listing" require "nymbl.source" require "nymbl.stream" require "nymbl.target" require "nymbl.upload"
    ]]
    assert.equal("network connect 0\nio too_many_files 0, asked 0", run(code .. FILL .. "all(client)", "ulimit -n 40;"))
    assert.equal(0, requests())
  end)

  for loop, code in pairs {
    cqueues = "local l = require('cqueues').new() l:wrap(function() all(client) end) assert(l:loop())",
    luv = "nymbl.use 'luv' coroutine.wrap(function() all(client) end)() require('luv').run()",
  } do
    it("a thread that cannot be started is detected, in " .. loop, function()
      assert.equal("io too_many_threads 0, asked 0", run("local client = given {}\n" .. code,
        "ulimit -s 200000000000;"))
      assert.equal(0, requests())
    end)
  end
end)
