/* SPDX-License-Identifier: MIT */
/* A client, as its transfers and engines use it. */
#include "engine/client.h"

#include "base/object_count.h"
#include "base/secret.h"
#include "exchange/url.h"

#include <stdlib.h>

void nymbl__client_retain(nymbl_client *client)
{
    atomic_fetch_add(&client->references, 1);
}

void nymbl__client_wipe(nymbl_client *client)
{
    nymbl__secret_free(client->api_key);
    nymbl__secret_free(client->client_id);
    nymbl__secret_free(client->client_secret);
    nymbl__secret_free(client->proxy);
    client->api_key = client->client_id = client->client_secret = NULL;
    client->proxy = NULL;
}

void nymbl__client_release(nymbl_client *client)
{
    if (atomic_fetch_sub(&client->references, 1) > 1)
        return;
    nymbl__client_wipe(client);
    free(client->base_url);
    free(client->token_url);
    free(client->scope);
    nymbl__settings_free(&client->settings);
    free(client);
    nymbl__object_count_add(-1);
}

nymbl_engine *nymbl__client_unregister(nymbl_client *client)
{
    nymbl_engine *engine = client->engine;
    nymbl_client **link;

    if (engine == NULL)
        return NULL;
    nymbl__engine_lock(engine);
    link = &engine->clients;
    while (*link != client)
        link = &(*link)->next;
    *link = client->next;
    nymbl__engine_unlock(engine);
    client->engine = NULL;
    return engine;
}

void nymbl__client_register(nymbl_client *client, nymbl_engine *engine)
{
    nymbl_engine *previous;

    if (client->engine == engine)
        return;
    previous = nymbl__client_unregister(client);
    if (previous != NULL)
        nymbl__engine_release(previous);
    nymbl__engine_retain(engine);
    nymbl__engine_lock(engine);
    client->next = engine->clients;
    engine->clients = client;
    nymbl__engine_unlock(engine);
    client->engine = engine;
}

bool nymbl__client_any_uses(const nymbl_engine *engine, uint64_t origin)
{
    bool used = false;

    nymbl__engine_lock(engine);
    for (nymbl_client *c = engine->clients; c != NULL && !used; c = c->next)
        used = nymbl__url_origin_hash(c->base_url) == origin ||
               (c->token_url != NULL &&
                nymbl__url_origin_hash(c->token_url) == origin);
    nymbl__engine_unlock(engine);
    return used;
}
