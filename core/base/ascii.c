/* SPDX-License-Identifier: MIT */
/* Letters of ASCII, whatever the host program's locale takes for letters: in a
 * Turkish one "LOCATION" is not "location" for tolower() and strcasecmp(). */
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
