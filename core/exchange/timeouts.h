/* SPDX-License-Identifier: MIT */
/* Time limits of an exchange, in seconds during which the engine polled for it.
 */
#ifndef NYMBL_EXCHANGE_TIMEOUTS_H
#define NYMBL_EXCHANGE_TIMEOUTS_H

#include "exchange/exchange.h"

/* Limit for a response that is buffered in memory. */
#define NYMBL__RESPONSE_TIMEOUT 60.0
/* Limit until the response to an upload begins. */
#define NYMBL__UPLOAD_RESPONSE_TIMEOUT 120.0

/* Add time that the engine has spent polling. */
void nymbl__timeouts_add(nymbl__exchange *exchange, double seconds);
/* Seconds until the next limit expires. */
double nymbl__timeouts_remaining(const nymbl__exchange *exchange);
/* Check the limits. Activity since the previous check restarts the idle time.
 * Returns the reason if a limit has expired, or NULL. */
const char *nymbl__timeouts_check(nymbl__exchange *exchange);

#endif
