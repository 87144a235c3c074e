-- SPDX-License-Identifier: MIT
-- Long work on local files, for which no other request waits.
local helper = require "helper"
local job = require "nymbl.job"
local nginx = require "nginx"
local nymbl = require "nymbl"

-- Kind and reason of a failure.
local function words(result, err)
  assert.is_nil(result)
  return err.kind .. " " .. tostring(err.reason)
end

describe("job.digest()", function()
  it("returns the SHA-256 of a file and its size", function()
    for _, path in ipairs { helper.write_file(helper.temporary(), "abc"), helper.big_file(26214400) } do
      local digest, size = job.digest(path)
      assert.equal(helper.sha256(path), digest)
      assert.equal(#helper.read_file(path), size)
    end
  end)

  it("fails if there is no regular file", function()
    local path = helper.write_file(helper.temporary(), "abc")
    os.execute(("ln -s %s %s.link"):format(helper.quote(path), helper.quote(path)))
    assert.equal("io not_found", words(job.digest(path .. ".absent")))
    assert.equal("io directory", words(job.digest("/")))
    assert.equal("io not_a_file", words(job.digest("/dev/null")))
    assert.equal("io too_many_links", words(job.digest(path .. ".link")))
  end)

  it("names neither the path nor the file in an error", function()
    local _, err = job.digest("/directory-of-test/file-of-test")
    assert.is_nil(tostring(err):find("of-test", 1, true))
    assert.is_truthy(tostring(err):match("^nymbl: io %(not_found%)"))
  end)

  it("ends at the deadline", function()
    local core = require "nymbl.core"
    assert.equal("timeout deadline", words(job.digest(helper.big_file(26214400), core.now())))
    assert.equal(0, core.object_count())
  end)

  it("lets other coroutines of nymbl.each continue", function()
    local path, small = helper.big_file(26214400), helper.write_file(helper.temporary(), "abc")
    local order = {}
    nymbl.each({ path, small, small }, { concurrency = 3 }, function(each)
      assert(job.digest(each))
      order[#order + 1] = each
      return true
    end)
    assert.same({ small, small, path }, order)
  end)
end)

describe("job.sync()", function()
  it("flushes a file or a directory", function()
    assert.is_true(job.sync(helper.write_file(helper.temporary(), "abc")))
    assert.is_true(job.sync(helper.directory()))
    assert.equal("io not_found", words(job.sync(helper.temporary())))
  end)
end)

describe("job.read_directory()", function()
  it("returns the entries and follows no link", function()
    local path = helper.directory()
    helper.write_file(path .. "/a", "abc")
    os.execute(("cd %s && mkdir b && ln -s a c && mkfifo d"):format(helper.quote(path)))
    local list = assert(job.read_directory(path))
    table.sort(list, function(x, y) return x.name < y.name end)
    local found = {}
    for i, entry in ipairs(list) do found[i] = entry.name .. " " .. entry.kind end
    assert.equal("a file, b directory, c link, d other", table.concat(found, ", "))
    assert.equal(3, list[1].size)
    assert.is_true(math.abs(list[1].modified - os.time()) < 3600)
  end)

  it("returns thousands of them, up to a maximum", function()
    local path = helper.directory()
    os.execute(("cd %s && seq 3000 | xargs touch"):format(helper.quote(path)))
    local seen, count = {}, 0
    for _, entry in ipairs(assert(job.read_directory(path))) do
      assert.is_nil(seen[entry.name])
      seen[entry.name], count = true, count + 1
    end
    assert.equal(3000, count)
    assert.equal(3000, #assert(job.read_directory(path, 3000)))
    assert.equal("io too_many_entries", words(job.read_directory(path, 2999)))
  end)
end)

describe("in nginx #nginx a job", function()
  local server

  after_each(function()
    if server then
      server:stop()
      assert.is_nil(server:log():match("%[alert%]"), server:log())
      assert.is_nil(server:log():match("%[error%]"), server:log())
    end
    server = nil
  end)

  -- Run `code`, which returns a result, in a handler; another light thread sends requests to
  -- the same worker meanwhile, one after the other. Returns the result and their number.
  local function count_pings(code)
    server = nginx.start {
      locations = {
        ["/ping"] = "ngx.print('pong')",
        ["/work"] = ([[
          local job = require "nymbl.job"
          local core = require "nymbl.core"
          local pings, ended = 0, false
          local path = "unix:" .. ngx.var.arg_socket
          local function ping()
            local socket = ngx.socket.tcp()
            assert(socket:connect(path))
            assert(socket:send("GET /ping HTTP/1.0\r\n\r\n"))
            local response = assert(socket:receive("*a"))
            socket:close()
            assert(response:match("pong$"))
          end
          ping()
          assert(job.sync("/")) -- starts the I/O thread
          ngx.thread.spawn(function()
            while not ended do
              ping()
              if not ended then pings = pings + 1 end
            end
          end)
          local result = (function() %s end)()
          ended = true
          collectgarbage()
          ngx.say(tostring(result), " ", pings, " ", core.object_count())
        ]]):format(code),
      },
    }
    local result, pings, left = server:get("/work?socket=" .. server.folder .. "/http.sock"):match("^(%S+) (%d+) (%d+)$")
    assert.equal("0", left)
    return result, tonumber(pings)
  end

  it("that digests 25 MB blocks no other request", function()
    local result, pings = count_pings(([[
      local size = 0
      for _ = 1, 4 do size = size + select(2, assert(job.digest(%q))) end
      return size
    ]]):format(helper.big_file(26214400)))
    assert.equal(("%d"):format(4 * 26214400), result)
    assert.is_true(pings >= 10, tostring(pings))
  end)

  it("that reads a directory of thousands of entries blocks no other request", function()
    local path = helper.directory()
    os.execute(("cd %s && seq 8000 | xargs touch"):format(helper.quote(path)))
    -- all entries but the last one are read, and become no tables: so only the reading can block
    local result, pings = count_pings(([[
      local reason
      for _ = 1, 3 do reason = select(2, job.read_directory(%q, 7999)).reason end
      return reason
    ]]):format(path))
    assert.equal("too_many_entries", result)
    assert.is_true(pings >= 5, tostring(pings))
  end)

  it("ends with its request", function()
    server = nginx.start {
      server = "lua_check_client_abort on;",
      locations = {
        ["/work"] = ("for _ = 1, 1000 do require 'nymbl.job'.digest(%q) end"):format(helper.big_file(26214400)),
        ["/left"] = "collectgarbage() ngx.say(require 'nymbl.core'.object_count())",
      },
    }
    server:get("/work", "--max-time 0.3")
    assert.is_true(helper.eventually(10, function() return server:get("/left") == "0" end))
  end)
end)

describe("a job on an open file", function()
  local system = require("nymbl.core").system

  it("needs no path", function()
    local path = helper.directory()
    local dir = assert(system.open_directory(path))
    local file = assert(dir:open_file("a", "create"))
    file:write "abc"
    assert.equal("b", file:read(1, 1)) -- the position, at the end, does not matter
    os.remove(path .. "/a")
    local digest, size = job.digest(file)
    assert.equal(helper.sha256(helper.write_file(helper.temporary(), "abc")), digest)
    assert.equal(3, size)
    assert.is_true(job.sync(file))
    assert.is_true(job.sync(dir))
    assert.equal("io directory", words(job.digest(dir)))
    file:close()
    dir:close()
    assert.has_error(function() job.sync(file) end)
  end)
end)
