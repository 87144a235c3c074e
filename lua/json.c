/* SPDX-License-Identifier: MIT */
/* JSON texts before lua-cjson decodes them: how many values they have, and
 * repairs of what lua-cjson cannot read although its meaning is clear. Also the
 * C locale, which lua-cjson needs. The core reads the token endpoint's
 * response. */
#include "json.h"

#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

#define BLANKS " \t\r\n"

/* Skip a string after its opening quote. An escaped quote does not end it. */
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

/* The number of values in a text, or most + 1 if there are more than @p most.
 * Arrays, objects and the outermost value count, names of members do not. For
 * a text that is not JSON the number is at least that of the values which a
 * decoder could create before it detects the error. */
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

/* A UTF-16 code unit as four hexadecimal digits; -1 if they are not. */
static int unit_read(const char *at)
{
    int unit = 0;

    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = at[i] != '\0' ? strchr(digits, at[i]) : NULL;

        if (digit == NULL)
            return -1;
        unit = unit * 16 + (int)((digit - digits) % 16);
    }
    return unit;
}

static bool unit_is(int unit, int first)
{
    return unit >= first && unit < first + 0x400;
}

/* Copy an escape sequence. A surrogate without its other half was part of a
 * character that was cut, and becomes U+FFFD (RFC 8259, section 8.2; Unicode,
 * section 3.9). */
static const char *escape_mend(luaL_Buffer *out, const char *at)
{
    int unit = at[1] == 'u' ? unit_read(at + 2) : -1;
    size_t size = at[1] == '\0' ? 1 : 2;

    if (at[1] == '\'') { /* valid in JavaScript, and unambiguous */
        luaL_addchar(out, '\'');
        return at + 2;
    }
    if (unit >= 0)
        size = 6;
    if (unit_is(unit, 0xd800) && at[6] == '\\' && at[7] == 'u' &&
        unit_is(unit_read(at + 8), 0xdc00))
        size = 12;
    else if (unit_is(unit, 0xd800) || unit_is(unit, 0xdc00)) {
        luaL_addlstring(out, "\xef\xbf\xbd", 3);
        return at + 6;
    }
    luaL_addlstring(out, at, size);
    return at + size;
}

/* Copy a string after its opening quote. */
static const char *string_mend(luaL_Buffer *out, const char *at)
{
    for (;;) {
        size_t plain = strcspn(at, "\"\\");

        luaL_addlstring(out, at, plain);
        at += plain;
        if (*at == '\0')
            return at;
        if (*at == '"') {
            luaL_addchar(out, '"');
            return at + 1;
        }
        at = escape_mend(out, at);
    }
}

#define DIGITS "0123456789"

/* Copy a number without its decimal point: 12.5e3 becomes 125e2. lua-cjson
 * expects the decimal point of the locale in which it was loaded. Anything else
 * is copied unchanged. */
static void number_mend(luaL_Buffer *out, const char *token, size_t size)
{
    const char *at = token + (*token == '-');
    size_t before = strspn(at, DIGITS), after, zeros;
    long power = 0;
    char text[32];
    const char *end;
    char *stop;

    if (before == 0 || at[before] != '.' || (*at == '0' && before > 1)) {
        luaL_addlstring(out, token, size);
        return;
    }
    after = strspn(at + before + 1, DIGITS);
    end = at + before + 1 + after;
    if (*end == 'e' || *end == 'E') {
        size_t sign = end[1] == '+' || end[1] == '-';

        if (strspn(end + 1 + sign, DIGITS) > 0) {
            power = strtol(end + 1, &stop, 10);
            end = stop;
        }
    }
    if (end != token + size) {
        luaL_addlstring(out, token, size);
        return;
    }
    /* beyond these the number is zero or infinity anyway */
    power = power > 100000000 ? 100000000 : power;
    power = power < -100000000 ? -100000000 : power;
    if (*token == '-')
        luaL_addchar(out, '-');
    /* JSON allows no leading zeros */
    zeros = *at == '0' ? strspn(at + before + 1, "0") : 0;
    if (*at != '0')
        luaL_addlstring(out, at, before);
    if (*at == '0' && zeros == after)
        luaL_addchar(out, '0');
    luaL_addlstring(out, at + before + 1 + zeros, after - zeros);
    luaL_addlstring(
        out, text,
        (size_t)snprintf(text, sizeof(text), "e%ld", power - (long)after));
}

/* core.json_mend(text): the text with repairs of what lua-cjson cannot read
 * although its meaning is clear. The text must not contain NUL. */
int json_mend(lua_State *L)
{
    const char *at = luaL_checkstring(L, 1);
    luaL_Buffer out;

    luaL_buffinit(L, &out);
    while (*at != '\0') {
        size_t size = strcspn(at, BLANKS ",:[]{}\"");

        if (size > 0) {
            number_mend(&out, at, size);
            at += size;
        } else {
            luaL_addchar(&out, *at);
            at = *at == '"' ? string_mend(&out, at + 1) : at + 1;
        }
    }
    luaL_pushresult(&out);
    return 1;
}

/* core.token_read(text): the token and the seconds for which it is valid, or
 * nil and the failure */
int token_read(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    nymbl_token token;
    nymbl_error err;

    if (nymbl_token_read(&token, text, size, &err) < 0)
        return failure_push(L, &err);
    lua_pushstring(L, token.value);
    lua_pushnumber(L, token.expires_in);
    nymbl_token_wipe(&token);
    return 2;
}

static locale_t c_locale;

static void c_locale_create(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* core.locale(true) puts this thread, and no other, into the C locale;
 * core.locale(false) restores its locale. Nothing between the two may yield.
 * Neither allocates. */
int locale_set(lua_State *L)
{
    static _Thread_local locale_t before;
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, c_locale_create);
    if (c_locale == (locale_t)0) /* not in glibc and musl */
        return 0;
    if (lua_toboolean(L, 1)) {
        locale_t now = uselocale(c_locale);

        if (now != c_locale) /* equal if an interrupt prevented the restoring */
            before = now;
    } else if (before != (locale_t)0) {
        uselocale(before);
    }
    return 0;
}

/* core.lower(text): the text with ASCII letters in lower case, in any locale */
int text_lower(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    luaL_Buffer out;

    luaL_buffinit(L, &out);
    for (size_t i = 0; i < size; i++) {
        char byte = text[i];

        luaL_addchar(&out, byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a')
                                                      : byte);
    }
    luaL_pushresult(&out);
    return 1;
}

/* core.sha256(bytes): 64 hexadecimal digits */
int text_sha256(lua_State *L)
{
    char digits[65];
    size_t size;
    const char *bytes = luaL_checklstring(L, 1, &size);

    nymbl_sha256(digits, bytes, size);
    lua_pushstring(L, digits);
    return 1;
}

/* core.json_values(text, most): see values_count(). The text must not contain
 * NUL. */
int json_values(lua_State *L)
{
    const char *text = luaL_checkstring(L, 1);
    lua_Number most = luaL_checknumber(L, 2);

    luaL_argcheck(L, most >= 0 && most < 1e9, 2, "out of range");
    push_size(L, values_count(text, (size_t)most));
    return 1;
}
