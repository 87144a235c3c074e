/* SPDX-License-Identifier: MIT */
/* Values of a response's head as numbers. */
#ifndef NYMBL_EXCHANGE_VALUE_H
#define NYMBL_EXCHANGE_VALUE_H

#include <stddef.h>
#include <stdint.h>

/* A whole non-negative decimal number, or -1. */
int64_t nymbl__value_number(const char *text);
/* A length: one number, or a list of the same one (RFC 9112, section 6.3). -1
 * if it is neither. */
int64_t nymbl__value_length(const char *text);
/* The status of a line such as "HTTP/1.1 200 OK" (RFC 9112, section 4), or 0.
 * It has exactly three digits. The line does not end in a NUL. */
int nymbl__value_status(const char *line, size_t size);

#endif
