/* SPDX-License-Identifier: MIT */
/* The reply's head: what of it matters, under one cap for all its bytes. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void nymbl__head_reset(nymbl__reply_head *head)
{
    size_t bytes = head->bytes; /* the cap is for all heads together */

    free(head->location);
    *head = (nymbl__reply_head){
        .bytes = bytes,
        .length = -1,
        .remapped_length = -1,
        .retry_after = -1,
        .range_start = -1,
        .range_total = -1,
    };
}

/* A whole non-negative decimal number, or -1. */
static int64_t number_parse(const char *text)
{
    int64_t value = 0;

    if (*text < '0' || *text > '9')
        return -1;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (value > (INT64_MAX - 9) / 10)
            return -1;
        value = value * 10 + (*text - '0');
    }
    return *text == '\0' ? value : -1;
}

/* Seconds or a date (RFC 9110, section 10.2.3). */
static double retry_after_parse(const char *text)
{
    int64_t seconds = number_parse(text);
    time_t date;
    double left;

    if (seconds >= 0)
        return (double)seconds;
    date = curl_getdate(text, NULL);
    if (date == -1)
        return -1;
    left = difftime(date, time(NULL));
    return left > 0 ? left : 0;
}

static void type_parse(nymbl__reply_head *head, const char *value)
{
    size_t length = strlen(value);

    if (length == 0 || length >= sizeof(head->content_type))
        return;
    memcpy(head->content_type, value, length + 1);
    head->has_type = true;
}

/* A validator or date, as it came; one that is too long is none. */
static void text_keep(char *field, const char *value)
{
    size_t length = strlen(value);

    if (length < NYMBL__VALIDATOR_MAX)
        memcpy(field, value, length + 1);
}

/* "bytes 5-9/10" (RFC 9110, section 14.4), the one range up to the end. */
static void range_parse(nymbl__reply_head *head, const char *value)
{
    char text[NYMBL__VALIDATOR_MAX] = "";
    char *dash, *slash;
    int64_t start, last, total;

    text_keep(text, value);
    dash = strchr(text, '-');
    slash = strchr(text, '/');
    if (strncasecmp(text, "bytes ", 6) != 0 || dash == NULL || slash == NULL)
        return;
    *dash = *slash = '\0';
    start = number_parse(text + 6);
    last = number_parse(dash + 1);
    total = number_parse(slash + 1);
    if (start < 0 || total < 0 || last != total - 1)
        return;
    head->range_start = start;
    head->range_total = total;
}

const char *nymbl__head_validator(const nymbl__reply_head *head)
{
    size_t length = strlen(head->etag);
    time_t modified, date;

    if (length >= 2 && head->etag[0] == '"' && head->etag[length - 1] == '"')
        return head->etag;
    if (length > 0) /* a weak one says that bytes may differ */
        return NULL;
    modified = curl_getdate(head->modified, NULL);
    date = curl_getdate(head->date, NULL);
    /* strong where it could not have changed again in that second (8.8.2.2) */
    if (modified != -1 && date != -1 && difftime(date, modified) >= 1)
        return head->modified;
    return NULL;
}

/* A coding other than none, where none was asked for. */
static bool coding_is_identity(const char *value)
{
    return *value == '\0' || strcasecmp(value, "identity") == 0;
}

static void field_take(nymbl_transfer *transfer, const char *name,
                       const char *value)
{
    nymbl__reply_head *head = &transfer->head;

    if (strcasecmp(name, "content-length") == 0) {
        head->length = number_parse(value);
    } else if (strcasecmp(name, "x-amzn-remapped-content-length") == 0) {
        head->remapped_length = number_parse(value);
    } else if (strcasecmp(name, "transfer-encoding") == 0) {
        head->chunked = strcasecmp(value, "chunked") == 0;
        head->encoded =
            head->encoded || !(head->chunked || coding_is_identity(value));
    } else if (strcasecmp(name, "content-type") == 0) {
        type_parse(head, value);
    } else if (strcasecmp(name, "content-encoding") == 0) {
        head->encoded = head->encoded || !coding_is_identity(value);
    } else if (strcasecmp(name, "content-range") == 0) {
        range_parse(head, value);
    } else if (strcasecmp(name, "etag") == 0) {
        text_keep(head->etag, value);
    } else if (strcasecmp(name, "last-modified") == 0) {
        text_keep(head->modified, value);
    } else if (strcasecmp(name, "date") == 0) {
        text_keep(head->date, value);
    } else if (strcasecmp(name, "retry-after") == 0) {
        head->retry_after = retry_after_parse(value);
    } else if (strcasecmp(name, "x-amzn-errortype") == 0) {
        head->limit_exceeded =
            strncasecmp(value, "LimitExceededException", 22) == 0;
    } else if (strcasecmp(name, "location") == 0 && head->location == NULL) {
        if (nymbl__text_copy(&head->location, value) < 0)
            nymbl__transfer_failing(transfer, NYMBL_NO_MEMORY, NULL);
    }
}

/* Split "Name: value" in a copy; lines that are none are passed over. */
static void line_take(nymbl_transfer *transfer, const char *data, size_t size)
{
    char *line = malloc(size + 1);
    char *value, *end;

    if (line == NULL) {
        nymbl__transfer_failing(transfer, NYMBL_NO_MEMORY, NULL);
        return;
    }
    memcpy(line, data, size);
    line[size] = '\0';
    value = strchr(line, ':');
    if (value != NULL) {
        *value++ = '\0';
        value += strspn(value, " \t");
        end = value + strlen(value);
        while (end > value && strchr(" \t\r\n", end[-1]) != NULL)
            *--end = '\0';
        field_take(transfer, line, value);
    }
    free(line);
}

size_t nymbl__head_line(char *data, size_t size, size_t count, void *payload)
{
    nymbl_transfer *transfer = payload;
    nymbl__reply_head *head = &transfer->head;

    size *= count;
    nymbl__transfer_moved(transfer);
    head->bytes += size;
    if (head->bytes > NYMBL__HEAD_MAX) {
        nymbl__transfer_failing(transfer, NYMBL_PROTOCOL, "head_too_long");
        return 0;
    }
    if (head->done)
        return size; /* trailers say nothing that we believe */
    if (size > 5 && memcmp(data, "HTTP/", 5) == 0) {
        const char *space = memchr(data, ' ', size);

        nymbl__head_reset(head);
        if (space != NULL && (size_t)(data + size - space) > 3)
            head->status = (int)strtol(space + 1, NULL, 10);
    } else if (size <= 2 && (*data == '\r' || *data == '\n')) {
        if (head->status >= 200)
            nymbl__verdict_head(transfer);
    } else {
        line_take(transfer, data, size);
    }
    return transfer->failing == NYMBL_OK ? size : 0;
}
