/* SPDX-License-Identifier: MIT */
/* Letters of ASCII, for names and words of protocols. <ctype.h> and <strings.h>
 * ask the locale, which the host program may set at any time. */
#ifndef NYMBL_BASE_ASCII_H
#define NYMBL_BASE_ASCII_H

#include <stdbool.h>
#include <stddef.h>

char nymbl__ascii_lower(char byte);
/* Whether two texts are the same but for the case of letters. */
bool nymbl__ascii_equal(const char *a, const char *b);
/* The same for their first bytes; a NUL ends both. */
bool nymbl__ascii_begins(const char *text, const char *with, size_t size);

#endif
