/* SPDX-License-Identifier: MIT */
/* An exchange on the wire, one hop after the other. */
#ifndef NYMBL_EXCHANGE_WIRE_H
#define NYMBL_EXCHANGE_WIRE_H

#include "exchange/exchange.h"

/* Set up a handle for the next hop. The exchange is on it in any case, until
 * nymbl__exchange_leave(). */
nymbl_kind nymbl__exchange_begin(nymbl__exchange *exchange, CURL *easy);
/* A header line has come. Returns whether the exchange goes on. */
bool nymbl__exchange_header(nymbl__exchange *exchange, const char *data,
                            size_t size);
/* Its handle has been taken off the wire. */
void nymbl__exchange_leave(nymbl__exchange *exchange);
/* The caller has made room or brought bytes. A failure ends the exchange. */
nymbl_kind nymbl__exchange_unpause(nymbl__exchange *exchange);
/* libcurl is through with the hop: how it has ended. */
void nymbl__exchange_complete(nymbl__exchange *exchange, CURLcode code,
                              nymbl__result *result);
/* Make ready for another hop, as the result says, once the handle has been
 * left. Takes the result's URL over. */
void nymbl__exchange_again(nymbl__exchange *exchange, nymbl__result *result);

#endif
