-- SPDX-License-Identifier: MIT
-- The shim of spec/faults must know every function of the C library that the module calls: either it can make
-- the call fail, or there is a reason why it need not.
local helper = require "helper"

local SHIM = "./build/spec/core/faults.so"

-- Functions of the C library that the shim does not wrap, by reason.
local EXEMPT = {
  ["it makes no system call, and has no failure that is not a matter of its arguments"] = [[
    clearerr ferror ungetc fileno dirfd memchr memcmp memcpy memmem memmove memset snprintf sscanf strchr strcmp
    strcpy strcspn strlen strncmp strpbrk strrchr strspn strstr strtol strtoul difftime sigemptyset sigfillset
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
