/* SPDX-License-Identifier: MIT */
/* Ranges (RFC 9110, section 14): what a response has of the range that the
 * caller reads. */
#include "exchange/range.h"

#include "base/ascii.h"
#include "base/error.h"
#include "exchange/content_range.h"

#include <string.h>

static bool is_whole(const nymbl__exchange *exchange)
{
    return exchange->range_start == 0 && exchange->range_end == INT64_MAX;
}

static bool is_empty(const nymbl__exchange *exchange)
{
    return exchange->range_end == exchange->range_start;
}

int64_t nymbl__range_last(const nymbl__exchange *exchange)
{
    if (exchange->range_end == INT64_MAX)
        return INT64_MAX;
    return is_empty(exchange) ? exchange->range_start : exchange->range_end - 1;
}

/* The offset in the document at which the response body ends, or -1. */
static int64_t body_end(const nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;
    int64_t length = nymbl__head_length(head);

    if (head->status == 206)
        return head->range_last + 1;
    return length < 0 && exchange->has_size ? exchange->size : length;
}

/* The size of the document by Content-Range, else by its metadata, or -1. */
static int64_t document_size(const nymbl__exchange *exchange)
{
    int64_t total = exchange->head.range_total;

    return total < 0 && exchange->has_size ? exchange->size : total;
}

static bool begins_past_end(const nymbl__exchange *exchange)
{
    int64_t total = document_size(exchange);

    return total >= 0 && total <= exchange->range_start;
}

void nymbl__range_check(nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;
    int64_t length = nymbl__head_length(head);
    int64_t size =
        nymbl__content_range_size(head->range_start, head->range_last);
    int64_t last = nymbl__range_last(exchange);
    int64_t total = document_size(exchange);
    bool is_requested;

    if (head->status != 206)
        return;
    if (total >= 0 && last >= total)
        last = total - 1;
    is_requested =
        head->range_start == exchange->range_start && head->range_last == last;
    if (begins_past_end(exchange))
        is_requested = size == 0;
    /* multipart/byteranges has ranges in parts of its own, which begin with
     * heads. */
    if (!is_requested || (length >= 0 && length != size) ||
        nymbl__ascii_begins(head->content_type, "multipart/", 10))
        nymbl__exchange_fail(exchange, NYMBL_PROTOCOL,
                             nymbl__reason_content_range);
    else if (exchange->has_size && total != exchange->size)
        nymbl__exchange_fail(exchange, NYMBL_CORRUPT,
                             nymbl__reason_size_mismatch);
    exchange->port->resumed_from = exchange->range_start;
}

bool nymbl__range_is_past_end(const nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;

    if (head->status != 416 || !exchange->range_requested ||
        exchange->file != NULL || !begins_past_end(exchange))
        return false;
    if (exchange->has_size && document_size(exchange) != exchange->size)
        return false;
    return *exchange->if_match == '\0' ||
           strcmp(head->etag, exchange->if_match) == 0;
}

int64_t nymbl__range_size(const nymbl__exchange *exchange)
{
    int64_t end = body_end(exchange);

    if (is_empty(exchange) || nymbl__range_is_past_end(exchange))
        return 0;
    if (is_whole(exchange) && exchange->head.status != 206)
        return nymbl__head_length(&exchange->head);
    if (end < 0)
        return -1;
    if (end > exchange->range_end)
        end = exchange->range_end;
    return end > exchange->range_start ? end - exchange->range_start : 0;
}

nymbl_kind nymbl__range_put(nymbl__exchange *exchange, const char *data,
                            size_t size)
{
    nymbl__port *port = exchange->port;
    int64_t at = port->resumed_from + port->body_received;
    int64_t skip = exchange->range_start - at;
    int64_t left = exchange->range_end - at;
    nymbl_kind kind;

    if (left < (int64_t)size)
        size = left > 0 ? (size_t)left : 0;
    if (skip < 0)
        skip = 0;
    if (skip > (int64_t)size)
        skip = (int64_t)size;
    nymbl__port_lock(port);
    kind = nymbl__ring_put(&port->window, data + skip, size - (size_t)skip);
    nymbl__port_unlock(port);
    port->notify_pending = true;
    return kind;
}

void nymbl__range_detect_end(nymbl__exchange *exchange, size_t size)
{
    int64_t received = exchange->port->body_received + (int64_t)size;
    int64_t end = body_end(exchange);
    bool nothing =
        is_empty(exchange) || (end >= 0 && end <= exchange->range_start);

    if (is_whole(exchange) || exchange->head.status == 206 ||
        !exchange->port->content_checked || received == end)
        return;
    exchange->range_complete = nothing || received >= exchange->range_end;
    if (exchange->range_complete)
        exchange->phase = NYMBL__BODY_IGNORED;
}
