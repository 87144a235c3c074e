/* SPDX-License-Identifier: MIT */
/* A line, as the Lua modules see it. Nothing here waits. */
#include "line.h"

#include "engine.h"
#include "transfer.h"

#define LINE_CLASS "nymbl.line"

typedef struct line_ud {
    block_tag tag;
    nymbl_line *line; /* NULL once closed */
} line_ud;

static line_ud *line_block(lua_State *L, int index)
{
    return block_check(L, index, BLOCK_LINE, sizeof(line_ud), LINE_CLASS);
}

/* Return what a line returns that has ended. One coroutine may close a line
 * while another one still waits to use it. */
static int closed_push(lua_State *L)
{
    nymbl_error err = {.kind = NYMBL_NETWORK, .reason = "reset"};

    return failure_push(L, &err);
}

/* A whole number; -1, which no option may be, for others. */
static int option_count(lua_State *L, const char *name)
{
    double number = option_number(L, 1, name, 0);

    return number >= 0 && number <= 65535 && number == (int)number ? (int)number
                                                                   : -1;
}

/* The greeting, which may contain NUL. It remains on the stack. */
static const char *greeting_push(lua_State *L, size_t *size)
{
    lua_getfield(L, 1, "greeting");
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "option 'greeting': string expected, got %s",
                   luaL_typename(L, -1));
    return lua_tolstring(L, -1, size);
}

/* core.line_open(options): a line; or nil and error fields. The options are
 * those of nymbl_line_options: host and port (and tls, ca_file), or unix_path;
 * greeting and greeting_replies, connect_timeout, idle_timeout */
int line_open(lua_State *L)
{
    nymbl_line_options options = {0};
    nymbl_engine *engine;
    line_ud *self;
    nymbl_error err;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    self = block_new(L, BLOCK_LINE, sizeof(*self));
    luaL_setmetatable(L, LINE_CLASS);
    options.host = option_text(L, 1, "host");
    options.port = option_count(L, "port");
    options.tls = option_flag(L, 1, "tls");
    options.ca_file = option_text(L, 1, "ca_file");
    options.unix_path = option_text(L, 1, "unix_path");
    options.greeting_replies = option_count(L, "greeting_replies");
    options.connect_timeout = option_number(L, 1, "connect_timeout", 0);
    options.idle_timeout = option_number(L, 1, "idle_timeout", 0);
    options.greeting = greeting_push(L, &options.greeting_size);
    engine = engine_get(L);
    if (nymbl_line_new(&self->line, engine, &options, &err) < 0)
        return failure_push(L, &err);
    lua_settop(L, 2);
    return 1;
}

/* line:request(bytes): a transfer, whose body is the reply; or nil and error
 * fields */
static int line_request(lua_State *L)
{
    nymbl_line *line = line_block(L, 1)->line;
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);
    nymbl_transfer **transfer;
    nymbl_error err;

    if (line == NULL)
        return closed_push(L);
    transfer = transfer_new(L);
    return nymbl_line_start(transfer, line, bytes, size, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* line:send(bytes): true if the request was accepted, whose reply is dropped;
 * or nil and error fields */
static int line_send(lua_State *L)
{
    nymbl_line *line = line_block(L, 1)->line;
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);
    nymbl_error err;

    if (line == NULL)
        return closed_push(L);
    if (nymbl_line_send(line, bytes, size, &err) < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* line:is_open(): whether a request can be started */
static int line_is_open(lua_State *L)
{
    line_ud *self = line_block(L, 1);

    lua_pushboolean(L, self->line != NULL && nymbl_line_is_open(self->line));
    return 1;
}

/* tostring(line): the class and the state. A block of another type is closed.
 */
static int line_text(lua_State *L)
{
    line_ud *self = block_test(L, 1, BLOCK_LINE, sizeof(*self));
    bool open =
        self != NULL && self->line != NULL && nymbl_line_is_open(self->line);

    lua_pushstring(L, open ? LINE_CLASS " (open)" : LINE_CLASS " (closed)");
    return 1;
}

/* The collector may pass a block of another type. */
static int line_collect(lua_State *L)
{
    line_ud *self = block_test(L, 1, BLOCK_LINE, sizeof(*self));
    nymbl_line *line;

    if (self == NULL)
        return 0;
    line = self->line;
    self->line = NULL;
    nymbl_line_free(line);
    return 0;
}

/* line:close(): see nymbl_line_free */
static int line_close(lua_State *L)
{
    line_block(L, 1);
    return line_collect(L);
}

void line_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"request", line_request},
        {"send", line_send},
        {"is_open", line_is_open},
        {"close", line_close},
        {NULL, NULL},
    };

    block_class(L, LINE_CLASS, methods, line_collect);
    luaL_getmetatable(L, LINE_CLASS);
    lua_pushcfunction(L, line_text);
    lua_setfield(L, -2, "__tostring");
    lua_pop(L, 1);
}
