/* SPDX-License-Identifier: MIT */
/* Comparison of ASCII text. <ctype.h> and <strings.h> depend on the locale,
 * which the host program may change at any time. */
#ifndef NYMBL_BASE_ASCII_H
#define NYMBL_BASE_ASCII_H

#include <stdbool.h>
#include <stddef.h>

char nymbl__ascii_lower(char byte);
/* Compare two texts, ignoring case. */
bool nymbl__ascii_equal(const char *a, const char *b);
/* Compare the first `size` bytes, ignoring case; equal NULs end the comparison.
 */
bool nymbl__ascii_begins(const char *text, const char *with, size_t size);

#endif
