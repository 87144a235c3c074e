/* SPDX-License-Identifier: MIT */
/* Ids in what the service sends. */
#ifndef NYMBL_BINDING_ID_H
#define NYMBL_BINDING_ID_H

#include "compat.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

int id_read(lua_State *L);
int id_read_rows(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
