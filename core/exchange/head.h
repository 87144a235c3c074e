/* SPDX-License-Identifier: MIT */
/* Parsing of response heads, with one size limit for all of a transfer's. */
#ifndef NYMBL_EXCHANGE_HEAD_H
#define NYMBL_EXCHANGE_HEAD_H

#include "base/validator.h"
#include "nymbl.h"
#include "port/port.h"

#include <stddef.h>
#include <stdint.h>

#include <time.h>

#define NYMBL__HEAD_MAX (64u << 10) /* 1xx heads and trailers included */

/* The head of the current response. */
typedef struct nymbl__response_head {
    size_t bytes; /* size of all heads of the transfer */
    int status;
    bool done;
    bool chunked;
    bool has_type;
    bool encoded;
    bool limit_exceeded;     /* by x-amzn-ErrorType */
    int64_t length;          /* Content-Length, or -1 */
    int64_t remapped_length; /* x-amzn-Remapped-Content-Length, or -1 */
    double retry_after;
    time_t retry_date;   /* Retry-After as a date, or -1 */
    int64_t range_start; /* from Content-Range, or -1 */
    int64_t range_total;
    char content_type[NYMBL__TYPE_MAX];
    char etag[NYMBL__VALIDATOR_MAX];
    char modified[NYMBL__VALIDATOR_MAX]; /* Last-Modified */
    char date[NYMBL__VALIDATOR_MAX];
    char *location;
    int field;          /* enum field of the previous line */
    nymbl_kind problem; /* why the head is invalid, or NYMBL_OK */
    const char *problem_reason;
} nymbl__response_head;

/* Parse the next line, including its line end. Returns NYMBL_OK; NYMBL_DONE
 * after the last line of the final head; or a failure and its reason. */
nymbl_kind nymbl__head_add_line(nymbl__response_head *head, const char *data,
                                size_t size, const char **reason);
void nymbl__head_reset(nymbl__response_head *head);
/* The validator if it is strong enough to resume with (RFC 9110, section 8.8),
 * or NULL. */
const char *nymbl__head_validator(const nymbl__response_head *head);

#endif
