/* SPDX-License-Identifier: MIT */
/* Starting a request that was built. */
#ifndef NYMBL_API_REQUEST_H
#define NYMBL_API_REQUEST_H

#include "engine/transfer.h"
#include "nymbl.h"

/* Why nothing can be started for a client on an engine: a word, or NULL. */
const char *nymbl__start_problem(const nymbl_engine *engine,
                                 const nymbl_client *client);
/* Add the headers that each request has, and hand the transfer to its engine.
 * `token` is NULL for a token request. */
nymbl_kind nymbl__start(nymbl_transfer *transfer, const char *token,
                        const nymbl_pair *headers);

#endif
