/* SPDX-License-Identifier: MIT */
/* The length of a reply in RESP2, the protocol of Redis ("Redis serialization
 * protocol specification" in its documentation). Nothing is decoded. */
#include "base/resp.h"

#include <string.h>

#define DIGITS_MAX 19 /* of a number of 64 bits */

/* The bytes of a reply, and how many of them were read. */
typedef struct reader {
    const char *bytes;
    size_t size, at;
} reader;

/* Read the end of a line, which is CR and LF. */
static nymbl_kind line_end_read(reader *from)
{
    if (from->at < from->size && from->bytes[from->at] != '\r')
        return NYMBL_PROTOCOL;
    if (from->at + 1 < from->size && from->bytes[from->at + 1] != '\n')
        return NYMBL_PROTOCOL;
    if (from->size - from->at < 2)
        return NYMBL_AGAIN;
    from->at += 2;
    return NYMBL_OK;
}

/* Read a line of text: a simple string or an error. */
static nymbl_kind text_read(reader *from)
{
    for (; from->at < from->size; from->at++) {
        if (from->bytes[from->at] == '\r' || from->bytes[from->at] == '\n')
            return line_end_read(from);
    }
    return NYMBL_AGAIN;
}

/* Read a line with an integer. */
static nymbl_kind number_read(reader *from, bool *negative, uint64_t *value)
{
    size_t first;

    *negative = from->at < from->size && from->bytes[from->at] == '-';
    if (*negative)
        from->at++;
    *value = 0;
    for (first = from->at; from->at < from->size; from->at++) {
        char digit = from->bytes[from->at];

        if (digit < '0' || digit > '9')
            return from->at == first ? NYMBL_PROTOCOL : line_end_read(from);
        if (from->at - first == DIGITS_MAX)
            return NYMBL_PROTOCOL;
        *value = *value * 10 + (uint64_t)(digit - '0');
    }
    return NYMBL_AGAIN;
}

/* Read a line with the length of a string or an array. Null, whose length is
 * -1, has no content, as if it were 0: *is_null tells the difference. */
static nymbl_kind length_read(reader *from, bool *is_null, uint64_t *length)
{
    nymbl_kind kind = number_read(from, is_null, length);

    if (kind != NYMBL_OK || !*is_null)
        return kind;
    if (*length != 1)
        return NYMBL_PROTOCOL;
    *length = 0;
    return NYMBL_OK;
}

static nymbl_kind bulk_string_read(reader *from)
{
    bool is_null;
    uint64_t length;
    nymbl_kind kind = length_read(from, &is_null, &length);

    if (kind != NYMBL_OK || is_null)
        return kind;
    if (length > NYMBL_REPLY_MAX)
        return NYMBL_TOO_LARGE;
    if (length > from->size - from->at)
        return NYMBL_AGAIN;
    from->at += (size_t)length;
    return line_end_read(from);
}

/* Read a value; of an array only its number of elements, which follow. */
static nymbl_kind value_read(reader *from, uint64_t *elements)
{
    uint64_t number;
    bool negative;
    nymbl_kind kind;

    *elements = 0;
    if (from->at == from->size)
        return NYMBL_AGAIN;
    switch (from->bytes[from->at++]) {
    case '+':
    case '-':
        return text_read(from);
    case ':':
        if (from->at < from->size && from->bytes[from->at] == '+')
            from->at++;
        return number_read(from, &negative, &number);
    case '$':
        return bulk_string_read(from);
    case '*':
        kind = length_read(from, &negative, elements);
        return kind == NYMBL_OK && *elements > NYMBL__RESP_ELEMENTS
                   ? NYMBL_TOO_LARGE
                   : kind;
    default:
        return NYMBL_PROTOCOL;
    }
}

nymbl_kind nymbl__resp_length(const char *bytes, size_t size, size_t *length)
{
    reader from = {.bytes = bytes,
                   .size = size < NYMBL_REPLY_MAX ? size : NYMBL_REPLY_MAX};
    uint64_t missing[NYMBL__RESP_DEPTH]; /* elements of each open array */
    unsigned depth = 0;

    for (;;) {
        uint64_t elements;
        nymbl_kind kind = value_read(&from, &elements);

        if (kind == NYMBL_AGAIN && from.size == NYMBL_REPLY_MAX)
            return NYMBL_TOO_LARGE;
        if (kind != NYMBL_OK)
            return kind;
        if (elements > 0) {
            if (depth == NYMBL__RESP_DEPTH)
                return NYMBL_TOO_LARGE;
            missing[depth++] = elements;
            continue;
        }
        while (depth > 0 && --missing[depth - 1] == 0)
            depth--;
        if (depth == 0)
            break;
    }
    *length = from.at;
    return NYMBL_OK;
}
