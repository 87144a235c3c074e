/* SPDX-License-Identifier: MIT */
/* The range of a document that the caller reads. It is requested as a range. If
 * the response has the whole document, the range is cut out of it. */
#ifndef NYMBL_EXCHANGE_RANGE_H
#define NYMBL_EXCHANGE_RANGE_H

#include "exchange/exchange.h"

/* The last byte to request, or INT64_MAX for all to the end. An empty range
 * does not exist in HTTP, so one byte is requested instead. */
int64_t nymbl__range_last(const nymbl__exchange *exchange);
/* Check that a response with status 206 has exactly the requested range. */
void nymbl__range_check(nymbl__exchange *exchange);
/* Whether a response with status 416 proves that the range begins behind the
 * end of the document, so that it is empty. */
bool nymbl__range_is_past_end(const nymbl__exchange *exchange);
/* The size of the caller's range, by the head of the response, or -1. */
int64_t nymbl__range_size(const nymbl__exchange *exchange);
/* Put those of the next bytes of the body that belong to the caller's range
 * into the window. */
nymbl_kind nymbl__range_put(nymbl__exchange *exchange, const char *data,
                            size_t size);
/* Detect whether the caller gets all of its range with the next `size` bytes,
 * and others follow, which are ignored then. */
void nymbl__range_detect_end(nymbl__exchange *exchange, size_t size);

#endif
