/* SPDX-License-Identifier: MIT */
/* core.system: what the command and the calls for whole accounts need from the
 * system. Terminals, signals and the process are here, files in descriptor.c.
 */
#include "system.h"

#include "descriptor.h"
#include "engine.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- terminals ---- */

/* The descriptor of an open file handle, or -1. */
static int handle_fd(lua_State *L)
{
    FILE *file = handle_check(L, 1);

    return file != NULL ? fileno(file) : -1;
}

/* core.system.is_terminal(handle): whether a file handle of io is a terminal */
static int system_is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(handle_fd(L)));
    return 1;
}

/* core.system.terminal_width(handle): columns, or nil if they are not known */
static int system_terminal_width(lua_State *L)
{
    struct winsize size;

    if (ioctl(handle_fd(L), TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, size.ws_col);
    return 1;
}

/* ---- writing ---- */

/* core.system.write(handle, text, flush): write a text to a file handle of io,
 * and then all that is still in memory if `flush` is true. Returns true; or nil
 * and the system's error number.
 *
 * It takes the place of handle:write(), because code that LuaJIT has compiled
 * runs a call that failed a second time, in the interpreter. The C library has
 * dropped its buffer by then, so the second call succeeds: the failure and the
 * bytes would be lost.
 */
static int system_write(lua_State *L)
{
    FILE *file = handle_check(L, 1);
    size_t size;
    const char *text = luaL_checklstring(L, 2, &size);

    if (file != NULL && fwrite(text, 1, size, file) == size &&
        (!lua_toboolean(L, 3) || fflush(file) == 0)) {
        lua_pushboolean(L, true);
        return 1;
    }
    lua_pushnil(L);
    lua_pushinteger(L, file != NULL ? errno : EBADF);
    return 2;
}

/* ---- signals: of the process, and so of one program in it ---- */

static const char *const names[] = {"INT", "TERM", "HUP", NULL};
static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

enum { SIGNALS = sizeof(numbers) / sizeof(numbers[0]) };

/* The first signal that was caught, or 0. */
static volatile sig_atomic_t caught_number;

static struct {
    bool is_caught;
    struct sigaction previous;
} actions[SIGNALS];

static void signal_handle(int number)
{
    if (caught_number == 0)
        caught_number = number;
}

/* core.system.catch_signal(name): let "INT", "TERM" or "HUP" set a flag instead
 * of ending the process; true. A system call that waits, such as a read of
 * standard input, then fails with EINTR. If the signal is ignored, it stays
 * ignored; false. The standalone interpreters handle SIGINT themselves, even if
 * it was ignored when they started, so that for them it is never false. */
static int system_catch_signal(lua_State *L)
{
    int i = luaL_checkoption(L, 1, NULL, names);
    struct sigaction action = {.sa_handler = signal_handle};
    struct sigaction previous;

    if (!actions[i].is_caught) {
        sigaction(numbers[i], NULL, &previous);
        if (previous.sa_handler == SIG_IGN) {
            lua_pushboolean(L, 0);
            return 1;
        }
        actions[i].previous = previous;
        actions[i].is_caught = true;
        sigemptyset(&action.sa_mask);
        sigaction(numbers[i], &action, NULL);
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* core.system.caught_signal(): the name of the first signal caught, or nil */
static int system_caught_signal(lua_State *L)
{
    int number = caught_number;

    for (int i = 0; i < SIGNALS; i++)
        if (numbers[i] == number) {
            lua_pushstring(L, names[i]);
            return 1;
        }
    lua_pushnil(L);
    return 1;
}

/* core.system.restore_signals(): undo catch_signal() for all signals */
static int system_restore_signals(lua_State *L)
{
    (void)L;
    for (int i = 0; i < SIGNALS; i++)
        if (actions[i].is_caught) {
            sigaction(numbers[i], &actions[i].previous, NULL);
            actions[i].is_caught = false;
        }
    caught_number = 0;
    return 0;
}

/* core.system.ignore_signal(name): let "INT" or "PIPE" do nothing. */
static int system_ignore_signal(lua_State *L)
{
    static const char *const ignorable[] = {"INT", "PIPE", NULL};
    static const int their_numbers[] = {SIGINT, SIGPIPE};

    signal(their_numbers[luaL_checkoption(L, 1, NULL, ignorable)], SIG_IGN);
    return 0;
}

/* core.system.process_id(): the id of this process, which differs after a
 * fork */
static int system_process_id(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)getpid());
    return 1;
}

void system_module(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"open_directory", system_open_directory},
        {"open_file", system_open_file},
        {"make_directory", system_make_directory},
        {"lstat", system_lstat},
        {"realpath", system_realpath},
        {"user", system_user},
        {"is_terminal", system_is_terminal},
        {"terminal_width", system_terminal_width},
        {"write", system_write},
        {"catch_signal", system_catch_signal},
        {"caught_signal", system_caught_signal},
        {"restore_signals", system_restore_signals},
        {"ignore_signal", system_ignore_signal},
        {"process_id", system_process_id},
        {"now", engine_now},
        {NULL, NULL},
    };

    descriptor_class(L);
    luaL_newlib(L, functions);
}
