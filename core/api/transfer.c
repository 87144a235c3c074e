/* SPDX-License-Identifier: MIT */
/* The public functions of a transfer. If the engine has an I/O thread, they run
 * at the same time as the pump. */
#include "nymbl.h"

#include "base/error.h"
#include "engine/commands.h"
#include "engine/pump.h"
#include "port/body.h"

#include <string.h>

void nymbl_transfer_free(nymbl_transfer *transfer)
{
    /* In a forked child, sockets and files belong to the parent. */
    if (transfer == NULL || !nymbl_engine_in_this_process(transfer->engine))
        return;
    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
    nymbl__transfer_release(transfer);
}

bool nymbl_transfer_is_ready(nymbl_transfer *transfer)
{
    bool ready;

    if (!nymbl_engine_in_this_process(transfer->engine))
        return true; /* the result is a failure */
    nymbl__engine_lock(transfer->engine);
    ready = transfer->port.notified || transfer->port.ended;
    nymbl__engine_unlock(transfer->engine);
    return ready;
}

nymbl_kind nymbl_transfer_wait(nymbl_transfer *transfer, double timeout)
{
    nymbl_engine *engine = transfer->engine;
    double end = nymbl_engine_now(engine) + timeout;

    if (!nymbl_engine_in_this_process(engine))
        return NYMBL_MISUSE;
    while (!nymbl_transfer_is_ready(transfer)) {
        double left = end - nymbl_engine_now(engine);
        nymbl_kind kind;

        if (left <= 0)
            return NYMBL_AGAIN;
        kind = nymbl_engine_pump(engine, left);
        if (kind < 0)
            return kind;
    }
    return NYMBL_OK;
}

/* Whether this is a forked child and the I/O thread is the parent's. fork() may
 * have copied the window while that thread was changing it. */
static bool is_inherited_by_fork(const nymbl_transfer *transfer)
{
    return nymbl__engine_is_threaded(transfer->engine) &&
           !transfer->port.ended &&
           !nymbl_engine_in_this_process(transfer->engine);
}

/* The result of a transfer that has ended, or NYMBL_AGAIN. */
static nymbl_kind transfer_result(nymbl_transfer *transfer, nymbl_error *err)
{
    if (!transfer->port.ended)
        return nymbl_engine_in_this_process(transfer->engine)
                   ? NYMBL_AGAIN
                   : nymbl__error_set(err, NYMBL_CANCELED,
                                      nymbl__reason_forked);
    if (transfer->port.error.kind < 0 && err != NULL)
        *err = transfer->port.error;
    return transfer->port.error.kind;
}

nymbl_kind nymbl_transfer_response(nymbl_transfer *transfer,
                                   nymbl_response *out, nymbl_error *err)
{
    nymbl_kind kind;

    nymbl__engine_lock(transfer->engine);
    kind = transfer_result(transfer, err);
    if (kind == NYMBL_AGAIN && transfer->port.response_published)
        kind = NYMBL_OK;
    if (kind == NYMBL_OK)
        *out = transfer->port.response;
    nymbl__port_rearm(&transfer->port, kind);
    nymbl__engine_unlock(transfer->engine);
    return kind;
}

nymbl_kind nymbl_transfer_read(nymbl_transfer *transfer, void *buf, size_t cap,
                               size_t *got, nymbl_error *err)
{
    nymbl_kind kind = NYMBL_OK;
    bool resume = false;

    nymbl__engine_lock(transfer->engine);
    *got = transfer->port.content_checked && cap > 0 &&
                   !is_inherited_by_fork(transfer)
               ? nymbl__ring_take(&transfer->port.window, buf, cap)
               : 0;
    if (*got == 0)
        kind = transfer_result(transfer, err);
    else
        resume = transfer->port.receive_paused && !transfer->port.ended &&
                 transfer->port.window.size <= transfer->port.window.max / 2;
    if (kind == NYMBL_OK && *got == 0 && transfer->port.window.size == 0)
        kind = NYMBL_DONE;
    nymbl__port_rearm(&transfer->port, kind);
    if (resume)
        nymbl__commands_add(transfer, NYMBL__COMMAND_UNPAUSE);
    nymbl__engine_unlock(transfer->engine);
    if (resume)
        nymbl__pump_wake(transfer->engine);
    return kind;
}

nymbl_kind nymbl_transfer_result(nymbl_transfer *transfer, nymbl_error *err)
{
    nymbl_kind kind;

    nymbl__engine_lock(transfer->engine);
    kind = transfer_result(transfer, err);
    if (kind == NYMBL_OK && transfer->port.window.size > 0)
        kind = NYMBL_AGAIN;
    nymbl__port_rearm(&transfer->port, kind);
    nymbl__engine_unlock(transfer->engine);
    return kind;
}

const char *nymbl_transfer_body(const nymbl_transfer *transfer, size_t *size)
{
    bool ended;

    nymbl__engine_lock(transfer->engine);
    ended = transfer->port.ended;
    nymbl__engine_unlock(transfer->engine);
    *size = ended ? transfer->port.response_body.size : 0;
    return *size > 0 ? transfer->port.response_body.data : NULL;
}

void nymbl_transfer_counts(nymbl_transfer *transfer, nymbl_counts *out)
{
    nymbl__engine_lock(transfer->engine);
    *out = (nymbl_counts){
        .sent = transfer->port.sent,
        .body_sent = transfer->port.body != NULL
                         ? nymbl__body_bytes_read(transfer->port.body)
                         : transfer->port.body_sent,
        .body_received = transfer->port.body_received,
        .resumed_from = transfer->port.resumed_from,
    };
    nymbl__engine_unlock(transfer->engine);
}

bool nymbl_transfer_is_queued(nymbl_transfer *transfer)
{
    bool queued;

    nymbl__engine_lock(transfer->engine);
    queued = transfer->port.queued && !transfer->port.ended;
    nymbl__engine_unlock(transfer->engine);
    return queued;
}

void nymbl_transfer_request_id(nymbl_transfer *transfer,
                               char out[NYMBL_REQUEST_ID_MAX + 1])
{
    nymbl__engine_lock(transfer->engine);
    memcpy(out, transfer->port.request_id, sizeof(transfer->port.request_id));
    nymbl__engine_unlock(transfer->engine);
}

void nymbl_transfer_peer(nymbl_transfer *transfer, nymbl_peer *out)
{
    nymbl__engine_lock(transfer->engine);
    *out = transfer->port.peer;
    nymbl__engine_unlock(transfer->engine);
}

const char *nymbl_transfer_sha256(nymbl_transfer *transfer)
{
    bool succeeded;

    nymbl__engine_lock(transfer->engine);
    succeeded = transfer->port.ended && transfer->port.error.kind == NYMBL_OK;
    nymbl__engine_unlock(transfer->engine);
    return succeeded && *transfer->port.sha256 != '\0' ? transfer->port.sha256
                                                       : NULL;
}

/* Queue a command, unless the transfer has ended. `kind` and `reason` are for
 * NYMBL__COMMAND_CANCEL, `confirmed` is for NYMBL__COMMAND_CONFIRM. */
static void transfer_command(nymbl_transfer *transfer, unsigned command,
                             nymbl_kind kind, const char *reason,
                             int64_t confirmed)
{
    nymbl_engine *engine = transfer->engine;
    bool ended;

    if (!nymbl_engine_in_this_process(engine))
        return;
    nymbl__engine_lock(engine);
    ended = transfer->port.ended;
    if (command == NYMBL__COMMAND_CONFIRM)
        transfer->port.confirmed = confirmed;
    if (command == NYMBL__COMMAND_CANCEL &&
        transfer->port.cancel_kind == NYMBL_OK) {
        transfer->port.cancel_kind = kind;
        transfer->port.cancel_reason = reason;
    }
    if (!ended)
        nymbl__commands_add(transfer, command);
    nymbl__engine_unlock(engine);
    if (ended)
        return;
    nymbl__pump_wake(engine);
    if (command == NYMBL__COMMAND_CANCEL)
        nymbl__pump_take_cancellations(engine);
}

void nymbl_transfer_confirm(nymbl_transfer *transfer, int64_t received)
{
    transfer_command(transfer, NYMBL__COMMAND_CONFIRM, NYMBL_OK, NULL,
                     received);
}

void nymbl_transfer_cancel(nymbl_transfer *transfer, nymbl_kind kind,
                           const char *reason)
{
    transfer_command(transfer, NYMBL__COMMAND_CANCEL, kind, reason, 0);
}

void nymbl_transfer_wake_at(nymbl_transfer *transfer, double at)
{
    bool sooner;

    if (!nymbl_engine_in_this_process(transfer->engine))
        return;
    nymbl__engine_lock(transfer->engine);
    sooner =
        at > 0 && (transfer->port.wake_at <= 0 || at < transfer->port.wake_at);
    transfer->port.wake_at = at > 0 ? at : 0;
    nymbl__engine_unlock(transfer->engine);
    if (sooner) /* otherwise the pump does not sleep too long */
        nymbl__pump_wake(transfer->engine);
}

void nymbl_transfer_set_watchdog(nymbl_transfer *transfer, double at)
{
    bool sooner;

    if (!nymbl_engine_in_this_process(transfer->engine))
        return;
    nymbl__engine_lock(transfer->engine);
    sooner = at > 0 && (transfer->port.watchdog_at <= 0 ||
                        at < transfer->port.watchdog_at);
    transfer->port.watchdog_at = at > 0 ? at : 0;
    transfer->port.watchdog_missed = false;
    nymbl__engine_unlock(transfer->engine);
    if (sooner)
        nymbl__pump_wake(transfer->engine);
}
