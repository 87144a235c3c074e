/* SPDX-License-Identifier: MIT */
/* A set of ids: which rows of a listing a script has got. */
#ifndef NYMBL_BINDING_ID_SET_H
#define NYMBL_BINDING_ID_SET_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

void id_set_class(lua_State *L);
int id_set_new(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
