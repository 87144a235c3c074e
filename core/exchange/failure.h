/* SPDX-License-Identifier: MIT */
/* What a failure of libcurl means for the call. */
#ifndef NYMBL_EXCHANGE_FAILURE_H
#define NYMBL_EXCHANGE_FAILURE_H

#include "exchange/exchange.h"

nymbl_kind nymbl__failure_classify(nymbl__exchange *exchange, CURLcode code,
                                   const char **reason);

#endif
