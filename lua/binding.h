/* SPDX-License-Identifier: MIT */
/* What the files of the binding share. */
#ifndef NYMBL_BINDING_H
#define NYMBL_BINDING_H

#include "compat.h"
#include "nymbl.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

#define TRANSFER_T "nymbl.transfer"
#define BODY_T "nymbl.body"
#define CLIENT_T "nymbl.client"
#define STORE_T "nymbl.store"

/* Every userdata of the binding begins with a tag. A metatable says nothing for
 * certain about a block: debug.setmetatable() gives any of them to any block.
 */
typedef enum block_type {
    BLOCK_OBJECT,
    BLOCK_CLIENT,
    BLOCK_TRANSFER,
    BLOCK_BODY,
    BLOCK_STORE,
    BLOCK_ENGINE
} block_type;

typedef struct block_tag {
    const char *type; /* an address in object.c that no other block holds */
} block_tag;

typedef struct transfer_ud {
    block_tag tag;
    nymbl_transfer *transfer; /* NULL once closed */
} transfer_ud;

typedef struct body_ud {
    block_tag tag;
    nymbl_body *body; /* NULL once closed */
} body_ud;

typedef struct store_ud {
    block_tag tag;
    nymbl_store *store; /* NULL once closed */
} store_ud;

typedef struct client_ud {
    block_tag tag;
    nymbl_client *client;
} client_ud;

/* module.c: this process' engine; made when it is first needed. */
nymbl_engine *engine_get(lua_State *L);
/* Push nil and a table of what is known of a failure. Raises what is none:
 * lack of memory. */
int failure_push(lua_State *L, const nymbl_error *err);
/* A string argument without NUL: C would see another one. */
const char *text_check(lua_State *L, int index);
/* The same, or nil. */
const char *text_optional(lua_State *L, int index);

/* module.c: raise the error that Lua raises if an allocation fails, without a
 * position: callers compare the message. */
int memory_raise(lua_State *L);

/* object.c */
/* Push a zeroed block of a type, without a metatable. */
void *block_new(lua_State *L, block_type type, size_t size);
/* The block at an index if it is of that type, or NULL. */
void *block_test(lua_State *L, int index, block_type type, size_t size);
/* The same, but raises an argument error unless its class is @p name, too. */
void *block_check(lua_State *L, int index, block_type type, size_t size,
                  const char *name);
void object_classes(lua_State *L);
int object_new(lua_State *L);
int object_state(lua_State *L);
int object_class(lua_State *L);
/* For userdata of the binding's own. */
void class_make(lua_State *L, const char *name, const luaL_Reg *methods,
                lua_CFunction collect);

/* client.c */
nymbl_client *client_check(lua_State *L, int index);
int client_new(lua_State *L);
int client_close(lua_State *L);
int client_collect(lua_State *L);
int client_max_upload_bytes(lua_State *L);
int client_account(lua_State *L);
int url_problem(lua_State *L);

/* body.c */
nymbl_body *body_check(lua_State *L, int index);
void body_class(lua_State *L);
int body_from_path(lua_State *L);
int body_from_bytes(lua_State *L);
int body_pushed(lua_State *L);

/* json.c */
int json_values(lua_State *L);
int json_mend(lua_State *L);
int locale_set(lua_State *L);
int text_lower(lua_State *L);

/* job.c */
int digest_start(lua_State *L);
int digest_result(lua_State *L);
int sync_start(lua_State *L);
int read_directory_start(lua_State *L);
int take_entries(lua_State *L);

/* store.c */
void store_class(lua_State *L);
int store_open(lua_State *L);
int store_replace(lua_State *L);
int boot_time(lua_State *L);

/* transfer.c */
/* Push a closed transfer, to be filled in. */
transfer_ud *transfer_new(lua_State *L);
nymbl_transfer *transfer_check(lua_State *L, int index);
void transfer_class(lua_State *L);
int token_start(lua_State *L);
int upload_start(lua_State *L);
int list_start(lua_State *L);
int get_start(lua_State *L);
int download_start(lua_State *L);
int path_check(lua_State *L);
int delete_start(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
