/* SPDX-License-Identifier: MIT */
/* Content-Range (RFC 9110, section 14.4). */
#include "exchange/content_range.h"

#include "base/ascii.h"
#include "exchange/value.h"

#include <string.h>

#define VALUE_MAX 256 /* longer ones are invalid */

void nymbl__content_range_parse(const char *value, int64_t *start,
                                int64_t *last, int64_t *total)
{
    char text[VALUE_MAX] = "";
    char *dash, *slash;
    int64_t first, end, size;

    *start = *last = *total = -1;
    if (strlen(value) < sizeof(text))
        strcpy(text, value);
    slash = strchr(text, '/');
    if (!nymbl__ascii_begins(text, "bytes ", 6) || slash == NULL)
        return;
    *slash = '\0';
    size = nymbl__value_parse_number(slash + 1);
    if (strcmp(text + 6, "*") == 0) {
        *total = size;
        return;
    }
    dash = strchr(text, '-');
    if (dash == NULL || (size < 0 && strcmp(slash + 1, "*") != 0))
        return;
    *dash = '\0';
    first = nymbl__value_parse_number(text + 6);
    end = nymbl__value_parse_number(dash + 1);
    /* "bytes 10-9/10" is invalid too, but some servers send it for an empty
     * range behind the end */
    if (first < 0 || end < 0 || end < first - 1 || end == INT64_MAX ||
        (size >= 0 && end >= size))
        return;
    *start = first;
    *last = end;
    *total = size;
}

int64_t nymbl__content_range_size(int64_t start, int64_t last)
{
    return start < 0 ? 0 : last - start + 1;
}
