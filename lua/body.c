/* SPDX-License-Identifier: MIT */
/* The body of an upload. */
#include "body.h"

#include <errno.h>
#include <string.h>

#define BODY_CLASS "nymbl.body"

typedef struct body_ud {
    block_tag tag;
    nymbl_body *body; /* NULL once closed */
} body_ud;

nymbl_body *body_check(lua_State *L, int index)
{
    body_ud *self =
        block_check(L, index, BLOCK_BODY, sizeof(*self), BODY_CLASS);

    if (self->body == NULL)
        luaL_argerror(L, index, "closed body");
    return self->body;
}

static body_ud *body_new(lua_State *L)
{
    body_ud *self = block_new(L, BLOCK_BODY, sizeof(*self));

    luaL_setmetatable(L, BODY_CLASS);
    return self;
}

/* core.body_from_path(path) */
int body_from_path(lua_State *L)
{
    const char *path = text_check(L, 1);
    body_ud *self = body_new(L);
    nymbl_error err;

    return nymbl_body_from_path(&self->body, path, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.body_from_bytes(bytes) */
int body_from_bytes(lua_State *L)
{
    size_t size;
    const char *bytes = luaL_checklstring(L, 1, &size);
    body_ud *self = body_new(L);
    nymbl_error err;

    return nymbl_body_from_bytes(&self->body, bytes, size, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* An option that is a number of bytes; -1 if it is absent. A server may claim
 * any size for a document, and that document may be the source of an upload. */
static int64_t size_option(lua_State *L, const char *name)
{
    double number = option_number(L, 1, name, -1);

    if (!(number >= 0))
        return -1;
    return number < 9223372036854775808.0 ? (int64_t)number : INT64_MAX;
}

/* core.body_stream { size =, limit = }: both in bytes. The size may be unknown;
 * the source will not produce more than the limit. */
int body_stream(lua_State *L)
{
    body_ud *self;
    nymbl_error err;

    luaL_checktype(L, 1, LUA_TTABLE);
    self = body_new(L);
    if (nymbl_body_stream(&self->body, size_option(L, "size"), &err) < 0)
        return failure_push(L, &err);
    nymbl_body_set_limit(self->body, size_option(L, "limit"));
    return 1;
}

/* body:write(bytes, from): the position after the last byte that was accepted.
 * If that is not all, also true if the window is full, or false if the transfer
 * accepts no more. */
static int body_write(lua_State *L)
{
    nymbl_body *body = body_check(L, 1);
    size_t size, taken;
    const char *bytes = luaL_checklstring(L, 2, &size);
    size_t from = (size_t)luaL_checknumber(L, 3);
    nymbl_kind kind;

    if (from < 1 || from > size + 1)
        return luaL_argerror(L, 3, "out of range");
    kind = nymbl_body_write(body, bytes + from - 1, size + 1 - from, &taken);
    push_size(L, from + taken);
    if (kind == NYMBL_OK)
        return 1;
    lua_pushboolean(L, kind == NYMBL_AGAIN);
    return 2;
}

/* body:watch(handle): the file that the body is copied from must not change
 * before the end; see nymbl_body_set_source */
static int body_watch(lua_State *L)
{
    nymbl_body *body = body_check(L, 1);
    FILE *file = handle_check(L, 2);

    if (file != NULL)
        nymbl_body_set_source(body, fileno(file));
    return 0;
}

/* Whether a file is at its end. Does not change its position. */
static bool has_ended(FILE *file)
{
    int byte = getc(file);

    if (byte != EOF)
        ungetc(byte, file);
    return byte == EOF && !ferror(file);
}

/* body:write_from(handle): the number of bytes that were copied from a file
 * handle, 0 at its end; false if the window is full or no more is accepted; or
 * nil and error fields. Never reads more from the handle than the body may
 * hold. */
static int body_write_from(lua_State *L)
{
    nymbl_body *body = body_check(L, 1);
    FILE *file = handle_check(L, 2);
    char buffer[16384];
    size_t room = nymbl_body_room(body);
    int64_t left = nymbl_body_remaining(body);
    size_t got = 0, taken;

    if (file == NULL)
        return failure_push(
            L, &(nymbl_error){.kind = NYMBL_IO, .reason = "closed"});
    if (room == 0 && left > 0) { /* request a wakeup for when there is room */
        nymbl_body_write(body, "", 0, &taken);
        lua_pushboolean(L, 0);
        return 1;
    }
    if (room > sizeof(buffer))
        room = sizeof(buffer);
    if (left < (int64_t)room)
        room = (size_t)left;
    errno = 0;
    if (room > 0)
        got = fread(buffer, 1, room, file);
    else if (!has_ended(file) && !ferror(file)) {
        /* exceed the limit: the upload's result reports it */
        nymbl_body_write(body, "", 1, &taken);
        lua_pushboolean(L, 0);
        return 1;
    }
    if (got == 0 && ferror(file)) {
        const char *reason = nymbl_reason_from_errno(errno);

        clearerr(file);
        return failure_push(L,
                            &(nymbl_error){.kind = NYMBL_IO, .reason = reason});
    }
    if (got > 0 && nymbl_body_write(body, buffer, got, &taken) != NYMBL_OK)
        lua_pushboolean(L, 0);
    else
        push_size(L, got);
    return 1;
}

static int body_finish(lua_State *L)
{
    nymbl_body_finish(body_check(L, 1));
    return 0;
}

static int body_is_ready(lua_State *L)
{
    lua_pushboolean(L, nymbl_body_is_ready(body_check(L, 1)));
    return 1;
}

static int body_can_rewind(lua_State *L)
{
    lua_pushboolean(L, nymbl_body_can_rewind(body_check(L, 1)));
    return 1;
}

/* body:type(): the accepted media type of its bytes, "" if they have none, or
 * nil if that is not known; see nymbl_body_type */
static int body_type(lua_State *L)
{
    lua_pushstring(L, nymbl_body_type(body_check(L, 1)));
    return 1;
}

/* body:is_type(content_type): false if its bytes have another type */
static int body_is_type(lua_State *L)
{
    lua_pushboolean(
        L, nymbl_body_is_type(body_check(L, 1), luaL_checkstring(L, 2)));
    return 1;
}

static int body_size(lua_State *L)
{
    int64_t size = nymbl_body_size(body_check(L, 1));

    if (size < 0)
        return 0;
    push_size(L, size);
    return 1;
}

/* body:version(): that of its file when it was opened, as
 * core.system.lstat() has it; nil if it has no file */
static int body_version(lua_State *L)
{
    const struct stat *status = nymbl_body_status(body_check(L, 1));

    if (status == NULL)
        return 0;
    version_push(L, status);
    return 1;
}

/* The collector may pass a block of another type. */
static int body_collect(lua_State *L)
{
    body_ud *self = block_test(L, 1, BLOCK_BODY, sizeof(*self));
    nymbl_body *body;

    if (self == NULL)
        return 0;
    body = self->body;
    self->body = NULL;
    nymbl_body_free(body);
    return 0;
}

static int body_close(lua_State *L)
{
    block_check(L, 1, BLOCK_BODY, sizeof(body_ud), BODY_CLASS);
    return body_collect(L);
}

void body_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"write", body_write},
        {"watch", body_watch},
        {"write_from", body_write_from},
        {"finish", body_finish},
        {"is_ready", body_is_ready},
        {"can_rewind", body_can_rewind},
        {"type", body_type},
        {"is_type", body_is_type},
        {"size", body_size},
        {"version", body_version},
        {"close", body_close},
        {NULL, NULL},
    };

    block_class(L, BODY_CLASS, methods, body_collect);
}
