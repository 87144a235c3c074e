/* SPDX-License-Identifier: MIT */
/* Time limits of a exchange, in seconds that were spent polling for it. */
#include "exchange/limits.h"

#include "exchange/verdict.h"
#include "port/body.h"

/* "100 Continue" and its like are no reply yet. */
static bool reply_has_begun(const nymbl__exchange *exchange)
{
    return exchange->head.status >= 200;
}

static bool reply_is_held(const nymbl__exchange *exchange)
{
    const nymbl__reply_head *head = &exchange->head;

    switch (exchange->request.operation) {
    case NYMBL__UPLOAD:
        return reply_has_begun(exchange);
    case NYMBL__DOWNLOAD:
        return !head->done || !nymbl__verdict_is_success(exchange);
    default:
        return true;
    }
}

static double idle_limit(const nymbl__exchange *exchange)
{
    double seconds = exchange->settings->stall_timeout;

    if (exchange->port->body != NULL && !reply_has_begun(exchange) &&
        nymbl__body_all_released(exchange->port->body) &&
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

void nymbl__limits_charge(nymbl__exchange *exchange, double seconds)
{
    if (caller_is_awaited(exchange))
        return;
    if (!nymbl__exchange_was_sent(exchange)) {
        exchange->connect_time += seconds;
        return;
    }
    exchange->idle_time += seconds;
    if (reply_is_held(exchange))
        exchange->reply_time += seconds;
}

double nymbl__limits_left(const nymbl__exchange *exchange)
{
    double left, reply;

    if (caller_is_awaited(exchange))
        return 3600;
    if (!nymbl__exchange_was_sent(exchange))
        return exchange->settings->connect_timeout - exchange->connect_time;
    left = idle_limit(exchange) - exchange->idle_time;
    reply = NYMBL__REPLY_SECONDS - exchange->reply_time;
    return reply_is_held(exchange) && reply < left ? reply : left;
}

const char *nymbl__limits_exceeded(nymbl__exchange *exchange)
{
    curl_off_t up = 0;

    /* What libcurl has taken may lie in its buffer for long: bytes that left
     * count as movement too. */
    if (!exchange->moved && exchange->port->body != NULL &&
        exchange->easy != NULL) {
        curl_easy_getinfo(exchange->easy, CURLINFO_SIZE_UPLOAD_T, &up);
        exchange->moved = up != exchange->moved_up;
        exchange->moved_up = up;
    }
    if (exchange->moved)
        exchange->idle_time = 0;
    exchange->moved = false;
    if (nymbl__limits_left(exchange) > 0)
        return NULL;
    if (!nymbl__exchange_was_sent(exchange))
        return "connect";
    return exchange->idle_time >= idle_limit(exchange) ? "stall" : "reply";
}
