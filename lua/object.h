/* SPDX-License-Identifier: MIT */
/* The objects that a script sees: a userdata with a table of state. */
#ifndef NYMBL_BINDING_OBJECT_H
#define NYMBL_BINDING_OBJECT_H

#include "helpers.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* The fields of a state table that C reads. Only Lua uses the others; one of
 * them is `env`, the environment that all objects of a client share. */
#define STATE_CLOSED "closed" /* true once the object is closed */
/* The table whose fields a script reads as fields of the object: in Lua
 * state[core.FIELDS]. It is read often, and Lua finds an integer key faster
 * than a name. */
#define STATE_FIELDS 1

#define CLIENT_CLASS "nymbl.client"

/* Create the metatables of all classes. */
void object_classes(lua_State *L);
/* Whether the value on top is the metatable of a class; leaves it there. */
bool object_is_class(lua_State *L);
/* Replace the table of fields on top by an object, which keeps the table. Its
 * state has the fields, their `id`, and a copy of the table `common`. Both
 * indices are positive or those of upvalues. */
void object_adopt(lua_State *L, int metatable, int common);
int object_new(lua_State *L);
int object_state(lua_State *L);
int object_class(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
