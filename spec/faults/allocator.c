/* SPDX-License-Identifier: MIT */
/* A Lua module for specs: Lua states whose allocations fail on request. Lua
 * retries a failed allocation after collecting garbage, so the retry can be
 * made to fail too.
 *
 *   state = allocator.new()       or nil if this Lua accepts no allocator
 *   state:run(text, argument)     true and a string, or false and the error
 *   state:close()                 the number of bytes not freed (0)
 *
 * In the state, `fault.arm(nth, times)` makes the nth allocation from then on
 * fail, and the next ones, `times` in all, or all later ones if it is
 * math.huge. `fault.disarm()` ends that, and
 * returns the numbers of allocations and of failures.
 */
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdlib.h>

#define STATE_T "nymbl.spec.state"

/* lua-cjson leaks its buffer if Lua raises an out-of-memory error in the middle
 * of a text. So the leak sanitizer, if there is one, ignores it; leaks of nymbl
 * itself are detected by its live objects. */
extern void __lsan_disable(void) __attribute__((weak));
extern void __lsan_enable(void) __attribute__((weak));

typedef struct faults {
    lua_State *state;
    bool armed;
    long nth;   /* 1: the next allocation fails */
    long times; /* left to fail */
    long asked, failed;
    long bytes; /* allocated by the state */
} faults;

static void *allocate(void *payload, void *block, size_t old, size_t size)
{
    faults *self = payload;
    void *made;

    if (block == NULL)
        old = 0; /* for a new block, Lua passes the kind of object in it */
    if (size == 0) {
        self->bytes -= (long)old;
        free(block);
        return NULL;
    }
    if (self->armed && size > old) {
        self->asked++;
        if (self->asked >= self->nth && self->times > 0) {
            self->times--;
            self->failed++;
            return NULL;
        }
    }
    made = realloc(block, size);
    if (made != NULL)
        self->bytes += (long)size - (long)old;
    return made;
}

/* The faults of the state, read from its registry without an allocation. */
static faults *own(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static int fault_arm(lua_State *L)
{
    faults *self = own(L);
    lua_Number times;

    self->nth = (long)luaL_checknumber(L, 1);
    times = luaL_checknumber(L, 2);
    self->times = times < 1e9 ? (long)times : LONG_MAX;
    self->asked = self->failed = 0;
    self->armed = true;
    return 0;
}

static int fault_disarm(lua_State *L)
{
    faults *self = own(L);

    self->armed = false;
    lua_pushinteger(L, (lua_Integer)self->asked);
    lua_pushinteger(L, (lua_Integer)self->failed);
    return 2;
}

static faults *state_check(lua_State *L)
{
    faults *self = luaL_checkudata(L, 1, STATE_T);

    luaL_argcheck(L, self->state != NULL, 1, "closed state");
    return self;
}

static int state_prepare(lua_State *L)
{
    luaL_openlibs(L);
    lua_newtable(L);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, fault_arm, 1);
    lua_setfield(L, -2, "arm");
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, fault_disarm, 1);
    lua_setfield(L, -2, "disarm");
    lua_setglobal(L, "fault");
    return 0;
}

static int state_new(lua_State *L)
{
    faults *self = lua_newuserdata(L, sizeof(*self));

    *self = (faults){0};
    luaL_getmetatable(L, STATE_T);
    lua_setmetatable(L, -2);
    self->state = lua_newstate(allocate, self);
    if (self->state == NULL)
        return 0;
    lua_pushcfunction(self->state, state_prepare);
    lua_pushlightuserdata(self->state, self);
    if (lua_pcall(self->state, 1, 0, 0) != 0)
        return luaL_error(L, "%s", lua_tostring(self->state, -1));
    return 1;
}

static int state_run(lua_State *L)
{
    faults *self = state_check(L);
    size_t size;
    const char *text = luaL_checklstring(L, 2, &size);
    const char *argument = luaL_optstring(L, 3, "");
    lua_State *other = self->state;
    bool good;

    lua_settop(other, 0);
    if (__lsan_disable != NULL)
        __lsan_disable();
    good = luaL_loadbuffer(other, text, size, "=spec") == 0;
    if (good) {
        lua_pushstring(other, argument);
        good = lua_pcall(other, 1, 1, 0) == 0;
    }
    if (__lsan_enable != NULL)
        __lsan_enable();
    self->armed = false;
    lua_pushboolean(L, good);
    text = lua_tolstring(other, -1, &size);
    if (text == NULL)
        lua_pushnil(L);
    else
        lua_pushlstring(L, text, size);
    return 2;
}

static int state_close(lua_State *L)
{
    faults *self = luaL_checkudata(L, 1, STATE_T);

    self->armed = false;
    if (self->state != NULL)
        lua_close(self->state);
    self->state = NULL;
    lua_pushinteger(L, (lua_Integer)self->bytes);
    return 1;
}

int luaopen_allocator(lua_State *L);

int luaopen_allocator(lua_State *L)
{
    luaL_newmetatable(L, STATE_T);
    lua_newtable(L);
    lua_pushcfunction(L, state_run);
    lua_setfield(L, -2, "run");
    lua_pushcfunction(L, state_close);
    lua_setfield(L, -2, "close");
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, state_close);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    lua_pushcfunction(L, state_new);
    lua_setfield(L, -2, "new");
    return 1;
}
