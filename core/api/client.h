/* SPDX-License-Identifier: MIT */
/* The public functions of a client. */
#ifndef NYMBL_API_CLIENT_H
#define NYMBL_API_CLIENT_H

#include "nymbl.h"

/* A name for the content of a URL as an account sees it: a SHA-256, which
 * reveals neither. */
void nymbl__client_resource(const nymbl_client *client, const char *url,
                            char out[65]);

#endif
