/* SPDX-License-Identifier: MIT */
/* The file that a store keeps, locked, as seen from Lua. */
#include "binding.h"

#include <string.h>

static nymbl_store *store_check(lua_State *L)
{
    store_ud *self = block_check(L, 1, BLOCK_STORE, sizeof(*self), STORE_T);

    if (self->store == NULL)
        luaL_argerror(L, 1, "closed store");
    return self->store;
}

/* core.store_open(path): a locked store; or false, the holder's mark and the
 * time since when it holds the lock; or nil and a failure. */
int store_open(lua_State *L)
{
    const char *path = text_check(L, 1);
    store_ud *self = block_new(L, BLOCK_STORE, sizeof(*self));
    nymbl_store_holder holder;
    nymbl_error err;
    nymbl_kind kind;

    luaL_setmetatable(L, STORE_T);
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

/* core.store_replace(path, mark) */
int store_replace(lua_State *L)
{
    const char *path = text_check(L, 1);
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);
    uint64_t mark;
    nymbl_error err;

    luaL_argcheck(L, size == sizeof(mark), 2, "no mark");
    memcpy(&mark, bytes, sizeof(mark));
    if (nymbl_store_break_lock(path, mark, &err) < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.boot_time(): seconds, and the name of what they are counted from */
int boot_time(lua_State *L)
{
    char id[NYMBL_BOOT_ID_SIZE];

    lua_pushnumber(L, nymbl_boot_clock(id));
    lua_pushstring(L, id);
    return 2;
}

/* store:content(): the text, or nil */
static int store_content(lua_State *L)
{
    size_t size;
    const char *content = nymbl_store_content(store_check(L), &size);

    if (content == NULL)
        return 0;
    lua_pushlstring(L, content, size);
    return 1;
}

/* store:write(text): true; false where the file was replaced meanwhile; or nil
 * and a failure. */
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

/* The collector may bring a block that is none of ours. */
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
    block_check(L, 1, BLOCK_STORE, sizeof(store_ud), STORE_T);
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

    class_make(L, STORE_T, methods, store_collect);
}
