/* SPDX-License-Identifier: MIT */
/* The differences between Lua 5.1 (LuaJIT) and 5.4 that matter to the binding.
 */
#ifndef NYMBL_COMPAT_H
#define NYMBL_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>

#if LUA_VERSION_NUM == 501
#undef luaL_newlib
#define luaL_setfuncs(L, reg, nup) luaL_register(L, NULL, reg)
#define luaL_newlib(L, reg) (lua_newtable(L), luaL_register(L, NULL, reg))
#define luaL_setmetatable(L, name)                                             \
    (luaL_getmetatable(L, name), lua_setmetatable(L, -2))
#define lua_rawlen(L, i) lua_objlen(L, i)
#define lua_getuservalue(L, i) lua_getfenv(L, i)
#define lua_setuservalue(L, i) lua_setfenv(L, i)
#endif

/* LuaJIT has lua_isyieldable(). It also has LUA_OK, by which it is
 * distinguished from Lua 5.1. */
#if LUA_VERSION_NUM == 501 && !defined(LUA_OK)
#define lua_isyieldable(L) 1
#endif

#if LUA_VERSION_NUM >= 503
#define push_size(L, n) lua_pushinteger(L, (lua_Integer)(n))
#else
#define push_size(L, n) lua_pushnumber(L, (lua_Number)(n))
#endif

/* These push a value, as the functions of Lua do, and return its type in all
 * versions. */
#if LUA_VERSION_NUM >= 503
#define rawget_type(L, i) lua_rawget(L, i)
#define rawgeti_type(L, i, n) lua_rawgeti(L, i, n)
#define getuservalue_type(L, i) lua_getuservalue(L, i)
#else
#define rawget_type(L, i) (lua_rawget(L, i), lua_type(L, -1))
#define rawgeti_type(L, i, n) (lua_rawgeti(L, i, n), lua_type(L, -1))
#define getuservalue_type(L, i) (lua_getuservalue(L, i), lua_type(L, -1))
#endif

/* The FILE of a handle from io.open, or NULL if it was closed. */
static inline FILE *handle_check(lua_State *L, int index)
{
#if LUA_VERSION_NUM == 501
    return *(FILE **)luaL_checkudata(L, index, LUA_FILEHANDLE);
#else
    luaL_Stream *stream = luaL_checkudata(L, index, LUA_FILEHANDLE);

    return stream->closef == NULL ? NULL : stream->f;
#endif
}

#endif
