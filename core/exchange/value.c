/* SPDX-License-Identifier: MIT */
/* Parsing of numbers in a response head. */
#include "exchange/value.h"

#include <stdbool.h>
#include <string.h>

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* Read decimal digits and advance *at past them. Returns their value; -1
 * without a digit; INT64_MAX, a length that no body reaches, for a larger
 * value. */
static int64_t digits_read(const char **at)
{
    const char *text = *at;
    int64_t value = 0;

    if (!is_digit(*text))
        return -1;
    for (; is_digit(*text); text++) {
        int digit = *text - '0';

        value =
            value > (INT64_MAX - digit) / 10 ? INT64_MAX : value * 10 + digit;
    }
    *at = text;
    return value;
}

int64_t nymbl__value_parse_number(const char *text)
{
    int64_t value = digits_read(&text);

    return *text == '\0' ? value : -1;
}

int64_t nymbl__value_parse_length(const char *text)
{
    int64_t value = digits_read(&text);

    while (value >= 0 && *text != '\0') {
        text += strspn(text, " \t");
        if (*text++ != ',')
            return -1;
        text += strspn(text, " \t");
        if (digits_read(&text) != value)
            return -1;
    }
    return value;
}

int nymbl__value_parse_status(const char *line, size_t size)
{
    static const char version[] = "HTTP/1.";
    size_t at = sizeof(version); /* after the minor version */
    int status = 0;

    if (size <= at || memcmp(line, version, sizeof(version) - 1) != 0 ||
        !is_digit(line[at - 1]) || line[at] != ' ')
        return 0;
    while (at < size && line[at] == ' ')
        at++;
    if (size - at < 3)
        return 0;
    for (size_t end = at + 3; at < end; at++) {
        if (!is_digit(line[at]))
            return 0;
        status = status * 10 + (line[at] - '0');
    }
    if (at < size && line[at] != ' ' && line[at] != '\r' && line[at] != '\n')
        return 0;
    return status >= 100 ? status : 0;
}
