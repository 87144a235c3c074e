/* SPDX-License-Identifier: MIT */
/* Time limits of an exchange, in seconds during which the engine polled for it.
 */
#include "exchange/timeouts.h"

#include "base/error.h"
#include "exchange/checksum.h"
#include "exchange/response.h"
#include "port/body.h"

#define NO_LIMIT 3600.0 /* seconds; the pump never waits longer */

/* Whether the final response has begun. Interim (1xx) responses do not count.
 */
static bool response_has_begun(const nymbl__exchange *exchange)
{
    return exchange->head.status >= 200;
}

static bool response_is_buffered(const nymbl__exchange *exchange)
{
    const nymbl__response_head *head = &exchange->head;

    if (exchange->port->body != NULL)
        return response_has_begun(exchange);
    return exchange->request.expected != NYMBL_EXPECT_CONTENT || !head->done ||
           !nymbl__response_is_success(exchange);
}

static double idle_limit(const nymbl__exchange *exchange)
{
    double limit = exchange->settings->stall_timeout;

    if (exchange->port->body != NULL && !response_has_begun(exchange) &&
        nymbl__body_all_read(exchange->port->body) &&
        limit < NYMBL__UPLOAD_RESPONSE_TIMEOUT)
        return NYMBL__UPLOAD_RESPONSE_TIMEOUT;
    return limit;
}

/* Whether the exchange waits for the caller or a local file, not for the peer.
 * Then no time limit applies. */
static bool is_waiting_locally(const nymbl__exchange *exchange)
{
    return exchange->port->receive_paused || exchange->port->send_paused ||
           exchange->phase == NYMBL__IDLE ||
           nymbl__checksum_is_behind(exchange);
}

void nymbl__timeouts_add(nymbl__exchange *exchange, double seconds)
{
    if (is_waiting_locally(exchange))
        return;
    if (!nymbl__exchange_was_sent(exchange)) {
        exchange->connect_time += seconds;
        return;
    }
    exchange->idle_time += seconds;
    if (response_is_buffered(exchange))
        exchange->response_time += seconds;
}

double nymbl__timeouts_remaining(const nymbl__exchange *exchange)
{
    double remaining, response;

    if (is_waiting_locally(exchange))
        return NO_LIMIT;
    if (!nymbl__exchange_was_sent(exchange))
        return exchange->settings->connect_timeout - exchange->connect_time;
    remaining = idle_limit(exchange) - exchange->idle_time;
    response = NYMBL__RESPONSE_TIMEOUT - exchange->response_time;
    return response_is_buffered(exchange) && response < remaining ? response
                                                                  : remaining;
}

const char *nymbl__timeouts_check(nymbl__exchange *exchange)
{
    curl_off_t sent = 0;

    /* Bytes that libcurl has read from the body may remain in its send buffer
     * for long. So bytes that it has sent count as activity too. */
    if (!exchange->active && exchange->port->body != NULL &&
        exchange->easy != NULL) {
        curl_easy_getinfo(exchange->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
        exchange->active = sent != exchange->sent_at_last_check;
        exchange->sent_at_last_check = sent;
    }
    if (exchange->active)
        exchange->idle_time = 0;
    exchange->active = false;
    if (nymbl__timeouts_remaining(exchange) > 0)
        return NULL;
    if (!nymbl__exchange_was_sent(exchange))
        return nymbl__reason_connect;
    return exchange->idle_time >= idle_limit(exchange) ? nymbl__reason_stall
                                                       : nymbl__reason_response;
}
