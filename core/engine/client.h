/* SPDX-License-Identifier: MIT */
/* A client, as its transfers and engines use it. */
#ifndef NYMBL_ENGINE_CLIENT_H
#define NYMBL_ENGINE_CLIENT_H

#include "engine/engine.h"
#include "exchange/settings.h"
#include "nymbl.h"

#include <stdatomic.h>

struct nymbl_client {
    atomic_int references; /* its caller, its transfers, an engine's list */
    nymbl_engine *engine;  /* on which it last started a transfer */
    nymbl_client *next;    /* in that engine's list */
    nymbl_client *next_closing;
    bool closed;
    bool allow_http;
    nymbl__settings settings;
    char *base_url; /* without a trailing slash */
    char *api_key;
    char *token_url;
    char *client_id;
    char *client_secret;
    char *scope;
    char *proxy; /* may hold a password */
    int64_t max_upload_bytes;
    int max_connections;
};

void nymbl__client_retain(nymbl_client *client);
/* Drop a reference, from any thread. The caller's own is dropped by
 * nymbl_client_free(). */
void nymbl__client_release(nymbl_client *client);
/* Wipe and free the secrets. */
void nymbl__client_wipe(nymbl_client *client);
/* Register it with an engine, whose connections it uses from now on. */
void nymbl__client_register(nymbl_client *client, nymbl_engine *engine);
/* Unregister it. Returns the engine with a reference, or NULL if there is none.
 */
nymbl_engine *nymbl__client_unregister(nymbl_client *client);
/* Whether an open client of the engine may send a request to an origin. */
bool nymbl__clients_use(const nymbl_engine *engine, uint64_t origin);

#endif
