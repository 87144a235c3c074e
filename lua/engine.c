/* SPDX-License-Identifier: MIT */
/* The engine of this process and Lua state. */
#include "engine.h"

#define ENGINE_CLASS "nymbl.engine"

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

/* The engine of this process, or NULL. */
static nymbl_engine *engine_find(lua_State *L)
{
    engine_ud *self;

    lua_getfield(L, LUA_REGISTRYINDEX, ENGINE_CLASS);
    self = block_test(L, -1, BLOCK_ENGINE, sizeof(*self));
    lua_pop(L, 1);
    return self != NULL && nymbl_engine_in_this_process(self->engine)
               ? self->engine
               : NULL;
}

/* There is one engine for each Lua state, in the registry. A forked child gets
 * a new one, because the sockets of the old one belong to its parent. Returns
 * NULL if none can be created. */
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
    lua_setfield(L, LUA_REGISTRYINDEX, ENGINE_CLASS);
    return self->engine;
}

nymbl_engine *engine_get(lua_State *L)
{
    nymbl_error err;
    nymbl_engine *engine = engine_make(L, &err);

    if (engine == NULL && err.kind == NYMBL_NO_MEMORY)
        memory_raise(L);
    if (engine == NULL) /* core.engine_prepare() would have reported it */
        luaL_error(L, "no engine (%s)", err.reason);
    return engine;
}

/* core.now(): seconds on a monotonic clock */
int engine_now(lua_State *L)
{
    lua_pushnumber(L, nymbl_engine_now(NULL));
    return 1;
}

/* core.engine_prepare(threaded): true once there is an engine, with a thread if
 * wanted; or nil and error fields */
int engine_prepare(lua_State *L)
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

/* core.engine_close(): free the engine unless it has something to do */
int engine_close(lua_State *L)
{
    nymbl_engine *engine = engine_find(L);
    engine_ud *self;

    if (engine == NULL || !nymbl_engine_is_idle(engine))
        return 0;
    lua_getfield(L, LUA_REGISTRYINDEX, ENGINE_CLASS);
    self = lua_touserdata(L, -1); /* engine_find() has checked the tag */
    self->engine = NULL;
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, ENGINE_CLASS);
    nymbl_engine_free(engine);
    return 0;
}
