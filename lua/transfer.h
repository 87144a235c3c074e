/* SPDX-License-Identifier: MIT */
/* A transfer, as the Lua modules see it. Nothing here waits. */
#ifndef NYMBL_BINDING_TRANSFER_H
#define NYMBL_BINDING_TRANSFER_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* Push a transfer for a start function to fill in. Until then it counts as
 * closed. */
nymbl_transfer **transfer_new(lua_State *L);
/* The open transfer at an index; raises for anything else. */
nymbl_transfer *transfer_check(lua_State *L, int index);
void transfer_class(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
