/* SPDX-License-Identifier: MIT */
/* The objects that a script sees: a userdata with a table of state.
 *
 * A listing creates many objects of which only fields are read. Such an object
 * is "bare": its user value is the table of fields, whose metatable is the part
 * of the state that all of them share. (It has no metamethods. As a metatable
 * it takes no memory.) core.state() creates the state from both when a method
 * first needs it. */
#include "object.h"

#include <string.h>

/* The key of a metatable's methods. Lua finds an integer faster than a name. */
#define METHODS 1

typedef struct object {
    block_tag tag;
    bool is_bare;
} object;

static const char *const classes[] = {CLIENT_CLASS, "nymbl.patient",
                                      "nymbl.document", "nymbl.stream"};

/* Whether a value is an object that a script sees. */
static bool is_object(lua_State *L, int index)
{
    return block_test(L, index, BLOCK_OBJECT, sizeof(block_tag)) != NULL ||
           block_test(L, index, BLOCK_CLIENT, sizeof(block_tag)) != NULL;
}

static bool is_bare(lua_State *L, int index)
{
    object *self = block_test(L, index, BLOCK_OBJECT, sizeof(object));

    return self != NULL && self->is_bare;
}

/* A method, or else a field. JSON null, a light userdata, reads as nil. The
 * upvalue is the metatable. */
static int object_index(lua_State *L)
{
    const object *self = block_test(L, 1, BLOCK_OBJECT, sizeof(object));

    if (lua_type(L, 2) != LUA_TSTRING || (self == NULL && !is_object(L, 1)))
        return 0;
    if (rawgeti_type(L, lua_upvalueindex(1), METHODS) != LUA_TTABLE)
        return 0;
    lua_pushvalue(L, 2);
    if (rawget_type(L, -2) != LUA_TNIL)
        return 1;
    if (getuservalue_type(L, 1) != LUA_TTABLE)
        return 0;
    if ((self == NULL || !self->is_bare) &&
        rawgeti_type(L, -1, STATE_FIELDS) != LUA_TTABLE)
        return 0;
    lua_pushvalue(L, 2);
    return rawget_type(L, -2) == LUA_TLIGHTUSERDATA ? 0 : 1;
}

/* Scripts cannot write fields: they are what the service has sent. */
static int object_newindex(lua_State *L)
{
    const char *name = "object";

    luaL_checkany(L, 1);
    if (lua_getmetatable(L, 1)) {
        lua_pushliteral(L, "__name");
        lua_rawget(L, -2);
        if (lua_type(L, -1) == LUA_TSTRING)
            name = lua_tostring(L, -1);
    }
    return luaL_error(L, "fields of a %s are read-only", name);
}

/* Class and state, never data: the text may be logged. */
static int object_tostring(lua_State *L)
{
    lua_settop(L, 1);
    if (!is_object(L, 1) || !lua_getmetatable(L, 1)) {
        lua_pushstring(L, luaL_typename(L, 1));
        return 1;
    }
    lua_pushliteral(L, "__name");
    lua_rawget(L, -2);
    lua_getuservalue(L, 1);
    if (lua_type(L, 3) != LUA_TSTRING || !lua_istable(L, 4)) {
        lua_pushliteral(L, "userdata");
        return 1;
    }
    lua_getfield(L, -1, STATE_CLOSED);
    lua_pushvalue(L, 3);
    lua_pushstring(L,
                   lua_toboolean(L, -2) && !is_bare(L, 1) ? " (closed)" : "");
    lua_concat(L, 2);
    return 1;
}

static void class_new(lua_State *L, const char *name)
{
    luaL_newmetatable(L, name);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushstring(L, name); /* getmetatable() must not open the object */
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    lua_rawseti(L, -2, METHODS);
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, object_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, object_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, object_tostring);
    lua_setfield(L, -2, "__tostring");
}

void object_classes(lua_State *L)
{
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        class_new(L, classes[i]);
        lua_pop(L, 1);
    }
}

bool object_is_class(lua_State *L)
{
    bool same = false;

    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]) && !same; i++) {
        luaL_getmetatable(L, classes[i]);
        same = lua_rawequal(L, -1, -2);
        lua_pop(L, 1);
    }
    return same;
}

/* core.object(metatable, state): an object of a class with its state table */
int object_new(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_pushvalue(L, 1);
    luaL_argcheck(L, object_is_class(L), 1, "no class");
    block_new(L, BLOCK_OBJECT, sizeof(object));
    lua_pushvalue(L, 1);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 2);
    lua_setuservalue(L, -2);
    return 1;
}

void object_adopt(lua_State *L, int metatable, int common)
{
    int fields = lua_gettop(L);
    object *self = block_new(L, BLOCK_OBJECT, sizeof(*self));

    self->is_bare = true;
    lua_pushvalue(L, metatable);
    lua_setmetatable(L, -2);
    lua_insert(L, fields);
    lua_pushvalue(L, common);
    lua_setmetatable(L, -2);
    lua_setuservalue(L, fields);
}

/* Create the state of a bare object. Its fields are on top of the stack, and
 * are replaced by the state. */
static void state_create(lua_State *L, int index)
{
    object *self = lua_touserdata(L, index);
    int fields = lua_gettop(L), state = fields + 2;

    if (!lua_getmetatable(L, fields))
        lua_newtable(L);
    table_copy(L, fields + 1);
    lua_getfield(L, fields, "id");
    lua_setfield(L, state, "id");
    lua_pushvalue(L, fields);
    lua_rawseti(L, state, STATE_FIELDS);
    lua_settop(L, state);
    /* nothing below allocates, so the object has changed completely or not at
     * all */
    lua_pushnil(L);
    lua_setmetatable(L, fields);
    lua_replace(L, fields);
    lua_settop(L, fields);
    lua_pushvalue(L, fields);
    lua_setuservalue(L, index);
    self->is_bare = false;
}

/* core.state(value, class): the state of an object; nil if the value is not an
 * object of that class */
int object_state(lua_State *L)
{
    const char *name = luaL_checkstring(L, 2);

    if (!is_object(L, 1) || !lua_getmetatable(L, 1))
        return 0;
    luaL_getmetatable(L, name);
    if (!lua_rawequal(L, -1, -2))
        return 0;
    lua_getuservalue(L, 1);
    if (!lua_istable(L, -1))
        return 0;
    if (is_bare(L, 1))
        state_create(L, 1);
    return 1;
}

/* core.class(class): its table of methods and its metatable */
int object_class(lua_State *L)
{
    luaL_getmetatable(L, luaL_checkstring(L, 1));
    luaL_argcheck(L, object_is_class(L), 1, "no class");
    lua_rawgeti(L, -1, METHODS);
    lua_pushvalue(L, -2);
    return 2;
}
