/* SPDX-License-Identifier: MIT */
/* A Lua module that counts the lines of lua/ which a process executes.
 * spec/coverage loads it by LUA_INIT. The counts are in a text file with a line
 * for each Lua file: its name, a space, and a character for each of its lines,
 * "x" once that was executed. All processes share it by mmap(), so that nothing
 * is to be written at their end: some are killed.
 *
 * A hook set by C is inherited by all coroutines, also those that C makes. What
 * runs in another hook is not counted. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#ifdef LUA_JITLIBNAME
#include <luajit.h>
#endif

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 200   /* Lua files */
#define SOURCE_MAX 256 /* bytes of a source's name */
#define CACHE_SIZE 256 /* a power of two */

typedef struct counted_file {
    const char *name; /* such as nymbl/call.lua */
    size_t name_length;
    char *lines;
    size_t count;
} counted_file;

static counted_file files[FILE_MAX];
static size_t file_count;

/* The file of a source, found by the address of its name. That can belong to
 * another source later, so it is compared. */
static struct {
    char source[SOURCE_MAX];
    const counted_file *file; /* NULL if it is none of lua/ */
} cache[CACHE_SIZE];

static const counted_file *file_find(const char *source)
{
    size_t length = strlen(source);

    for (size_t i = 0; i < file_count; i++) {
        size_t name_length = files[i].name_length;

        if (length > name_length && source[length - name_length - 1] == '/' &&
            memcmp(source + length - name_length, files[i].name, name_length) ==
                0)
            return &files[i];
    }
    return NULL;
}

static const counted_file *file_of(const char *source)
{
    size_t slot = ((size_t)source >> 4) & (CACHE_SIZE - 1);

    if (source[0] != '@')
        return NULL;
    if (strcmp(cache[slot].source, source) == 0)
        return cache[slot].file;
    if (strlen(source) >= SOURCE_MAX)
        return file_find(source);
    strcpy(cache[slot].source, source);
    cache[slot].file = file_find(source);
    return cache[slot].file;
}

static void count(lua_State *L, lua_Debug *ar)
{
    const counted_file *file;
    size_t line = (size_t)ar->currentline;

    if (!lua_getinfo(L, "S", ar))
        return;
    file = file_of(ar->source);
    if (file && line - 1 < file->count)
        file->lines[line - 1] = 'x';
}

/* What debug.sethook() of Lua installs: one function for all its hooks. */
static lua_Hook lua_hook;
static int lua_hook_mask;

/* A hook that is set by Lua, and this module's. */
static void count_and_call(lua_State *L, lua_Debug *ar)
{
    int event = ar->event;

    if (event == LUA_HOOKLINE)
        count(L, ar);
    if (event != LUA_HOOKLINE || lua_hook_mask & LUA_MASKLINE)
        lua_hook(L, ar);
}

/* debug.sethook() that leaves this module's hook in place. */
static int sethook(lua_State *L)
{
    lua_State *thread = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;

    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    if (lua_gethook(thread)) {
        lua_hook = lua_gethook(thread);
        lua_hook_mask = lua_gethookmask(thread);
        lua_sethook(thread, count_and_call, lua_hook_mask | LUA_MASKLINE,
                    lua_gethookcount(thread));
    } else {
        lua_sethook(thread, count, LUA_MASKLINE, 0);
    }
    return lua_gettop(L);
}

static void text_parse(char *text, size_t size)
{
    char *end = text + size;

    while (text < end && file_count < FILE_MAX) {
        char *line_end = memchr(text, '\n', (size_t)(end - text));
        char *space = memchr(text, ' ', (size_t)(end - text));

        if (!line_end || !space || space > line_end)
            return;
        files[file_count++] = (counted_file){
            .name = text,
            .name_length = (size_t)(space - text),
            .lines = space + 1,
            .count = (size_t)(line_end - space - 1),
        };
        text = line_end + 1;
    }
}

static bool text_map(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    char *text = MAP_FAILED;

    if (fd < 0)
        return false;
    if (fstat(fd, &status) == 0 && status.st_size > 0)
        text = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE,
                    MAP_SHARED, fd, 0);
    close(fd);
    if (text == MAP_FAILED)
        return false;
    text_parse(text, (size_t)status.st_size);
    return true;
}

int luaopen_spec_lines(lua_State *L);

/* The argument is the path of the text file. Several Lua states may load it,
 * and one state more than once. */
__attribute__((visibility("default"))) int luaopen_spec_lines(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);

    if (file_count == 0 && !text_map(path))
        return luaL_error(L, "cannot map %s", path);
#ifdef LUA_JITLIBNAME
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
#endif
    lua_getglobal(L, "debug");
    lua_getfield(L, -1, "sethook");
    if (lua_tocfunction(L, -1) == sethook) /* it was loaded before */
        return 0;
    lua_sethook(L, count, LUA_MASKLINE, 0);
    lua_pushcclosure(L, sethook, 1);
    lua_setfield(L, -2, "sethook");
    return 0;
}
