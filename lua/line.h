/* SPDX-License-Identifier: MIT */
/* A line, as the Lua modules see it. Nothing here waits. */
#ifndef NYMBL_BINDING_LINE_H
#define NYMBL_BINDING_LINE_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

int line_open(lua_State *L);
void line_class(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
