-- SPDX-License-Identifier: MIT
-- luacheck: std max+busted
-- core.system: files below a directory without following links, locks, terminals and signals.

local core = require "nymbl.core"
local helper = require "helper"

local system = core.system
local quote = helper.quote

local is_root = system.user() == 0

-- A new directory, and a descriptor of it.
local function directory()
  local path = helper.temporary()
  assert.is_true(system.make_directory(path))
  return path, assert(system.open_directory(path))
end

local function fails(reason, ...)
  local result, err = ...
  assert.is_nil(result)
  assert.same({ kind = "io", reason = reason }, err)
end

-- A command that runs Lua with this module. `core` and `system` are defined.
local function lua(code)
  return ("LUA_PATH=%s LUA_CPATH=%s exec %s -e %s"):format(quote(package.path), quote(package.cpath), helper.interpreter(),
    quote('local core = require "nymbl.core" local system = core.system ' .. code))
end

-- The mode and type of a file, from another program.
local function stat(path, format)
  return helper.output(("stat -c %s %s"):format(format, quote(path)))
end

describe("system.make_directory()", function()
  it("creates a directory for this user alone", function()
    local path, dir = directory()
    assert.equal("700", stat(path, "%a"))
    assert.is_true(dir:make_directory("sub"))
    assert.equal("700", stat(path .. "/sub", "%a"))
    dir:close()
  end)

  it("returns false if the directory exists", function()
    local path, dir = directory()
    assert.is_false(system.make_directory(path))
    assert.is_true(dir:make_directory("sub"))
    assert.is_false(dir:make_directory("sub"))
    dir:close()
  end)

  it("fails if something else has the name", function()
    local path, dir = directory()
    helper.write_file(path .. "/file", "")
    os.execute("ln -s / " .. quote(path .. "/link"))
    os.execute("ln -s nowhere " .. quote(path .. "/dangling"))
    fails("not_a_directory", dir:make_directory("file"))
    fails("symbolic_link", dir:make_directory("link"))
    fails("symbolic_link", dir:make_directory("dangling"))
    fails("not_found", system.make_directory(path .. "/none/sub"))
    fails("not_a_directory", system.make_directory(path .. "/file"))
    fails("not_found", system.make_directory(path .. "/dangling"))
    assert.is_false(system.make_directory(path .. "/link")) -- the caller's own path may have links
    dir:close()
  end)
end)

describe("a directory descriptor", function()
  it("opens no link", function()
    local path, dir = directory()
    local elsewhere = helper.temporary()
    assert.is_true(system.make_directory(elsewhere))
    helper.write_file(elsewhere .. "/secret", "x")
    os.execute(("ln -s %s %s"):format(quote(elsewhere), quote(path .. "/dir")))
    os.execute(("ln -s %s %s"):format(quote(elsewhere .. "/secret"), quote(path .. "/file")))
    os.execute(("ln -s %s %s"):format(quote(elsewhere .. "/new"), quote(path .. "/dangling")))
    fails("symbolic_link", dir:open_directory("dir"))
    fails("symbolic_link", dir:open_file("file", "read"))
    fails("symbolic_link", dir:open_file("file", "append"))
    fails("exists", dir:open_file("file", "create"))
    fails("symbolic_link", dir:open_file("dangling", "append"))
    fails("exists", dir:open_file("dangling", "create"))
    fails("symbolic_link", system.open_file(path .. "/file", "read"))
    assert.equal("secret", helper.output("ls " .. quote(elsewhere)))
    dir:close()
  end)

  it("accepts no name that leads elsewhere", function()
    local _, dir = directory()
    for _, name in ipairs { "", ".", "..", "/", "a/b", "../x", "/etc", "a\0b" } do
      for _, method in ipairs { "open_directory", "make_directory", "unlink", "stat" } do
        assert.has_error(function() dir[method](dir, name) end)
      end
      assert.has_error(function() dir:open_file(name, "create") end)
      assert.has_error(function() dir:rename(name, "b") end)
      assert.has_error(function() dir:rename("b", name) end)
    end
    dir:close()
  end)

  it("stays with its directory if another one, or a link, takes the name", function()
    local path, dir = directory()
    local elsewhere = helper.temporary()
    assert.is_true(system.make_directory(elsewhere))
    assert.is_true(dir:make_directory("patient"))
    local patient = assert(dir:open_directory("patient"))
    assert(os.rename(path .. "/patient", path .. "/moved"))
    os.execute(("ln -s %s %s"):format(quote(elsewhere), quote(path .. "/patient")))
    local file = assert(patient:open_file("document", "create"))
    assert.is_true(file:write("x"))
    file:close()
    assert.equal("x", helper.read_file(path .. "/moved/document"))
    assert.equal("", helper.output("ls " .. quote(elsewhere)))
    fails("symbolic_link", dir:open_directory("patient"))
    assert.is_true(patient:unlink("document"))
    patient:close()
    dir:close()
  end)

  it("follows no link while another process swaps a directory for one, again and again", function()
    local path, dir = directory()
    local elsewhere = helper.temporary()
    assert.is_true(system.make_directory(elsewhere))
    assert.is_true(dir:make_directory("a"))
    os.execute(("ln -s %s %s"):format(quote(elsewhere), quote(path .. "/b")))
    local swap = io.popen(("cd %s && while [ ! -e stop ]; do mv -T a c && mv -T b a && mv -T a b && mv -T c a; done; ls -d a b")
      :format(quote(path)))
    local opened, refused = 0, 0
    for _ = 1, 20000 do
      local a, err = dir:open_directory("a")
      if a then
        opened = opened + 1
        local file = assert(a:open_file("document", "append"))
        file:close()
        a:close()
      else
        refused = refused + 1
        assert.truthy(err.reason == "symbolic_link" or err.reason == "not_found" or err.reason == "not_a_directory",
          err.reason)
      end
      if opened > 500 and refused > 500 then break end
    end
    helper.write_file(path .. "/stop", "")
    swap:read("*a")
    swap:close()
    assert.is_true(opened > 0 and refused > 0, ("%d opened, %d refused"):format(opened, refused))
    assert.equal("", helper.output("ls " .. quote(elsewhere)))
    dir:close()
  end)

  it("renames and removes entries, and replaces a link instead of following it", function()
    local path, dir = directory()
    local target = helper.write_file(helper.temporary(), "target")
    helper.write_file(path .. "/new", "new")
    os.execute(("ln -s %s %s"):format(quote(target), quote(path .. "/link")))
    assert.is_true(dir:rename("new", "link"))
    assert.equal("new", helper.read_file(path .. "/link"))
    assert.equal("file", dir:stat("link").kind)
    os.execute(("ln -s %s %s"):format(quote(target), quote(path .. "/other")))
    assert.is_true(dir:unlink("other"))
    assert.equal("target", helper.read_file(target))
    fails("not_found", dir:unlink("other"))
    fails("not_found", dir:rename("other", "link"))
    dir:make_directory("sub")
    assert.is_nil((dir:unlink("sub")))
    dir:close()
  end)
end)

describe("a file descriptor", function()
  it("creates a file for this user alone, and only once", function()
    local path, dir = directory()
    local file = assert(dir:open_file("a", "create"))
    assert.equal("600", stat(path .. "/a", "%a"))
    file:close()
    fails("exists", dir:open_file("a", "create"))
    dir:close()
  end)

  it("reads, appends and truncates", function()
    local path, dir = directory()
    local file = assert(dir:open_file("log", "append"))
    assert.is_true(file:write("one\n"))
    assert.is_true(file:write(""))
    assert.is_true(file:write("two\nthr"))
    file:close()
    file = assert(dir:open_file("log", "append"))
    assert.equal("one\n", file:read(4))
    assert.equal("two\nthr", file:read(1000))
    assert.equal(1, select("#", file:read(1000)))
    assert.is_nil((file:read(1000)))
    assert.is_true(file:truncate(8))
    assert.is_true(file:write("three\n"))
    file:close()
    assert.equal("one\ntwo\nthree\n", helper.read_file(path .. "/log"))
    file = assert(dir:open_file("log", "read"))
    fails("not_open_for_access", file:write("x"))
    file:close()
    dir:close()
  end)

  it("writes and reads any bytes, and many", function()
    local _, dir = directory()
    local bytes = {}
    for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
    bytes = table.concat(bytes):rep(20000)
    local file = assert(dir:open_file("big", "create"))
    assert.is_true(file:write(bytes))
    file:close()
    file = assert(dir:open_file("big", "read"))
    local pieces = {}
    repeat
      local piece = file:read(1048576)
      pieces[#pieces + 1] = piece
    until not piece
    assert.is_true(table.concat(pieces) == bytes)
    assert.is_nil((file:read(1)))
    for _, size in ipairs { 0, -1, 1048577, 0 / 0 } do assert.has_error(function() file:read(size) end) end
    file:close()
    dir:close()
  end)

  it("opens regular files only, and waits for none", function()
    local path, dir = directory()
    os.execute("mkfifo " .. quote(path .. "/fifo"))
    dir:make_directory("sub")
    fails("not_a_file", dir:open_file("fifo", "read"))
    fails("not_a_file", dir:open_file("fifo", "append"))
    fails("directory", dir:open_file("sub", "read"))
    fails("directory", dir:open_file("sub", "append"))
    fails("not_a_directory", dir:open_directory("fifo"))
    fails("not_found", dir:open_file("none", "read"))
    fails("not_a_file", system.open_file("/dev/null", "read"))
    assert.has_error(function() dir:open_file("a", "w") end)
    assert.has_error(function() dir:open_file("a") end)
    dir:close()
  end)

  it("reports what the system does not permit", function()
    if not is_root then pending "this needs root, to become another user" end
    local path = directory()
    os.execute("chmod 711 " .. quote(helper.folder) .. " && chmod 755 " .. quote(path))
    finally(function() os.execute("chmod 700 " .. quote(helper.folder)) end)
    helper.write_file(path .. "/file", "x")
    os.execute("chmod 600 " .. quote(path .. "/file"))
    local command = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c " .. quote(lua(([[
      local dir = assert(system.open_directory(%q))
      for _, call in ipairs {
        function() return dir:open_file("file", "read") end,
        function() return dir:open_file("new", "create") end,
        function() return dir:make_directory("sub") end,
        function() return dir:unlink("file") end,
        function() return dir:rename("file", "other") end,
        function() return system.make_directory(%q .. "/sub") end,
      } do
        local result, err = call()
        io.write(tostring(result), " ", err.kind, " ", err.reason, "\n")
      end
      io.write(system.user())
    ]]):format(path, path)))
    -- the module has to be readable for that user
    local readable = helper.output("setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "
      .. quote(lua "io.write 'yes'"))
    if readable ~= "yes" then pending "another user cannot read this tree" end
    assert.equal(("nil io permission\n"):rep(6) .. "65534", helper.output(command))
  end)

  it("says what a file is", function()
    local path, dir = directory()
    helper.write_file(path .. "/file", "12345")
    os.execute(("chmod 640 %s && touch -d @1700000000.5 %s"):format(quote(path .. "/file"), quote(path .. "/file")))
    os.execute("ln -s file " .. quote(path .. "/link") .. " && ln " .. quote(path .. "/file") .. " "
      .. quote(path .. "/second"))
    os.execute("mkfifo " .. quote(path .. "/fifo"))
    local status = dir:stat("file")
    assert.equal("file", status.kind)
    assert.equal(5, status.size)
    assert.equal(416, status.mode) -- 0640
    assert.equal(system.user(), status.owner)
    assert.equal(2, status.links)
    assert.equal(1700000000.5, status.modified)
    assert.equal(status.identity, dir:stat("second").identity)
    assert.are_not.equal(status.identity, dir:stat("link").identity)
    assert.equal("link", dir:stat("link").kind)
    assert.equal("other", dir:stat("fifo").kind)
    assert.equal("directory", dir:stat().kind)
    local file = assert(dir:open_file("file", "read"))
    assert.same(status, file:stat())
    file:close()
    assert.same(status, system.lstat(path .. "/file"))
    assert.equal("link", system.lstat(path .. "/link").kind)
    fails("not_found", system.lstat(path .. "/none"))
    fails("not_found", dir:stat("none"))
    dir:close()
  end)

  it("is closed by close, once, and by the collector", function()
    collectgarbage()
    collectgarbage()
    local before = helper.descriptors()
    local _, dir = directory()
    local file = assert(dir:open_file("a", "create"))
    assert.equal(before + 2, helper.descriptors())
    file:close()
    file:close()
    assert.has_error(function() file:read(1) end)
    assert.has_error(function() dir:open_file("fifo", "r") end)
    -- A failure leaves nothing open, not even until the collector runs.
    dir:open_file("a", "create")
    dir:make_directory("sub")
    collectgarbage "stop"
    for _, name in ipairs { "sub", "none" } do dir:open_file(name, "read") end
    system.open_file("/dev/null", "read")
    local after = helper.descriptors()
    collectgarbage "restart"
    assert.equal(before + 1, after)
    dir = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(before, helper.descriptors())
  end)

  it("is not inherited by other programs, and never takes the number of a standard stream", function()
    local path, dir = directory()
    helper.write_file(path .. "/file", "x")
    local file = assert(dir:open_file("file", "read"))
    assert.is_nil(helper.output("ls -l /proc/self/fd"):find(path, 1, true))
    file:close()
    dir:close()
    local out = helper.output(lua(([[
      local file = assert(system.open_file(%q, "read"))
      local dir = assert(system.open_directory(%q))
      print(io.stdin:read(1))
      assert(file:read(1) == "x")
    ]]):format(path .. "/file", path)) .. " <&-")
    assert.truthy(out:find("^nil"), out)
  end)
end)

describe("descriptor:lock()", function()
  -- A job has a duplicate of its descriptor until it ends, also if nobody waits for it any more.
  it("ends when the descriptor is closed or collected, while a job still has its file", function()
    local _, dir = directory()
    for _, close in ipairs { function(file) file:close() end, function() end } do
      local file = assert(dir:open_file("lock", "append"))
      assert.is_true(file:lock())
      local job = assert(core.sync(file))
      close(file)
      file = nil -- luacheck: ignore
      collectgarbage()
      file = assert(dir:open_file("lock", "append"))
      assert.is_true(file:lock())
      file:close()
      job:close()
    end
    dir:close()
  end)

  if rawget(_G, "jit") then
    it("does not end when a forked child closes the descriptor", function()
      local path, dir = directory()
      assert.equal("false", helper.output(lua(([[
        local ffi = require "ffi"
        ffi.cdef "int fork(void); void _exit(int); int waitpid(int, int *, int);"
        local function open() return assert(system.open_file(%q, "append")) end
        local file = open()
        assert(file:lock())
        local child = ffi.C.fork()
        if child == 0 then
          file:close()
          ffi.C._exit(0)
        end
        ffi.C.waitpid(child, nil, 0)
        io.write(tostring(open():lock()))
      ]]):format(path .. "/lock"))))
      dir:close()
    end)
  end

  it("is held by one process at a time, and ends with it, even if it is killed", function()
    local path, dir = directory()
    local file = assert(dir:open_file("lock", "append"))
    local code = ([[
      local file = assert(system.open_file(%q, "append"))
      io.write(tostring(file:lock()), "\n")
      io.flush()
      io.read()
    ]]):format(path .. "/lock")
    assert.is_true(file:lock())
    assert.is_true(file:lock())
    assert.equal("false", helper.output(lua(code) .. " </dev/null"))
    file:close()
    assert.equal("true", helper.output(lua(code) .. " </dev/null"))
    local pid_file = helper.temporary()
    local holder = io.popen(("echo $$ > %s; %s"):format(quote(pid_file), lua(code:gsub("io.read%(%)",
      "while true do core.pump(0.01) end"))), "r")
    assert.equal("true", holder:read("*l"))
    local pid = helper.read_file(pid_file):match("%d+")
    file = assert(dir:open_file("lock", "append"))
    assert.is_false(file:lock())
    os.execute("kill -KILL " .. pid)
    holder:close()
    assert.is_true(file:lock())
    file:close()
    dir:close()
  end)
end)

describe("system.realpath()", function()
  it("resolves links", function()
    local path, dir = directory()
    helper.write_file(path .. "/file", "")
    os.execute("ln -s file " .. quote(path .. "/link"))
    local real = helper.output("readlink -f " .. quote(path))
    assert.equal(real .. "/file", system.realpath(path .. "/link"))
    assert.equal(real, system.realpath(path .. "/./../" .. path:match("[^/]+$") .. "/"))
    fails("not_found", system.realpath(path .. "/none"))
    dir:close()
  end)
end)

describe("system.is_terminal()", function()
  it("is false for files and pipes, and a closed handle", function()
    local file = io.tmpfile()
    assert.is_false(system.is_terminal(file))
    assert.is_nil(system.terminal_width(file))
    file:close()
    assert.is_false(system.is_terminal(file))
    assert.is_nil(system.terminal_width(file))
    assert.equal("false", helper.output(lua "io.write(tostring(system.is_terminal(io.stdout)))"))
    assert.has_error(function() system.is_terminal(1) end)
  end)

  it("is true for a terminal, whose width is known", function()
    local command = "stty cols 77; " .. lua [[
      print(system.is_terminal(io.stdout), system.terminal_width(io.stdout), system.is_terminal(io.stderr))
    ]]
    local out = helper.output(("script -qec %s /dev/null </dev/null"):format(quote(command)))
    assert.truthy(out:find("true\t77\ttrue", 1, true), out)
    command = "stty cols 0; " .. lua "print(system.terminal_width(io.stdout))"
    out = helper.output(("script -qec %s /dev/null </dev/null"):format(quote(command)))
    assert.truthy(out:find("nil", 1, true) or out:match("^%s*$"), out)
  end)
end)

describe("system.catch_signal()", function()
  -- Run Lua in the background of a shell, send it signals once it says that it is ready, and
  -- return what it prints and its exit status.
  local function run(code, signals, before)
    local out = helper.temporary()
    local script = ([[
      %s
      ( %s ) > %s 2>/dev/null </dev/null &
      pid=$!
      for i in $(seq 500); do grep -q ready %s && break; sleep 0.01; done
      for signal in %s; do kill -$signal $pid; sleep 0.05; done
      wait $pid
      echo "status $?"
    ]]):format(before or "", lua(code), quote(out), quote(out), signals)
    -- nohup, for example, lets all that it starts ignore SIGHUP
    local status = helper.output("env --default-signal sh -c " .. quote(script) .. " 2>/dev/null")
    return (helper.read_file(out):gsub("^.*ready\n", "")), tonumber(status:match("status (%d+)"))
  end

  local WAIT = [[
    io.write "ready\n" io.flush()
    for _ = 1, 500 do
      core.pump(0.01)
      if system.caught_signal() then break end
    end
    io.write(tostring(system.caught_signal()))
  ]]

  it("sets a flag instead of ending the process", function()
    for _, name in ipairs { "TERM", "HUP", "INT" } do
      local out, status = run(("io.write(tostring(system.catch_signal %q), '\\n') "):format(name) .. WAIT, name)
      assert.equal(name, out)
      assert.equal(0, status)
    end
  end)

  it("keeps the first signal", function()
    local out = run([[for _, name in ipairs { "TERM", "HUP" } do system.catch_signal(name) end
      io.write "ready\n" io.flush() for _ = 1, 50 do core.pump(0.01) end io.write(tostring(system.caught_signal()))]],
      "HUP TERM")
    assert.equal("HUP", out)
  end)

  it("returns false if the signal is ignored, and lets it be so", function()
    local out, status = run([[local term, hup = system.catch_signal "TERM", system.catch_signal "HUP"
      io.write "ready\n" io.flush()
      for _ = 1, 30 do core.pump(0.01) end
      io.write(tostring(term), tostring(hup), tostring(system.caught_signal()))]], "TERM HUP", "trap '' TERM HUP")
    assert.equal("falsefalsenil", out)
    assert.equal(0, status)
  end)

  it("is undone by restore_signals()", function()
    local out, status = run([[assert(system.catch_signal "TERM") assert(system.catch_signal "TERM")
      system.restore_signals() io.write "ready\n" io.flush() for _ = 1, 500 do core.pump(0.01) end io.write "alive"]],
      "TERM")
    assert.equal("", out)
    assert.equal(128 + 15, status)
  end)

  it("ends a read that waits", function()
    local out, status = run([[system.catch_signal "TERM"
      local pipe = io.popen("echo $$; exec sleep 20") local pid = pipe:read("*l")
      io.write "ready\n" io.flush()
      local text = pipe:read("*l")
      os.execute("kill " .. pid)
      io.write(tostring(text), " ", tostring(system.caught_signal())) io.flush() os.exit(3)]], "TERM")
    assert.equal("nil TERM", out)
    assert.equal(3, status)
  end)

  it("catches no signal that ignore_signal() has disposed of", function()
    local out, status = run([[system.ignore_signal "INT" io.write(tostring(system.catch_signal "INT")) io.write "ready\n" io.flush()
      for _ = 1, 30 do core.pump(0.01) end io.write(tostring(system.caught_signal()))]], "INT")
    assert.equal("nil", out)
    assert.equal(0, status)
  end)

  it("raises on another signal", function()
    assert.has_error(function() system.ignore_signal "TERM" end)
    assert.has_error(function() system.catch_signal "KILL" end)
    assert.has_error(function() system.catch_signal() end)
    assert.is_nil(system.caught_signal())
  end)
end)

describe("system.ignore_signal()", function()
  it("lets a write to a pipe without a reader fail", function()
    assert.equal("32 0", helper.output(("bash -c %s"):format(quote(("( %s ) | true; echo ${PIPESTATUS[0]}"):format(
      lua([[system.ignore_signal "PIPE" os.execute "sleep 0.2" io.stdout:setvbuf "no"
        local _, _, code = io.stdout:write "x" io.stderr:write(code, " ")]]))) .. " 2>&1")))
  end)
end)

describe("system.now()", function()
  it("is the clock of the library", function()
    assert.is_true(math.abs(system.now() - core.now()) < 1)
  end)
end)
