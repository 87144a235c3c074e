/* SPDX-License-Identifier: MIT */
/* A transfer: its lifetime, the lists of its engine, and how its caller is
 * notified. */
#include "engine/transfer.h"

#include "base/error.h"
#include "base/object_count.h"
#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

/* The size of the part that is zeroed at first, and wiped in the end. */
#define ZEROED (offsetof(nymbl_transfer, exchange) + NYMBL__EXCHANGE_ZEROED)

/* ---- lifetime ---- */

static nymbl_transfer *transfer_create(nymbl_engine *engine)
{
    nymbl_transfer *transfer = malloc(sizeof(*transfer));

    if (transfer == NULL)
        return NULL;
    memset(transfer, 0, ZEROED);
    transfer->references = 1;
    transfer->engine = engine;
    nymbl__engine_retain(engine);
    nymbl__port_init(&transfer->port, engine->mutex);
    nymbl__object_count_add(1);
    return transfer;
}

nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err)
{
    nymbl_transfer *transfer = transfer_create(engine);

    *out = transfer;
    if (transfer == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    transfer->client = client;
    nymbl__client_retain(client);
    nymbl__exchange_init(&transfer->exchange, &transfer->port, &engine->sockets,
                         &client->settings);
    return NYMBL_OK;
}

nymbl_kind nymbl__transfer_new_job(nymbl_transfer **out, nymbl_engine *engine,
                                   nymbl__job *job, nymbl_error *err)
{
    nymbl_transfer *transfer = transfer_create(engine);

    *out = transfer;
    if (transfer == NULL) {
        nymbl__job_free(job);
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    }
    transfer->job = job;
    return NYMBL_OK;
}

nymbl_kind nymbl__transfer_new_request(nymbl_transfer **out,
                                       nymbl_engine *engine, nymbl_line *line,
                                       nymbl_error *err)
{
    nymbl_transfer *transfer = transfer_create(engine);

    *out = transfer;
    if (transfer == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    transfer->line = line;
    nymbl__buffer_init(&transfer->port.response_body, NYMBL_REPLY_MAX);
    return NYMBL_OK;
}

void nymbl__transfer_release(nymbl_transfer *transfer)
{
    if (atomic_fetch_sub(&transfer->references, 1) > 1)
        return;
    if (transfer->client != NULL) {
        nymbl__exchange_free(&transfer->exchange);
        nymbl__client_release(transfer->client);
    }
    nymbl__job_free(transfer->job);
    nymbl__port_free(&transfer->port);
    nymbl__engine_release(transfer->engine);
    nymbl__secret_wipe(transfer, ZEROED);
    free(transfer);
    nymbl__object_count_add(-1);
}

/* ---- lists ---- */

static void list_append(nymbl__transfer_list *list, nymbl_transfer *transfer)
{
    transfer->next = NULL;
    transfer->previous = list->last;
    if (list->last != NULL)
        list->last->next = transfer;
    else
        list->first = transfer;
    list->last = transfer;
}

static void list_prepend(nymbl__transfer_list *list, nymbl_transfer *transfer)
{
    transfer->previous = NULL;
    transfer->next = list->first;
    if (list->first != NULL)
        list->first->previous = transfer;
    else
        list->last = transfer;
    list->first = transfer;
}

static void list_remove(nymbl__transfer_list *list, nymbl_transfer *transfer)
{
    if (transfer->previous != NULL)
        transfer->previous->next = transfer->next;
    else
        list->first = transfer->next;
    if (transfer->next != NULL)
        transfer->next->previous = transfer->previous;
    else
        list->last = transfer->previous;
}

/* The list that contains a transfer, or NULL. */
static nymbl__transfer_list *list_of(const nymbl_transfer *transfer)
{
    switch (transfer->stage) {
    case NYMBL__WAITING:
        return &transfer->engine->waiting;
    case NYMBL__RUNNING:
    case NYMBL__AWAITING_CONFIRM:
        return &transfer->engine->running;
    case NYMBL__WORKING:
        return &transfer->engine->jobs;
    case NYMBL__ON_LINE:
        return &transfer->engine->requests;
    default:
        return NULL;
    }
}

/* A job is enqueued again after each step, so that all jobs get steps. */
void nymbl__transfer_enqueue(nymbl_transfer *transfer)
{
    if (transfer->stage == NYMBL__WORKING)
        list_remove(&transfer->engine->jobs, transfer);
    if (transfer->line != NULL)
        transfer->stage = NYMBL__ON_LINE;
    else
        transfer->stage =
            transfer->job != NULL ? NYMBL__WORKING : NYMBL__WAITING;
    list_append(list_of(transfer), transfer);
}

void nymbl__transfer_run(nymbl_transfer *transfer)
{
    list_remove(&transfer->engine->waiting, transfer);
    transfer->stage = NYMBL__RUNNING;
    list_prepend(&transfer->engine->running, transfer);
}

nymbl_transfer *nymbl__transfer_next(const nymbl_engine *engine,
                                     const nymbl_transfer *transfer)
{
    const nymbl__transfer_list *list = NULL;

    if (transfer != NULL) {
        if (transfer->next != NULL)
            return transfer->next;
        list = list_of(transfer);
    }
    if (list == NULL && engine->running.first != NULL)
        return engine->running.first;
    if ((list == NULL || list == &engine->running) &&
        engine->waiting.first != NULL)
        return engine->waiting.first;
    if (list != &engine->jobs && list != &engine->requests &&
        engine->jobs.first != NULL)
        return engine->jobs.first;
    return list == &engine->requests ? NULL : engine->requests.first;
}

/* ---- the end, and notifications ---- */

void nymbl__transfer_end(nymbl_transfer *transfer, const nymbl_error *result)
{
    nymbl__port *port = &transfer->port;
    nymbl__transfer_list *list = list_of(transfer);

    if (list != NULL)
        list_remove(list, transfer);
    transfer->stage = NYMBL__ENDED;
    nymbl__port_lock(port);
    port->error = *result;
    port->ended = true;
    nymbl__port_unlock(port);
    port->notify_pending = true;
    nymbl__transfer_notify(transfer);
    nymbl__port_notify_close(port);
    if (list != NULL)
        nymbl__transfer_release(transfer); /* the engine's reference */
}

void nymbl__transfer_notify(nymbl_transfer *transfer)
{
    nymbl_engine *engine = transfer->engine;
    nymbl__port *port = &transfer->port;

    if (!port->notify_pending)
        return;
    port->notify_pending = false;
    nymbl__port_lock(port);
    if (!port->notified) {
        port->notified = true;
        engine->callers_notified = true;
        pthread_cond_signal(&engine->cond);
        nymbl__port_notify(port);
    }
    nymbl__port_unlock(port);
}
