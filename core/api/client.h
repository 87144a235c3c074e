/* SPDX-License-Identifier: MIT */
/* A client: where the service is, whom to trust, and the secrets. */
#ifndef NYMBL_API_CLIENT_H
#define NYMBL_API_CLIENT_H

#include "nymbl.h"

#include <curl/curl.h>
#include <stdatomic.h>

struct nymbl_client {
    atomic_int references;
    nymbl_engine *engine; /* where it last started a transfer */
    nymbl_client *next;   /* of that engine's */
    nymbl_client *next_closing;
    bool closed;
    bool allow_http;
    char *base_url; /* without a slash at the end */
    char *api_key;
    char *token_url;
    char *client_id;
    char *client_secret;
    char *scope;
    char *ca_file;
    char *ca_path;
    char *proxy; /* may hold a password */
    char *user_agent;
    double connect_timeout;
    double stall_timeout;
    int64_t max_upload_bytes;
    int max_connections;
};

void nymbl__client_retain(nymbl_client *client);
/* Drop such a reference, from any thread; nymbl_client_free() is its owner's.
 */
void nymbl__client_release(nymbl_client *client);
/* Be counted as a user of an engine's connections. */
void nymbl__client_join(nymbl_client *client, nymbl_engine *engine);
/* A name for what an account sees at a URL, which tells nothing of either: a
 * SHA-256. */
void nymbl__client_resource(const nymbl_client *client, const char *url,
                            char out[65]);
/* TLS and user agent of a client, for a request to url by way of a proxy. */
CURLcode nymbl__client_apply(const nymbl_client *client, CURL *easy,
                             const char *url, const char *proxy);

#endif
