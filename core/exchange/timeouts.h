/* SPDX-License-Identifier: MIT */
/* Time limits of an exchange, in seconds that were spent polling for it. */
#ifndef NYMBL_EXCHANGE_TIMEOUTS_H
#define NYMBL_EXCHANGE_TIMEOUTS_H

#include "exchange/exchange.h"

#define NYMBL__REPLY_SECONDS 60.0         /* for a reply held in memory */
#define NYMBL__UPLOAD_REPLY_SECONDS 120.0 /* for the reply to begin */

/* Charge waitfds time. */
void nymbl__timeouts_charge(nymbl__exchange *exchange, double seconds);
/* Seconds until a limit runs out. */
double nymbl__timeouts_left(const nymbl__exchange *exchange);
/* The limit that has run out, for NYMBL_TIMEOUT, or NULL. Bytes that have moved
 * since the last call begin the time anew. */
const char *nymbl__timeouts_exceeded(nymbl__exchange *exchange);

#endif
