/* SPDX-License-Identifier: MIT */
/* A transfer: how long it lives, the lists it is on, and how its caller is told
 * of news. */
#include "engine/transfer.h"

#include "base/error.h"

#include <stdlib.h>

/* ---- lifetime ---- */

nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err)
{
    nymbl_transfer *transfer = calloc(1, sizeof(*transfer));

    *out = NULL;
    if (transfer == NULL)
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    transfer->references = 1;
    transfer->engine = engine;
    transfer->client = client;
    nymbl__engine_retain(engine);
    nymbl__client_retain(client);
    nymbl__port_init(&transfer->port, engine->mutex);
    nymbl__exchange_init(&transfer->exchange, &transfer->port, &engine->sockets,
                         &client->settings);
    nymbl__object_count_add(1);
    *out = transfer;
    return NYMBL_OK;
}

void nymbl__transfer_release(nymbl_transfer *transfer)
{
    if (atomic_fetch_sub(&transfer->references, 1) > 1)
        return;
    nymbl__exchange_free(&transfer->exchange);
    nymbl__port_free(&transfer->port);
    nymbl__client_release(transfer->client);
    nymbl__engine_release(transfer->engine);
    nymbl__wipe(transfer, sizeof(*transfer));
    free(transfer);
    nymbl__object_count_add(-1);
}

/* ---- lists ---- */

void nymbl__transfer_wait(nymbl_transfer *transfer)
{
    nymbl_engine *engine = transfer->engine;

    transfer->stage = NYMBL__WAITING;
    transfer->next = NULL;
    transfer->previous = engine->waiting_last;
    if (engine->waiting_last != NULL)
        engine->waiting_last->next = transfer;
    else
        engine->waiting = transfer;
    engine->waiting_last = transfer;
}

static void waiting_remove(nymbl_transfer *transfer)
{
    nymbl_engine *engine = transfer->engine;

    if (transfer->previous != NULL)
        transfer->previous->next = transfer->next;
    else
        engine->waiting = transfer->next;
    if (transfer->next != NULL)
        transfer->next->previous = transfer->previous;
    else
        engine->waiting_last = transfer->previous;
}

void nymbl__transfer_run(nymbl_transfer *transfer)
{
    nymbl_engine *engine = transfer->engine;

    waiting_remove(transfer);
    transfer->stage = NYMBL__RUNNING;
    transfer->previous = NULL;
    transfer->next = engine->running;
    if (engine->running != NULL)
        engine->running->previous = transfer;
    engine->running = transfer;
}

static void running_remove(nymbl_transfer *transfer)
{
    if (transfer->previous != NULL)
        transfer->previous->next = transfer->next;
    else
        transfer->engine->running = transfer->next;
    if (transfer->next != NULL)
        transfer->next->previous = transfer->previous;
}

bool nymbl__transfer_unlink(nymbl_transfer *transfer, nymbl__stage before)
{
    if (before == NYMBL__WAITING)
        waiting_remove(transfer);
    else if (before == NYMBL__RUNNING || before == NYMBL__AWAITING_CONFIRM)
        running_remove(transfer);
    else
        return false;
    return true;
}

/* ---- news ---- */

/* One signal for a pass, however much came. */
void nymbl__transfer_notify(nymbl_transfer *transfer)
{
    nymbl_engine *engine = transfer->engine;
    nymbl__port *port = &transfer->port;
    bool first;

    if (!transfer->exchange.notify_pending)
        return;
    transfer->exchange.notify_pending = false;
    nymbl__port_lock(port);
    first = !port->notified;
    port->notified = true;
    engine->callers_notified = engine->callers_notified || first;
    if (first) {
        pthread_cond_signal(&engine->cond);
        nymbl__port_notify(port);
    }
    nymbl__port_unlock(port);
}
