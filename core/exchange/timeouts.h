/* SPDX-License-Identifier: MIT */
/* Time limits of an exchange, in seconds during which the engine polled for it.
 */
#ifndef NYMBL_EXCHANGE_TIMEOUTS_H
#define NYMBL_EXCHANGE_TIMEOUTS_H

#include "exchange/exchange.h"

#define NYMBL__RESPONSE_TIMEOUT                                                \
    60.0 /* for a response that is buffered in memory */
#define NYMBL__UPLOAD_RESPONSE_TIMEOUT 120.0 /* for the response to start */

/* Add time that was spent polling. */
void nymbl__timeouts_charge(nymbl__exchange *exchange, double seconds);
/* Seconds until the next limit expires. */
double nymbl__timeouts_remaining(const nymbl__exchange *exchange);
/* The reason word of the limit that has expired, or NULL. Activity since the
 * last call restarts the idle time. */
const char *nymbl__timeouts_exceeded(nymbl__exchange *exchange);

#endif
