rockspec_format = "3.0"
package = "nymbl"
version = "0.1.0-1"
source = {
  url = "git+https://github.com/nymbl/nymbl.git",
  tag = "v0.1.0",
}
description = {
  summary = "Documents of the Nymbl Customer API: upload, list, get, download, delete",
  detailed = [[
Works in plain scripts, and in nginx (OpenResty), cqueues and luv without blocking their loops. A C core over libcurl moves
the documents: memory use does not depend on their size, and a partial file never looks complete. Needs libcurl 7.87 or newer.]],
  homepage = "https://github.com/nymbl/nymbl",
  issues_url = "https://github.com/nymbl/nymbl/issues",
  maintainer = "The nymbl authors",
  license = "MIT",
  labels = { "api", "client", "http", "documents", "openresty" },
}
supported_platforms = { "unix" }
dependencies = {
  "lua >= 5.1",
  "lua-cjson",
  "argparse", -- for the command nymbl
}
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "Release",
    BUILD_SHARED_LIBS = "OFF",
    NYMBL_BUILD_LIBRARY = "OFF",
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    NYMBL_TREE = "ON",
    LUA_PROGRAM = "$(LUA)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LUA_CMOD = "$(LIBDIR)",
    LUA_LMOD = "$(LUADIR)",
  },
}
test = {
  type = "command",
  command = "spec/run",
}
