/* SPDX-License-Identifier: MIT */
/* The reply's head: what of it matters, under one cap for all its bytes. */
#ifndef NYMBL_EXCHANGE_HEAD_H
#define NYMBL_EXCHANGE_HEAD_H

#include "base/validator.h"
#include "nymbl.h"
#include "port/port.h"

#include <stddef.h>
#include <stdint.h>

#include <time.h>

#define NYMBL__HEAD_MAX (64u << 10) /* 1xx heads and trailers included */

/* Head of the reply at hand. */
typedef struct nymbl__response_head {
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
    int field;          /* of the last line: head.c */
    nymbl_kind problem; /* why it is no head, or NYMBL_OK */
    const char *problem_reason;
} nymbl__response_head;

/* Take a line, its end included. NYMBL_DONE: it was the last one of the final
 * head; or a failure. */
nymbl_kind nymbl__head_line(nymbl__response_head *head, const char *data,
                            size_t size, const char **reason);
void nymbl__head_reset(nymbl__response_head *head);
/* A validator strong enough to go on under (RFC 9110, section 8.8), or NULL. */
const char *nymbl__head_validator(const nymbl__response_head *head);

#endif
