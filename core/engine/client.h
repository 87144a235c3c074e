/* SPDX-License-Identifier: MIT */
/* A client, as its transfers and engines use it. */
#ifndef NYMBL_ENGINE_CLIENT_H
#define NYMBL_ENGINE_CLIENT_H

#include "engine/engine.h"
#include "exchange/settings.h"
#include "nymbl.h"

#include <stdatomic.h>

struct nymbl_client {
    atomic_int references; /* of the caller, the transfers, `closing` */
    nymbl_engine *engine;  /* the engine that it last started a transfer on */
    nymbl_client *next;    /* in the list `clients` of that engine */
    nymbl_client *next_closing; /* in its list `closing` */
    bool closed;
    bool allow_http;
    nymbl__settings settings;
    char *base_url; /* without a trailing slash */
    char *api_key;
    char *token_url;
    char *client_id;
    char *client_secret;
    char *scope;
    char *proxy; /* may contain a password */
    int64_t max_upload_bytes;
    int max_connections;
};

void nymbl__client_retain(nymbl_client *client);
/* Drop a reference, from any thread. The caller's own is dropped by
 * nymbl_client_free(). */
void nymbl__client_release(nymbl_client *client);
/* Wipe and free the secrets. */
void nymbl__client_wipe(nymbl_client *client);
/* Register a client with an engine, whose connections it uses from now on. */
void nymbl__client_register(nymbl_client *client, nymbl_engine *engine);
/* Unregister a client. Returns its engine with a reference that the caller must
 * release, or NULL if it has none. */
nymbl_engine *nymbl__client_unregister(nymbl_client *client);
/* Whether an open client of the engine may send a request to an origin. */
bool nymbl__client_any_uses(const nymbl_engine *engine, uint64_t origin);

#endif
