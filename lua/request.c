/* SPDX-License-Identifier: MIT */
/* Starting requests, which Lua describes as tables. */
#include "request.h"

#include "body.h"
#include "client.h"
#include "descriptor.h"
#include "engine.h"
#include "transfer.h"

#include <string.h>

#define SEGMENTS_MAX 8
#define PAIRS_MAX 24

/* Index of the request's table. */
#define REQUEST 3

/* The request that a table describes. Its strings belong to the table or are on
 * the stack. */
typedef struct description {
    nymbl_request request;
    nymbl_segment path[SEGMENTS_MAX + 1];
    nymbl_pair query[PAIRS_MAX + 1];
    nymbl_pair headers[PAIRS_MAX + 1];
    nymbl_upload_options upload;
    nymbl_download_options download;
} description;

/* Push a field that is a table; false, with nothing pushed, if it is absent. */
static bool table_push(lua_State *L, const char *name)
{
    lua_getfield(L, REQUEST, name);
    if (lua_istable(L, -1))
        return true;
    if (!lua_isnil(L, -1))
        luaL_error(L, "request field '%s': table expected", name);
    lua_pop(L, 1);
    return false;
}

/* The string at an index. Raises if it contains NUL. */
static const char *item_text(lua_State *L, int index)
{
    size_t size;
    const char *text = lua_tolstring(L, index, &size);

    if (strlen(text) != size)
        luaL_error(L, "request: string contains NUL");
    return text;
}

/* Read the path: name, key or false, … A missing item raises: without its key,
 * the path would be that of a whole collection. */
static void path_read(lua_State *L, description *to)
{
    int size = (int)lua_rawlen(L, REQUEST), i;

    if (size < 2 || size % 2 != 0 || size / 2 > SEGMENTS_MAX)
        luaL_error(L, "request: names with keys expected");
    for (i = 0; i < size / 2; i++) {
        int type;

        lua_rawgeti(L, REQUEST, 2 * i + 1);
        lua_rawgeti(L, REQUEST, 2 * i + 2);
        type = lua_type(L, -1);
        if (lua_type(L, -2) != LUA_TSTRING ||
            (type != LUA_TSTRING &&
             (type != LUA_TBOOLEAN || lua_toboolean(L, -1))))
            luaL_error(L, "request: names with keys expected");
        to->path[i].name = item_text(L, -2);
        to->path[i].key = type == LUA_TSTRING ? item_text(L, -1) : NULL;
        lua_pop(L, 2);
    }
    to->request.path = to->path;
}

/* Read a field { name, value, … }; a value is a string, a whole number or true.
 * Returns NULL if the field is absent. */
static const nymbl_pair *pairs_read(lua_State *L, const char *name,
                                    nymbl_pair *pairs)
{
    int size, i, list;

    if (!table_push(L, name))
        return NULL;
    list = lua_gettop(L);
    size = (int)lua_rawlen(L, list);
    if (size % 2 != 0 || size / 2 > PAIRS_MAX)
        luaL_error(L, "request field '%s': names with values expected", name);
    for (i = 0; i < size / 2; i++) {
        char digits[32];

        lua_rawgeti(L, list, 2 * i + 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "request field '%s': name expected", name);
        pairs[i].name = item_text(L, -1);
        lua_pop(L, 1);
        lua_rawgeti(L, list, 2 * i + 2);
        switch (lua_type(L, -1)) {
        case LUA_TSTRING:
            pairs[i].value = item_text(L, -1);
            lua_pop(L, 1);
            break;
        case LUA_TNUMBER:
            snprintf(digits, sizeof(digits), "%.0f", lua_tonumber(L, -1));
            lua_pop(L, 1);
            lua_pushstring(L, digits); /* remains on the stack */
            pairs[i].value = lua_tostring(L, -1);
            break;
        case LUA_TBOOLEAN:
            if (lua_toboolean(L, -1)) {
                pairs[i].value = "true";
                lua_pop(L, 1);
                break;
            } /* fall through */
        default:
            luaL_error(L, "request field '%s': value expected", name);
        }
    }
    return pairs;
}

static nymbl_method method_read(lua_State *L)
{
    static const char *const names[] = {"GET", "POST", "DELETE", NULL};
    static const nymbl_method methods[] = {NYMBL_GET, NYMBL_POST, NYMBL_DELETE};
    const char *name = option_text(L, REQUEST, "method");
    int i = 0;

    while (name != NULL && names[i] != NULL && strcmp(name, names[i]) != 0)
        i++;
    if (names[i] == NULL)
        luaL_error(L, "request field 'method': invalid value");
    return methods[i];
}

static void upload_read(lua_State *L, description *to)
{
    int table;

    if (!table_push(L, "upload"))
        return;
    table = lua_gettop(L);
    lua_getfield(L, table, "body");
    to->request.body = body_check(L, lua_gettop(L));
    to->upload = (nymbl_upload_options){
        .file_name = option_text(L, table, "file_name"),
        .content_type = option_text(L, table, "content_type"),
        .document_type = option_text(L, table, "document_type"),
        .description = option_text(L, table, "description"),
        .is_rewindable = option_flag(L, table, "is_rewindable"),
        .progress = option_flag(L, table, "progress"),
    };
    to->request.upload = &to->upload;
    lua_pop(L, 2);
}

/* The number of a descriptor in a field of the table at the index `table`, or
 * 0. The table keeps it open. */
static int option_descriptor(lua_State *L, int table, const char *name)
{
    int fd = 0;

    lua_getfield(L, table, name);
    if (!lua_isnil(L, -1))
        fd = descriptor_check(L, lua_gettop(L));
    lua_pop(L, 1);
    return fd;
}

static void download_read(lua_State *L, description *to)
{
    double size, length;
    int table;

    if (!table_push(L, "download"))
        return;
    table = lua_gettop(L);
    size = option_number(L, table, "size", -1);
    length = option_number(L, table, "length", -1);
    to->download = (nymbl_download_options){
        .path = option_text(L, table, "path"),
        .mode = (unsigned)option_number(L, table, "mode", 0),
        .no_overwrite = option_flag(L, table, "no_overwrite"),
        .resume = option_flag(L, table, "resume"),
        .content_type = option_text(L, table, "content_type"),
        .has_size = size >= 0,
        .size = size >= 0 ? (int64_t)size : 0,
        .progress = option_flag(L, table, "progress"),
        .offset = (int64_t)option_number(L, table, "offset", 0),
        .has_length = length >= 0,
        .length = length >= 0 ? (int64_t)length : 0,
        .no_range_request = option_flag(L, table, "no_range_request"),
        .if_match = option_text(L, table, "if_match"),
        .sha256 = option_flag(L, table, "sha256"),
        .dir_fd = option_descriptor(L, table, "directory"),
    };
    to->request.download = &to->download;
    to->request.expected = NYMBL_EXPECT_CONTENT;
    lua_pop(L, 1);
}

static void description_read(lua_State *L, description *to)
{
    luaL_checktype(L, REQUEST, LUA_TTABLE);
    lua_settop(L, REQUEST);
    luaL_checkstack(L, 2 * PAIRS_MAX + 16, NULL);
    to->request.method = method_read(L);
    path_read(L, to);
    to->request.query = pairs_read(L, "query", to->query);
    to->request.headers = pairs_read(L, "headers", to->headers);
    to->request.next_link = option_text(L, REQUEST, "next_link");
    to->request.inspect = option_flag(L, REQUEST, "inspect");
    upload_read(L, to);
    download_read(L, to);
}

/* core.start_token(client): a transfer; or nil and error fields */
int request_start_token(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    nymbl_engine *engine = engine_get(L);
    nymbl_transfer **transfer = transfer_new(L);
    nymbl_error err;

    return nymbl_token_start(transfer, engine, client, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.start(client, token, request): a transfer; or nil and error fields. The
 * request is a table. Its items are the path: a name, its key or false, the
 * next name, … Its fields are those of nymbl_request, all optional:
 *
 *   method     "GET" (default), "POST" or "DELETE"
 *   query      { name, value, … }; values are strings, whole numbers or true
 *   headers    the same
 *   next_link  a URL instead of path and query
 *   upload     { body =, file_name =, content_type =, document_type =,
 *                description =, is_rewindable =, progress = }
 *   download   { path =, mode =, no_overwrite =, resume =, content_type =,
 *                size =, progress =, offset =, length =, no_range_request =,
 *                if_match =, sha256 =, directory = }: the content of a document
 *              is expected, otherwise JSON. If there is a directory (a
 *              descriptor), `path` is a name in it
 *   inspect    whether transfer:peer() is needed
 */
int request_start(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    const char *token = text_check(L, 2);
    description described = {0};
    nymbl_transfer **transfer;
    nymbl_engine *engine;
    nymbl_error err;

    description_read(L, &described);
    engine = engine_get(L);
    transfer = transfer_new(L);
    return nymbl_request_start(transfer, engine, client, token,
                               &described.request, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.target_check(path, no_overwrite): true, or nil and error fields; see
 * nymbl_target_check */
int request_target_check(lua_State *L)
{
    nymbl_error err;

    if (nymbl_target_check(text_check(L, 1), lua_toboolean(L, 2), &err) < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}
