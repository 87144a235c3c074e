/* SPDX-License-Identifier: MIT */
/* Validation of a response: its status, its head and its content. */
#include "exchange/response.h"

#include "base/error.h"
#include "exchange/content_range.h"
#include "exchange/checksum.h"
#include "exchange/range.h"
#include "exchange/sniff.h"
#include "file/atomic_file.h"

#include <string.h>
#include <time.h>

/* A longer response gets its memory as it arrives: its length may be wrong. */
#define RESERVE_MAX 65536

/* ---- status ---- */

bool nymbl__response_is_success(const nymbl__exchange *exchange)
{
    int status = exchange->head.status;

    /* the service does not document the status of an upload: 200 or 201 */
    if (!nymbl__request_is_safe(&exchange->request))
        return status >= 200 && status <= 299;
    return status == 200 || (status == 206 && exchange->range_requested);
}

bool nymbl__response_is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 ||
           status == 308;
}

/* ---- head and content ---- */

/* Check that a response with status 206 continues the saved bytes: it must have
 * the requested range and the saved validator. Any other response has the whole
 * document, so the file restarts at the first byte. */
static void resume_check(nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;
    const char *reason = NULL;
    nymbl_kind kind;

    if (head->status == 206) {
        const char *saved = nymbl__atomic_file_validator(exchange->file);
        const char *received = nymbl__head_validator(head);

        exchange->port->resumed_from =
            nymbl__atomic_file_offset(exchange->file);
        if (head->range_start != exchange->port->resumed_from ||
            head->range_last != head->range_total - 1 ||
            (head->length >= 0 &&
             head->length != head->range_total - head->range_start) ||
            received == NULL || strcmp(received, saved) != 0)
            nymbl__exchange_fail(exchange, NYMBL_PROTOCOL,
                                 nymbl__reason_content_range);
        else if (exchange->has_size && head->range_total != exchange->size)
            nymbl__exchange_fail(exchange, NYMBL_CORRUPT,
                                 nymbl__reason_size_mismatch);
        exchange->first_bytes_size = nymbl__atomic_file_peek(
            exchange->file, exchange->first_bytes,
            exchange->port->resumed_from < NYMBL__SNIFF_MAX
                ? (size_t)exchange->port->resumed_from
                : NYMBL__SNIFF_MAX);
        return;
    }
    kind = nymbl__atomic_file_restart(exchange->file,
                                      nymbl__head_validator(head), &reason);
    if (kind < 0)
        nymbl__exchange_fail(exchange, kind, reason);
}

/* The input for the checks in sniff.c. */
static nymbl__sniff_input sniff_input_of(const nymbl__exchange *exchange,
                                         bool complete)
{
    const nymbl__response_head *head = &exchange->head;

    return (nymbl__sniff_input){
        .expected_type = exchange->expected_type,
        .response_type = head->content_type,
        .has_size = exchange->has_size,
        .has_length = exchange->has_size || nymbl__head_length(head) >= 0,
        .encoded = head->encoded,
        .bytes = exchange->first_bytes,
        .size = exchange->first_bytes_size,
        .complete = complete,
    };
}

/* The reason to report for a wrong size: a wrong encoding or type, if the
 * response has one, explains the size. */
static const char *size_reason(const nymbl__sniff_input *input)
{
    if (input->encoded)
        return nymbl__reason_content_encoding;
    return nymbl__sniff_type_mismatch(input->expected_type,
                                      input->response_type) != NULL
               ? nymbl__reason_type_mismatch
               : nymbl__reason_size_mismatch;
}

/* The size that the body must have, or -1 if it is unknown. */
static int64_t required_size(const nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;

    if (head->status == 206)
        return nymbl__content_range_size(head->range_start, head->range_last);
    return exchange->has_size ? exchange->size : -1;
}

/* Publish the head to the caller. No later line changes it. */
static void head_publish(nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;
    nymbl__port *port = exchange->port;
    bool is_content = nymbl__response_is_success(exchange);

    if (exchange->failure != NYMBL_OK)
        return;
    nymbl__port_lock(port);
    port->response = (nymbl_response){
        .status = head->status,
        .content_length = nymbl__range_size(exchange),
        .content_type =
            is_content && head->has_type ? head->content_type : NULL,
        .etag = nymbl__validator_is_strong_tag(head->etag) ? head->etag : NULL,
        .last_modified =
            nymbl__validator_is_date(head->modified) ? head->modified : NULL,
    };
    port->response_published = true;
    nymbl__port_unlock(port);
}

bool nymbl__response_is_too_long(const nymbl__exchange *exchange, size_t size)
{
    int64_t required = required_size(exchange);

    return required >= 0 &&
           (int64_t)size > required - exchange->port->body_received;
}

/* Record the difference between this machine's clock and the response's Date.
 */
static void clock_record(nymbl__exchange *exchange)
{
    time_t date = curl_getdate(exchange->head.date, NULL);

    if (date == -1)
        return;
    nymbl__port_lock(exchange->port);
    exchange->port->peer.has_date = true;
    exchange->port->peer.clock_skew = difftime(time(NULL), date);
    nymbl__port_unlock(exchange->port);
}

void nymbl__response_check_head(nymbl__exchange *exchange)
{
    nymbl__response_head *head = &exchange->head;
    int64_t length = nymbl__head_length(head), required;
    nymbl__sniff_input input;

    head->done = true;
    exchange->port->notify_pending = true;
    if (exchange->inspect)
        clock_record(exchange);
    if (!nymbl__response_is_success(exchange)) {
        exchange->port->response_body.max = NYMBL__ERROR_RESPONSE_MAX;
        exchange->range_complete = nymbl__range_is_past_end(exchange);
        if (exchange->range_complete)
            head_publish(exchange);
        return;
    }
    if (exchange->request.expected != NYMBL_EXPECT_CONTENT) {
        if (length > 0)
            nymbl__buffer_reserve(&exchange->port->response_body,
                                  length < RESERVE_MAX ? (size_t)length
                                                       : RESERVE_MAX);
        head_publish(exchange);
        return;
    }
    if (*exchange->if_match != '\0' &&
        strcmp(head->etag, exchange->if_match) != 0)
        nymbl__exchange_fail(exchange, NYMBL_CORRUPT, nymbl__reason_changed);
    if (exchange->file != NULL)
        resume_check(exchange);
    else
        nymbl__range_check(exchange);
    nymbl__checksum_begin(exchange);
    input = sniff_input_of(exchange, false);
    required = required_size(exchange);
    if (required >= 0 && length >= 0 && length != required)
        nymbl__exchange_fail(exchange, NYMBL_CORRUPT, size_reason(&input));
    if (nymbl__sniff_head_suffices(&input))
        head_publish(exchange);
}

void nymbl__response_check_first_bytes(nymbl__exchange *exchange, bool complete)
{
    const nymbl__response_head *head = &exchange->head;
    bool is_range = head->status == 206 && exchange->file == NULL;
    bool is_end = !is_range || head->range_last == head->range_total - 1;
    nymbl__sniff_input input = sniff_input_of(exchange, complete && is_end);
    const char *reason = NULL;
    nymbl_kind kind = NYMBL_AGAIN;

    if (exchange->port->content_checked)
        return;
    if (!is_range || head->range_start == 0)
        kind = nymbl__sniff_check(&input, &reason);
    /* a range may have none or too few of the first bytes */
    if (is_range && kind == NYMBL_AGAIN && (complete || head->range_start > 0))
        kind = nymbl__sniff_check_head(&input, &reason);
    if (kind < 0) {
        nymbl__exchange_fail(exchange, kind, reason);
    } else if (kind == NYMBL_OK) {
        if (!exchange->port->response_published)
            head_publish(exchange);
        exchange->port->content_checked = true;
    }
}

nymbl_kind nymbl__response_check_document(nymbl__exchange *exchange,
                                          const char **reason)
{
    nymbl__response_head *head = &exchange->head;
    int64_t length = nymbl__head_length(head);
    int64_t received = exchange->port->body_received;
    int64_t required = required_size(exchange);

    nymbl__response_check_first_bytes(exchange, true);
    if (exchange->failure != NYMBL_OK) {
        *reason = exchange->failure_reason;
        return exchange->failure;
    }
    if (length >= 0 && received < length)
        return NYMBL_TRUNCATED;
    /* Without a length, chunks or close_notify a complete body looks like one
     * that was cut off. */
    if (head->length < 0 && !head->chunked && !exchange->close_notify_seen) {
        *reason = nymbl__reason_no_length;
        return NYMBL_TRUNCATED;
    }
    if ((length >= 0 && received != length) ||
        (required >= 0 && received != required)) {
        *reason = nymbl__reason_size_mismatch;
        return NYMBL_CORRUPT;
    }
    return NYMBL_OK;
}
