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
/* Reduce the next bytes of the body to those of the caller's range. */
void nymbl__range_cut(const nymbl__exchange *exchange, const char **data,
                      size_t *size);
/* Whether the caller gets all of its range with the first `received` bytes of
 * the body, and others follow. */
bool nymbl__range_ends_early(const nymbl__exchange *exchange, int64_t received);

#endif
