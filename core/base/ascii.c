/* SPDX-License-Identifier: MIT */
/* Comparison of ASCII text, independent of the locale: in a Turkish locale,
 * tolower() and strcasecmp() do not match "LOCATION" with "location". */
#include "base/ascii.h"

#include <stdint.h>

char nymbl__ascii_lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

bool nymbl__ascii_begins(const char *text, const char *with, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (nymbl__ascii_lower(text[i]) != nymbl__ascii_lower(with[i]))
            return false;
        if (text[i] == '\0')
            break;
    }
    return true;
}

bool nymbl__ascii_equal(const char *a, const char *b)
{
    return nymbl__ascii_begins(a, b, SIZE_MAX);
}
