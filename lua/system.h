/* SPDX-License-Identifier: MIT */
/* The table core.system. */
#ifndef NYMBL_BINDING_SYSTEM_H
#define NYMBL_BINDING_SYSTEM_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* Push the table core.system. */
void system_module(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
