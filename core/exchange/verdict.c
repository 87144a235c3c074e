/* SPDX-License-Identifier: MIT */
/* What a reply, or the lack of one, means for the call. */
#include "exchange/verdict.h"

#include "base/error.h"
#include "exchange/failure.h"
#include "exchange/sniff.h"
#include "file/save.h"
#include "port/body.h"

#include <string.h>

/* ---- what a status means ---- */

bool nymbl__response_is_success(const nymbl__exchange *exchange)
{
    int status = exchange->head.status;

    switch (exchange->request.operation) {
    case NYMBL__UPLOAD: /* 200 or 201: the guide does not say which */
    case NYMBL__DELETE:
        return status >= 200 && status <= 299;
    case NYMBL__DOWNLOAD:
        return status == 200 || (status == 206 && exchange->range_requested);
    default:
        return status == 200;
    }
}

/* Whether the rest of a part was asked for, and the status may be because of
 * that: the whole document may be had all the same. */
static bool refuses_range(const nymbl__exchange *exchange)
{
    int status = exchange->head.done ? exchange->head.status : 0;

    return exchange->range_requested && status != 401 && status != 429 &&
           ((status >= 400 && status <= 499) || status == 501);
}

bool nymbl__response_is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 ||
           status == 308;
}

/* ---- the head and the first bytes ---- */

/* Bytes of the body that the head promises, or -1. */
int64_t nymbl__response_length(const nymbl__response_head *head)
{
    if (head->chunked)
        return head->remapped_length;
    return head->length >= 0 ? head->length : head->remapped_length;
}

/* A part goes on only where the rest is of the same document as its beginning:
 * the range that was asked for, under the validator it was asked under. */
static void part_check(nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;
    const char *reason = NULL;
    nymbl_kind kind;

    if (head->status == 206) {
        const char *saved = nymbl__save_validator(exchange->save);
        const char *given = nymbl__head_validator(head);

        exchange->port->resumed_from = nymbl__save_offset(exchange->save);
        if (head->range_start != exchange->port->resumed_from ||
            (head->length >= 0 &&
             head->length != head->range_total - head->range_start) ||
            given == NULL || strcmp(given, saved) != 0)
            nymbl__exchange_fail(exchange, NYMBL_PROTOCOL, "content_range");
        else if (exchange->has_size && head->range_total != exchange->size)
            nymbl__exchange_fail(exchange, NYMBL_CORRUPT, "size_mismatch");
        exchange->sniffed =
            nymbl__save_peek(exchange->save, exchange->sniff,
                             exchange->port->resumed_from < NYMBL__SNIFF
                                 ? (size_t)exchange->port->resumed_from
                                 : NYMBL__SNIFF);
        return;
    }
    kind = nymbl__save_restart(exchange->save, nymbl__head_validator(head),
                               &reason);
    if (kind < 0)
        nymbl__exchange_fail(exchange, kind, reason);
}

/* What there is to look at. */
static nymbl__look look_of(const nymbl__exchange *exchange, bool all)
{
    const nymbl__response_head *head = &exchange->head;

    return (nymbl__look){
        .known = exchange->expected_type,
        .given = head->content_type,
        .has_size = exchange->has_size,
        .has_length = exchange->has_size || nymbl__response_length(head) >= 0,
        .encoded = head->encoded,
        .bytes = exchange->sniff,
        .size = exchange->sniffed,
        .all = all,
    };
}

/* Why a response of another size is not the document: it is not a label then.
 */
static const char *size_reason(const nymbl__look *look)
{
    if (look->encoded)
        return "content_encoding";
    return nymbl__sniff_type(look->known, look->given) != NULL
               ? "type_mismatch"
               : "size_mismatch";
}

/* Bytes of the document, a part that was there included; or -1. */
static int64_t whole_length(const nymbl__exchange *exchange)
{
    int64_t length = nymbl__response_length(&exchange->head);
    int64_t before = exchange->port->resumed_from;

    if (length > INT64_MAX - before)
        return INT64_MAX; /* a server may claim any length */
    return length < 0 ? length : before + length;
}

/* The head of the reply is good: let the caller see it. */
static void head_tell(nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;
    nymbl__port *port = exchange->port;

    if (exchange->failure != NYMBL_OK)
        return;
    memcpy(port->response_type, head->content_type, sizeof(head->content_type));
    nymbl__port_lock(port);
    port->response = (nymbl_response){
        .status = head->status,
        .content_length = whole_length(exchange),
        .content_type = head->has_type ? port->response_type : NULL,
    };
    port->response_published = true;
    nymbl__port_unlock(port);
}

void nymbl__response_check_head(nymbl__exchange *exchange)
{
    nymbl__response_head *head = &exchange->head;
    int64_t length = nymbl__response_length(head);
    nymbl__look look;

    head->done = true;
    exchange->notify_pending = true;
    if (!nymbl__response_is_success(exchange)) {
        exchange->port->response_body.max = NYMBL__ERROR_REPLY_MAX;
        return;
    }
    if (exchange->request.operation != NYMBL__DOWNLOAD) {
        head_tell(exchange);
        return;
    }
    if (exchange->save != NULL)
        part_check(exchange);
    look = look_of(exchange, false);
    if (exchange->has_size && length >= 0 && /* no sum: it may be any number */
        length != exchange->size - exchange->port->resumed_from)
        nymbl__exchange_fail(exchange, NYMBL_CORRUPT, size_reason(&look));
    if (nymbl__sniff_is_clear(&look))
        head_tell(exchange);
}

/* Look at the first bytes before anybody gets them. */
void nymbl__response_check_first_bytes(nymbl__exchange *exchange, bool all)
{
    nymbl__look look = look_of(exchange, all);
    const char *reason = NULL;
    nymbl_kind kind;

    if (exchange->port->content_checked)
        return;
    kind = nymbl__sniff(&look, &reason);
    if (kind < 0) {
        nymbl__exchange_fail(exchange, kind, reason);
    } else if (kind == NYMBL_OK) {
        if (!exchange->port->response_published)
            head_tell(exchange);
        exchange->port->content_checked = true;
    }
}

/* ---- the end ---- */

/* Hold a document against what was promised. */
static nymbl_kind document_verify(nymbl__exchange *exchange,
                                  const char **reason)
{
    nymbl__response_head *head = &exchange->head;
    int64_t length = nymbl__response_length(head);
    int64_t got = exchange->port->body_received;

    nymbl__response_check_first_bytes(exchange, true);
    if (exchange->failure != NYMBL_OK) {
        *reason = exchange->failure_reason;
        return exchange->failure;
    }
    if (length >= 0 && got < length)
        return NYMBL_TRUNCATED;
    /* An end that neither length nor chunks nor TLS tell is no end. */
    if (head->length < 0 && !head->chunked && !exchange->close_notify_seen) {
        *reason = "no_length";
        return NYMBL_TRUNCATED;
    }
    if ((length >= 0 && got != length) ||
        (exchange->has_size &&
         exchange->port->resumed_from + got != exchange->size) ||
        (head->status == 206 &&
         exchange->port->resumed_from + got != head->range_total)) {
        *reason = "size_mismatch";
        return NYMBL_CORRUPT;
    }
    return NYMBL_OK;
}

nymbl_kind nymbl__result_classify(nymbl__exchange *exchange, CURLcode code,
                                  const char **reason)
{
    nymbl__response_head *head = &exchange->head;

    *reason = NULL;
    if (exchange->failure != NYMBL_OK) {
        *reason = exchange->failure_reason;
        return exchange->failure;
    }
    if (head->done && !nymbl__response_is_success(exchange)) {
        if (nymbl__response_is_redirect(head->status)) {
            *reason = "not_followed";
            return NYMBL_REDIRECT;
        }
        if (refuses_range(exchange))
            *reason = "range_refused";
        /* the token endpoint's 400 is about the credentials (RFC 6749, 5.2) */
        if (exchange->request.operation == NYMBL__TOKEN && head->status == 400)
            return NYMBL_UNAUTHORIZED;
        return head->status == 429 && head->limit_exceeded
                   ? NYMBL_QUOTA
                   : nymbl__status_kind(head->status);
    }
    if (code != CURLE_OK)
        return nymbl__failure_classify(exchange, code, reason);
    if (!head->done) { /* libcurl takes a head that was cut for a whole one */
        *reason = "reset";
        return NYMBL_NETWORK;
    }
    if (exchange->request.operation == NYMBL__DOWNLOAD)
        return document_verify(exchange, reason);
    /* a label that nobody asked for (RFC 9110, section 12.5.3) may be wrong */
    if (head->encoded && exchange->port->response_body.size > 0 &&
        !nymbl__sniff_is_json(exchange->port->response_body.data,
                              exchange->port->response_body.size)) {
        *reason = "content_encoding";
        return NYMBL_PROTOCOL;
    }
    if (exchange->port->body != NULL &&
        !nymbl__body_all_read(exchange->port->body)) {
        *reason = "early_response"; /* for a document that had not come yet */
        return NYMBL_PROTOCOL;
    }
    return NYMBL_OK;
}

/* Whether the upload or delete may have been carried out although it failed. */
bool nymbl__result_outcome_is_unknown(const nymbl__exchange *exchange,
                                      nymbl_kind kind)
{
    int status = exchange->head.done ? exchange->head.status : 0;

    if (exchange->request.operation != NYMBL__UPLOAD &&
        exchange->request.operation != NYMBL__DELETE)
        return false;
    if (!exchange->port->sent || (status >= 300 && status <= 499))
        return false;
    /* cut by ourselves before the last block: nobody has a whole request */
    if (exchange->port->body != NULL && status == 0 &&
        (kind == NYMBL_IO || kind == NYMBL_TOO_LARGE || kind == NYMBL_TIMEOUT ||
         kind == NYMBL_CANCELED || kind == NYMBL_NO_MEMORY))
        return nymbl__body_all_read(exchange->port->body);
    return true;
}

bool nymbl__result_keeps_partial(const nymbl__exchange *exchange,
                                 nymbl_kind kind)
{
    return kind != NYMBL_CORRUPT && kind != NYMBL_PROTOCOL &&
           !refuses_range(exchange);
}
