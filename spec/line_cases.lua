-- SPDX-License-Identifier: MIT
-- What spec/line_spec.lua does with a line in each event loop. For cqueues and luv it runs in a process
-- of its own:  LUA -e 'require("line_cases").main()' LOOP PORT TLS_PORT CA_FILE UNIX_PATH PID
local core = require "nymbl.core"
local wait = require "nymbl.wait"

local cases = {}

--- A command as Redis expects it (an array of bulk strings).
function cases.command(...)
  local words = { ... }
  local parts = { ("*%d\r\n"):format(#words) }
  for _, word in ipairs(words) do
    word = tostring(word)
    parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
  end
  return table.concat(parts)
end

-- Text of an error.
local function words(err)
  return err.kind .. " " .. tostring(err.reason)
end

--- Wait for a request's reply. Returns it as text; or "KIND REASON, sent" or "…, unsent"; or "not
-- yet" at the deadline.
function cases.reply(transfer, seconds)
  local deadline = wait.now() + (seconds or 10)
  local done, err = transfer:result()
  while done == false do
    local ready, problem = wait.wait(transfer, deadline)
    if ready == nil then return words(problem) end
    if not ready then break end
    done, err = transfer:result()
  end
  local text = "not yet"
  if done then
    text = transfer:body():gsub("\r\n", " "):gsub(" $", "")
  elseif done == nil then
    text = words(err) .. (transfer:was_sent() and ", sent" or ", unsent")
  end
  wait.close(transfer)
  return text
end

--- Start a command and wait for its reply.
function cases.ask(line, ...)
  assert(wait.prepare())
  local transfer, err = line:request(cases.command(...))
  return transfer and cases.reply(transfer) or "not started: " .. words(err)
end

-- Replies reach the requests of their own, whichever are canceled.
local function pipeline(line)
  local transfers = {}
  for i = 1, 30 do
    transfers[i] = assert(line:request(cases.command("ECHO", i)))
    if i % 7 == 0 then assert(line:send(cases.command("ECHO", "dropped"))) end
    if i % 3 == 0 then
      wait.close(transfers[i - 1])
      transfers[i - 1] = nil
    end
  end
  for i = 30, 1, -1 do
    if transfers[i] then
      local digits = tostring(i)
      assert(cases.reply(transfers[i]) == ("$%d %s"):format(#digits, digits))
    end
  end
  return "matched"
end

--- Everything. Returns a list of texts, which is the same in every event loop.
-- @tparam table servers `port`, `tls_port`, `ca`, `path` (of two servers), `pid` (of that with `port`)
-- @tparam ?function others runs a function while other coroutines run; returns whether they did
function cases.run(servers, others)
  assert(wait.prepare())
  local plain = assert(core.line_open { host = "127.0.0.1", port = servers.port })
  local unix = assert(core.line_open { unix_path = servers.path })
  local verified = assert(core.line_open {
    host = "localhost", port = servers.tls_port, tls = true, ca_file = servers.ca,
    greeting = cases.command("AUTH", "secret") .. cases.command("SELECT", 3), greeting_replies = 2,
  })
  local results = {}
  local function note(text) results[#results + 1] = text end
  for _, line in ipairs { plain, unix, verified } do
    note(cases.ask(line, "PING"))
    note(cases.ask(line, "EVAL", "return {1, ARGV[1], {}}", 0, "a\r\nb"))
    note(pipeline(line))
    assert(line:send(cases.command("SET", "key", "told")))
    note(cases.ask(line, "GET", "key"))
  end
  note(cases.ask(verified, "CLIENT", "INFO"):match("db=%d+"))
  note(cases.ask(assert(core.line_open { host = "localhost", port = servers.tls_port, tls = true }), "PING"))
  -- a stopped server: its late replies reach nobody
  os.execute("kill -STOP " .. servers.pid)
  note((others or function(fn) return fn() end)(function()
    return cases.reply(assert(plain:request(cases.command("ECHO", "late"))), 0.3)
  end))
  local waiting = assert(plain:request(cases.command("ECHO", "awaited")))
  os.execute("kill -CONT " .. servers.pid)
  note(cases.reply(waiting))
  note(cases.ask(plain, "ECHO", "next"))
  waiting = assert(plain:request(cases.command("BLPOP", "none", 0)))
  for _ = 1, 1000 do -- until the server has it
    if cases.ask(unix, "INFO", "clients"):find "blocked_clients:1" then break end
  end
  note(cases.ask(unix, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
  note(cases.reply(waiting))
  note(tostring(plain:is_open()) .. " " .. tostring(unix:is_open()))
  unix:close()
  verified:close()
  return results
end

local loops = {}

function loops.cqueues(body)
  local cqueues = require "cqueues"
  local loop = cqueues.new()
  loop:wrap(function()
    body(function(fn)
      local ticks, running = 0, true
      loop:wrap(function()
        while running do
          cqueues.sleep(0.01)
          ticks = ticks + 1
        end
      end)
      local result = fn()
      running = false
      return ticks >= 5 and result or ("others had %d ticks"):format(ticks)
    end)
  end)
  assert(loop:loop())
end

function loops.luv(body)
  require("nymbl").use "luv"
  local uv = require "luv"
  coroutine.wrap(function()
    body(function(fn)
      local ticks, timer = 0, uv.new_timer()
      timer:start(10, 10, function() ticks = ticks + 1 end)
      local result = fn()
      timer:close()
      return ticks >= 5 and result or ("others had %d ticks"):format(ticks)
    end)
  end)()
  uv.run()
end

--- Run in an event loop, with the arguments of this process.
function cases.main()
  local loop, port, tls_port, ca, path, pid = (table.unpack or unpack)(arg, 1, 6) -- luacheck: ignore
  local results
  loops[loop](function(others)
    results = cases.run({ port = tonumber(port), tls_port = tonumber(tls_port), ca = ca, path = path, pid = pid }, others)
  end)
  io.write(table.concat(results, "\n"))
  for _ = 1, 100 do
    collectgarbage()
    if core.object_count() == 0 then return end
    os.execute "sleep 0.02"
  end
  io.write("\n", core.object_count(), " objects left")
end

return cases
