/* SPDX-License-Identifier: MIT */
/* nymbl.core: the core library as a Lua module. nymbl.lua builds the API on it.
 */
#include "body.h"
#include "client.h"
#include "engine.h"
#include "id.h"
#include "id_set.h"
#include "job.h"
#include "json.h"
#include "line.h"
#include "object.h"
#include "request.h"
#include "row.h"
#include "store.h"
#include "system.h"
#include "transfer.h"

/* core.pump(seconds, transfer or nil): whether the transfer is ready */
static int module_pump(lua_State *L)
{
    double timeout = luaL_checknumber(L, 1);
    nymbl_transfer *transfer =
        lua_isnoneornil(L, 2) ? NULL : transfer_check(L, 2);

    if (nymbl_engine_pump(engine_get(L), timeout) < 0)
        return luaL_error(L, "the engine of another process");
    lua_pushboolean(L, transfer != NULL && nymbl_transfer_is_ready(transfer));
    return 1;
}

/* core.is_yieldable(): whether the calling coroutine could yield now */
static int module_is_yieldable(lua_State *L)
{
    lua_pushboolean(L, lua_isyieldable(L));
    return 1;
}

/* core.kinds: nymbl_kind_text of each kind, by the name of the kind */
static void kind_texts(lua_State *L)
{
    lua_newtable(L);
    for (int kind = NYMBL_BAD_REQUEST; kind >= NYMBL_CANCELED; kind--) {
        lua_pushstring(L, nymbl_kind_text((nymbl_kind)kind));
        lua_setfield(L, -2, nymbl_kind_name((nymbl_kind)kind));
    }
    lua_setfield(L, -2, "kinds");
}

/* core.copy(table): a shallow copy */
static int module_copy(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    table_copy(L, 1);
    return 1;
}

/* core.object_count(): for leak checks */
static int module_object_count(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)nymbl_object_count());
    return 1;
}

__attribute__((visibility("default"))) int luaopen_nymbl_core(lua_State *L);

int luaopen_nymbl_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"object", object_new},
        {"adopter", row_adopter},
        {"state", object_state},
        {"class", object_class},
        {"client", client_new},
        {"client_close", client_close},
        {"max_upload_bytes", client_max_upload_bytes},
        {"account", client_account},
        {"url_problem", url_problem},
        {"body_from_path", body_from_path},
        {"body_from_bytes", body_from_bytes},
        {"body_stream", body_stream},
        {"start_token", request_start_token},
        {"start", request_start},
        {"target_check", request_target_check},
        {"id", id_read},
        {"token_read", token_read},
        {"digest", digest_start},
        {"digest_result", digest_result},
        {"sync", sync_start},
        {"read_directory", read_directory_start},
        {"take_entries", take_entries},
        {"id_set", id_set_new},
        {"line_open", line_open},
        {"store_open", store_open},
        {"store_break_lock", store_break_lock},
        {"boot_clock", boot_clock},
        {"pump", module_pump},
        {"now", engine_now},
        {"engine_prepare", engine_prepare},
        {"engine_close", engine_close},
        {"is_yieldable", module_is_yieldable},
        {"json_values", json_values},
        {"json_mend", json_mend},
        {"copy", module_copy},
        {"locale", locale_set},
        {"lower", text_lower},
        {"sha256", text_sha256},
        {"object_count", module_object_count},
        {NULL, NULL},
    };
    const char *problem = nymbl_tls_problem();

    if (problem != NULL)
        return luaL_error(L, "%s", problem);
    object_classes(L);
    client_class(L);
    transfer_class(L);
    body_class(L);
    store_class(L);
    line_class(L);
    id_set_class(L);
    luaL_newlib(L, functions);
    kind_texts(L);
    system_module(L);
    lua_setfield(L, -2, "system");
    lua_pushlightuserdata(L, NULL); /* as cjson.null, without loading cjson */
    lua_setfield(L, -2, "null");
    lua_pushinteger(L, NYMBL_RESPONSE_MAX_VALUES);
    lua_setfield(L, -2, "max_response_values");
    lua_pushinteger(L, STATE_FIELDS);
    lua_setfield(L, -2, "FIELDS");
    lua_pushstring(L, nymbl_version());
    lua_setfield(L, -2, "version");
    return 1;
}
