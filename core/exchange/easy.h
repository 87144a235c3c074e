/* SPDX-License-Identifier: MIT */
/* The requests of an exchange on easy handles, one after the other. */
#ifndef NYMBL_EXCHANGE_EASY_H
#define NYMBL_EXCHANGE_EASY_H

#include "exchange/exchange.h"

/* Set up an easy handle for the next request. The handle stays attached until
 * nymbl__easy_detach(), even on failure. */
nymbl_kind nymbl__easy_start(nymbl__exchange *exchange, CURL *easy);
/* Process a header line. Returns whether the exchange continues. */
bool nymbl__easy_header(nymbl__exchange *exchange, const char *data,
                        size_t size);
/* Detach the easy handle, which was removed from the multi handle. */
void nymbl__easy_detach(nymbl__exchange *exchange);
/* Resume a paused transfer after the caller has read or written bytes. Returns
 * NYMBL_OK; NYMBL_DONE if the rest of the body is not needed, so that the
 * request is complete; or a failure, after which the exchange cannot continue.
 */
nymbl_kind nymbl__easy_unpause(nymbl__exchange *exchange);
/* Evaluate a request that libcurl has completed. */
void nymbl__easy_complete(nymbl__exchange *exchange, CURLcode code,
                          nymbl__result *result);
/* Prepare the next request by the result NYMBL__RESTART, after
 * nymbl__easy_detach(). The exchange becomes the owner of the result's URL. */
void nymbl__easy_prepare_restart(nymbl__exchange *exchange,
                                 nymbl__result *result);

#endif
