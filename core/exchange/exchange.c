/* SPDX-License-Identifier: MIT */
/* One exchange: its beginning and its end, and what happens to it. */
#include "exchange/exchange.h"

#include "base/buffer.h"
#include "port/body.h"

void nymbl__exchange_init(nymbl__exchange *exchange, nymbl__port *port,
                          nymbl__sockets *sockets,
                          const nymbl__settings *settings)
{
    exchange->port = port;
    exchange->sockets = sockets;
    exchange->settings = settings;
    nymbl__head_reset(&exchange->head);
    nymbl__buffer_init(&port->reply, NYMBL__REPLY_MAX);
}

void nymbl__exchange_release(nymbl__exchange *exchange, bool keep)
{
    nymbl__port *port = exchange->port;
    nymbl_body *body = port->body;

    if (keep)
        nymbl__save_suspend(exchange->save);
    else
        nymbl__save_abandon(exchange->save);
    exchange->save = NULL;
    nymbl__port_lock(port);
    if (body != NULL)
        port->body_sent = nymbl__body_released(body);
    port->body = NULL;
    nymbl__port_unlock(port);
    if (body != NULL)
        nymbl__body_detach(body);
    nymbl__request_free(&exchange->request);
}

void nymbl__exchange_free(nymbl__exchange *exchange)
{
    nymbl__exchange_release(exchange, true);
    nymbl__secret_free(exchange->head.location);
}

void nymbl__exchange_fail(nymbl__exchange *exchange, nymbl_kind kind,
                          const char *reason)
{
    if (exchange->failing != NYMBL_OK)
        return;
    exchange->failing = kind;
    exchange->failing_reason = reason;
}

void nymbl__exchange_moved(nymbl__exchange *exchange)
{
    exchange->moved = true;
    if (exchange->progress)
        exchange->has_news = true;
}

bool nymbl__exchange_was_sent(const nymbl__exchange *exchange)
{
    return exchange->phase >= NYMBL__SENT;
}
