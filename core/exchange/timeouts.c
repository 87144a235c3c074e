/* SPDX-License-Identifier: MIT */
/* Time limits of a exchange, in seconds that were spent polling for it. */
#include "exchange/timeouts.h"

#include "exchange/verdict.h"
#include "port/body.h"

/* "100 Continue" and its like are no reply yet. */
static bool reply_has_begun(const nymbl__exchange *exchange)
{
    return exchange->head.status >= 200;
}

static bool response_is_buffered(const nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;

    switch (exchange->request.operation) {
    case NYMBL__UPLOAD:
        return reply_has_begun(exchange);
    case NYMBL__DOWNLOAD:
        return !head->done || !nymbl__response_is_success(exchange);
    default:
        return true;
    }
}

static double idle_limit(const nymbl__exchange *exchange)
{
    double seconds = exchange->settings->stall_timeout;

    if (exchange->port->body != NULL && !reply_has_begun(exchange) &&
        nymbl__body_all_read(exchange->port->body) &&
        seconds < NYMBL__UPLOAD_REPLY_SECONDS)
        return NYMBL__UPLOAD_REPLY_SECONDS;
    return seconds;
}

/* The caller's turn, not the peer's. */
static bool caller_is_awaited(const nymbl__exchange *exchange)
{
    return exchange->port->receive_paused || exchange->port->send_paused ||
           exchange->phase == NYMBL__IDLE;
}

void nymbl__timeouts_charge(nymbl__exchange *exchange, double seconds)
{
    if (caller_is_awaited(exchange))
        return;
    if (!nymbl__exchange_was_sent(exchange)) {
        exchange->connect_time += seconds;
        return;
    }
    exchange->idle_time += seconds;
    if (response_is_buffered(exchange))
        exchange->response_time += seconds;
}

double nymbl__timeouts_left(const nymbl__exchange *exchange)
{
    double left, reply;

    if (caller_is_awaited(exchange))
        return 3600;
    if (!nymbl__exchange_was_sent(exchange))
        return exchange->settings->connect_timeout - exchange->connect_time;
    left = idle_limit(exchange) - exchange->idle_time;
    reply = NYMBL__REPLY_SECONDS - exchange->response_time;
    return response_is_buffered(exchange) && reply < left ? reply : left;
}

const char *nymbl__timeouts_exceeded(nymbl__exchange *exchange)
{
    curl_off_t up = 0;

    /* What libcurl has taken may lie in its buffer for long: bytes that left
     * count as movement too. */
    if (!exchange->active && exchange->port->body != NULL &&
        exchange->easy != NULL) {
        curl_easy_getinfo(exchange->easy, CURLINFO_SIZE_UPLOAD_T, &up);
        exchange->active = up != exchange->sent_at_last_check;
        exchange->sent_at_last_check = up;
    }
    if (exchange->active)
        exchange->idle_time = 0;
    exchange->active = false;
    if (nymbl__timeouts_left(exchange) > 0)
        return NULL;
    if (!nymbl__exchange_was_sent(exchange))
        return "connect";
    return exchange->idle_time >= idle_limit(exchange) ? "stall" : "response";
}
