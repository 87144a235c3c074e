-- SPDX-License-Identifier: MIT
-- The shim of spec/faults must know every function of the C library that the module calls: either it can make
-- the call fail, or there is a reason why it need not. And the calls on a script's own file handles, which
-- system_calls_spec.lua does not have.
local helper = require "helper"

local SHIM = "./build/spec/core/faults.so"

-- Functions of the C library that the shim does not wrap, by reason.
local EXEMPT = {
  ["it makes no system call, and has no failure that is not a matter of its arguments"] = [[
    clearerr ferror ungetc fileno dirfd memchr memcmp memcpy memmem memmove memset snprintf sscanf strchr strcmp
    ntohs htons ntohl htonl strcpy strcspn strlen strncmp strpbrk strrchr strspn strstr strtol strtoul difftime sigemptyset sigfillset
    gnu_get_libc_version uselocale]],
  ["it cannot fail with valid arguments"] = [[
    getpid geteuid time nanosleep pthread_sigmask sigaction signal pthread_join pthread_once
    pthread_mutex_init pthread_mutex_destroy pthread_mutex_lock pthread_mutex_unlock pthread_cond_init
    pthread_cond_destroy pthread_cond_signal pthread_cond_timedwait pthread_condattr_init
    pthread_condattr_destroy pthread_condattr_setclock]],
  ["it allocates memory: core/test_chaos.c and allocation_spec.lua make that fail"] = [[
    malloc calloc realloc free strndup]],
  ["it only finds what is loaded already: core/test_versions.c, core/test_image.c and core/test_digest_fake.c"] = [[
    dl_iterate_phdr dladdr dladdr1 dlopen dlclose dlsym]],
  ["the C locale is a constant of the C library"] = "newlocale",
  ["the compiler and the loader use it"] = [[
    _ITM_deregisterTMCloneTable _ITM_registerTMCloneTable __cxa_finalize __errno_location __gmon_start__
    __tls_get_addr __stack_chk_fail]],
}

-- The names of a library's symbols, without versions of the C library's and without those of newer standards.
local function symbols(library, kind)
  local found = {}
  for name in helper.output(("nm -D --%s-only %s | awk '{ print $NF }'"):format(kind, helper.quote(library))):gmatch "[^\n]+" do
    name = name:gsub("@.*", ""):gsub("^__isoc%d+_", ""):gsub("^__([%w_]+)_chk$", "%1")
    if not name:find "^lua" and not name:find "^curl_" then found[name] = true end
  end
  return found
end

describe("the system calls of the module", function()
  if os.getenv "ASAN_OPTIONS" then return end -- its module calls the sanitizers, too
  local library = package.searchpath and package.searchpath("nymbl.core", package.cpath)
  local file = io.open(SHIM)
  if not file or not library then return end -- the C tests are not built
  file:close()
  if helper.output("nm " .. helper.quote(library) .. " 2>&1"):find "__gcov_" then return end -- it has that library in it

  local exempt = {}
  for reason, names in pairs(EXEMPT) do
    for name in names:gmatch "%S+" do exempt[name] = reason end
  end
  local called, wrapped = symbols(library, "undefined"), symbols(SHIM, "defined")

  it("are all in the shim, or exempt for a reason", function()
    local unknown, count = {}, 0
    for name in pairs(called) do
      if wrapped[name] then
        count = count + 1
        assert.is_nil(exempt[name], name)
      elseif not exempt[name] then
        unknown[#unknown + 1] = name
      end
    end
    table.sort(unknown)
    assert.equal("", table.concat(unknown, " "))
    assert.is_true(count > 50, count)
  end)

  it("make these calls of libcurl's fail, too", function()
    for name in ("socket connect send recv sendto recvfrom setsockopt getsockopt getpeername getsockname fcntl poll"):gmatch "%S+" do
      assert.is_true(wrapped[name], name)
    end
  end)
end)

-- The scripts end with "done", or with "failed" and the error.
local SCRIPTS = {
  upload = [[finish(patient:upload(assert(io.open(path, "rb")), { file_name = "a.pdf" }))]],
  pipe = [[finish(patient:upload(assert(io.popen("cat " .. path)), { file_name = "a.pdf" }))]],
  download = [[
    local handle = assert(io.open(path .. ".got", "wb"))
    finish(patient:document("d"):download(handle))]],
}

local PREAMBLE = [[
  local options, shim, path, id = ...
  options = assert((loadstring or load)("return " .. options))()
  local client = assert(require("nymbl").client(options))
  local patient = client:patient(id)
  local function finish(ok, err)
    package.loadlib(shim, "faults_end")()
    print(ok and "done" or ("failed %s %s %s"):format(err.kind, err.reason or "-", err.outcome_unknown and "unknown" or "known"))
  end
  package.loadlib(shim, "faults_begin")()
]]

describe("a script's own file handle, whose calls fail #slow", function()
  if os.getenv "ASAN_OPTIONS" then return end -- the sanitizers' runtime would have to be loaded first
  local file = io.open(SHIM)
  if not file then return end -- the C tests are not built
  file:close()

  local SIZE = 150000
  local long = os.getenv "NYMBL_SPEC_LARGE" ~= nil
  local seed = tonumber(os.getenv "NYMBL_SEED" or "") or 1
  local patients, calls_file = 0, helper.temporary ".calls"

  -- Run a script with a plan, and check what it says. Returns that and the number of its calls.
  local function try(name, plan)
    local sandbox, patient = helper.sandbox(), "p" .. patients
    helper.reset()
    patients = patients + 1
    local path = helper.write_file(helper.directory() .. "/a.pdf", "%PDF-1.4 " .. ("x"):rep(SIZE))
    local sum = helper.sha256(path)
    if name == "download" then
      sum = helper.admin("POST", "documents", { patient = patient, id = "d", size = SIZE, content_type = "application/pdf" }).sha256
    end
    local options = ("{ base_url = %q, api_key = %q, ca_file = %q, token = %q, timeout = 10, rate = false, max_attempts = 1 }"):format(
      sandbox.base_url, sandbox.api_key, sandbox.ca_file, helper.token())
    local script = helper.write_file(helper.temporary(".lua"), PREAMBLE .. SCRIPTS[name])
    local output = helper.output(table.concat({
      "env LD_PRELOAD=" .. SHIM, "NYMBL_FAULTS_LATER=" .. helper.quote(plan), "NYMBL_FAULTS_REPORT=" .. calls_file,
      "timeout -s KILL 30", helper.interpreter(), script, helper.quote(options), SHIM, path, patient, "2>&1",
    }, " "))
    local done = output:find "^done"
    assert(done or output:find "^failed", ("%s, %s: %s"):format(name, plan, output))
    if name == "download" then
      if done then assert(helper.sha256(path .. ".got") == sum, plan .. ": half a file") end
    else
      local stored = helper.stored(patient)
      assert(#stored <= 1 and helper.sent("upload", patient) <= 1, plan .. ": sent twice")
      assert(not stored[1] or stored[1].sha256 == sum, plan .. ": other bytes were stored")
      if done then assert(#stored == 1, plan) end
      if output:find " known$" then assert(#stored == 0, plan .. ": stored, but reported as failed") end
    end
    return output, tonumber(helper.read_file(calls_file):match "^%d+")
  end

  it("is reported as failed", function()
    for _, case in ipairs {
      { "upload", "fread=EIO", "io_error" }, { "upload", "getc=EIO", "io_error" }, { "pipe", "fread=EIO", "io_error" },
      { "download", "fwrite=ENOSPC", "no_space" }, { "download", "fflush=ENOSPC", "no_space" },
    } do
      assert.equal(("failed io %s known"):format(case[3]), (try(case[1], case[2])))
    end
  end)

  for _, name in ipairs { "upload", "pipe", "download" } do
    it(name .. " never ends with half a file, whichever call fails", function()
      local output, count = try(name, "kill=0")
      assert(output:find "^done", output)
      local step = long and 1 or math.ceil(count / 4)
      local tried = 0
      for call = 1 + seed % step, count, step do
        local plans = { "fail=%d:EIO", "from=%d:EIO", "fail=%d:EINTR" }
        for _, plan in ipairs(long and plans or { plans[call % 2 + 1] }) do
          try(name, plan:format(call))
          tried = tried + 1
        end
      end
      helper.tried(tried, "failing or last system calls", ("%s of a handle, of %d, seed %d"):format(name, count, seed))
    end)
  end
end)
