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

/* The names that the rules list are on the stack while rows are normalised. */
typedef struct names {
    int ids;      /* the index of the first name of an id */
    int integers; /* the same for integers: behind the names of ids */
    int end;      /* behind the last one */
} names;

static void list_push(lua_State *L, int list)
{
    int count = (int)lua_rawlen(L, list), i;

    luaL_checkstack(L, count + LUA_MINSTACK, NULL);
    for (i = 1; i <= count; i++)
        lua_rawgeti(L, list, i);
}

static names names_push(lua_State *L)
{
    names pushed;

    pushed.ids = lua_gettop(L) + 1;
    list_push(L, IDS);
    pushed.integers = lua_gettop(L) + 1;
    list_push(L, INTEGERS);
    pushed.end = lua_gettop(L) + 1;
    return pushed;
}

/* Push a field of the row, and return its type; `name` is the index of its
 * name. */
static int field_push(lua_State *L, int row, int name)
{
    lua_pushvalue(L, name);
    return rawget_type(L, row);
}

/* Set a field of the row to the value on top, and pop that. */
static void field_set(lua_State *L, int row, int name)
{
    lua_pushvalue(L, name);
    lua_insert(L, -2);
    lua_rawset(L, row);
}

/* Whether this is the type of nil or JSON null. */
static bool is_absent(int type)
{
    return type == LUA_TNIL || type == LUA_TLIGHTUSERDATA;
}

/* Replace the value of a field, which is on top and has this type, by the id
 * that it is, as a string. False if it is not an id. */
static bool field_to_id(lua_State *L, int row, int name, int type)
{
    if (!id_normalise(L))
        return false;
    if (type != LUA_TSTRING) {
        lua_pushvalue(L, -1);
        field_set(L, row, name);
    }
    return true;
}

static const char *owner_problem(lua_State *L, int row)
{
    int type = field_push(L, row, OWNER);

    if (is_absent(type)) {
        lua_pushvalue(L, OWNER_ID);
        field_set(L, row, OWNER);
        return NULL;
    }
    if (lua_rawequal(L, -1, OWNER_ID))
        return NULL;
    if (!field_to_id(L, row, OWNER, type))
        return "bad_id";
    return lua_rawequal(L, -1, OWNER_ID) ? NULL
                                         : lua_tostring(L, OWNER_MISMATCH);
}

static const char *ids_problem(lua_State *L, int row, const names *names)
{
    for (int name = names->ids; name < names->integers; name++) {
        int type = field_push(L, row, name);

        if (!is_absent(type) && !field_to_id(L, row, name, type))
            return "bad_id";
        lua_pop(L, 1);
    }
    return NULL;
}

/* lua-cjson makes every number a float. */
static void integers_convert(lua_State *L, int row, const names *names)
{
#if LUA_VERSION_NUM >= 503
    for (int name = names->integers; name < names->end; name++) {
        int is_whole = 0;
        lua_Integer whole = 0;

        if (field_push(L, row, name) == LUA_TNUMBER)
            whole = lua_tointegerx(L, -1, &is_whole);
        lua_pop(L, 1);
        if (is_whole) {
            lua_pushvalue(L, name);
            lua_pushinteger(L, whole);
            lua_rawset(L, row);
        }
    }
#else
    (void)L;
    (void)row;
    (void)names;
#endif
}

/* Check and normalise a row, and push its key; false if that is not an id.
 * Returns NULL, or the reason why the row is invalid. */
static const char *row_normalise(lua_State *L, int row, const names *names)
{
    const char *problem = NULL;
    int key = lua_gettop(L) + 1;

    if (!lua_istable(L, row))
        problem = "unexpected_json";
    else if (!field_to_id(L, row, KEY, field_push(L, row, KEY)))
        problem = "bad_id";
    if (problem != NULL) {
        lua_settop(L, key - 1);
        lua_pushboolean(L, 0);
        return problem;
    }
    problem = owner_problem(L, row);
    if (problem == NULL)
        problem = ids_problem(L, row, names);
    if (problem == NULL)
        integers_convert(L, row, names);
    lua_settop(L, key);
    return problem;
}

/* adopt(row): see core.adopter() */
static int row_adopt(lua_State *L)
{
    const char *problem;
    names names;

    luaL_checkany(L, 1);
    lua_settop(L, 1);
    names = names_push(L);
    problem = row_normalise(L, 1, &names);
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
    int size, i, ids, row, valid = 0;
    names names;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    size = (int)lua_rawlen(L, 1);
    names = names_push(L);
    ids = names.end;
    row = names.end + 1;
    lua_createtable(L, size, 0);
    for (i = 1; i <= size; i++) {
        const char *found;

        lua_rawgeti(L, 1, i);
        found = row_normalise(L, row, &names);
        lua_rawseti(L, ids, i);
        if (problem == NULL)
            problem = found;
        if (problem == NULL) {
            object_adopt(L, METATABLE, COMMON);
            lua_rawseti(L, 1, i);
            valid = i;
        }
        lua_settop(L, ids);
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
