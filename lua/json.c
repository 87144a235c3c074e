/* SPDX-License-Identifier: MIT */
/* How much a JSON text would take if it were decoded. */
#include "binding.h"

#include <string.h>

#define BLANKS " \t\r\n"

/* Step over a string, whose opening quote has been read. An escaped quote does
 * not end it. */
static const char *string_skip(const char *at)
{
    for (;;) {
        at += strcspn(at, "\"\\");
        if (*at == '\0')
            return at;
        if (*at == '"')
            return at + 1;
        at++; /* the backslash */
        if (*at != '\0')
            at++;
    }
}

/* The values of a text, itself, arrays and objects included, or most + 1 as
 * soon as there are more than @p most. A name of an object's member is none. Of
 * a text that is no JSON, at least as many as a decoder could make of it before
 * it notices. */
static size_t values_count(const char *text, size_t most)
{
    size_t count = 0;

    while (*text != '\0' && count <= most) {
        switch (*text) {
        case ' ':
        case '\t':
        case '\r':
        case '\n':
        case ',':
        case ':':
        case ']':
        case '}':
            text++;
            break;
        case '[':
        case '{':
            count++;
            text++;
            break;
        case '"':
            text = string_skip(text + 1);
            if (text[strspn(text, BLANKS)] != ':')
                count++;
            break;
        default:
            count++;
            text += strcspn(text, BLANKS ",:[]{}\"");
        }
    }
    return count;
}

/* core.json_values(text, most): see above. The text holds no NUL. */
int json_values(lua_State *L)
{
    const char *text = luaL_checkstring(L, 1);
    lua_Number most = luaL_checknumber(L, 2);

    luaL_argcheck(L, most >= 0 && most < 1e9, 2, "out of range");
    push_size(L, values_count(text, (size_t)most));
    return 1;
}
