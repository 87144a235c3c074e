/* SPDX-License-Identifier: MIT */
/* The client userdata: it alone holds the secrets of a client. */
#include "client.h"

#include "object.h"

typedef struct client_ud {
    block_tag tag;
    nymbl_client *client;
} client_ud;

nymbl_client *client_check(lua_State *L, int index)
{
    client_ud *self =
        block_check(L, index, BLOCK_CLIENT, sizeof(*self), CLIENT_CLASS);

    if (self->client == NULL)
        luaL_argerror(L, index, "closed client");
    return self->client;
}

/* core.client(options, state): a client; or nil and error fields */
int client_new(lua_State *L)
{
    nymbl_client_options options = {0};
    client_ud *self;
    nymbl_error err;

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    self = block_new(L, BLOCK_CLIENT, sizeof(*self));
    luaL_setmetatable(L, CLIENT_CLASS);
    lua_pushvalue(L, 2);
    lua_setuservalue(L, 3);
    options.base_url = option_text(L, 1, "base_url");
    options.api_key = option_text(L, 1, "api_key");
    options.token_url = option_text(L, 1, "token_url");
    options.client_id = option_text(L, 1, "client_id");
    options.client_secret = option_text(L, 1, "client_secret");
    options.scope = option_text(L, 1, "scope");
    options.ca_file = option_text(L, 1, "ca_file");
    options.ca_path = option_text(L, 1, "ca_path");
    options.proxy = option_text(L, 1, "proxy");
    options.user_agent = option_text(L, 1, "user_agent");
    options.connect_timeout = option_number(L, 1, "connect_timeout", 0);
    options.stall_timeout = option_number(L, 1, "stall_timeout", 0);
    options.max_upload_bytes =
        (int64_t)option_number(L, 1, "max_upload_bytes", 0);
    options.max_connections = (int)option_number(L, 1, "max_connections", 0);
    options.allow_http = option_flag(L, 1, "allow_http");
    if (nymbl_client_new(&self->client, &options, &err) < 0)
        return failure_push(L, &err);
    return 1;
}

int client_close(lua_State *L)
{
    nymbl_client_close(client_check(L, 1));
    return 0;
}

static int client_collect(lua_State *L)
{
    client_ud *self = block_test(L, 1, BLOCK_CLIENT, sizeof(*self));

    if (self == NULL)
        return 0;
    nymbl_client_free(self->client);
    self->client = NULL;
    return 0;
}

int client_max_upload_bytes(lua_State *L)
{
    push_size(L, nymbl_client_max_upload_bytes(client_check(L, 1)));
    return 1;
}

/* core.account(client, "limits", "token" or "ids"): an id of the account, or
 * service, whose clients share this state; or nil */
int client_account(lua_State *L)
{
    static const char *const names[] = {"limits", "token", "ids", NULL};
    static const nymbl_shared_state accounts[] = {
        NYMBL_SHARED_LIMITS, NYMBL_SHARED_TOKEN, NYMBL_SHARED_IDS};
    nymbl_client *client = client_check(L, 1);
    int which = luaL_checkoption(L, 2, NULL, names);
    char name[65];

    if (nymbl_client_account_id(client, accounts[which], name) < 0)
        return 0;
    lua_pushstring(L, name);
    return 1;
}

/* core.url_problem(url, allow_http): why a URL cannot be used, or nil */
int url_problem(lua_State *L)
{
    lua_pushstring(
        L, nymbl_url_problem(luaL_checkstring(L, 1), lua_toboolean(L, 2)));
    return 1;
}

void client_class(lua_State *L)
{
    luaL_getmetatable(L, CLIENT_CLASS);
    lua_pushcfunction(L, client_collect);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}
