-- SPDX-License-Identifier: MIT
-- The same objects inside nginx: nothing there waits but the request that asked.
local helper = require "helper"
local nginx = require "nginx"

describe("in nginx #nginx", function()
  local server

  after_each(function()
    if server then server:stop() end
    server = nil
  end)

  it("uploads, lists, downloads and deletes", function()
    helper.reset()
    server = nginx.start {
      init = "one = client()",
      locations = {
        ["/all"] = [[
          local patient = one:patient("p")
          local doc = assert(patient:upload({ data = "%PDF-1.4 " .. ("x"):rep(300000) }, { file_name = "a.pdf" }))
          for found in patient:documents() do ngx.say(found.id == doc.id) end
          ngx.say(#assert(assert(doc:open()):read("a")))
          ngx.say(assert(doc:delete()))
          ngx.say(assert(patient:count()))
        ]],
      },
    }
    assert.equal("true\n300009\ntrue\n0", server:get("/all"))
    assert.is_nil(server:log():match("%[alert%]"))
  end)

  it("waits until the time it is to wait for, and no shorter", function()
    server = nginx.start {
      locations = {
        ["/short"] = [[
          local wait = require "nymbl.wait"
          local early = 0
          for i = 1, 60 do
            local deadline = wait.now() + i * 0.0001
            wait.wait(nil, deadline)
            if wait.now() < deadline then early = early + 1 end
          end
          ngx.say(early)
        ]],
      },
    }
    assert.equal("0", server:get("/short"))
    assert.is_nil(server:log():match("%[warn%][^\n]*sleep"))
  end)
end)
