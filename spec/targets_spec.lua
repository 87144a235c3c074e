-- SPDX-License-Identifier: MIT
-- A path that is unsuitable for a document is refused before anything is sent, even a token request.
local helper = require "helper"

local quote = helper.quote
local root = helper.output("id -u") == "0"

describe("document:download() to a path", function()
  local client, document, folder

  before_each(function()
    helper.reset()
    helper.admin("POST", "documents", { patient = "12345", id = "d", size = 5000, content_type = "application/pdf" })
    client = helper.client()
    document = client:patient("12345"):document("d")
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

  local function check_refused(path, reason)
    for _, options in ipairs { {}, { overwrite = false }, { resume = true } } do
      local size, err = document:download(path, options)
      assert.is_nil(size, path)
      assert.equal("io", err.kind, path)
      if reason then assert.equal(reason, err.reason, path) end
      assert.equal(0, err.attempts, path)
      assert.is_nil(tostring(err):find("/", 1, true))
    end
  end

  -- Run a script in another interpreter, with `around` around its command (%s). Returns its output.
  local function child(around, script)
    local options, sandbox = helper.options(), helper.sandbox()
    local path = helper.write_file(helper.temporary(".lua"), ([[
      local client = assert(require("nymbl").client { base_url = %q, api_key = %q, ca_file = %q, token = %q, timeout = 30,
        rate = false, monthly_quota = false, max_attempts = 1 })
      local document, folder = client:patient("12345"):document "d", %q
    ]]):format(options.base_url, sandbox.api_key, sandbox.ca_file, helper.token(), folder) .. script)
    return helper.output(around:format(helper.interpreter() .. " " .. quote(path)))
  end

  it("that is a descriptor's, or leads through one, sends no request", function()
    os.execute(("cd %s && ln -s /dev/stdout out && ln -s out second && ln -s /proc/self/fd fds && ln -s /proc/self cwd")
      :format(folder))
    helper.admin("DELETE", "journal")
    for _, path in ipairs { "/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/fd/0", "/dev/fd/1", "/dev/fd/77",
                            "/proc/self/fd/1", "/proc/thread-self/fd/1", "/proc/" .. helper.pid() .. "/fd/2",
                            "/proc/self/cwd/new", "/proc/self/root/tmp/new", "/dev//fd/./1", "/dev/../dev/stdout",
                            folder .. "/out", folder .. "/second", folder .. "/fds/1", folder .. "/cwd/cwd/new" } do
      check_refused(path, "not_a_file")
    end
    assert.equal(0, #helper.admin("GET", "journal").requests)
    assert.equal("cwd\nfds\nout\nsecond", names())
  end)

  it("that a later download would remove sends no request", function()
    for _, name in ipairs { ".nymbl-tmp-00", ".nymbl-tmp-ff", ".nymbl-tmp-", ".NYMBL-TMP-07", "a.pdf.nymbl-part",
                            "a.pdf.nymbl-meta", ".nymbl-part", "a.pdf.Nymbl-Part" } do
      check_refused(folder .. "/" .. name, "reserved_name")
    end
    os.execute(("ln -s .nymbl-tmp-01 %s/link"):format(quote(folder)))
    check_refused(folder .. "/link", "reserved_name")
    assert.equal(0, #helper.journal())
    for _, name in ipairs { ".nymbl-tm", "nymbl-tmp-00", "a.nymbl-part.pdf", ".nymbl" } do
      assert.equal(5000, document:download(folder .. "/" .. name))
    end
  end)

  it("names what to pass instead", function()
    local _, err = document:download("/dev/stdout")
    assert.truthy(tostring(err):find("pass a file handle or a sink", 1, true))
    _, err = document:download(folder .. "/none/a")
    assert.is_nil(tostring(err):find("sink", 1, true))
  end)

  it("does not affect the file behind standard output", function()
    helper.write_file(folder .. "/log", "before\n")
    local before = helper.output("stat -c %i " .. folder .. "/log")
    child("%s >> " .. quote(folder .. "/log"), [[
      io.stdout:setvbuf "no"
      for _, path in ipairs { "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1" } do
        local size, err = document:download(path)
        print(size, err and err.reason)
      end
    ]])
    assert.equal("before\n" .. ("nil\tnot_a_file\n"):rep(3), helper.read_file(folder .. "/log"))
    assert.equal(before, helper.output("stat -c %i " .. folder .. "/log"))
    assert.equal("log", names())
  end)

  it("that ends in a slash, or is not a regular file, sends no request", function()
    os.execute(("cd %s && mkdir sub && mkfifo fifo && ln -s sub/ slash && ln -s new/ newslash"):format(folder))
    helper.admin("DELETE", "journal")
    for name, reason in pairs { ["sub/"] = "directory", ["new/"] = "directory", ["new//"] = "directory",
                                ["slash"] = "directory", ["newslash"] = "directory", ["sub/."] = "directory",
                                ["sub/../sub"] = "directory", ["fifo"] = "not_a_file" } do
      check_refused(folder .. "/" .. name, name ~= "none" and reason)
    end
    for _, path in ipairs { "/dev/null", "/dev/tty", "/dev/zero" } do check_refused(path, "not_a_file") end
    check_refused("/sys/kernel/new")
    assert.equal(0, #helper.admin("GET", "journal").requests)
  end)

  it("through another user's link in a world-writable directory sends no request", function()
    if not root then pending("needs root, for another user's files") return end
    os.execute(("cd %s && mkdir -m 1777 shared && mkdir mine && ln -s ../mine shared/way && ln -s ../mine/a shared/file && "
      .. "ln -s ../mine/a shared/own && ln -s shared/file over && chown -h nobody: shared/way shared/file"):format(folder))
    helper.admin("DELETE", "journal")
    for _, name in ipairs { "shared/way/a", "shared/file", "over" } do
      check_refused(folder .. "/" .. name, "permission")
    end
    assert.equal(0, #helper.admin("GET", "journal").requests)
    assert.equal("", helper.output("ls -A " .. folder .. "/mine"))
    assert.equal(5000, (assert(document:download(folder .. "/shared/own"))))
    assert.equal("a", helper.output("ls -A " .. folder .. "/mine"))
  end)

  describe("in an open directory", function()
    local core = require "nymbl.core"
    local save = require("nymbl.document").save
    local directory

    before_each(function() directory = assert(core.system.open_directory(folder)) end)
    after_each(function()
      directory:close()
      directory = nil
    end)

    local function refused(name, reason)
      local size, err = save(document, directory, name, {})
      assert.is_nil(size)
      assert.equal("io " .. reason, err.kind .. " " .. err.reason)
      assert.equal(0, #helper.journal "download")
    end

    it("creates or replaces a file", function()
      assert.equal(5000, (save(document, directory, "a", {})))
      helper.write_file(folder .. "/b", "old")
      local size, _, digest = save(document, directory, "b", { sha256 = true })
      assert.equal(5000, size)
      assert.equal(helper.sha256(folder .. "/b"), digest)
      assert.equal(helper.read_file(folder .. "/a"), helper.read_file(folder .. "/b"))
      assert.equal("600", helper.output("stat -c %a " .. folder .. "/a"))
      assert.equal("a\nb", names())
    end)

    it("stays in it if it is moved", function()
      local elsewhere = helper.directory()
      os.execute(("mv %s %s.moved && ln -s %s %s"):format(folder, folder, elsewhere, folder))
      assert.equal(5000, (save(document, directory, "a", {})))
      assert.equal("", helper.names(elsewhere))
      assert.equal("a", helper.names(folder .. ".moved"))
    end)

    it("follows no link", function()
      local elsewhere = helper.write_file(helper.temporary(), "mine")
      os.execute(("cd %s && ln -s %s link && ln -s nowhere dangling && mkdir sub && mkfifo pipe"):format(folder, elsewhere))
      refused("link", "symbolic_link")
      refused("dangling", "symbolic_link")
      refused("sub", "directory")
      refused("pipe", "not_a_file")
      assert.equal("mine", helper.read_file(elsewhere))
    end)

    it("accepts no name that leads elsewhere", function()
      for _, name in ipairs { "", ".", "..", "/", "a/b", "../x", "/etc/x" } do refused(name, "directory") end
      refused(("x"):rep(256), "name_too_long")
      refused(".nymbl-tmp-00", "reserved_name")
      assert.equal("", names())
    end)

    it("fails if the directory was removed", function()
      os.execute("rmdir " .. folder)
      local size, err = save(document, directory, "a", {})
      assert.is_nil(size)
      assert.equal("io not_found", err.kind .. " " .. err.reason)
    end)

    it("removes what killed processes have left", function()
      helper.write_file(folder .. "/.nymbl-tmp-00", "half")
      helper.write_file(folder .. "/.nymbl-tmp-0f", "half")
      helper.write_file(folder .. "/mine", "")
      for _ = 1, 2 do
        assert.is_true(directory:remove_leftovers())
        assert.equal("mine", names())
        helper.write_file(folder .. "/.nymbl-tmp-01", "half") -- after the process has looked there once
      end
    end)
  end)
end)
