-- SPDX-License-Identifier: MIT
-- A program with closed standard descriptors: its output goes into no document and onto no connection.
local helper = require "helper"

local quote = helper.quote
local SIZE = 400000

describe("a program without standard descriptors", function()
  local folder, sum

  before_each(function()
    helper.reset()
    sum = helper.admin("POST", "documents", { patient = "12345", id = "d", size = SIZE,
      content_type = "application/pdf" }).sha256
    folder = helper.directory()
  end)

  -- Run a script. `closed` is appended to its command.
  local function run(closed, script)
    local options = helper.options()
    local given = options.credentials
    local path = helper.write_file(helper.temporary(".lua"), ([[
      local folder = %q
      local client = assert(require("nymbl").client { base_url = %q, api_key = %q, ca_file = %q, timeout = 30, rate = false,
        credentials = { token_url = %q, client_id = %q, client_secret = %q, scope = %q }, monthly_quota = false,
        max_attempts = 1 })
      local patient = client:patient "12345"
      local document = patient:document "d"
      local function say()
        io.stdout:write("standard output\n") io.stdout:flush()
        io.stderr:write("standard error\n")
      end
      local function note(text)
        local file = io.open(folder .. "/notes", "a")
        file:write(text, "\n")
        file:close()
      end
      -- What the standard descriptors refer to during a transfer.
      local function look()
        os.execute("for i in 0 1 2; do readlink /proc/$PPID/fd/$i; done >> " .. folder .. "/led 2>&-")
      end
    ]]):format(folder, options.base_url, options.api_key, options.ca_file, given.token_url, given.client_id,
      given.client_secret, given.scope) .. script)
    os.execute(helper.interpreter() .. " " .. quote(path) .. " </dev/null >/dev/null 2>/dev/null " .. closed)
  end

  local function led()
    local file = io.open(folder .. "/led")
    local text = file and file:read "*a" or ""
    if file then file:close() end
    return text
  end

  for _, closed in ipairs { "2>&-", "1>&-", "0<&-", "1>&- 2>&-", "0<&- 2>&-", "0<&- 1>&- 2>&-" } do
    it("(" .. closed .. ") receives its documents unchanged", function()
      run(closed, [[
        local looked
        local size, err = document:download(folder .. "/a", { progress = function()
          say()
          if not looked then looked = true look() end
        end })
        note(tostring(size) .. " " .. tostring(err and err.reason))
        size, err = document:download(folder .. "/b", { resume = true, progress = say })
        note(tostring(size) .. " " .. tostring(err and err.reason))
        local stream = document:open()
        local bytes = 0
        for chunk in function() return stream() end do bytes = bytes + #chunk say() end
        note(tostring(bytes))
        local made = patient:upload(folder .. "/a", { file_name = "a.pdf", progress = say })
        note(tostring(made and made.file_size_bytes))
      ]])
      assert.equal(("%d nil\n%d nil\n%d\n%d\n"):format(SIZE, SIZE, SIZE, SIZE), helper.read_file(folder .. "/notes"))
      assert.equal(sum, helper.sha256(folder .. "/a"))
      assert.equal(sum, helper.sha256(folder .. "/b"))
      assert.is_nil(led():find("socket:", 1, true), led())
      assert.is_nil(led():find(folder, 1, true), led())
      local count = 0
      for _, entry in ipairs(helper.stored("12345")) do
        if entry.sha256 then assert.equal(sum, entry.sha256) end
        count = count + 1
      end
      assert.is_true(count >= 1)
    end)
  end

  it("is safe if it closes them during a transfer", function()
    run("", [[
      local closed
      local size = document:download(folder .. "/a", { progress = function()
        if not closed then
          closed = true
          io.stderr:close()
          assert(document:download(folder .. "/b"))
          look()
        end
      end })
      note(tostring(size))
    ]])
    assert.equal(SIZE .. "\n", helper.read_file(folder .. "/notes"))
    assert.equal(sum, helper.sha256(folder .. "/a"))
    assert.equal(sum, helper.sha256(folder .. "/b"))
    assert.is_nil(led():find("socket:", 1, true), led())
    assert.is_nil(led():find(folder .. "/[ab]"), led())
  end)
end)
