/* SPDX-License-Identifier: MIT */
/* The engine of this process and Lua state. */
#ifndef NYMBL_BINDING_ENGINE_H
#define NYMBL_BINDING_ENGINE_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* The engine, created when it is first needed. */
nymbl_engine *engine_get(lua_State *L);
int engine_prepare(lua_State *L);
int engine_close(lua_State *L);
int engine_now(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
