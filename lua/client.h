/* SPDX-License-Identifier: MIT */
/* The client userdata: it alone holds the secrets of a client. */
#ifndef NYMBL_BINDING_CLIENT_H
#define NYMBL_BINDING_CLIENT_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* The open client at an index; raises for anything else. */
nymbl_client *client_check(lua_State *L, int index);
/* Add the finalizer to the class, which object_classes() has created. */
void client_class(lua_State *L);
int client_new(lua_State *L);
int client_close(lua_State *L);
int client_max_upload_bytes(lua_State *L);
int client_account(lua_State *L);
int url_problem(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
