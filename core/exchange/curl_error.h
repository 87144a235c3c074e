/* SPDX-License-Identifier: MIT */
/* Classification of libcurl's error codes. */
#ifndef NYMBL_EXCHANGE_CURL_ERROR_H
#define NYMBL_EXCHANGE_CURL_ERROR_H

#include "exchange/exchange.h"

/* The kind of failure and the reason for a code other than CURLE_OK. */
nymbl_kind nymbl__curl_error_classify(nymbl__exchange *exchange, CURLcode code,
                                      const char **reason);
/* The same for a raw connection that could not be made. `error_text` is
 * libcurl's message. */
nymbl_kind nymbl__curl_error_of_connection(CURL *easy, const char *error_text,
                                           CURLcode code, const char **reason);

#endif
