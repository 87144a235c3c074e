/* SPDX-License-Identifier: MIT */
/* What a reply, or the lack of one, means for the call. */
#ifndef NYMBL_EXCHANGE_VERDICT_H
#define NYMBL_EXCHANGE_VERDICT_H

#include "exchange/exchange.h"

#include <curl/curl.h>

/* The final head is complete: see whether its body is wanted. */
void nymbl__response_check_head(nymbl__exchange *exchange);
bool nymbl__response_is_success(const nymbl__exchange *exchange);
bool nymbl__response_is_redirect(int status);
/* Bytes of the body that the head promises, or -1. */
int64_t nymbl__response_length(const nymbl__response_head *head);
/* Look at the first bytes before anybody gets them; `all`: there are no more.
 */
void nymbl__response_check_first_bytes(nymbl__exchange *exchange, bool all);
/* How an exchange that libcurl is through with has ended. */
nymbl_kind nymbl__result_classify(nymbl__exchange *exchange, CURLcode code,
                                  const char **reason);
/* Whether the upload or delete may have been carried out although it failed. */
bool nymbl__result_outcome_is_unknown(const nymbl__exchange *exchange,
                                      nymbl_kind kind);
/* Whether what was saved so far is worth keeping after such an end: it was
 * interrupted, not wrong, and not what every later request would be refused
 * for. */
bool nymbl__result_keeps_partial(const nymbl__exchange *exchange,
                                 nymbl_kind kind);

#endif
