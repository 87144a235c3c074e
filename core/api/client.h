/* SPDX-License-Identifier: MIT */
/* The public functions of a client. */
#ifndef NYMBL_API_CLIENT_H
#define NYMBL_API_CLIENT_H

#include "nymbl.h"

/* A name for the content of a URL that an account sees: a SHA-256, as text,
 * which reveals neither the URL nor the account. */
void nymbl__client_resource(const nymbl_client *client, const char *url,
                            char out[65]);

#endif
