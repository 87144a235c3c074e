/* SPDX-License-Identifier: MIT */
/* Helpers for every file of the binding: blocks, arguments and failures. They
 * depend on no class. */
#ifndef NYMBL_HELPERS_H
#define NYMBL_HELPERS_H

#include "compat.h"
#include "nymbl.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* Every userdata of the binding is a block that begins with a tag. A metatable
 * proves nothing about a block: debug.setmetatable() gives any of them to any
 * block. */
typedef enum block_type {
    BLOCK_OBJECT,
    BLOCK_CLIENT,
    BLOCK_TRANSFER,
    BLOCK_BODY,
    BLOCK_STORE,
    BLOCK_LINE,
    BLOCK_DESCRIPTOR,
    BLOCK_ID_SET,
    BLOCK_ENGINE
} block_type;

typedef struct block_tag {
    const char *type; /* an address in helpers.c that no other block has */
} block_tag;

/* Push a zeroed block of a type, without a metatable. */
void *block_new(lua_State *L, block_type type, size_t size);
/* The block at an index if it has that type, or NULL. */
void *block_test(lua_State *L, int index, block_type type, size_t size);
/* The same, but raises an argument error; @p name is the type's class. */
void *block_check(lua_State *L, int index, block_type type, size_t size,
                  const char *name);
/* Create the class of blocks that only the Lua modules see: methods and
 * finalizer. */
void block_class(lua_State *L, const char *name, const luaL_Reg *methods,
                 lua_CFunction collect);

/* A string argument. Raises if it contains NUL, at which C would end it. */
const char *text_check(lua_State *L, int index);

/* Fields of a table of options, which a Lua module made and which has no
 * metatable. A wrong type raises. Strings are valid as long as the table is. */
const char *option_text(lua_State *L, int table, const char *name);
double option_number(lua_State *L, int table, const char *name, double absent);
bool option_flag(lua_State *L, int table, const char *name);

/* Push a shallow copy of the table at a positive index. */
void table_copy(lua_State *L, int index);

/* Push a short text that changes whenever the content of a file does, or one of
 * its names. */
void version_push(lua_State *L, const struct stat *status);

/* Push nil and a table of error fields. Out-of-memory is raised as a Lua error
 * instead. */
int failure_push(lua_State *L, const nymbl_error *err);
/* Raise the error that Lua raises if an allocation fails, without a position:
 * callers compare the message. */
int memory_raise(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
