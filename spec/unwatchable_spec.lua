-- SPDX-License-Identifier: MIT
-- An event loop that cannot watch a descriptor: the call continues without it and leaks none.
local helper = require "helper"

local PREAMBLE = [[
  local helper, nymbl = require "helper", require "nymbl"
  local client = helper.client { credentials = helper.options().credentials, max_attempts = 1 }
  local document = client:patient("p"):document("d")

  local function download()
    local size = 0
    local bytes, err = document:download(function(chunk)
      if chunk then size = size + #chunk end
      return 1
    end)
    if not bytes then error(("%s %s"):format(err.kind, err.reason), 0) end
    assert(bytes == 1000000 and size == bytes)
  end

  -- A stream waits several times.
  local function read()
    local stream = assert(document:open())
    local size = 0
    repeat
      local chunk, err = stream:read(100000)
      assert(not err, err)
      size = size + #(chunk or "")
    until not chunk
    stream:close()
    assert(size == 1000000)
  end

  local function check(fail, mend)
    download() -- this starts the thread and the connections
    collectgarbage() collectgarbage()
    local before = helper.descriptors()
    fail()
    for _ = 1, 10 do download() read() end
    mend()
    download()
    read()
    collectgarbage() collectgarbage()
    local after = helper.descriptors()
    print(after - before <= 0 and "as before" or after - before)
  end
]]

local LOOPS = {
  cqueues = [[
    local socket = require "cqueues.socket"
    local real = socket.fdopen
    local l = require("cqueues").new()
    l:wrap(function() check(function() %s end, function() socket.fdopen = real end) end)
    assert(l:loop())
  ]],
  luv = [[
    local uv = require "luv"
    nymbl.use "luv"
    local made = uv.new_pipe(false)
    local class = getmetatable(made).__index
    local open, new = class.open, uv.new_pipe
    made:close()
    local ok, err = true, nil
    coroutine.wrap(function()
      ok, err = pcall(check, function() %s end, function() class.open, uv.new_pipe = open, new end)
    end)()
    uv.run()
    assert(ok, err)
    uv.walk(function(handle) assert(handle:is_closing(), "a handle is left") end)
  ]],
}

local FAULTS = {
  { "cqueues", "fdopen fails", "socket.fdopen = function() return nil, 12 end" },
  { "cqueues", "fdopen raises", "socket.fdopen = function() error('bad file descriptor', 0) end" },
  { "cqueues", "fdopen fails every second time",
    "local n = 0 socket.fdopen = function(fd) n = n + 1 if n % 2 == 0 then return real(fd) end return nil, 12 end" },
  { "luv", "open fails", "class.open = function() return nil, 'EINVAL: invalid argument', 'EINVAL' end" },
  { "luv", "new_pipe fails", "uv.new_pipe = function() return nil, 'ENOMEM: not enough memory', 'ENOMEM' end" },
  { "luv", "open fails every second time",
    "local n = 0 class.open = function(...) n = n + 1 if n % 2 == 0 then return open(...) end return nil, 'EINVAL' end" },
}

describe("a descriptor that a loop cannot watch", function()
  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "p", id = "d", size = 1000000, content_type = "application/pdf" })
  end)

  for _, fault in ipairs(FAULTS) do
    it("is closed in " .. fault[1] .. " if " .. fault[2], function()
      local path = helper.write_file(helper.temporary(".lua"), PREAMBLE .. LOOPS[fault[1]]:format(fault[3]))
      assert.equal("as before", helper.output(("NYMBL_SPEC_SANDBOX=%s timeout 60 %s %s 2>&1"):format(
        helper.quote(helper.sandbox().path), helper.interpreter(), path)))
    end)
  end
end)
