-- SPDX-License-Identifier: MIT
-- Functions of the operating system and OpenSSL that neither Lua nor cqueues offers.

local ffi = require "ffi"

ffi.cdef [[
char *mkdtemp(char *path);
int getpid(void);
long read(int fd, void *buffer, unsigned long size);
int setsockopt(int fd, int level, int name, const void *value, unsigned int size);
int SSL_shutdown(void *ssl);

struct sandbox_linger { int on; int seconds; };
struct sandbox_pollfd { int fd; short events; short revents; };
int poll(struct sandbox_pollfd *set, unsigned long count, int milliseconds);
]]

local system = {}

local SOL_SOCKET = ffi.os == "OSX" and 0xffff or 1
local SO_LINGER = ffi.os == "OSX" and 0x80 or 13
local POLLIN, POLLERR, POLLHUP, POLLRDHUP = 0x1, 0x8, 0x10, 0x2000

local function library_load(...)
  for _, name in ipairs { ... } do
    local ok, library = pcall(ffi.load, name)
    if ok then
      return library
    end
  end
  error("the OpenSSL library was not found")
end

local ssl = library_load("libssl.so.3", "libssl.so.1.1", "ssl")

--- Make a directory that only this user can read.
function system.temporary_folder()
  local parent = os.getenv "TMPDIR" or "/tmp"
  local path = parent .. "/nymbl-sandbox-XXXXXX"
  local buffer = ffi.new("char[?]", #path + 1, path)
  assert(ffi.C.mkdtemp(buffer) ~= nil, "cannot make a temporary folder in " .. parent)
  return ffi.string(buffer)
end

local function quote(path)
  return "'" .. path:gsub("'", "'\\''") .. "'"
end

function system.remove_folder(path)
  os.execute("rm -rf -- " .. quote(path))
end

--- Run a shell filter from one file into another. It blocks every connection: for faults only.
function system.filter(command, from, to)
  local status = os.execute(command .. " <" .. quote(from) .. " >" .. quote(to))
  assert(status == 0 or status == true, command .. " failed")
end

function system.process_id()
  return ffi.C.getpid()
end

--- Make the next close of a socket send a reset.
function system.reset_on_close(fd)
  local linger = ffi.new("struct sandbox_linger", { 1, 0 })
  ffi.C.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, ffi.sizeof(linger))
end

--- Send TLS close_notify, which cqueues does not send. `session` is luaossl's box with the pointer.
function system.close_notify(session)
  ssl.SSL_shutdown(ffi.cast("void **", session)[0])
end

local function poll(fd, events)
  local set = ffi.new("struct sandbox_pollfd[1]", { { fd, events, 0 } })
  ffi.C.poll(set, 1, 0)
  return set[0].revents
end

--- Whether the peer has closed or reset, detected without reading its data.
function system.peer_gone(fd)
  return bit.band(poll(fd, POLLRDHUP), POLLRDHUP + POLLERR + POLLHUP) ~= 0
end

--- Whether standard input has ended. Never blocks.
function system.input_ended()
  if poll(0, POLLIN) == 0 then
    return false
  end
  return ffi.C.read(0, ffi.new "char[4096]", 4096) <= 0
end

return system
