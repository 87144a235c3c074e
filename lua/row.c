/* SPDX-License-Identifier: MIT */
/* Rows: the JSON objects that the service has sent, decoded to tables. A row is
 * checked and normalised in place, and becomes the fields of an object. All
 * rows of a page do so within one call. */
#include "row.h"

#include "id.h"
#include "object.h"

/* Upvalues of the functions that core.adopter() returns. */
#define METATABLE lua_upvalueindex(1)
#define COMMON lua_upvalueindex(2)
#define KEY lua_upvalueindex(3)
#define OWNER lua_upvalueindex(4)
#define OWNER_ID lua_upvalueindex(5)
#define OWNER_MISMATCH lua_upvalueindex(6)
#define IDS lua_upvalueindex(7)
#define INTEGERS lua_upvalueindex(8)
#define UPVALUES 8

/* Push a field of the row; `name` is the index of its name. */
static void field_push(lua_State *L, int row, int name)
{
    lua_pushvalue(L, name);
    lua_rawget(L, row);
}

/* Set a field of the row to the value on top, and pop that. */
static void field_set(lua_State *L, int row, int name)
{
    lua_pushvalue(L, name);
    lua_insert(L, -2);
    lua_rawset(L, row);
}

/* Whether the value on top is nil or JSON null. */
static bool is_absent(lua_State *L)
{
    return lua_isnil(L, -1) || lua_islightuserdata(L, -1);
}

/* Replace the value of a field, which is on top, by the id that it is, as a
 * string. False if it is not an id. */
static bool field_to_id(lua_State *L, int row, int name)
{
    bool is_string = lua_type(L, -1) == LUA_TSTRING;

    if (!id_normalise(L))
        return false;
    if (!is_string) {
        lua_pushvalue(L, -1);
        field_set(L, row, name);
    }
    return true;
}

static const char *owner_problem(lua_State *L, int row)
{
    field_push(L, row, OWNER);
    if (is_absent(L)) {
        lua_pushvalue(L, OWNER_ID);
        field_set(L, row, OWNER);
        return NULL;
    }
    if (lua_rawequal(L, -1, OWNER_ID))
        return NULL;
    if (!field_to_id(L, row, OWNER))
        return "bad_id";
    return lua_rawequal(L, -1, OWNER_ID) ? NULL
                                         : lua_tostring(L, OWNER_MISMATCH);
}

static const char *ids_problem(lua_State *L, int row)
{
    int count = (int)lua_rawlen(L, IDS), i;

    for (i = 1; i <= count; i++) {
        int name = lua_gettop(L) + 1;

        lua_rawgeti(L, IDS, i);
        field_push(L, row, name);
        if (!is_absent(L) && !field_to_id(L, row, name))
            return "bad_id";
        lua_settop(L, name - 1);
    }
    return NULL;
}

/* lua-cjson makes every number a float. */
static void integers_convert(lua_State *L, int row)
{
#if LUA_VERSION_NUM >= 503
    int count = (int)lua_rawlen(L, INTEGERS), i;

    for (i = 1; i <= count; i++) {
        int name = lua_gettop(L) + 1, is_whole = 0;
        lua_Integer whole = 0;

        lua_rawgeti(L, INTEGERS, i);
        field_push(L, row, name);
        if (lua_type(L, -1) == LUA_TNUMBER)
            whole = lua_tointegerx(L, -1, &is_whole);
        if (is_whole) {
            lua_pushinteger(L, whole);
            field_set(L, row, name);
        }
        lua_settop(L, name - 1);
    }
#else
    (void)L;
    (void)row;
#endif
}

/* Check and normalise a row, and push its key; false if that is not an id.
 * Returns NULL, or the reason why the row is invalid. */
static const char *row_normalise(lua_State *L, int row)
{
    const char *problem = NULL;
    int key = lua_gettop(L) + 1;

    if (!lua_istable(L, row))
        problem = "unexpected_json";
    else
        field_push(L, row, KEY);
    if (problem == NULL && !field_to_id(L, row, KEY))
        problem = "bad_id";
    if (problem != NULL) {
        lua_settop(L, key - 1);
        lua_pushboolean(L, 0);
        return problem;
    }
    problem = owner_problem(L, row);
    if (problem == NULL)
        problem = ids_problem(L, row);
    if (problem == NULL)
        integers_convert(L, row);
    lua_settop(L, key);
    return problem;
}

/* adopt(row): see core.adopter() */
static int row_adopt(lua_State *L)
{
    const char *problem;

    luaL_checkany(L, 1);
    lua_settop(L, 1);
    problem = row_normalise(L, 1);
    if (problem != NULL) {
        lua_pushnil(L);
        lua_pushstring(L, problem);
        return 2;
    }
    lua_settop(L, 1);
    object_adopt(L, METATABLE, COMMON);
    return 1;
}

/* adopt_page(rows): see core.adopter() */
static int row_adopt_page(lua_State *L)
{
    const char *problem = NULL;
    int size, i, valid = 0;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    size = (int)lua_rawlen(L, 1);
    lua_createtable(L, size, 0);
    for (i = 1; i <= size; i++) {
        const char *found;

        lua_rawgeti(L, 1, i);
        found = row_normalise(L, 3);
        lua_rawseti(L, 2, i);
        if (problem == NULL)
            problem = found;
        if (problem == NULL) {
            object_adopt(L, METATABLE, COMMON);
            lua_rawseti(L, 1, i);
            valid = i;
        }
        lua_settop(L, 2);
    }
    lua_pushinteger(L, valid);
    lua_pushstring(L, problem);
    return 3;
}

static void rule_push(lua_State *L, const char *name, int type)
{
    lua_getfield(L, 3, name);
    luaL_argcheck(L, lua_type(L, -1) == type, 3, name);
}

static void upvalues_push(lua_State *L)
{
    luaL_getmetatable(L, luaL_checkstring(L, 1));
    luaL_argcheck(L, object_is_class(L), 1, "no class");
    lua_pushvalue(L, 2);
    rule_push(L, "key", LUA_TSTRING);
    rule_push(L, "owner", LUA_TSTRING);
    lua_pushvalue(L, -1);
    lua_rawget(L, 2);
    rule_push(L, "owner_mismatch", LUA_TSTRING);
    rule_push(L, "ids", LUA_TTABLE);
    rule_push(L, "integers", LUA_TTABLE);
}

/* core.adopter(class, common, rules): two functions that turn rows into objects
 * of a class. An object keeps its row as its fields; its state has these, its
 * `id`, and a copy of `common`. The rules name the fields that are normalised:
 *
 *   key       the id of the row
 *   owner     the id of the row's owner: common[owner] by default, and
 *             otherwise the row is invalid, for the reason `owner_mismatch`
 *   ids       an array of other fields that are ids; they may be absent
 *   integers  an array of fields that are integers if their values are whole
 *
 * adopt(row)        returns the object; or nil and the reason why the row is
 *                   invalid
 * adopt_page(rows)  replaces the valid rows at the beginning of an array by
 *                   objects. Returns an array of the ids of all rows, with
 *                   false for a row that has none; the number of objects; and
 *                   the reason why the next row is invalid, or nil */
int row_adopter(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    upvalues_push(L);
    lua_pushcclosure(L, row_adopt, UPVALUES);
    upvalues_push(L);
    lua_pushcclosure(L, row_adopt_page, UPVALUES);
    return 2;
}
