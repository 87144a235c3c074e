/* SPDX-License-Identifier: MIT */
/* Parsing of response heads. All heads of a transfer share one size limit. */
#ifndef NYMBL_EXCHANGE_HEAD_H
#define NYMBL_EXCHANGE_HEAD_H

#include "base/validator.h"
#include "nymbl.h"
#include "port/port.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Size limit of all heads together, 1xx heads and trailers included. */
#define NYMBL__HEAD_MAX (64u << 10)

/* The head of the current response. */
typedef struct nymbl__response_head {
    size_t bytes; /* size of all heads of the transfer so far */
    int status;
    bool done;               /* the final head is complete */
    bool chunked;            /* Transfer-Encoding is chunked */
    bool has_type;           /* `content_type` is valid */
    bool encoded;            /* a Content-Encoding was applied */
    bool has_range;          /* Content-Range was received, valid or not */
    bool limit_exceeded;     /* x-amzn-ErrorType is LimitExceededException */
    int64_t length;          /* Content-Length, or -1 */
    int64_t remapped_length; /* x-amzn-Remapped-Content-Length, or -1 */
    double retry_after;      /* Retry-After in seconds, or -1 */
    time_t retry_date;       /* Retry-After as a date, or -1 */
    int64_t range_start;     /* first byte, by Content-Range, or -1 */
    int64_t range_last;      /* last byte, by Content-Range, or -1 */
    int64_t range_total;     /* size of the document by Content-Range, or -1 */
    char content_type[NYMBL__TYPE_MAX];
    char etag[NYMBL__VALIDATOR_MAX];
    char modified[NYMBL__DATE_MAX]; /* Last-Modified */
    char date[NYMBL__DATE_MAX];
    char *location; /* Location, or NULL */
    /* The service's id of the request, or "". */
    char request_id[NYMBL_REQUEST_ID_MAX + 1];
    const char *sent_id; /* the x-request-id that was sent, or NULL; borrowed */
    int field;          /* the kind of the previous line (enum field, head.c) */
    nymbl_kind problem; /* the failure if the head is invalid, or NYMBL_OK */
    const char *problem_reason;
} nymbl__response_head;

/* Parse the next line, which includes its line end. Returns NYMBL_OK;
 * NYMBL_DONE after the last line of the final head; or a failure and its
 * reason. */
nymbl_kind nymbl__head_add_line(nymbl__response_head *head, const char *data,
                                size_t size, const char **reason);
/* Prepare for the next head, and wipe the previous one's Location. */
void nymbl__head_reset(nymbl__response_head *head);
/* The size of the body in bytes, as the head states it, or -1. */
int64_t nymbl__head_length(const nymbl__response_head *head);
/* A strong validator of the document, with which it can be resumed (RFC 9110,
 * section 8.8), or NULL. */
const char *nymbl__head_validator(const nymbl__response_head *head);

#endif
