-- SPDX-License-Identifier: MIT
-- Shared by the specs of the command: its launcher, runs with and without a terminal, and runs in the
-- background that get signals.

local assert = require "luassert"
local helper = require "helper"

local quote = helper.quote

local command = {}

local LUA = rawget(_G, "jit") and "luajit" or "lua" .. _VERSION:match("%d%.%d")

local function absolute(path)
  return helper.output("realpath " .. quote(path))
end

-- The folder with the compiled module of this run.
local function libraries()
  local core = assert(package.searchpath("nymbl.core", package.cpath))
  return absolute((core:gsub("nymbl/core%.so$", "")))
end

local launcher

--- The launcher, as CMake makes it, for the modules of this checkout.
function command.launcher()
  if launcher then return launcher end
  local folder = helper.directory()
  os.execute(("ln -s %s %s/modules && ln -s %s %s/libraries"):format(quote(absolute(helper.path("lua"))), quote(folder),
    quote(libraries()), quote(folder)))
  local text = helper.read_file(helper.path("lua/nymbl/command/nymbl.in"))
  text = text:gsub("@(%w[%w_]*)@", { lua_program = LUA, command_modules = "modules", command_libraries = "libraries" })
  text = text:gsub("'" .. LUA:gsub("%.", "%%.") .. "'", LUA) -- found by PATH
  launcher = helper.write_file(folder .. "/nymbl", text)
  os.execute("chmod +x " .. quote(launcher))
  return launcher
end

-- The home of a user, without files.
function command.home()
  local home = helper.directory()
  command.current_home = home
  return home
end

local NAMES = { "base_url", "ca_file", "api_key", "token_url", "client_id", "client_secret", "scope" }

-- A command line as shell words: the environment, the launcher and the arguments.
-- @tparam table arguments
-- @tparam table options `home`; `env`, a table of variables (false: not set); `directory`
function command.words(arguments, options)
  options = options or {}
  local home = options.home or command.current_home or command.home()
  local env = { HOME = home, TERM = "xterm", XDG_CONFIG_HOME = false, XDG_STATE_HOME = false }
  local sandbox = helper.sandbox()
  for _, name in ipairs(NAMES) do env["NYMBL_" .. name:upper()] = sandbox[name] end
  for name, value in pairs(options.env or {}) do env[name] = value end
  local words = { ("cd %s && exec env"):format(quote(options.directory or home)) }
  for name, value in pairs(env) do
    if not value then words[#words + 1] = "-u " .. name end
  end
  for name, value in pairs(env) do
    if value then words[#words + 1] = ("%s=%s"):format(name, quote(value)) end
  end
  words[#words + 1] = options.program or quote(command.launcher())
  for _, argument in ipairs(arguments) do words[#words + 1] = quote(argument) end
  return table.concat(words, " ")
end

--- Run the command without a terminal.
-- @tparam table arguments
-- @tparam ?table options also `input`, the bytes of standard input
-- @treturn integer exit status
-- @treturn string standard output
-- @treturn string standard error
function command.run(arguments, options)
  local out, err, input = helper.temporary(".out"), helper.temporary(".err"), "/dev/null"
  if options and options.input then input = helper.write_file(helper.temporary(".in"), options.input) end
  local status = helper.output(("( %s ) <%s >%s 2>%s; echo $?"):format(command.words(arguments, options), quote(input),
    quote(out), quote(err)))
  return tonumber(status), helper.read_file(out), helper.read_file(err)
end

--- Run the command in a terminal.
-- @tparam table arguments
-- @tparam ?table options also `typed`, what is typed at it; `typed_when`, called with what the terminal got until it
--   returns true: then `typed` is typed; `columns`, its width; `before`, shell commands; `stdout`, a file for standard
--   output
-- @treturn integer exit status
-- @treturn string what the terminal got
function command.run_in_terminal(arguments, options)
  options = options or {}
  local screen, script = helper.temporary(".screen"), helper.temporary(".sh")
  helper.write_file(script, ("stty cols %d rows 24 -echo\n%s\n( %s ) %s\n"):format(options.columns or 100, options.before or "",
    command.words(arguments, options), options.stdout and ">" .. quote(options.stdout) or ""))
  local typed = helper.temporary(".typed")
  if not options.typed_when then helper.write_file(typed, options.typed or "") end
  -- the pause lets the command end before script reads the end of its input
  local pipe = assert(io.popen(([[{
    tries=0
    until cat %s 2>/dev/null || [ $((tries += 1)) -gt 2000 ]; do sleep 0.02; done
    sleep %s
  } | script -qec %s /dev/null >%s 2>&1
  echo $?]]):format(quote(typed), options.typed and 1 or 0.1, quote("sh " .. quote(script)), quote(screen))))
  if options.typed_when then
    helper.wait_for(function() return helper.exists(screen) and options.typed_when(helper.read_file(screen)) end)
    os.rename(helper.write_file(typed .. ".new", options.typed), typed) -- in one step
  end
  local status = tonumber(pipe:read("*l"))
  pipe:close()
  return status, (helper.read_file(screen):gsub("\r\n", "\n"))
end

--- Start the command in the background. Returns an object with `pid`, `out` and `err`, paths.
function command.start(arguments, options)
  options = options or {}
  local self = { out = options.out or helper.temporary(".out"), err = helper.temporary(".err"),
                 status = helper.temporary(".status") }
  local pid = helper.temporary(".pid")
  -- exec: the process of the command has the number that the shell has written. A shell lets
  -- background commands ignore SIGINT, unless job control is on.
  local script = helper.write_file(helper.temporary(".sh"), ("%s\necho $$ >%s\n%s\n"):format(options.before or "", quote(pid),
    command.words(arguments, options)))
  -- nohup, for example, lets all that it starts ignore SIGHUP
  local job = ("set -m; { sh %s >%s 2>%s; echo $? >%s; } &"):format(quote(script), quote(self.out), quote(self.err),
    quote(self.status))
  os.execute(("env --default-signal bash -c %s </dev/null >/dev/null 2>&1"):format(quote(job)))
  self.pid = helper.wait_for(function() return helper.exists(pid) and helper.read_file(pid):match("%d+") end)
  return self
end

--- Send a signal to a command that was started.
function command.signal(run, name)
  os.execute(("kill -%s %s 2>/dev/null"):format(name, run.pid))
end

--- Wait for its end. Returns status, standard output and standard error.
function command.finish(run)
  local status = helper.wait_for(function()
    return helper.exists(run.status) and tonumber(helper.read_file(run.status))
  end)
  return status, helper.read_file(run.out), helper.read_file(run.err)
end

-- Runs in a process before the command: it replaces the clock of a plain script (wait/blocking.lua) by
-- one that skips the time that the process would sleep, unless a response is awaited meanwhile.
local CLOCK = [==[
  local AHEAD, WALL, STARTS, STORE = %q, %d, %q, %q
  local function read(path)
    local file = assert(io.open(path))
    local text = file:read "*a"
    file:close()
    return text
  end
  local ahead = AHEAD == "" and 0 or tonumber(read(AHEAD))
  package.preload["nymbl.wait.blocking"] = function(name)
    local blocking = dofile(assert(package.searchpath(name, package.path)))
    local core, real = require "nymbl.core", blocking.runtime
    local clock = { poll = real.poll }
    function clock.now() return core.now() + ahead end
    function clock.wall_clock() return math.floor(WALL + clock.now()) end
    function clock.boot_clock()
      local seconds, id = core.boot_clock()
      return seconds + ahead, id
    end
    local awaited, wait = 0, blocking.wait -- transfers that coroutines wait for
    function blocking.wait(transfer, deadline)
      if not transfer then return wait(nil, deadline) end
      awaited = awaited + 1
      local ready = wait(transfer, deadline)
      awaited = awaited - 1
      return ready
    end
    function clock.wait(transfer, deadline, once)
      if once and awaited > 0 then return real.wait(nil, deadline and deadline - ahead, true) end
      if transfer then return real.wait(transfer, deadline and deadline - ahead) end
      if once and (core.pump(0.003) or not deadline) then return true end
      ahead = ahead + math.max(0, deadline - clock.now())
      return false
    end
    blocking.runtime = clock
    return blocking
  end
  if STARTS ~= "" then
    package.preload["nymbl.limiter"] = function(name)
      local limiter = dofile(assert(package.searchpath(name, package.path)))
      local lines = setmetatable({}, { __mode = "k" }) -- by reservation
      local function write(line)
        local file = assert(io.open(STARTS, "a"))
        file:write(line, "\n")
        file:close()
      end
      for _, verb in ipairs { "reserve", "try_reserve" } do
        local fn = limiter[verb]
        limiter[verb] = function(env, operation, deadline)
          local reservation, err = fn(env, operation, deadline)
          if not reservation then return nil, err end
          lines[reservation] = ("%%.6f %%s"):format(read(STORE):match '"time":([%%d.]+)' + reservation.delay,
            operation == "download" and "download" or "read")
          write(lines[reservation])
          return reservation
        end
      end
      local cancel = limiter.cancel
      function limiter.cancel(reservation)
        cancel(reservation)
        write("-" .. lines[reservation])
      end
      return limiter
    end
  end
]==]

--- The environment of a process whose clock skips all sleeps.
-- @tparam ?table options `ahead`, a file with the seconds that the clock is ahead at the begin;
--   `wall_time`, the time of the calendar at 0 of the library's clock; `starts`, a file that gets a line
--   for each reservation: its time, by the store in the file `store`, and "download" or "read"; and the same after a "-" if
--   it is canceled
function command.clock(options)
  options = options or {}
  local wall_time = options.wall_time or os.time() - require("nymbl.core").now()
  return helper.before_program(CLOCK:format(options.ahead or "", math.floor(wall_time), options.starts or "",
    options.store or ""))
end

--- The reservations in such a file that were not canceled: a list of { time, bucket }.
function command.starts(path)
  local list = {}
  for minus, time, bucket in helper.read_file(path):gmatch("(%-?)([%d.]+) (%a+)\n") do
    if minus == "" then
      list[#list + 1] = { tonumber(time), bucket }
    else
      for i = #list, 1, -1 do
        if list[i][1] == tonumber(time) and list[i][2] == bucket then
          table.remove(list, i)
          break
        end
      end
    end
  end
  return list
end

--- The decoded lines of a --json output.
function command.objects(text)
  local found = {}
  for line in text:gmatch("[^\n]+") do found[#found + 1] = assert(helper.json.decode(line)) end
  return found
end

--- The lines of a text.
function command.lines(text)
  local found = {}
  for line in text:gmatch("[^\n]+") do found[#found + 1] = line end
  return found
end

-- A generator that is the same in all versions of Lua.
function command.random_from(seed)
  local state = seed
  return function()
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
  end
end

-- The options of a run without the rate limit of the runs before, which skips all sleeps.
function command.fresh(clock, options)
  options = options or {}
  options.env = options.env or {}
  for name, value in pairs(clock) do options.env[name] = value end
  options.env.XDG_STATE_HOME = helper.directory()
  return options
end

-- Run without and with a terminal. Both must end with the same status and print the same data.
function command.both(clock, arguments, expected, options)
  local status, out, err = command.run(arguments, command.fresh(clock, options))
  assert.equal("", err)
  assert.equal(expected, out)
  local file = helper.temporary(".out")
  options = command.fresh(clock, options)
  options.stdout = file
  local in_terminal, screen = command.run_in_terminal(arguments, options)
  assert.equal(status, in_terminal, screen)
  assert.equal(expected, helper.read_file(file))
  return status, screen
end

-- The keys of an object, sorted.
function command.keys(object)
  local names = {}
  for name in pairs(object) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, " ")
end

return command
