-- SPDX-License-Identifier: MIT
-- Problems with local files: an unreadable file is not sent, and an unwritable target stays unchanged.
local helper = require "helper"

local PATIENT = "12345"
local SIZE = 3000000

local client, patient, folder
local root = helper.output("id -u") == "0"
local quote = helper.quote
local unpack = table.unpack or unpack -- luacheck: ignore

local function setup()
  helper.reset()
  client = helper.client { rate = false, monthly_quota = false, max_attempts = 1, timeout = 30 }
  patient = client:patient(PATIENT)
  folder = helper.directory()
end

local function teardown()
  client:close()
  client, patient = nil, nil
  os.execute("chmod -R u+rwx " .. folder)
  assert.equal(0, helper.object_count())
end

-- The names in the directory, or in another one.
local function names(where)
  return (helper.names(where or folder):gsub("\n", " "))
end

local function stored(size)
  helper.admin("POST", "documents", { patient = PATIENT, id = "d", size = size or SIZE,
    content_type = "application/pdf" })
  return patient:document("d")
end

local function io_error(result, err, reason, attempts, note)
  assert.is_nil(result, note)
  assert.equal("table", type(err), note)
  assert.equal("io", err.kind, ("%s: %s"):format(note or "", tostring(err)))
  if type(reason) == "table" then
    local fits = false
    for _, word in ipairs(reason) do fits = fits or word == err.reason end
    assert.is_true(fits, ("%s: %s"):format(note or "", tostring(err)))
  elseif reason then
    assert.equal(reason, err.reason, note)
  end
  if attempts then assert.equal(attempts, err.attempts, note) end
  assert.is_nil(err.outcome_unknown, note)
  assert.is_nil(tostring(err):find("/", 1, true), note)
end

-- Open descriptors, except those held by garbage.
local function descriptors()
  collectgarbage()
  collectgarbage()
  return helper.descriptors()
end

local function interpreter()
  return jit and "luajit" or "lua" .. _VERSION:match("%d+%.%d+") -- luacheck: ignore
end

-- Run a script in another interpreter, with `before` on its command line. It begins with a client and a
-- document `d`. It may run as another user, which cannot read the sandbox's directory.
local function child(before, script)
  local options = helper.options()
  local sandbox = helper.sandbox()
  local ca_file = helper.write_file(folder .. "/ca.pem", helper.read_file(sandbox.ca_file))
  os.execute("chmod 644 " .. quote(ca_file))
  local prologue = ([[
    io.stdout:setvbuf("no")
    local folder = ...
    local client = assert(require("nymbl").client { base_url = %q, api_key = %q, ca_file = %q, token = %q, timeout = 30,
      rate = false, monthly_quota = false, max_attempts = 1 })
    local patient = client:patient(%q)
    local document = patient:document "d"
    local function say(result, err)
      if result then print "ok" else print(err.kind .. " " .. tostring(err.reason) .. " " .. err.attempts) end
    end
  ]]):format(options.base_url, sandbox.api_key, ca_file, helper.token(), PATIENT)
  local path = helper.write_file(helper.temporary(".lua"), prologue .. script)
  local command = ("LUA_PATH=%s LUA_CPATH=%s exec %s %s %s"):format(quote(package.path), quote(package.cpath),
    interpreter(),
    path, folder)
  return helper.output(("%s sh -c %s 2>&1"):format(before, quote(command)))
end

describe("patient:upload() of a file", function()
  before_each(setup)
  after_each(teardown)

  it("that does not exist or is no regular file sends nothing", function()
    os.execute(("cd %s && mkdir sub && mkfifo fifo && ln -s nowhere dangling && ln -s loop loop && ln -s sub linked && touch plain")
      :format(folder))
    local before = descriptors()
    for name, reasons in pairs {
      ["missing.pdf"] = "not_found", ["sub"] = "directory", ["sub/"] = "directory", ["fifo"] = "not_a_file",
        ["dangling"] = "not_found",
      ["loop"] = "too_many_links", ["linked"] = "directory", ["plain/x.pdf"] = "not_a_directory",
        ["missing/x.pdf"] = "not_found",
      [("x"):rep(300)] = "name_too_long", ["/dev/zero"] = "not_a_file", ["/dev/null"] = "not_a_file",
        ["/dev/tty"] = false,
      ["/dev/log"] = false, ["/proc/self/mem/x"] = false, [("x/"):rep(3000)] = "name_too_long",
    } do
      local path = name:sub(1, 1) == "/" and name or folder .. "/" .. name
      local document, err = patient:upload(path, { file_name = "a.pdf" })
      io_error(document, err, reasons or nil, 0, name)
    end
    assert.equal(before, descriptors())
    assert.equal(0, #helper.admin("GET", "journal").requests)
  end)

  it("that is a socket sends nothing", function()
    local path = folder .. "/socket"
    os.execute(("luajit -e 'require(\"cqueues.socket\").listen{path=%q}:listen()'"):format(path))
    assert.equal("socket", names())
    local document, err = patient:upload(path, { file_name = "a.pdf" })
    io_error(document, err, "not_a_file", 0)
  end)

  it("that is unreadable sends nothing", function()
    local path = helper.write_file(folder .. "/a.pdf", "%PDF-1.4")
    os.execute("chmod 000 " .. path)
    if not root then
      local document, err = patient:upload(path)
      io_error(document, err, "permission", 0)
      return
    end
    -- as a user other than root, which must be able to read the library
    os.execute(("chmod 755 %s %s"):format(helper.folder, folder))
    local said = child("setpriv --reuid 65534 --regid 65534 --clear-groups", [[
      say(patient:upload(folder .. "/a.pdf"))
    ]])
    os.execute("chmod 700 " .. helper.folder)
    if not said:find("^io") then pending("the user nobody cannot run the interpreter here: " .. said:sub(1, 200)) end
    assert.equal("io permission 0", said)
  end)

  it("whose name cannot be sent is a misuse, or uses the given name", function()
    assert.has_error(function() patient:upload("") end)
    assert.has_error(function() patient:upload("a\0b.pdf") end)
    local path = helper.write_file(folder .. "/two\nlines.pdf", "%PDF-1.4")
    assert.has_error(function() patient:upload(path) end)
    assert.equal("a.pdf", assert(patient:upload(path, { file_name = "a.pdf" })).file_name)
  end)

  it("that is reached through links is sent", function()
    os.execute(("cd %s && mkdir sub && ln -s sub/far near && ln -s ../real.pdf sub/far"):format(folder))
    helper.write_file(folder .. "/real.pdf", "%PDF-1.4")
    assert.equal(8, assert(patient:upload(folder .. "/near", { file_name = "a.pdf" })).file_size_bytes)
  end)

  -- Change a file after its first bytes were sent.
  local function changing(change, note)
    local path = folder .. "/a.pdf"
    os.execute(("cp %s %s"):format(helper.big_file(20000000), path))
    local changed
    local document, err = patient:upload(path, { progress = function(done)
      if done > 0 and not changed then
        changed = true
        change(path)
      end
    end })
    assert.is_true(changed)
    io_error(document, err, "changed", 1, note)
    assert.equal(0, #helper.stored(PATIENT), note)
  end

  it("that shrinks, grows or is modified during the upload is not sent to its end", function()
    local before
    for note, command in pairs {
      shrinks = "truncate -s 10000000 %s", ["is emptied"] = "truncate -s 0 %s", grows = "echo more >> %s",
      ["is rewritten"] = "dd if=/dev/zero of=%s bs=1000 count=1 conv=notrunc 2>/dev/null",
      ["is touched"] = "touch %s",
    } do
      changing(function(path) os.execute(command:format(path)) end, note)
      before = before or descriptors()
      assert.is_true(descriptors() <= before + 1, note) -- one more connection may stay open, but not one for each upload
    end
  end)

  it("that is renamed, deleted or replaced during the upload is sent as it was", function()
    local path = folder .. "/a.pdf"
    local sum = helper.sha256(helper.big_file(5000000))
    for _, command in ipairs { "mv %s " .. folder .. "/b", "rm %s", "echo other > %s.new && mv %s.new %s" } do
      os.execute(("cp %s %s"):format(helper.big_file(5000000), path))
      local changed
      local document = assert(patient:upload(path, { progress = function(done)
        if done > 0 and not changed then
          changed = true
          os.execute((command:gsub("%%s", path)))
        end
      end }))
      assert.is_true(changed)
      assert.equal(sum, helper.stored(PATIENT)[1].sha256)
      assert(document:delete())
    end
  end)

  -- Each upload has its own connection, some of which stay open: so only open files are counted.
  it("does not leave the file open", function()
    local photo, large = helper.path("spec/fixtures/photo.jpg"), helper.big_file(1048577)
    local handle = assert(io.open(photo))
    assert.equal(1, helper.times_open(photo))
    handle:close()
    collectgarbage("stop")
    for i = 1, 20 do
      if i % 2 == 0 then helper.faults { operation = "upload", action = { status = 500, body_kind = "empty" } } end
      patient:upload(photo)
    end
    patient:upload(photo, { content_type = "text/plain" })
    pcall(patient.upload, patient, large, { progress = function() error "mine" end })
    local photos, larges = helper.times_open(photo), helper.times_open(large)
    collectgarbage("restart")
    assert.equal(0, photos)
    assert.equal(0, larges)
  end)
end)

describe("patient:upload() of a handle", function()
  before_each(setup)
  after_each(teardown)

  it("that cannot be read fails", function()
    local path = folder .. "/a.pdf"
    for _, mode in ipairs { "wb", "ab" } do
      local handle = assert(io.open(path, mode))
      handle:write("%PDF-1.4 some of it")
      handle:flush()
      local document, err = patient:upload(handle, { file_name = "a.pdf" })
      io_error(document, err, "not_open_for_access", 0, mode)
      handle:close()
    end
    local handle = io.open(folder, "rb")
    if handle then -- a system that can open directories
      local document, err = patient:upload(handle, { file_name = "a.pdf" })
      io_error(document, err, "directory", 0)
      handle:close()
    end
    assert.equal(0, #helper.journal("upload"))
  end)

  it("that is closed is a misuse", function()
    local handle = assert(io.open(helper.path("spec/fixtures/photo.jpg"), "rb"))
    handle:close()
    assert.has_error(function() patient:upload(handle, { file_name = "a.jpg" }) end)
  end)

  it("that is closed by a callback fails", function()
    local handle = assert(io.open(helper.big_file(5000000), "rb"))
    local document, err = patient:upload(handle, { file_name = "a.pdf", progress = function(done)
      if done > 0 and io.type(handle) == "file" then handle:close() end
    end })
    io_error(document, err, "closed", 1)
    assert.equal(0, #helper.stored(PATIENT))
  end)

  it("that shrinks or grows during the upload fails", function()
    for _, command in ipairs { "truncate -s 1000000 %s", "truncate -s 6000000 %s" } do
      local path = folder .. "/a.pdf"
      os.execute(("cp %s %s"):format(helper.big_file(5000000), path))
      local handle, changed = assert(io.open(path, "rb")), nil
      local document, err = patient:upload(handle, { file_name = "a.pdf", progress = function(done)
        if done > 0 and not changed then
          changed = true
          os.execute(command:format(path))
        end
      end })
      handle:close()
      io_error(document, err, "size_mismatch", 1, command)
      assert.equal(0, #helper.stored(PATIENT), command)
    end
  end)

  -- Rewrite the file and restore its old modification time.
  local function rewrite(path, from, bytes)
    helper.output(("touch -r %s %s.time"):format(quote(path), quote(path)))
    local file = assert(io.open(path, "r+b"))
    file:seek("set", from)
    file:write(bytes)
    file:close()
    helper.output(("touch -r %s.time %s"):format(quote(path), quote(path)))
  end

  it("that is rewritten during the upload, with its old modification time, ends the upload", function()
    local path = folder .. "/a.pdf"
    for _, kind in ipairs { "path", "handle" } do
      os.execute(("cp %s %s"):format(helper.big_file(5000000), path))
      local source, changed = path, nil
      if kind == "handle" then source = assert(io.open(path, "rb")) end
      local document, err = patient:upload(source, { file_name = "a.pdf", progress = function(done)
        if done > 0 and not changed then
          changed = true
          rewrite(path, 9, ("other"):rep(998000))
        end
      end })
      if kind == "handle" then source:close() end
      assert.is_true(changed)
      io_error(document, err, "changed", 1, kind)
      assert.is_nil(err.outcome_unknown)
      assert.equal(0, #helper.stored(PATIENT), kind)
    end
  end)

  it("whose name, mode or access time changes is sent", function()
    local path = folder .. "/a.pdf"
    local sum = helper.sha256(helper.big_file(5000000))
    for _, command in ipairs { "mv %s %s.done", "chmod 400 %s", "ln %s %s.two", "rm %s" } do
      os.execute(("rm -f %s*; cp %s %s"):format(path, helper.big_file(5000000), path))
      local handle, changed = assert(io.open(path, "rb")), nil
      local document = assert(patient:upload(handle, { file_name = "a.pdf", progress = function(done)
        if done > 0 and not changed then
          changed = true
          os.execute((command:gsub("%%s", path)))
        end
      end }))
      handle:close()
      assert.is_true(changed)
      assert.equal(sum, helper.stored(PATIENT)[1].sha256, command)
      assert(document:delete())
    end
  end)

  it("that never ends is stopped at the limit", function()
    local handle = assert(io.open("/dev/zero", "rb"))
    local document, err = patient:upload(handle, { file_name = "a.pdf", check_type = false })
    handle:close()
    assert.is_nil(document)
    assert.equal("too_large", err.kind)
    assert.is_nil(err.outcome_unknown)
    assert.equal(0, #helper.stored(PATIENT))
  end)

  it("at or beyond its end is an empty file", function()
    local handle = assert(io.open(helper.path("spec/fixtures/photo.jpg"), "rb"))
    for _, position in ipairs { 0, 100 } do
      handle:seek("end", position)
      local document, err = patient:upload(handle, { file_name = "a.jpg" })
      assert.is_nil(document)
      assert.equal("empty", err.reason)
      assert.equal(0, assert(patient:upload(handle, { file_name = "a.jpg", check_type = false })).file_size_bytes)
    end
    handle:close()
  end)

  it("stays open and usable", function()
    local handle = assert(io.open(helper.path("spec/fixtures/photo.jpg"), "rb"))
    assert(patient:upload(handle, { file_name = "a.jpg" }))
    helper.faults { operation = "upload", action = { status = 500, body_kind = "empty" } }
    handle:seek("set", 0)
    assert.is_nil((patient:upload(handle, { file_name = "a.jpg" })))
    assert.equal("file", io.type(handle))
    handle:seek("set", 0)
    assert.equal("\255\216\255", handle:read(3))
    handle:close()
  end)
end)

describe("patient:upload() of a source", function()
  before_each(setup)
  after_each(teardown)

  -- A source that returns the given values, one per call.
  local function giving(...)
    local values, count, at = { ... }, select("#", ...), 0
    return function()
      at = at + 1
      if at <= count then return values[at] end
    end
  end

  it("that returns another size than announced is aborted", function()
    for _, size in ipairs { 0, 9, 11, 1000, 26214400 } do
      local document, err = patient:upload(giving("%PDF-1.4 x"), { file_name = "a.pdf", size = size })
      io_error(document, err, "size_mismatch", nil, tostring(size))
    end
    -- and if it does so late, after most was sent
    for _, last in ipairs { ("x"):rep(99999), ("x"):rep(100001), "" } do
      local list = { "%PDF-1.4" .. ("x"):rep(99992) }
      for i = 2, 20 do list[i] = ("x"):rep(100000) end
      list[21] = last
      local document, err = patient:upload(giving(unpack(list)), { file_name = "a.pdf", size = 2100000 })
      io_error(document, err, "size_mismatch", 1)
    end
    assert.equal(0, #helper.stored(PATIENT))
  end)

  it("that returns values other than strings fails", function()
    for _, value in ipairs { 7, true, false, {}, print } do
      local document, err = patient:upload(giving("%PDF-1.4", value), { file_name = "a.pdf" })
      io_error(document, err, "source", nil, type(value))
      document, err = patient:upload(giving("%PDF-1.4" .. ("x"):rep(2000000), value), { file_name = "a.pdf" })
      io_error(document, err, "source", nil, type(value))
    end
    assert.equal(0, #helper.stored(PATIENT))
  end)

  it("that fails early or late ends the upload with its failure", function()
    for _, before in ipairs { 0, 1, 30 } do
      local calls = 0
      local document, err = patient:upload(function()
        calls = calls + 1
        if calls > before then return nil, "the disk is gone: /home/dr/smith" end
        return "%PDF-" .. ("x"):rep(99995)
      end, { file_name = "a.pdf" })
      io_error(document, err, "source", nil, tostring(before))
      assert.is_nil(tostring(err):find("smith", 1, true))
      local thrown = {}
      calls = 0
      local ok, raised = pcall(patient.upload, patient, function()
        calls = calls + 1
        if calls > before then error(thrown) end
        return "%PDF-" .. ("x"):rep(99995)
      end, { file_name = "a.pdf" })
      assert.is_false(ok)
      assert.equal(thrown, raised)
    end
    assert.equal(0, #helper.stored(PATIENT))
    assert(patient:count())
  end)

  it("may return empty chunks", function()
    assert.equal(8, assert(patient:upload(giving("", "%PDF", "", "", "-1.4", ""),
      { file_name = "a.pdf" })).file_size_bytes)
    assert.equal(8, assert(patient:upload(giving("", "%PDF", "", "", "-1.4", ""), { file_name = "a.pdf",
      size = 8 })).file_size_bytes)
  end)

  it("is not called again after its end", function()
    local ended = 0
    local given = false
    assert(patient:upload(function()
      if given then
        ended = ended + 1
        return nil
      end
      given = true
      return "%PDF-1.4"
    end, { file_name = "a.pdf" }))
    assert.equal(1, ended)
  end)
end)

describe("document:download() to a path", function()
  before_each(setup)
  after_each(teardown)

  it("that cannot be a file sends no request", function()
    local document = stored(10)
    os.execute(("cd %s && mkdir sub && mkfifo fifo && ln -s loop loop && ln -s a b && ln -s b a && ln -s sub linked && touch plain "
      .. "&& ln -s /dev/null device && ln -s fifo tofifo && ln -s missing/x nowhere"):format(folder))
    assert(patient:count())
    local before, listing = descriptors(), names()
    helper.admin("DELETE", "journal")
    for name, reason in pairs {
      ["sub"] = "directory", ["sub/"] = "directory", ["linked"] = "directory", ["fifo"] = "not_a_file",
        ["tofifo"] = "not_a_file",
      ["device"] = "not_a_file", ["loop"] = "too_many_links", ["a"] = "too_many_links", ["missing/x"] = "not_found",
      ["nowhere"] = "not_found", ["plain/x"] = "not_a_directory", [("x"):rep(256)] = "name_too_long", ["new/"] = false,
      ["/dev/null"] = "not_a_file", ["/dev/full"] = "not_a_file", ["/dev/tty"] = "not_a_file", ["/"] = "directory",
      ["."] = "directory", ["sub/.."] = "directory", ["/proc/x"] = false, [("x/"):rep(3000)] = "name_too_long",
    } do
      local path = name:sub(1, 1) == "/" and name or folder .. "/" .. name
      for _, overwrite in ipairs { true, false } do
        local size, err = document:download(path, { overwrite = overwrite })
        io_error(size, err, overwrite and reason or nil, 0, name)
      end
    end
    assert.equal(0, #helper.journal())
    assert.equal(listing, names())
    assert.equal(before, descriptors())
  end)

  it("that is refused requests no token either", function()
    local fresh = helper.client { rate = false, monthly_quota = false }
    helper.admin("DELETE", "journal")
    io_error((fresh:patient(PATIENT):document("d"):download("/dev/null")), select(2,
      fresh:patient(PATIENT):document("d"):download("/dev/null")), "not_a_file", 0)
    local requests = #helper.admin("GET", "journal").requests
    fresh:close()
    assert.equal(0, requests)
  end)

  it("in a directory without write permission sends no request", function()
    stored(10)
    helper.admin("DELETE", "journal")
    os.execute(("mkdir %s/closed && chmod 555 %s/closed"):format(folder, folder))
    if not root then
      local size, err = patient:document("d"):download(folder .. "/closed/a")
      io_error(size, err, "permission", 0)
      return
    end
    os.execute(("chmod 755 %s %s"):format(helper.folder, folder))
    local said = child("setpriv --reuid 65534 --regid 65534 --clear-groups", [[ say(document:download(folder
      .. "/closed/a")) ]])
    os.execute("chmod 700 " .. helper.folder)
    if not said:find("^io") then pending("the user nobody cannot run the interpreter here: " .. said:sub(1, 200)) end
    assert.equal("io permission 0", said)
    assert.equal("", names(folder .. "/closed"))
  end)

  -- A child process with a file system of one megabyte at `folder .. "/disk"`.
  local function on_small_disk(script)
    os.execute("mkdir -p " .. folder .. "/disk")
    local said = child(("unshare -m sh -c %s"):format(quote(("mount -t tmpfs -o size=1m none %s/disk && exec \"$@\"")
      :format(folder))) .. " sh", script)
    if said:find("unshare:", 1, true) or said:find("mount:", 1, true) then
      pending("no file system can be mounted here: " .. said:sub(1, 200))
    end
    return said
  end

  it("on a full disk fails, and leaves an existing file unchanged", function()
    stored()
    local said = on_small_disk [[
      local file = assert(io.open(folder .. "/disk/a", "wb"))
      file:write "mine"
      file:close()
      say(document:download(folder .. "/disk/a"))
      say(document:download(folder .. "/disk/b"))
      file = assert(io.open(folder .. "/disk/a", "rb"))
      print(file:read "*a")
      file:close()
      os.execute("ls -A " .. folder .. "/disk")
      collectgarbage()
      os.execute("ls /proc/$PPID/fd | wc -l > /dev/null")
      os.execute("df --output=used " .. folder .. "/disk | tail -1 | tr -d ' '")
    ]]
    assert.equal("io no_space 1\nio no_space 1\nmine\na\n4", said)
  end)

  it("or to a handle on a full disk fails", function()
    stored()
    local said = on_small_disk [[
      local file = assert(io.open(folder .. "/disk/a", "wb"))
      say(document:download(file))
      file:close()
    ]]
    assert.equal("io no_space 1", said)
    local handle = assert(io.open("/dev/full", "wb"))
    local size, err = patient:document("d"):download(handle)
    handle:close()
    io_error(size, err, "no_space", 1)
    -- bytes that fit into the handle's buffer are reported too
    stored(10)
    handle = assert(io.open("/dev/full", "wb"))
    size, err = patient:document("d"):download(handle)
    handle:close()
    io_error(size, err, "no_space", 1)
  end)

  it("follows links to their target", function()
    local document = stored(10)
    os.execute(("cd %s && mkdir sub && ln -s sub/far near && ln -s ../real sub/far && ln -s %s/absolute sub/root && ln -s sub link")
      :format(folder, folder))
    assert(document:download(folder .. "/near"))
    assert.equal(10, #helper.read_file(folder .. "/real"))
    assert(document:download(folder .. "/sub/root"))
    assert.equal(10, #helper.read_file(folder .. "/absolute"))
    assert(document:download(folder .. "/link/new"))
    assert.equal(10, #helper.read_file(folder .. "/sub/new"))
    assert.equal("absolute link near real sub", names())
    assert.equal("far new root", names(folder .. "/sub"))
    assert.equal("sub/far", helper.output("readlink " .. folder .. "/near"))
    -- a link is an existing file
    local size, err = document:download(folder .. "/near", { overwrite = false })
    io_error(size, err, "exists", 0)
  end)

  it("accepts every name that the system accepts", function()
    local document = stored(10)
    for _, name in ipairs { ("x"):rep(255), "two words", "-rf", "new\nline", "患者", "a;b", "$(touch x)", "'", "\1",
      "%s", ".hidden" } do
      assert(document:download(folder .. "/" .. name))
      assert.equal(10, #helper.read_file(folder .. "/" .. name))
      os.remove(folder .. "/" .. name)
    end
    assert.equal("", names())
  end)

  it("sets the requested mode, whatever the umask", function()
    stored(10)
    for umask in ("000 022 077 777"):gmatch("%d+") do
      local said = child(("umask %s &&"):format(umask), [[
        assert(document:download(folder .. "/a"))
        assert(document:download(folder .. "/b", { mode = 420 }))
        assert(document:download(folder .. "/c", { mode = 256 }))
        local file = io.open(folder .. "/d", "rb")
        os.execute("cd " .. folder .. " && stat -c %a a b c")
      ]])
      assert.equal("600\n644\n400", said, umask)
      os.execute("rm -f " .. folder .. "/[abc]")
    end
  end)

  it("shows no unfinished file to others", function()
    local document = stored()
    local looked
    assert(document:download(folder .. "/a", { mode = 420, progress = function(done)
      if done > 0 and done < SIZE and not looked then
        looked = true
        assert.is_nil((io.open(folder .. "/a", "rb")))
        -- the file has no name, if the system supports that
        local seen = names()
        assert.is_true(seen == "" or helper.output(("stat -c %%a %s/%s"):format(folder, seen)) == "600", seen)
      end
    end }))
    assert.is_true(looked)
    assert.equal("a", names())
    assert.equal("644", helper.output("stat -c %a " .. folder .. "/a"))
  end)

  it("replaces a file without write permission, and its other hard links keep their content", function()
    local document = stored(10)
    helper.write_file(folder .. "/a", "mine")
    os.execute(("cd %s && ln a b && chmod 400 a"):format(folder))
    assert(document:download(folder .. "/a"))
    assert.equal(10, #helper.read_file(folder .. "/a"))
    assert.equal("mine", helper.read_file(folder .. "/b"))
  end)

  it("fails if the directory is removed, or a directory takes the file's name, during the download", function()
    local document = stored()
    local before
    for _, command in ipairs { "rm -rf %s/sub", "mkdir %s/sub/a", "mv %s/sub %s/elsewhere" } do
      os.execute("mkdir " .. folder .. "/sub")
      local changed
      local size, err = document:download(folder .. "/sub/a", { progress = function(done)
        if done > 0 and not changed then
          changed = true
          os.execute((command:gsub("%%s", folder)))
        end
      end })
      assert.is_true(changed)
      io_error(size, err, nil, 1, command)
      before = before or descriptors()
      assert.is_true(descriptors() <= before + 1) -- one more connection may stay open, but not one for each download
      os.execute(("rm -rf %s/sub"):format(folder))
    end
  end)

  it("leaves an existing file unchanged, and no temporary file, however it fails", function()
    local document = stored()
    helper.write_file(folder .. "/a", "mine")
    os.execute("chmod 640 " .. folder .. "/a")
    local before = descriptors()
    for _, action in ipairs { { cut = 100000 }, { reset = 100000 }, { status = 500 }, { truncate = 100000,
      length = "none", unclean = true },
                              { length_delta = 5 }, { json_instead = true, headers = { { "Content-Encoding",
                                "gzip" } } } } do
      helper.faults { operation = "download", action = action }
      assert.is_nil((document:download(folder .. "/a")))
      assert.equal("mine", helper.read_file(folder .. "/a"))
    end
    assert.is_nil((document:download(folder .. "/a", { progress = function() return false end })))
    assert.is_false((pcall(document.download, document, folder .. "/a", { progress = function() error "mine" end })))
    helper.faults { operation = "download", action = { stall = 100000 } }
    assert.is_nil((document:download(folder .. "/a", { timeout = 0.3 })))
    assert.equal("a", names())
    assert.equal("mine", helper.read_file(folder .. "/a"))
    assert.equal("640", helper.output("stat -c %a " .. folder .. "/a"))
    assert(document:download(folder .. "/a"))
    assert.equal("a", names())
    assert.is_true(descriptors() <= before + 1)
  end)
end)

describe("document:download() to a handle", function()
  before_each(setup)
  after_each(teardown)

  it("that cannot be written to fails", function()
    local document = stored(100000)
    local path = helper.write_file(folder .. "/a", "mine")
    local handle = assert(io.open(path, "rb"))
    local size, err = document:download(handle)
    io_error(size, err, "not_open_for_access", 1)
    handle:close()
    assert.equal("mine", helper.read_file(path))
  end)

  it("that is closed is a misuse, or fails if a callback closes it", function()
    local document = stored()
    local handle = assert(io.open(folder .. "/a", "wb"))
    handle:close()
    assert.has_error(function() document:download(handle) end)
    handle = assert(io.open(folder .. "/a", "wb"))
    local size, err = document:download(handle, { progress = function()
      if io.type(handle) == "file" then handle:close() end
    end })
    io_error(size, err, "closed", 1)
  end)

  it("that is a pipe without a reader fails, without side effects", function()
    stored()
    local said = child("", [[
      local pipe = io.popen("exec true", "w")
      os.execute "sleep 0.2"
      say(document:download(pipe))
    ]])
    -- SIGPIPE ends a process that does not ignore it, as with any write to a pipe
    assert.is_true(said == "io pipe_closed 1" or said == "", said)
    said = child("trap '' PIPE;", [[
      local pipe = io.popen("exec true", "w")
      os.execute "sleep 0.2"
      say(document:download(pipe))
    ]])
    assert.equal("io pipe_closed 1", said)
  end)

  it("writes at its position, and leaves it open after the bytes", function()
    local document = stored(10)
    local handle = assert(io.open(folder .. "/a", "w+b"))
    handle:write("head ")
    assert.equal(10, (assert(document:download(handle))))
    assert.equal("file", io.type(handle))
    handle:write(" tail")
    handle:close()
    local bytes = helper.read_file(folder .. "/a")
    assert.equal(20, #bytes)
    assert.equal("head ", bytes:sub(1, 5))
    assert.equal(" tail", bytes:sub(-5))
  end)
end)
