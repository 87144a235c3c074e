/* SPDX-License-Identifier: MIT */
/* The reply's head: what of it matters, under one cap for all its bytes. */
#ifndef NYMBL_EXCHANGE_HEAD_H
#define NYMBL_EXCHANGE_HEAD_H

#include "file/part.h"

#include <time.h>

#define NYMBL__HEAD_MAX (64u << 10) /* 1xx heads and trailers included */
#define NYMBL__TYPE_MAX 256         /* a Content-Type; longer is ignored */

/* Head of the reply at hand. */
typedef struct nymbl__reply_head {
    size_t bytes; /* of all heads of the transfer */
    int status;
    bool done;
    bool chunked;
    bool has_type;
    bool encoded;
    bool limit_exceeded;     /* x-amzn-ErrorType says so */
    int64_t length;          /* Content-Length, or -1 */
    int64_t remapped_length; /* x-amzn-Remapped-Content-Length, or -1 */
    double retry_after;
    time_t retry_date; /* Retry-After as a date, until the head's end; or -1 */
    int64_t range_start; /* of Content-Range, or -1 */
    int64_t range_total;
    char content_type[NYMBL__TYPE_MAX];
    char etag[NYMBL__VALIDATOR_MAX];
    char modified[NYMBL__VALIDATOR_MAX]; /* Last-Modified */
    char date[NYMBL__VALIDATOR_MAX];
    char *location;
    int field; /* of the last line: head.c */
} nymbl__reply_head;

/* libcurl's header callback. */
size_t nymbl__head_line(char *data, size_t size, size_t count, void *payload);
void nymbl__head_reset(nymbl__reply_head *head);
/* Whether text is exactly what RFC 9110 allows in If-Range: a strong entity-tag
 * (section 8.8.3) or an HTTP-date (5.6.7). A validator from a server or a file
 * must pass this check before it is sent. */
bool nymbl__is_validator(const char *text);
/* A validator strong enough to go on under (RFC 9110, section 8.8), or NULL. */
const char *nymbl__head_validator(const nymbl__reply_head *head);

#endif
