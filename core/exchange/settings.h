/* SPDX-License-Identifier: MIT */
/* Settings that apply to every request of a client. */
#ifndef NYMBL_EXCHANGE_SETTINGS_H
#define NYMBL_EXCHANGE_SETTINGS_H

#include <curl/curl.h>

typedef struct nymbl__settings {
    char *ca_file;
    char *ca_path;
    char *user_agent;
    double connect_timeout; /* seconds */
    double stall_timeout;   /* seconds */
} nymbl__settings;

/* Set the client's options on an easy handle, for a request to `url` through
 * `proxy` ("": without a proxy; NULL: through the environment's proxy). */
CURLcode nymbl__settings_apply(const nymbl__settings *settings, CURL *easy,
                               const char *url, const char *proxy);
void nymbl__settings_free(nymbl__settings *settings);

#endif
