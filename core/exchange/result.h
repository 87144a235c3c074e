/* SPDX-License-Identifier: MIT */
/* The result of an exchange: kind and reason, whether its outcome is unknown,
 * and whether a partial file is kept. */
#ifndef NYMBL_EXCHANGE_RESULT_H
#define NYMBL_EXCHANGE_RESULT_H

#include "exchange/exchange.h"

#include <curl/curl.h>

/* Classify an exchange that libcurl has completed: NYMBL_OK, or a failure and
 * its reason. */
nymbl_kind nymbl__result_classify(nymbl__exchange *exchange, CURLcode code,
                                  const char **reason);
/* Whether the service may have carried out a failed upload or delete. */
bool nymbl__result_outcome_is_unknown(const nymbl__exchange *exchange,
                                      nymbl_kind kind);
/* Whether to keep a partial file after a failure: the response was not wrong,
 * and the service has not refused to continue it. */
bool nymbl__result_keeps_partial(const nymbl__exchange *exchange,
                                 nymbl_kind kind);

#endif
