/* SPDX-License-Identifier: MIT */
/* nymbl.core: the core library as a Lua module; nymbl.lua makes the API of it.
 */
#include "binding.h"

#include <string.h>

#define ENGINE_T "nymbl.engine"

typedef struct engine_ud {
    block_tag tag;
    nymbl_engine *engine;
} engine_ud;

static int engine_collect(lua_State *L)
{
    engine_ud *self = block_test(L, 1, BLOCK_ENGINE, sizeof(*self));

    if (self == NULL)
        return 0;
    nymbl_engine_free(self->engine);
    self->engine = NULL;
    return 0;
}

/* This process' engine, or NULL. */
static nymbl_engine *engine_find(lua_State *L)
{
    engine_ud *self;

    lua_getfield(L, LUA_REGISTRYINDEX, ENGINE_T);
    self = block_test(L, -1, BLOCK_ENGINE, sizeof(*self));
    lua_pop(L, 1);
    return self != NULL && nymbl_engine_in_this_process(self->engine)
               ? self->engine
               : NULL;
}

/* One engine a Lua state, in the registry. A forked child gets a new one: the
 * sockets of the old are its parent's. NULL if none can be had. */
static nymbl_engine *engine_make(lua_State *L, nymbl_error *err)
{
    nymbl_engine *engine = engine_find(L);
    engine_ud *self;

    if (engine != NULL)
        return engine;
    self = block_new(L, BLOCK_ENGINE, sizeof(*self));
    lua_newtable(L);
    lua_pushcfunction(L, engine_collect);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    if (nymbl_engine_new(&self->engine, NULL, err) < 0) {
        lua_pop(L, 1);
        return NULL;
    }
    lua_setfield(L, LUA_REGISTRYINDEX, ENGINE_T);
    return self->engine;
}

nymbl_engine *engine_get(lua_State *L)
{
    nymbl_error err;
    nymbl_engine *engine = engine_make(L, &err);

    if (engine == NULL && err.kind == NYMBL_NO_MEMORY)
        memory_raise(L);
    if (engine == NULL) /* core.ready() was not asked before */
        luaL_error(L, "no engine (%s)", err.reason);
    return engine;
}

/* luaL_error() would put the caller's position before it. */
int memory_raise(lua_State *L)
{
    lua_pushliteral(L, "not enough memory");
    return lua_error(L);
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

const char *text_check(lua_State *L, int index)
{
    size_t size;
    const char *text = luaL_checklstring(L, index, &size);

    if (strlen(text) != size)
        luaL_argerror(L, index, "string contains NUL");
    return text;
}

const char *text_optional(lua_State *L, int index)
{
    return lua_isnoneornil(L, index) ? NULL : text_check(L, index);
}

/* core.pump(seconds, transfer or nil): whether the transfer has news */
static int module_pump(lua_State *L)
{
    double timeout = luaL_checknumber(L, 1);
    nymbl_transfer *transfer =
        lua_isnoneornil(L, 2) ? NULL : transfer_check(L, 2);

    if (nymbl_engine_pump(engine_get(L), timeout) < 0)
        return luaL_error(L, "the engine of another process");
    lua_pushboolean(L, transfer != NULL && nymbl_transfer_is_ready(transfer));
    return 1;
}

/* core.now(): seconds on a clock that never goes back */
static int module_now(lua_State *L)
{
    lua_pushnumber(L, nymbl_engine_now(NULL));
    return 1;
}

/* core.ready(threaded): true once there is an engine, with a thread if that is
 * wanted; or nil and the failure */
static int module_ready(lua_State *L)
{
    nymbl_error err;
    nymbl_engine *engine = engine_make(L, &err);

    if (engine == NULL)
        return failure_push(L, &err);
    if (lua_toboolean(L, 1) && nymbl_engine_start_thread(engine, &err) < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.is_yieldable(): whether the calling coroutine could yield now */
static int module_is_yieldable(lua_State *L)
{
    lua_pushboolean(L, lua_isyieldable(L));
    return 1;
}

/* core.shut(): free the engine unless it has something to do */
static int module_shut(lua_State *L)
{
    nymbl_engine *engine = engine_find(L);
    engine_ud *self;

    if (engine == NULL || !nymbl_engine_is_idle(engine))
        return 0;
    lua_getfield(L, LUA_REGISTRYINDEX, ENGINE_T);
    self = lua_touserdata(L, -1); /* it was found by its tag */
    self->engine = NULL;
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, ENGINE_T);
    nymbl_engine_free(engine);
    return 0;
}

/* core.kinds: what nymbl_kind_text says, by the kind's word */
static void kind_texts(lua_State *L)
{
    lua_newtable(L);
    for (int kind = NYMBL_BAD_REQUEST; kind >= NYMBL_CANCELED; kind--) {
        lua_pushstring(L, nymbl_kind_text((nymbl_kind)kind));
        lua_setfield(L, -2, nymbl_kind_name((nymbl_kind)kind));
    }
    lua_setfield(L, -2, "kinds");
}

/* core.live_objects(): for leak checks */
static int module_live_objects(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)nymbl_object_count());
    return 1;
}

__attribute__((visibility("default"))) int luaopen_nymbl_core(lua_State *L);

int luaopen_nymbl_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"object", object_new},
        {"state", object_state},
        {"class", object_class},
        {"client", client_new},
        {"client_close", client_close},
        {"max_upload_bytes", client_max_upload_bytes},
        {"account", client_account},
        {"url_problem", url_problem},
        {"body_from_path", body_from_path},
        {"body_from_bytes", body_from_bytes},
        {"body_pushed", body_pushed},
        {"token", token_start},
        {"upload", upload_start},
        {"list", list_start},
        {"get", get_start},
        {"download", download_start},
        {"path_check", path_check},
        {"delete", delete_start},
        {"digest", digest_start},
        {"digest_result", digest_result},
        {"sync", sync_start},
        {"read_directory", read_directory_start},
        {"take_entries", take_entries},
        {"store_open", store_open},
        {"store_replace", store_replace},
        {"boot_time", boot_time},
        {"pump", module_pump},
        {"now", module_now},
        {"ready", module_ready},
        {"is_yieldable", module_is_yieldable},
        {"json_values", json_values},
        {"json_mend", json_mend},
        {"locale", locale_set},
        {"lower", text_lower},
        {"shut", module_shut},
        {"live_objects", module_live_objects},
        {NULL, NULL},
    };
    const char *problem = nymbl_tls_problem();

    if (problem != NULL)
        return luaL_error(L, "%s", problem);
    object_classes(L);
    transfer_class(L);
    body_class(L);
    store_class(L);
    luaL_newlib(L, functions);
    kind_texts(L);
    lua_pushlightuserdata(L, NULL); /* as cjson.null, without loading cjson */
    lua_setfield(L, -2, "null");
    lua_pushinteger(L, NYMBL_RESPONSE_MAX_VALUES);
    lua_setfield(L, -2, "reply_values");
    lua_pushstring(L, NYMBL_VERSION);
    lua_setfield(L, -2, "version");
    return 1;
}
