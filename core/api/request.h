/* SPDX-License-Identifier: MIT */
/* Starting a transfer whose request was built. */
#ifndef NYMBL_API_REQUEST_H
#define NYMBL_API_REQUEST_H

#include "engine/transfer.h"
#include "nymbl.h"

/* Whether a request can be started. Returns NULL, or the name of the argument
 * that is closed or was inherited by a fork. */
const char *nymbl__request_start_problem(const nymbl_engine *engine,
                                         const nymbl_client *client);
/* Add the header lines that every request has and the caller's, and queue the
 * start of the transfer. `token` is NULL for a token request. */
nymbl_kind nymbl__request_submit(nymbl_transfer *transfer, const char *token,
                                 const nymbl_pair *headers);

#endif
