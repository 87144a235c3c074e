/* SPDX-License-Identifier: MIT */
/* How an exchange ended, and what that means for the call. */
#ifndef NYMBL_EXCHANGE_RESULT_H
#define NYMBL_EXCHANGE_RESULT_H

#include "exchange/exchange.h"

#include <curl/curl.h>

/* Classify an exchange that libcurl has completed: NYMBL_OK, or a failure and
 * its reason. */
nymbl_kind nymbl__result_classify(nymbl__exchange *exchange, CURLcode code,
                                  const char **reason);
/* Whether a failed upload or delete may have been carried out anyway. */
bool nymbl__result_outcome_is_unknown(const nymbl__exchange *exchange,
                                      nymbl_kind kind);
/* Whether a partial file is worth keeping after such a failure: the response
 * was interrupted but not wrong, and the service does not refuse the range. */
bool nymbl__result_keeps_partial(const nymbl__exchange *exchange,
                                 nymbl_kind kind);

#endif
