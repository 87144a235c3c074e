/* SPDX-License-Identifier: MIT */
/* The body of an upload. */
#ifndef NYMBL_BINDING_BODY_H
#define NYMBL_BINDING_BODY_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* The open body at an index; raises for anything else. */
nymbl_body *body_check(lua_State *L, int index);
void body_class(lua_State *L);
int body_from_path(lua_State *L);
int body_from_bytes(lua_State *L);
int body_stream(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
