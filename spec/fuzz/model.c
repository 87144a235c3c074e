/* SPDX-License-Identifier: MIT */
/* A response parser that shares no code with libcurl or nymbl.
 *
 * It accepts only unambiguous responses: line feeds alone as line endings (RFC
 * 9112, section 2.2) and folded lines (section 5.2), but no framing that two
 * recipients could interpret in two ways (section 6.3). */
#include "model.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct reader {
    const char *at, *end;
} reader;

typedef struct head {
    int status;
    bool coded;    /* a Transfer-Encoding other than "chunked" or "identity" */
    bool identity; /* the end of the connection ends the body (RFC 9112, 6.3) */
    bool chunked;
    bool has_length;
    uint64_t length;
    const char *length_wrong; /* chunks override it (section 6.3) */
    const char *wrong;
} head;

/* A line without its ending; false if it is not complete. */
static bool line_next(reader *in, const char **line, size_t *length)
{
    const char *end = in->at < in->end
                          ? memchr(in->at, '\n', (size_t)(in->end - in->at))
                          : NULL;

    if (end == NULL)
        return false;
    *line = in->at;
    *length = (size_t)(end - in->at);
    if (*length > 0 && end[-1] == '\r')
        (*length)--;
    in->at = end + 1;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* HTTP/1.x, spaces, three digits, then a space or nothing (section 4). A CR
 * within the line counts as a space (section 2.2). */
static int status_read(const char *line, size_t length)
{
    size_t at = 8;
    int status = 0;

    if (length < 12 || memcmp(line, "HTTP/1.", 7) != 0 ||
        (line[7] != '0' && line[7] != '1') || line[8] != ' ')
        return -1;
    while (at < length && line[at] == ' ')
        at++;
    if (length - at < 3)
        return -1;
    for (int i = 0; i < 3; i++, at++) {
        if (!isdigit((unsigned char)line[at]))
            return -1;
        status = status * 10 + (line[at] - '0');
    }
    if (status < 100 || (at < length && line[at] != ' ' && line[at] != '\r'))
        return -1;
    return status;
}

/* One member of a list of numbers, which must all be equal. */
static void length_add(head *head, const char *text, size_t size)
{
    uint64_t value = 0;

    if (size == 0)
        head->length_wrong = "Content-Length";
    for (size_t i = 0; i < size && head->length_wrong == NULL; i++) {
        if (!isdigit((unsigned char)text[i]))
            head->length_wrong = "Content-Length";
        /* a length that is too large is never reached, whatever its value: all
         * that no int64_t can hold are one */
        value = value > (uint64_t)INT64_MAX / 10
                    ? (uint64_t)INT64_MAX
                    : value * 10 + (uint64_t)(text[i] - '0');
        if (value > (uint64_t)INT64_MAX)
            value = (uint64_t)INT64_MAX;
    }
    if (head->has_length && value != head->length)
        head->length_wrong = "two Content-Lengths";
    head->has_length = true;
    head->length = value;
}

static void coding_add(head *head, const char *text, size_t size)
{
    if (size == 0) /* an empty member is ignored (RFC 9110, 5.6.1) */
        return;
    if (size == 7 && strncasecmp(text, "chunked", 7) == 0 && !head->chunked)
        head->chunked = true;
    else if (size == 8 && strncasecmp(text, "identity", 8) == 0)
        head->identity = true;
    else
        head->coded = true;
}

static void list_read(head *head, const char *value, size_t size,
                      void (*add)(struct head *, const char *, size_t))
{
    const char *end = value + size;

    for (;;) {
        const char *comma = memchr(value, ',', (size_t)(end - value));
        const char *last = comma != NULL ? comma : end;
        const char *first = value;

        while (first < last && is_blank(*first))
            first++;
        while (last > first && is_blank(last[-1]))
            last--;
        add(head, first, (size_t)(last - first));
        if (comma == NULL)
            return;
        value = comma + 1;
    }
}

static bool name_is(const char *line, size_t length, const char *name)
{
    return length == strlen(name) && strncasecmp(line, name, length) == 0;
}

static void value_keep(char *to, const char *value, size_t size)
{
    if (size >= MODEL_VALUE_MAX)
        size = MODEL_VALUE_MAX - 1;
    memcpy(to, value, size);
    to[size] = '\0';
}

/* A field whose line folds were replaced by spaces. */
static void field_read(model *out, head *head, const char *line, size_t length)
{
    const char *colon = memchr(line, ':', length);
    const char *value, *end = line + length;
    size_t name, size;

    if (colon == NULL)
        return; /* not a field */
    for (name = (size_t)(colon - line); name > 0 && is_blank(line[name - 1]);)
        name--;
    for (value = colon + 1; value < end && is_blank(*value);)
        value++;
    while (end > value && is_blank(end[-1]))
        end--;
    size = (size_t)(end - value);
    if (name_is(line, name, "content-length")) {
        list_read(head, value, size, length_add);
    } else if (name_is(line, name, "transfer-encoding")) {
        list_read(head, value, size, coding_add);
    } else {
        if (name_is(line, name, "etag"))
            value_keep(out->etag, value, size);
        else if (name_is(line, name, "last-modified"))
            value_keep(out->modified, value, size);
        else if (name_is(line, name, "content-range"))
            value_keep(out->range, value, size);
        return;
    }
    if (line + name != colon) /* section 5.1 */
        head->wrong = "blank before a colon";
}

/* The fields up to the empty line. Returns false if it has not arrived. */
static bool fields_read(model *out, head *head, reader *in)
{
    const char *line;
    size_t length;
    char *field = malloc((size_t)(in->end - in->at) + 1);
    size_t size = 0;
    bool whole = false, first = true;

    while (!whole && line_next(in, &line, &length)) {
        whole = length == 0;
        if (!whole && is_blank(*line)) {
            /* before the first field: ignored (section 2.2) */
            if (!first) {
                memcpy(field + size, line, length);
                size += length;
            }
            continue;
        }
        if (!first)
            field_read(out, head, field, size);
        first = false;
        if (memchr(line, '\0', length) != NULL)
            head->wrong = "NUL";
        for (size = 0; size < length; size++) /* section 2.2 */
            field[size] = line[size] == '\r' ? ' ' : line[size];
    }
    free(field);
    return whole;
}

static void give_up(model *out, bool invalid, const char *why)
{
    out->state = invalid ? MODEL_INVALID : MODEL_INCOMPLETE;
    out->why = why;
}

/* Section 7.1. Extensions and trailers are ignored. */
static void chunks_read(model *out, reader *in)
{
    const char *line;
    size_t length;

    give_up(out, false, "chunks");
    while (line_next(in, &line, &length)) {
        uint64_t size = 0;
        size_t digits = 0, left;

        for (; digits < length && isxdigit((unsigned char)line[digits]);
             digits++) {
            char c = (char)tolower((unsigned char)line[digits]);

            if (size >> 56 != 0) {
                give_up(out, true, "chunk too long");
                return;
            }
            size = size * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        if (digits == 0) {
            give_up(out, true, "chunk size");
            return;
        }
        if (size == 0) {
            while (line_next(in, &line, &length)) {
                if (length == 0)
                    out->state = MODEL_COMPLETE;
                if (length == 0)
                    return;
            }
            return;
        }
        left = (size_t)(in->end - in->at);
        memcpy(out->body + out->size, in->at, size < left ? size : left);
        out->size += size < left ? size : left;
        if (size > left)
            return;
        in->at += size;
        if (in->at < in->end && *in->at == '\r')
            in->at++;
        if (in->at == in->end)
            return;
        if (*in->at++ != '\n') {
            give_up(out, true, "chunk end");
            return;
        }
    }
}

static void body_read(model *out, const head *head, reader *in, bool ended)
{
    size_t left = (size_t)(in->end - in->at);

    out->body = malloc(left + 1);
    if (head->status == 204 || head->status == 304) {
        out->framing = FRAME_NONE;
        out->state = MODEL_COMPLETE;
    } else if (head->chunked) {
        out->framing = FRAME_CHUNKED;
        chunks_read(out, in);
    } else if (head->has_length && !head->identity) {
        out->framing = FRAME_LENGTH;
        out->size = head->length < left ? (size_t)head->length : left;
        memcpy(out->body, in->at, out->size);
        out->state =
            out->size == head->length ? MODEL_COMPLETE : MODEL_INCOMPLETE;
        out->why = "length";
    } else {
        out->framing = FRAME_CLOSE;
        out->size = left;
        memcpy(out->body, in->at, left);
        out->state = ended ? MODEL_COMPLETE : MODEL_INCOMPLETE;
        out->why = "close";
    }
}

void model_read(model *out, const char *bytes, size_t size, bool ended)
{
    reader in = {bytes, bytes + size};
    const char *line;
    size_t length;

    memset(out, 0, sizeof(*out));
    give_up(out, false, "head");
    for (;;) {
        head head = {0};

        if (!line_next(&in, &line, &length))
            return;
        head.status = status_read(line, length);
        if (memchr(line, '\0', length) != NULL || head.status < 0) {
            give_up(out, true, "status line");
            return;
        }
        out->etag[0] = out->modified[0] = out->range[0] = '\0';
        if (!fields_read(out, &head, &in))
            return;
        if (head.status < 200 && head.status != 101)
            continue;
        out->has_head = true;
        out->status = head.status;
        if (head.status == 101)
            head.wrong = "upgrade";
        else if (head.coded)
            head.wrong = "Transfer-Encoding";
        else if (head.wrong == NULL && !head.chunked)
            head.wrong = head.length_wrong;
        if (head.wrong != NULL) {
            give_up(out, true, head.wrong);
            return;
        }
        body_read(out, &head, &in, ended);
        return;
    }
}

void model_free(model *model)
{
    free(model->body);
    model->body = NULL;
}
