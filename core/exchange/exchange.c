/* SPDX-License-Identifier: MIT */
/* Start and end of an exchange, and its record of failures and activity. */
#include "exchange/exchange.h"

#include "base/buffer.h"
#include "base/secret.h"
#include "port/body.h"

void nymbl__exchange_init(nymbl__exchange *exchange, nymbl__port *port,
                          nymbl__sockets *sockets,
                          const nymbl__settings *settings)
{
    exchange->port = port;
    exchange->sockets = sockets;
    exchange->settings = settings;
    exchange->range_end = INT64_MAX;
    exchange->digest = (nymbl__digest){0};
    exchange->if_match[0] = exchange->expected_type[0] = '\0';
    nymbl__head_reset(&exchange->head);
    nymbl__buffer_init(&port->response_body, NYMBL_RESPONSE_MAX);
}

void nymbl__exchange_finish(nymbl__exchange *exchange, bool keep)
{
    nymbl__port *port = exchange->port;
    nymbl_body *body = port->body;

    if (keep)
        nymbl__atomic_file_keep_partial(exchange->file);
    else
        nymbl__atomic_file_discard(exchange->file);
    exchange->file = NULL;
    nymbl__digest_free(&exchange->digest);
    nymbl__port_lock(port);
    if (body != NULL)
        port->body_sent = nymbl__body_bytes_read(body);
    port->body = NULL;
    nymbl__port_unlock(port);
    if (body != NULL)
        nymbl__body_detach(body);
    nymbl__request_free(&exchange->request);
}

void nymbl__exchange_free(nymbl__exchange *exchange)
{
    nymbl__exchange_finish(exchange, true);
    nymbl__secret_wipe(exchange->first_bytes, exchange->first_bytes_size);
    nymbl__secret_free(exchange->head.location);
}

void nymbl__exchange_fail(nymbl__exchange *exchange, nymbl_kind kind,
                          const char *reason)
{
    if (exchange->failure != NYMBL_OK)
        return;
    exchange->failure = kind;
    exchange->failure_reason = reason;
}

void nymbl__exchange_record_activity(nymbl__exchange *exchange)
{
    exchange->active = true;
    if (exchange->progress)
        exchange->port->notify_pending = true;
}

bool nymbl__exchange_was_sent(const nymbl__exchange *exchange)
{
    return exchange->phase >= NYMBL__SENT;
}
