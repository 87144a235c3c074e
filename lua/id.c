/* SPDX-License-Identifier: MIT */
/* Ids in what the service sends. */
#include "id.h"

#include <stdint.h>
#include <string.h>

/* U+FFFD stands for a character that was lost, here (json_mend()) or at the
 * service. */
#define REPLACEMENT "\xef\xbf\xbd"

/* 2^53: smaller whole numbers are exact. */
#define EXACT_MAX 9007199254740992.0

/* Replace the value on top by the id that it is, as a string. False if it is
 * not an id, if the JSON decoder may have rounded it, or if it has lost a
 * character: it could then be the id of another object. */
static bool id_normalise(lua_State *L)
{
    int type = lua_type(L, -1);

    if (type == LUA_TSTRING) {
        size_t size;
        const char *text = lua_tolstring(L, -1, &size);

        return size > 0 && strlen(text) == size &&
               strstr(text, REPLACEMENT) == NULL;
    }
    if (type == LUA_TNUMBER) {
        double number = lua_tonumber(L, -1);
        char digits[32];

        if (!(number > -EXACT_MAX && number < EXACT_MAX) ||
            number != (double)(int64_t)number)
            return false;
        snprintf(digits, sizeof(digits), "%.0f", number);
        lua_pop(L, 1);
        lua_pushstring(L, digits);
        return true;
    }
    return false;
}

/* core.id(value): the value as an id, a string; or nil */
int id_read(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    return id_normalise(L) ? 1 : 0;
}

/* core.ids(rows, key): an array of the ids that the rows have in their field
 * `key`; false for a row without a valid id */
int id_read_rows(lua_State *L)
{
    int size, i;

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TSTRING);
    lua_settop(L, 2);
    size = (int)lua_rawlen(L, 1);
    lua_createtable(L, size, 0);
    for (i = 1; i <= size; i++) {
        bool has_id = false;

        lua_rawgeti(L, 1, i);
        if (lua_istable(L, -1)) {
            lua_pushvalue(L, 2);
            lua_rawget(L, -2);
            lua_replace(L, -2);
            has_id = id_normalise(L);
        }
        if (!has_id) {
            lua_pop(L, 1);
            lua_pushboolean(L, 0);
        }
        lua_rawseti(L, 3, i);
    }
    return 1;
}
