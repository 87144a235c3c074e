/* SPDX-License-Identifier: MIT */
/* A client as its transfers and engines see it. */
#ifndef NYMBL_ENGINE_CLIENT_H
#define NYMBL_ENGINE_CLIENT_H

#include "engine/engine.h"
#include "exchange/settings.h"
#include "nymbl.h"

#include <stdatomic.h>

struct nymbl_client {
    atomic_int references; /* its owner, its transfers, an engine's list */
    nymbl_engine *engine;  /* where it last started a transfer */
    nymbl_client *next;    /* of that engine's */
    nymbl_client *next_closing;
    bool closed;
    bool allow_http;
    nymbl__settings settings;
    char *base_url; /* without a slash at the end */
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
/* Drop such a reference, from any thread; nymbl_client_free() is its owner's.
 */
void nymbl__client_release(nymbl_client *client);
/* Wipe and free its secrets. */
void nymbl__client_wipe(nymbl_client *client);
/* Be counted as a user of an engine's connections. */
void nymbl__client_register(nymbl_client *client, nymbl_engine *engine);
/* No longer be one. Returns the engine, whose reference is the caller's then,
 * or NULL. */
nymbl_engine *nymbl__client_unregister(nymbl_client *client);
/* Whether an open client of the engine may send a request to an origin. */
bool nymbl__clients_use(const nymbl_engine *engine, uint64_t origin);

#endif
