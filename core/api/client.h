/* SPDX-License-Identifier: MIT */
/* A client, as its owner makes and closes it. */
#ifndef NYMBL_API_CLIENT_H
#define NYMBL_API_CLIENT_H

#include "nymbl.h"

/* A name for what an account sees at a URL, which tells nothing of either: a
 * SHA-256. */
void nymbl__client_resource(const nymbl_client *client, const char *url,
                            char out[65]);

#endif
