/* SPDX-License-Identifier: MIT */
/* Helpers for every file of the binding: blocks, arguments and failures. */
#include "helpers.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- blocks ---- */

/* The tag of a block is an address in this array. */
static const char tags[BLOCK_ENGINE + 1];

void *block_new(lua_State *L, block_type type, size_t size)
{
    block_tag *block = lua_newuserdata(L, size);

    memset(block, 0, size);
    block->type = &tags[type];
    return block;
}

void *block_test(lua_State *L, int index, block_type type, size_t size)
{
    block_tag *block = lua_touserdata(L, index);

    /* a light userdata, which may point anywhere, has the length 0 */
    return block != NULL && lua_rawlen(L, index) >= size &&
                   block->type == &tags[type]
               ? block
               : NULL;
}

void *block_check(lua_State *L, int index, block_type type, size_t size,
                  const char *name)
{
    void *block = block_test(L, index, type, size);

    if (block == NULL) {
        luaL_checkudata(L, index, name);
        luaL_argerror(L, index, "forged metatable");
    }
    return block;
}

void block_class(lua_State *L, const char *name, const luaL_Reg *methods,
                 lua_CFunction collect)
{
    luaL_newmetatable(L, name);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, collect);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

/* ---- arguments ---- */

const char *text_check(lua_State *L, int index)
{
    size_t size;
    const char *text = luaL_checklstring(L, index, &size);

    if (strlen(text) != size)
        luaL_argerror(L, index, "string contains NUL");
    return text;
}

/* Raise an error about an option, whose value is on top of the stack. */
static int option_fail(lua_State *L, const char *name, const char *expected)
{
    return luaL_error(L, "option '%s': %s expected, got %s", name, expected,
                      luaL_typename(L, -1));
}

const char *option_text(lua_State *L, int table, const char *name)
{
    const char *text = NULL;
    size_t size;

    lua_getfield(L, table, name);
    if (lua_type(L, -1) == LUA_TSTRING) {
        text = lua_tolstring(L, -1, &size);
        if (strlen(text) != size)
            luaL_error(L, "option '%s': string contains NUL", name);
    } else if (!lua_isnil(L, -1)) {
        option_fail(L, name, "string");
    }
    lua_pop(L, 1);
    return text;
}

double option_number(lua_State *L, int table, const char *name, double absent)
{
    double number = absent;

    lua_getfield(L, table, name);
    if (lua_type(L, -1) == LUA_TNUMBER)
        number = lua_tonumber(L, -1);
    else if (!lua_isnil(L, -1))
        option_fail(L, name, "number");
    lua_pop(L, 1);
    return number;
}

bool option_flag(lua_State *L, int table, const char *name)
{
    bool flag;

    lua_getfield(L, table, name);
    flag = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return flag;
}

/* ---- tables ---- */

void table_copy(lua_State *L, int index)
{
    int count = 0, copy;

    lua_pushnil(L);
    for (; lua_next(L, index) != 0; count++)
        lua_pop(L, 1);
    lua_createtable(L, 0, count); /* a table that grows is rebuilt each time */
    copy = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, copy);
    }
}

/* ---- failures ---- */

/* luaL_error() would add a position. */
int memory_raise(lua_State *L)
{
    lua_pushliteral(L, "not enough memory");
    return lua_error(L);
}

/* Unlike st_mtim, st_ctim cannot be set. */
void version_push(lua_State *L, const struct stat *status)
{
    char text[128];

    snprintf(text, sizeof(text), "%llx-%llx-%llx.%lx-%llx.%lx",
             (unsigned long long)status->st_ino,
             (unsigned long long)status->st_size,
             (unsigned long long)status->st_mtim.tv_sec,
             (unsigned long)status->st_mtim.tv_nsec,
             (unsigned long long)status->st_ctim.tv_sec,
             (unsigned long)status->st_ctim.tv_nsec);
    lua_pushstring(L, text);
}

int failure_push(lua_State *L, const nymbl_error *err)
{
    if (err->kind == NYMBL_NO_MEMORY)
        return memory_raise(L);
    lua_pushnil(L);
    lua_newtable(L);
    lua_pushstring(L, nymbl_kind_name(err->kind));
    lua_setfield(L, -2, "kind");
    if (err->status != 0) {
        lua_pushinteger(L, err->status);
        lua_setfield(L, -2, "status");
    }
    if (err->reason != NULL) {
        lua_pushstring(L, err->reason);
        lua_setfield(L, -2, "reason");
    }
    if (err->status != 0 && err->retry_after >= 0) {
        lua_pushnumber(L, err->retry_after);
        lua_setfield(L, -2, "retry_after");
    }
    if (err->outcome_unknown) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "outcome_unknown");
    }
    return 2;
}
