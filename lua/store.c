/* SPDX-License-Identifier: MIT */
/* The file of a store, locked. */
#include "store.h"

#include <string.h>

#define STORE_CLASS "nymbl.store"

typedef struct store_ud {
    block_tag tag;
    nymbl_store *store; /* NULL once closed */
} store_ud;

static nymbl_store *store_check(lua_State *L)
{
    store_ud *self = block_check(L, 1, BLOCK_STORE, sizeof(*self), STORE_CLASS);

    if (self->store == NULL)
        luaL_argerror(L, 1, "closed store");
    return self->store;
}

/* core.store_open(path): a locked store; or false, the fingerprint of the
 * process that holds the lock, and the time at which it locked the store; or
 * nil and error fields */
int store_open(lua_State *L)
{
    const char *path = text_check(L, 1);
    store_ud *self = block_new(L, BLOCK_STORE, sizeof(*self));
    nymbl_store_holder holder;
    nymbl_error err;
    nymbl_kind kind;

    luaL_setmetatable(L, STORE_CLASS);
    kind = nymbl_store_open(&self->store, path, &holder, &err);
    if (kind == NYMBL_OK)
        return 1;
    if (kind < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, 0);
    lua_pushlstring(L, (const char *)&holder.fingerprint,
                    sizeof(holder.fingerprint));
    lua_pushnumber(L, holder.since);
    return 3;
}

/* core.store_break_lock(path, fingerprint) */
int store_break_lock(lua_State *L)
{
    const char *path = text_check(L, 1);
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);
    uint64_t fingerprint;
    nymbl_error err;

    luaL_argcheck(L, size == sizeof(fingerprint), 2, "no fingerprint");
    memcpy(&fingerprint, bytes, sizeof(fingerprint));
    if (nymbl_store_break_lock(path, fingerprint, &err) < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.boot_clock(): seconds, and the id of the boot that they are counted
 * from; see nymbl_boot_clock */
int boot_clock(lua_State *L)
{
    char id[NYMBL_BOOT_ID_SIZE];

    lua_pushnumber(L, nymbl_boot_clock(id));
    lua_pushstring(L, id);
    return 2;
}

/* store:content(): the text, or nil if there is none */
static int store_content(lua_State *L)
{
    size_t size;
    const char *content = nymbl_store_content(store_check(L), &size);

    if (content == NULL)
        return 0;
    lua_pushlstring(L, content, size);
    return 1;
}

/* store:write(text): true; false if the file was replaced meanwhile; or nil and
 * error fields */
static int store_write(lua_State *L)
{
    nymbl_store *store = store_check(L);
    size_t size;
    const char *text = luaL_checklstring(L, 2, &size);
    nymbl_error err;
    nymbl_kind kind = nymbl_store_write(store, text, size, &err);

    if (kind < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, kind == NYMBL_OK);
    return 1;
}

/* The collector may pass a block of another type. */
static int store_collect(lua_State *L)
{
    store_ud *self = block_test(L, 1, BLOCK_STORE, sizeof(*self));
    nymbl_store *store;

    if (self == NULL)
        return 0;
    store = self->store;
    self->store = NULL;
    nymbl_store_close(store);
    return 0;
}

/* store:close(); a second close is harmless */
static int store_close(lua_State *L)
{
    block_check(L, 1, BLOCK_STORE, sizeof(store_ud), STORE_CLASS);
    return store_collect(L);
}

void store_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"content", store_content},
        {"write", store_write},
        {"close", store_close},
        {NULL, NULL},
    };

    block_class(L, STORE_CLASS, methods, store_collect);
}
