/* SPDX-License-Identifier: MIT */
/* The client userdata: it alone holds the secrets of a client. */
#include "binding.h"

nymbl_client *client_check(lua_State *L, int index)
{
    client_ud *self =
        block_check(L, index, BLOCK_CLIENT, sizeof(*self), CLIENT_T);

    if (self->client == NULL)
        luaL_argerror(L, index, "closed client");
    return self->client;
}

/* The options table was made by our Lua and is free of metamethods. Strings
 * stay on the stack while C holds pointers to them. */
static const char *option_text(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    return lua_tostring(L, -1);
}

static double option_number(lua_State *L, const char *name)
{
    double number;

    lua_getfield(L, 1, name);
    number = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return number;
}

/* core.client(options, environment): a client, or nil and a failure. */
int client_new(lua_State *L)
{
    nymbl_client_options options = {0};
    client_ud *self;
    nymbl_error err;

    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    luaL_checkstack(L, 20, NULL);
    self = block_new(L, BLOCK_CLIENT, sizeof(*self));
    luaL_setmetatable(L, CLIENT_T);
    lua_pushvalue(L, 2);
    lua_setuservalue(L, 3);
    options.base_url = option_text(L, "base_url");
    options.api_key = option_text(L, "api_key");
    options.token_url = option_text(L, "token_url");
    options.client_id = option_text(L, "client_id");
    options.client_secret = option_text(L, "client_secret");
    options.scope = option_text(L, "scope");
    options.ca_file = option_text(L, "ca_file");
    options.ca_path = option_text(L, "ca_path");
    options.proxy = option_text(L, "proxy");
    options.user_agent = option_text(L, "user_agent");
    options.connect_timeout = option_number(L, "connect_timeout");
    options.stall_timeout = option_number(L, "stall_timeout");
    options.max_upload_bytes = (int64_t)option_number(L, "max_upload_bytes");
    options.max_connections = (int)option_number(L, "max_connections");
    lua_getfield(L, 1, "allow_http");
    options.allow_http = lua_toboolean(L, -1);
    if (nymbl_client_new(&self->client, &options, &err) < 0)
        return failure_push(L, &err);
    lua_settop(L, 3);
    return 1;
}

int client_close(lua_State *L)
{
    nymbl_client_close(client_check(L, 1));
    return 0;
}

int client_collect(lua_State *L)
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

/* core.account(client, for a token): a name for what clients share, or nil. */
int client_account(lua_State *L)
{
    char name[65];

    if (nymbl_client_account(client_check(L, 1),
                             lua_toboolean(L, 2) ? NYMBL_ACCOUNT_TOKEN
                                                 : NYMBL_ACCOUNT_LIMITS,
                             name) < 0)
        return 0;
    lua_pushstring(L, name);
    return 1;
}

/* core.url_problem(url, allow_http): why a URL cannot be used, or nil. */
int url_problem(lua_State *L)
{
    lua_pushstring(
        L, nymbl_url_problem(luaL_checkstring(L, 1), lua_toboolean(L, 2)));
    return 1;
}
