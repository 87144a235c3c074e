/* SPDX-License-Identifier: MIT */
/* Parsing of numbers in a response head. */
#ifndef NYMBL_EXCHANGE_VALUE_H
#define NYMBL_EXCHANGE_VALUE_H

#include <stddef.h>
#include <stdint.h>

/* Parse a non-negative decimal number; -1 if it is invalid. */
int64_t nymbl__value_parse_number(const char *text);
/* Parse a Content-Length: one number, or a list of equal ones (RFC 9112,
 * section 6.3); -1 if it is invalid. */
int64_t nymbl__value_parse_length(const char *text);
/* Parse the status of a line such as "HTTP/1.1 200 OK" (RFC 9112, section 4):
 * exactly three digits; 0 if it is invalid. The line is not NUL-terminated. */
int nymbl__value_parse_status(const char *line, size_t size);

#endif
