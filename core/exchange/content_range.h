/* SPDX-License-Identifier: MIT */
/* Content-Range: which range of the document a response has. */
#ifndef NYMBL_EXCHANGE_CONTENT_RANGE_H
#define NYMBL_EXCHANGE_CONTENT_RANGE_H

#include <stdint.h>

/* Parse "bytes 5-9/10"; an asterisk replaces the size if it is unknown, and the
 * range if the document lacks it (status 416). What is not stated, and all of
 * an invalid value, becomes -1. */
void nymbl__content_range_parse(const char *value, int64_t *start,
                                int64_t *last, int64_t *total);
/* The size of a range; 0 if there is none. */
int64_t nymbl__content_range_size(int64_t start, int64_t last);

#endif
