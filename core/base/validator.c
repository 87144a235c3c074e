/* SPDX-License-Identifier: MIT */
/* Validators (RFC 9110, section 8.8): entity-tags and dates. */
#include "base/validator.h"

#include <string.h>

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static bool is_letter(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* Match text against a pattern: 'a' stands for a letter, '0' for a digit, '_'
 * for a digit or a blank, and any other character for itself. */
static bool text_matches(const char *text, const char *pattern)
{
    for (; *pattern != '\0'; pattern++, text++) {
        bool fits = *text == *pattern;

        if (*pattern == 'a')
            fits = is_letter(*text);
        else if (*pattern == '0')
            fits = is_digit(*text);
        else if (*pattern == '_')
            fits = is_digit(*text) || *text == ' ';
        if (!fits)
            return false;
    }
    return *text == '\0';
}

/* An HTTP-date has three forms (RFC 9110, section 5.6.7). */
bool nymbl__validator_is_date(const char *text)
{
    const char *day = text;

    while (is_letter(*day)) /* the second form has the full name of the day */
        day++;
    return text_matches(text, "aaa, 00 aaa 0000 00:00:00 GMT") ||
           (day - text >= 6 && text_matches(day, ", 00-aaa-00 00:00:00 GMT")) ||
           text_matches(text, "aaa aaa _0 00:00:00 0000");
}

/* A strong entity-tag has quotes around bytes that RFC 9110, section 8.8.3,
 * allows (etagc). */
bool nymbl__validator_is_strong_tag(const char *text)
{
    size_t length = strlen(text);

    if (length < 2 || text[0] != '"' || text[length - 1] != '"')
        return false;
    for (size_t i = 1; i < length - 1; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte <= ' ' || byte == '"' || byte == 0x7f)
            return false;
    }
    return true;
}

bool nymbl__validator_is_valid(const char *text)
{
    return nymbl__validator_is_strong_tag(text) ||
           nymbl__validator_is_date(text);
}
