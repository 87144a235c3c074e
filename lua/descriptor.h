/* SPDX-License-Identifier: MIT */
/* Files, and files below a directory without following links. */
#ifndef NYMBL_BINDING_DESCRIPTOR_H
#define NYMBL_BINDING_DESCRIPTOR_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

void descriptor_class(lua_State *L);
/* The number of an open descriptor. */
int descriptor_check(lua_State *L, int index);
int system_open_directory(lua_State *L);
int system_open_file(lua_State *L);
int system_make_directory(lua_State *L);
int system_lstat(lua_State *L);
int system_realpath(lua_State *L);
int system_user(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
