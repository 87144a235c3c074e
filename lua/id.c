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

bool id_normalise(lua_State *L)
{
    int type = lua_type(L, -1);

    if (type == LUA_TSTRING) {
        size_t size;
        const char *text = lua_tolstring(L, -1, &size);

        /* most ids are short and ASCII */
        return size > 0 && memchr(text, '\0', size) == NULL &&
               (memchr(text, REPLACEMENT[0], size) == NULL ||
                strstr(text, REPLACEMENT) == NULL);
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
