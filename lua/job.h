/* SPDX-License-Identifier: MIT */
/* Jobs: long work on local files, started as transfers. */
#ifndef NYMBL_BINDING_JOB_H
#define NYMBL_BINDING_JOB_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

int digest_start(lua_State *L);
int digest_result(lua_State *L);
int sync_start(lua_State *L);
int read_directory_start(lua_State *L);
int take_entries(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
