/* SPDX-License-Identifier: MIT */
/* Operations on texts that would be slow in Lua, and the C locale. */
#ifndef NYMBL_BINDING_JSON_H
#define NYMBL_BINDING_JSON_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

int json_values(lua_State *L);
int json_mend(lua_State *L);
int token_read(lua_State *L);
int locale_set(lua_State *L);
int text_lower(lua_State *L);
int text_sha256(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
