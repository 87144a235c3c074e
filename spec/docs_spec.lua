-- SPDX-License-Identifier: MIT
-- The pages (*.md): every block of code is run as it stands there, against the sandbox, in the
-- order of the page and in a copy of the checkout.
--
--   lua     A block that begins with a comment "-- NAME.lua" is saved under that name, and the
--           page's shell commands run it. Others run at once. If they do not require "nymbl"
--           themselves, they find `nymbl`, `client`, `patient` and `doc`.
--   sh      runs in bash. What would change the system is replaced: see STUBS.
--   nginx   is a configuration file. nginx serves it, and CHECKS says what to ask of it.
--   cmake   is a project for the page's C programs, in a directory of its own.
--   c, make ... begin with a comment that has a name, too; shell commands compile and run them.
--   text    is no code. "LANGUAGE skip" is code that is not run. Both must be in NOT_RUN.
--
-- A block fails if a command in it fails, or if it prints the line of an error.
local helper = require "helper"
local nginx = require "nginx"

local quote = helper.quote
local JIT = rawget(_G, "jit") ~= nil
local ROOT = helper.output("cd " .. quote(helper.path(".")) .. " && pwd")

-- The interpreter of this run, found from any folder and whatever PATH is.
local function absolute(path)
  return (";" .. path):gsub(";%./", function() return ";" .. ROOT .. "/" end):sub(2)
end
local LUA = ("env LUA_PATH=%s LUA_CPATH=%s %s"):format(quote(absolute(package.path) .. ";./?.lua"), quote(absolute(package.cpath)),
  helper.output("command -v " .. (JIT and "luajit" or "lua" .. _VERSION:match("%d%.%d"))))

-- Blocks that are not run, by page and first line, and why.
local NOT_RUN = {
  ["README.md"] = {
    ["examples/quickstart    # ten minutes with the library and the command: upload, list, download, delete, export"] =
      "spec/quickstart_spec.lua runs the one, and this run is the other",
    ["referral.pdf  4.2 MB of 24.9 MB | 3.1 MB/s | 7 s left | 9871 requests left this month"] = "a line of a terminal",
    ["        a script · an nginx handler · a cqueues or luv program            a C program"] = "a diagram",
  },
  ["lua/README.md"] = {
    ['mkdir -p server/logs server/temp'] = "the block before it starts nginx with the same folders, on a socket",
  },
  ["core/README.md"] = {
    ['{ "search", "$search", check.nonempty },'] = "a line of the library, as spec/entity_spec.lua adds one",
    ["--- Iterate over practitioners. …"] = "a method of the library, as spec/entity_spec.lua adds one",
  },
  ["examples/gateway/README.md"] = {
    ["examples/gateway/run [--listen ADDRESS] [--users FILE] [--limits on|off] [--stdin]"] = "a synopsis",
  },
  ["examples/telemetry/README.md"] = {
    ["examples/telemetry/run [--listen ADDRESS] [--limits on|off] [--stdin]"] = "a synopsis",
    ['-- in init_by_lua_block, with "lua_shared_dict telemetry 1m;"'] =
      "part of examples/telemetry/nginx.conf, which telemetry_spec.lua runs",
  },
  ["lua/nymbl/command/README.md"] = {
    ["# from Nymbl"] = "settings",
    ["referral.pdf  4.2 MB of 24.9 MB | 3.1 MB/s | 7 s left | 9871 requests left this month"] = "a line of a terminal",
    ["PATH=/usr/local/bin:/usr/bin:/bin"] = "a crontab, as spec/command_cron_spec.lua follows it",
  },
  ["examples/fleet/README.md"] = {
    ["examples/fleet/run"] = "a command that fleet_spec.lua runs",
    ["    second  script-1  script-2     nginx  together"] = "its output",
    ["export NYMBL_STORE=rediss://redis.example.org"] = "settings for another machine",
  },
  ["examples/sandbox/README.md"] = {
    ["examples/sandbox/run [--port N] [--limits on|off] [--token-life SECONDS] [--max-upload BYTES] [--stdin]"] = "a synopsis",
  },
}

-- Pages whose blocks another spec runs.
local ELSEWHERE = { ["spec/README.md"] = "spec/contributing_spec.lua" }

-- Commands that would change the system, or look for what is not installed in it.
local STUBS = {
  sudo = 'exec "$@"',
  -- the packages exist; spec/run has installed those that it needs
  ["apt-get"] = '[ "$*" = update ] || { [ "$1" = install ] && shift && apt-cache show "$@" >/dev/null 2>&1; }',
  ldconfig = "true",
  -- LuaRocks looks for the interpreter in PATH, to find its headers
  luarocks = 'PATH=${PATH#*:} exec luarocks "$@"',
  -- installs below a folder of the spec's
  cmake = '[ "$1" != --install ] || export DESTDIR="$INSTALLED"; exec "$CMAKE" "$@"',
  -- the rock, once LuaRocks has installed it; until then the module of this run
  ["lua5.4"] = [[
    if [ -e "$INSTALLED/rocks/share/lua/5.4/nymbl.lua" ]; then
      unset LUA_PATH LUA_CPATH
      export LUA_PATH="$INSTALLED/rocks/share/lua/5.4/?.lua;;" LUA_CPATH="$INSTALLED/rocks/lib/lua/5.4/?.so;;"
      exec "$LUA54" "$@"
    fi
    exec INTERPRETER "$@"]],
  nymbl = 'exec LAUNCHER "$@"',
}

-- Lua -----------------------------------------------------------------------------------------------

-- What fragments find. The settings are those that a reader has in the environment.
local PRELUDE = [[
local nymbl = require "nymbl"
local client = assert(nymbl.client {
  base_url = os.getenv "NYMBL_BASE_URL", api_key = os.getenv "NYMBL_API_KEY", ca_file = os.getenv "NYMBL_CA_FILE",
  token = os.getenv "NYMBL_SPEC_TOKEN", rate = false, monthly_quota = false, timeout = 60,
})
local patient = client:patient(12345)
local doc = assert(patient:get "doc-abc123")
]]

-- Pages ---------------------------------------------------------------------------------------------

-- The blocks of a page, each { language =, skip =, line =, code =, name = }.
local function blocks_of(page)
  local blocks, block = {}, nil
  local number = 0
  for line in (helper.read_file(helper.path(page)) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local indent, fence, info = line:match("^( *)(```+)%s*(.-)%s*$")
    if fence and block and info == "" then
      block.code = table.concat(block, "\n") .. "\n"
      block.name = block[1]:match("^%-%- ([%w_.-]+%.%l+)$") or block[1]:match("^/%* ([%w_.-]+%.%l+)[ :.*]")
        or block[1]:match("^# ([%w_-]+%.%l+)$")
      block = nil
    elseif fence then
      assert(not block, page .. ": a fence within a block")
      block = { language = info:match("^%S*"), skip = info:match("%sskip%f[%W]") ~= nil, line = number + 1, indent = #indent }
      blocks[#blocks + 1] = block
    elseif block then
      block[#block + 1] = (line:gsub("^" .. (" ?"):rep(block.indent), ""))
    end
  end
  assert(not block, page .. ": a block without an end")
  return blocks
end

local function pages()
  local found = {}
  for path in helper.output(("cd %s && find . -type f -name '*.md' -not -path './build*' | sort"):format(quote(ROOT))):gmatch("[^\n]+") do
    found[#found + 1] = path:sub(3)
  end
  assert(#found >= 6) -- links to pages are left out
  return found
end

-- A workspace to run the blocks of a page: a copy of the checkout without what was built, and an
-- environment.
local function workspace_new()
  local workspace = { folder = helper.temporary("-page"), home = helper.temporary("-home"), stubs = helper.temporary("-stubs") }
  workspace.installed = workspace.home .. "/installed"
  assert(helper.output(([[
    mkdir -p %s %s %s && cd %s && find . -mindepth 1 -maxdepth 1 ! -name 'build*' ! -name .git -exec cp -R -t %s {} + &&
    cp spec/fixtures/referral.pdf %s && echo done]]):format(quote(workspace.folder), quote(workspace.installed), quote(workspace.stubs),
    quote(ROOT), quote(workspace.folder), quote(workspace.folder))) == "done")
  for name, code in pairs(STUBS) do
    code = code:gsub("INTERPRETER", function() return LUA end)
    code = code:gsub("LAUNCHER", function() return quote(require("command").launcher()) end)
    local path = helper.write_file(workspace.stubs .. "/" .. name, "#!/usr/bin/env bash\n" .. code .. "\n")
    helper.output("chmod +x " .. quote(path))
  end
  helper.write_file(workspace.home .. "/luarocks.lua", ("rocks_trees = { { name = %q, root = %q } }\n"):format("user",
    workspace.installed .. "/rocks"))
  return workspace
end

-- The environment of a block, as words for the shell.
local function environment(workspace)
  local sandbox = helper.sandbox()
  local words = { "env", "-u", "LUA_PATH", "-u", "LUA_CPATH" }
  local function set(name, value) words[#words + 1] = quote(name .. "=" .. value) end
  for _, name in ipairs { "base_url", "ca_file", "api_key", "token_url", "client_id", "client_secret", "scope" } do
    set("NYMBL_" .. name:upper(), sandbox[name])
  end
  set("NYMBL_SPEC_TOKEN", helper.token())
  set("HOME", workspace.home)
  set("INSTALLED", workspace.installed)
  set("LUAROCKS_CONFIG", workspace.home .. "/luarocks.lua")
  set("LUA54", helper.output("command -v lua5.4 || true"))
  set("CMAKE", helper.output("command -v cmake || true"))
  set("PATH", workspace.stubs .. ":" .. os.getenv "PATH")
  -- the C library, where a page has installed it
  set("PKG_CONFIG_PATH", workspace.installed .. "/usr/local/lib/pkgconfig")
  set("CMAKE_PREFIX_PATH", workspace.installed .. "/usr/local")
  set("LD_LIBRARY_PATH", workspace.installed .. "/usr/local/lib")
  return table.concat(words, " ")
end

-- Run a command in the workspace. Returns what it printed; raises if it failed, or if it printed the line
-- of an error.
local function run(workspace, command, where)
  local log = helper.temporary(".log")
  local status = helper.output(("cd %s && { timeout 800 %s %s; } </dev/null >%s 2>&1; echo $?"):format(
    quote(workspace.folder), environment(workspace), command, quote(log)))
  local text = helper.read_file(log)
  assert(status == "0", ("%s: status %s\n%s"):format(where, status, text))
  assert(not text:find("nymbl: %l+: %l"), ("%s: an error\n%s"):format(where, text))
  return text
end

-- The documents that the pages speak of.
local function seed()
  helper.reset()
  helper.admin("POST", "documents", { patient = "12345", id = "doc-abc123", file_name = "referral.pdf", size = 204800,
                                      content_type = "application/pdf", document_type = "Referral" })
  helper.admin("POST", "documents", { patient = "12345", id = "doc-def456", file_name = "insurance-card.png", size = 51200,
                                      content_type = "image/png", document_type = "Insurance" })
end

-- What must hold after a block, by page and first line of the block.
local CHECKS = {}

local RUNNERS = {}

function RUNNERS.lua(workspace, block, where)
  local code = block.code
  if not code:find('require%s*%(?"nymbl"') then code = PRELUDE .. code end
  local path = helper.write_file(helper.temporary(".lua"), code)
  seed()
  return run(workspace, LUA .. " " .. quote(path), where)
end

function RUNNERS.sh(workspace, block, where)
  if JIT then return end -- the commands are for Lua 5.4
  local path = helper.write_file(helper.temporary(".sh"), "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    .. block.code)
  seed()
  return run(workspace, "bash " .. quote(path), where)
end

function RUNNERS.cmake(workspace, block, where)
  if JIT then return end
  local project = workspace.folder .. "/project"
  helper.output(("mkdir %s && cp %s/*.c %s"):format(quote(project), quote(workspace.folder), quote(project)))
  helper.write_file(project .. "/CMakeLists.txt", block.code)
  run(workspace, "cmake -S project -B project/build", where)
  return run(workspace, "cmake --build project/build", where)
end

function RUNNERS.nginx(_, block, where)
  if JIT then return end
  local check = assert(CHECKS[block[1]], where .. ": no request is sent to this server")
  seed()
  local server = nginx.start { configuration = function(folder, default)
    helper.output(("mkdir %s/logs %s/temp"):format(quote(folder), quote(folder)))
    local code, count = block.code:gsub("listen 127%.0%.0%.1:%d+;", ("listen unix:%s/http.sock;"):format(folder))
    assert(count == 1, where)
    code, count = code:gsub("\nhttp {\n", function(line)
      return line .. ('  lua_package_path "%s;;";\n  lua_package_cpath "%s;;";\n'):format(
        helper.path("lua/?.lua"), helper.path("build-jit/?.so"))
    end)
    assert(count == 1, where)
    code, count = code:gsub("\npid logs/nginx%.pid;", ("\npid %s/nginx.pid;"):format(folder))
    assert(count == 1, where)
    -- as the page says of OpenResty
    if not default:find "load_module " then code = code:gsub("\nload_module [^\n]*", "") end
    -- a user that can read the sandbox's certificate
    return ("%s\ndaemon off;\nerror_log %s/error.log info;\n"):format(default:match "user [^\n]*" or "", folder) .. code
  end }
  local ok, err = pcall(check, server)
  server:stop()
  if not ok then error(err, 0) end
end

-- Checks --------------------------------------------------------------------------------------------

CHECKS["# The Lua module. OpenResty has it built in: remove these two lines there."] = function(server)
  local path = helper.temporary()
  local format = "-o " .. path .. " -w '%{http_code} %{content_type} %{size_download}'"
  assert.equal("200 application/pdf 204800", server:get("/patients/12345/documents/doc-abc123", format))
  for _, row in ipairs(helper.stored("12345")) do
    if row.id == "doc-abc123" then assert.equal(row.sha256, helper.sha256(path)) end
  end
  assert.matches("^404 ", server:get("/patients/12345/documents/doc-none", format))
  helper.faults { operation = "download", times = -1, action = { status = 403, body_kind = "service" } }
  assert.matches("^502 ", server:get("/patients/12345/documents/doc-abc123", format))
  helper.faults { operation = "download", times = -1, action = { reset = 100000 } }
  assert.matches("curl: %(%d+%)", server:get("/patients/12345/documents/doc-abc123", format))
  local access = helper.read_file(server.folder .. "/logs/access.log")
  assert.matches(' 404 %d+ [%d.]+ "nymbl: download: not_found 404', access)
  assert.matches(' 502 %d+ [%d.]+ "nymbl: download: forbidden 403', access)
  assert.matches(' 200 %d+ [%d.]+ "nymbl: download: network 200 %(reset%)', access)
  for _, log in ipairs { access, server:log() } do
    assert.is_nil(log:find("12345", 1, true), log)
    assert.is_nil(log:find("doc-", 1, true), log)
  end
end

-- Downloads in a loop: both copies are complete.
local function both_copies(workspace)
  assert.equal("204800", helper.output("stat -c %s " .. quote(workspace.folder .. "/copy-1")))
  assert.equal("51200", helper.output("stat -c %s " .. quote(workspace.folder .. "/copy-2")))
  helper.output("rm " .. quote(workspace.folder) .. "/copy-*")
end
CHECKS['local cqueues = require "cqueues"'] = both_copies
CHECKS['local uv = require "luv"'] = both_copies

-- Specs ---------------------------------------------------------------------------------------------

-- Whether the commands of a page name a saved block, or another block requires it.
local function is_used(block, blocks)
  local module = ('require "%s"'):format(block.name:match("^(.*)%.%l+$"))
  for _, other in ipairs(blocks) do
    if other.language == "sh" and (other.code:find(block.name, 1, true)
      or (block.name == "CMakeLists.txt" and other.code:find("cmake -S", 1, true))) then
      return true
    end
    if other ~= block and other.language == "lua" and other.code:find(module, 1, true) then return true end
  end
  return false
end

for _, page in ipairs(pages()) do
  local blocks = blocks_of(page)
  if ELSEWHERE[page] then
    it("leaves " .. page .. " to " .. ELSEWHERE[page], function()
      assert.is_truthy(helper.read_file(helper.path(ELSEWHERE[page])):find(page, 1, true))
    end)
  elseif #blocks > 0 then
    describe(page .. " #slow", function()
      local workspace

      setup(function()
        workspace = workspace_new()
        local has_c = false
        for _, block in ipairs(blocks) do
          if block.name then helper.write_file(workspace.folder .. "/" .. block.name, block.code) end
          has_c = has_c or block.language == "c"
        end
        if has_c then -- the library, as a reader has installed it by then
          run(workspace, ("cmake --install %s --prefix /usr/local"):format(quote(ROOT .. "/build")), page)
        end
      end)

      for _, block in ipairs(blocks) do
        local where = ("%s:%d"):format(page, block.line)
        local reason = NOT_RUN[page] and NOT_RUN[page][block[1]]
        if block.skip or block.language == "text" then
          it(("has a block at line %d that is not run: %s"):format(block.line, reason or "?"), function()
            assert(reason, where .. ": not in NOT_RUN: " .. block[1])
          end)
        elseif block.name then
          it(("has %s at line %d, which its commands run"):format(block.name, block.line), function()
            assert.is_true(is_used(block, blocks))
          end)
        else
          it(("has a block of %s at line %d that works"):format(block.language, block.line), function()
            assert.is_nil(reason, where .. " is in NOT_RUN")
            local runner = assert(RUNNERS[block.language], where .. ": a block that is not run")
            runner(workspace, block, where)
            local check = block.language ~= "nginx" and CHECKS[block[1]]
            if check then check(workspace) end
          end)
        end
      end
    end)
  end
end

describe("the pages", function()
  it("name no block in NOT_RUN that is not there", function()
    for page, rows in pairs(NOT_RUN) do
      local there = {}
      for _, block in ipairs(blocks_of(page)) do there[block[1]] = true end
      for line in pairs(rows) do assert.is_true(there[line], page .. ": " .. line) end
    end
  end)

  it("link to files and headings that exist", function()
    local function anchors(page)
      local found, in_code = {}, false
      for line in (helper.read_file(helper.path(page)) .. "\n"):gmatch("(.-)\n") do
        if line:match("^ *```") then in_code = not in_code end
        local title = not in_code and line:match("^#+ +(.*)$")
        if title then found[title:lower():gsub("[^%w%s_-]", ""):gsub(" ", "-")] = true end
      end
      return found
    end
    for _, page in ipairs(pages()) do
      local folder = page:match("^(.*/)") or ""
      for link in helper.read_file(helper.path(page)):gmatch("%]%(([^)%s]+)%)") do
        local path, anchor = link:match("^([^#]*)#?(.*)$")
        if not path:find("^%a+:") then
          path = path == "" and page or folder .. path
          assert.is_true(helper.exists(helper.path(path)), page .. ": " .. link)
          if anchor ~= "" then assert.is_true(anchors(path)[anchor], page .. ": " .. link) end
        end
      end
    end
  end)

  it("include a short README", function()
    local _, lines = helper.read_file(helper.path "README.md"):gsub("\n", "")
    assert.is_true(lines <= 220, lines)
  end)
end)

-- A saved program of a page, ready to run in a folder of its own with the modules that it requires.
local function program(page, name)
  local workspace = { folder = helper.directory(), home = helper.directory(), stubs = "/bin", installed = "/" }
  for _, block in ipairs(blocks_of(page)) do
    if block.name then helper.write_file(workspace.folder .. "/" .. block.name, block.code) end
  end
  -- returns the exit status, and what was printed on standard output and standard error
  return workspace, function(...)
    local words = {}
    for i, word in ipairs { ... } do words[i] = quote(word) end
    local out, err = helper.temporary(".out"), helper.temporary(".err")
    local status = helper.output(("cd %s && timeout 60 %s %s %s %s </dev/null >%s 2>%s; echo $?"):format(quote(workspace.folder),
      environment(workspace), LUA, name, table.concat(words, " "), quote(out), quote(err)))
    return tonumber(status), helper.read_file(out), helper.read_file(err)
  end
end

describe("the README's first program #slow", function()
  local workspace, documents, folder

  before_each(function()
    workspace, documents = program("README.md", "documents.lua")
    folder = workspace.folder .. "/documents"
    helper.output("mkdir " .. quote(folder))
  end)

  it("downloads documents of any ids into its folder, each once, and loses none", function()
    local ids = { "doc-abc123", "doc_abc123", "doc abc123", "doc.abc123", "A", "a", "%41", "../up", "/etc/x", "-rf",
                  "a\27[2Jb", "\194\155", "..", ".", "con", "a/b", "a%2Fb", "\195\164" }
    helper.reset()
    for i, id in ipairs(ids) do
      helper.admin("POST", "documents", { patient = "12345", id = id, size = 1000 + i, content_type = "application/pdf" })
    end
    local before = helper.names(workspace.folder)
    assert.same({ 0, ("%d documents complete, 0 failed\n"):format(#ids), "" }, { documents("12345", "documents") })
    assert.equal(before, helper.names(workspace.folder))
    local sizes = helper.output(("cd %s && stat -c %%s -- * .[!.]* 2>/dev/null | sort -n | tr '\\n' ' '"):format(quote(folder)))
    local expected = {}
    for i = 1, #ids do expected[i] = ("%d "):format(1000 + i) end
    assert.equal(table.concat(expected), sizes)
    -- no two names are the same on a file system that folds case
    assert.equal(("%d"):format(#ids), helper.output(("ls -A %s | tr A-Z a-z | sort -u | wc -l"):format(quote(folder))))
    local requests = #helper.journal("download")
    assert.equal(0, (documents("12345", "documents")))
    assert.equal(requests, #helper.journal("download"))
  end)

  it("fails if one document fails, and downloads the others", function()
    seed()
    helper.faults { operation = "download", path_contains = "doc-abc123", times = -1, action = { status = 403, body_kind = "service" } }
    local status, out, err = documents("12345", "documents")
    assert.equal(1, status)
    assert.equal("1 documents complete, 1 failed\n", out)
    assert.matches("^nymbl: download: forbidden 403[^\n]*\n$", err)
    assert.matches("^insurance%-card[^ ]*%-%x+%.png$", (helper.names(folder)))
  end)
end)

describe("the cookbook's upload_once.lua #slow", function()
  it("says by its exit status what to do", function()
    local file = ROOT .. "/spec/fixtures/referral.pdf"
    for expected, action in pairs {
      [0] = false,
      [1] = { status = 403, body_kind = "service" },
      [2] = { status = 503, body_kind = "service" },
      [75] = { status = 429, body_kind = "gateway", message = "Limit Exceeded" },
    } do
      local _, upload = program("examples/README.md", "upload_once.lua") -- a store of its own
      helper.reset()
      if action then helper.faults { operation = "upload", times = -1, action = action } end
      local status, out, err = upload("12345", file)
      assert.equal(expected, status, err)
      assert.equal("", out)
    end
  end)
end)

describe("the guide's tables of options", function()
  -- The first words of the rows of tables whose first column is of options, below a heading.
  local function options_below(heading)
    local text = helper.read_file(helper.path "lua/README.md"):match("\n## " .. heading .. "\n(.-)\n## ")
    local names = {}
    for rows in (text .. "\n\n"):gmatch("\n| [%l ]*option |[^\n]*\n|[-|]+\n(.-)\n\n") do
      for line in (rows .. "\n"):gmatch("(.-)\n") do
        for name in line:match("^|([^|]*)|"):gmatch("`([%w_]+)`") do names[#names + 1] = name end
      end
    end
    assert(#names > 5, heading)
    return names
  end

  local CALLS = {
    ["Client options"] = function(options) require("nymbl").client(options) end,
    Uploading = function(options, patient) patient:upload("a.pdf", options) end,
    Downloading = function(options, patient) patient:document(1):download("a.pdf", options) end,
    Listing = function(options, patient) patient:page(options) end,
  }

  for heading, call in pairs(CALLS) do
    it("have only options that exist: " .. heading, function()
      local client = helper.client { token = "t" }
      for _, name in ipairs(options_below(heading)) do
        -- a thread is a wrong value of each
        local ok, message = pcall(call, { [name] = coroutine.create(print) }, client:patient(1))
        assert.is_false(ok, name)
        assert.matches("option '" .. name .. "'", message, 1, true)
        assert.is_nil(message:find("unknown", 1, true), message)
      end
      client:close()
    end)
  end
end)
