/* SPDX-License-Identifier: MIT */
/* Starting requests. */
#ifndef NYMBL_BINDING_REQUEST_H
#define NYMBL_BINDING_REQUEST_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

int request_start_token(lua_State *L);
int request_start(lua_State *L);
int request_target_check(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
