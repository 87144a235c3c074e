/* SPDX-License-Identifier: MIT */
/* The file of a store, locked. */
#ifndef NYMBL_BINDING_STORE_H
#define NYMBL_BINDING_STORE_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

void store_class(lua_State *L);
int store_open(lua_State *L);
int store_break_lock(lua_State *L);
int boot_clock(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
