/* SPDX-License-Identifier: MIT */
/* Rows: the decoded JSON objects that the service has sent. */
#ifndef NYMBL_BINDING_ROW_H
#define NYMBL_BINDING_ROW_H

#include "compat.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

int row_adopter(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
