/* SPDX-License-Identifier: MIT */
/* A target in Lua: TARGET.lua, in a Lua state in this process. It returns a
 * table:
 *
 *   try(input)   tries one input. Returns a word for what was reached; raises
 *                an error if an invariant is broken
 *   reached      the words that the corpus as a whole must reach
 *
 * libFuzzer sees which lines of Lua an input executes, not only the
 * instrumented C code. */
#include "fuzz.h"
#include "nymbl.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_nymbl_core(lua_State *L);

static lua_State *state;

#ifdef NYMBL_FUZZ
/* The state lives until the end, and grows and shrinks: libFuzzer would look
 * for leaks after most inputs. The replays look for them. */
const char *__asan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

#define COUNTERS 16384
/* counters that libFuzzer treats like those of compiled code */
__attribute__((
    section("__libfuzzer_extra_counters"))) static uint8_t lines[COUNTERS];

static void line_hook(lua_State *L, lua_Debug *at)
{
    uint32_t hash = (uint32_t)at->currentline * 2654435761u;

    if (lua_getinfo(L, "S", at) == 0)
        return;
    for (const char *name = at->short_src; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    lines[hash % COUNTERS]++;
}
#endif

static int traceback(lua_State *L)
{
    if (lua_isstring(L, 1))
        luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

/* Call the function on the stack. */
static void call(lua_State *L, int arguments, int results)
{
    int base = lua_gettop(L) - arguments;

    lua_pushcfunction(L, traceback);
    lua_insert(L, base);
    if (lua_pcall(L, arguments, results, base) != 0) {
        fprintf(stderr, "BROKEN: %s\n", lua_tostring(L, -1));
        abort();
    }
    lua_remove(L, base);
}

static void state_close(void)
{
    lua_close(state);
}

static void state_open(void)
{
    lua_State *L = state = luaL_newstate();

    require(L != NULL, "memory");
    atexit(state_close);
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_nymbl_core);
    lua_setfield(L, -2, "nymbl.core");
    lua_pop(L, 1);
    lua_pushfstring(L, "%s/lua/?.lua;%s/spec/fuzz/?.lua", ROOT, ROOT);
    lua_setfield(L, -2, "path");
    lua_pop(L, 1);
    lua_getglobal(L, "require");
    lua_pushliteral(L, TARGET);
    call(L, 1, 1);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state); /* how often by word */
#ifdef NYMBL_FUZZ
    lua_sethook(L, line_hook, LUA_MASKLINE, 0);
#endif
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned inputs;
    lua_State *L;

    if (state == NULL)
        state_open();
    L = state; /* index 1: the target */
    lua_getfield(L, 1, "try");
    lua_pushlstring(L, (const char *)data, size);
    call(L, 1, 1);
    if (!lua_isstring(L, -1)) {
        lua_settop(L, 1);
        return 0;
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state);
    lua_pushvalue(L, -2);
    lua_rawget(L, -2);
    lua_pushvalue(L, -3);
    lua_pushinteger(L, lua_tointeger(L, -2) + 1);
    lua_rawset(L, -4);
    lua_settop(L, 1);
    if (inputs++ % 256 == 255)
        lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

bool fuzz_report(void)
{
    lua_State *L = state;
    bool all = true;

    if (L == NULL)
        return false;
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state);
    lua_getfield(L, 1, "reached");
    for (size_t i = 1; i <= lua_rawlen(L, 3); i++) {
        lua_rawgeti(L, 3, (int)i);
        lua_pushvalue(L, 4);
        lua_rawget(L, 2);
        printf("%s: %d\n", lua_tostring(L, 4), (int)lua_tointeger(L, 5));
        all = all && lua_tointeger(L, 5) > 0;
        lua_settop(L, 3);
    }
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_gc(L, LUA_GCCOLLECT, 0);
    return all;
}
