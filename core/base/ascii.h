/* SPDX-License-Identifier: MIT */
/* Comparison of ASCII text. <ctype.h> and <strings.h> depend on the locale,
 * which the host program may change at any time. */
#ifndef NYMBL_BASE_ASCII_H
#define NYMBL_BASE_ASCII_H

#include <stdbool.h>
#include <stddef.h>

char nymbl__ascii_lower(char byte);
/* Whether two texts are equal, ignoring case. */
bool nymbl__ascii_equal(const char *a, const char *b);
/* Whether the first `size` bytes of two texts are equal, ignoring case. The
 * comparison ends early if both texts do. */
bool nymbl__ascii_begins(const char *text, const char *with, size_t size);

#endif
