package = "nymbl"
version = "scm-1"
source = {
  url = "git+https://github.com/nymbl/nymbl.git",
}
description = {
  summary = "Documents of the Nymbl Customer API: upload, list, get, download, delete",
  license = "MIT",
}
supported_platforms = { "unix" }
dependencies = {
  "lua >= 5.1",
  "lua-cjson",
}
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "Release",
    BUILD_SHARED_LIBS = "OFF",
    NYMBL_BUILD_LIBRARY = "OFF",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LUA_CMOD = "$(LIBDIR)",
    LUA_LMOD = "$(LUADIR)",
  },
}
