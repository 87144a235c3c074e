/* SPDX-License-Identifier: MIT */
/* Ids in what the service sends. */
#ifndef NYMBL_BINDING_ID_H
#define NYMBL_BINDING_ID_H

#include "compat.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* Replace the value on top by the id that it is, as a string. False if it is
 * not an id, if the JSON decoder may have rounded it, or if it has lost a
 * character: it could then be the id of another object. */
bool id_normalise(lua_State *L);
int id_read(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
