/* SPDX-License-Identifier: MIT */
/* The result of an exchange: kind and reason, whether its outcome is unknown,
 * and whether a partial file is kept. */
#include "exchange/result.h"

#include "base/error.h"
#include "base/kind.h"
#include "exchange/curl_error.h"
#include "exchange/response.h"
#include "exchange/sniff.h"
#include "port/body.h"

/* Whether the service may have refused the request only because of its Range,
 * and would send the whole document. */
static bool range_may_be_refused(const nymbl__exchange *exchange)
{
    int status = exchange->head.done ? exchange->head.status : 0;

    return exchange->range_requested && status != 401 && status != 429 &&
           ((status >= 400 && status <= 499) || status == 501);
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
    if (exchange->range_complete)
        return NYMBL_OK;
    if (head->done && !nymbl__response_is_success(exchange)) {
        if (nymbl__response_is_redirect(head->status)) {
            *reason = nymbl__reason_not_followed;
            return NYMBL_REDIRECT;
        }
        if (*exchange->if_match != '\0' && head->status == 412) {
            *reason = nymbl__reason_changed;
            return NYMBL_CORRUPT;
        }
        if (range_may_be_refused(exchange))
            *reason = nymbl__reason_range_refused;
        /* The token endpoint reports invalid credentials with 400 (RFC 6749,
         * section 5.2). */
        if (exchange->request.is_token && head->status == 400)
            return NYMBL_UNAUTHORIZED;
        return head->status == 429 && head->limit_exceeded
                   ? NYMBL_QUOTA
                   : nymbl__kind_from_status(head->status);
    }
    if (code != CURLE_OK)
        return nymbl__curl_error_classify(exchange, code, reason);
    if (!head->done) { /* libcurl accepts an incomplete head */
        *reason = nymbl__reason_reset;
        return NYMBL_NETWORK;
    }
    if (exchange->request.expected == NYMBL_EXPECT_CONTENT)
        return nymbl__response_check_document(exchange, reason);
    /* No encoding was requested (RFC 9110, section 12.5.3). But if the body is
     * JSON, it is not encoded, and only Content-Encoding is wrong. */
    if (head->encoded && exchange->port->response_body.size > 0 &&
        !nymbl__sniff_is_json(exchange->port->response_body.data,
                              exchange->port->response_body.size)) {
        *reason = nymbl__reason_content_encoding;
        return NYMBL_PROTOCOL;
    }
    if (exchange->port->body != NULL &&
        !nymbl__body_all_read(exchange->port->body)) {
        /* the service responded before the whole body was sent */
        *reason = nymbl__reason_early_response;
        return NYMBL_PROTOCOL;
    }
    return NYMBL_OK;
}

bool nymbl__result_outcome_is_unknown(const nymbl__exchange *exchange,
                                      nymbl_kind kind)
{
    int status = exchange->head.done ? exchange->head.status : 0;

    if (nymbl__request_is_safe(&exchange->request) || !exchange->port->sent ||
        (status >= 300 && status <= 499))
        return false;
    /* If this side has aborted the upload before its last block, the server has
     * no complete request. */
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
           !range_may_be_refused(exchange);
}
