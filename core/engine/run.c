/* SPDX-License-Identifier: MIT */
/* The run of an exchange: its requests one after the other, each on an easy
 * handle, and its end. */
#include "engine/run.h"

#include "engine/connections.h"
#include "engine/jobs.h"
#include "engine/lines.h"
#include "exchange/result.h"
#include "exchange/checksum.h"
#include "exchange/easy.h"
#include "file/atomic_file.h"

/* Remove the easy handle from the multi handle. A request that has not
 * completed is aborted. */
static void handle_remove(nymbl_transfer *transfer)
{
    nymbl__exchange *exchange = &transfer->exchange;

    if (exchange->easy != NULL) {
        curl_multi_remove_handle(transfer->engine->multi, exchange->easy);
        nymbl__connections_return_handle(transfer->engine, exchange->easy);
    }
    nymbl__easy_detach(exchange);
}

static void exchange_end(nymbl_transfer *transfer, nymbl_kind kind,
                         const char *reason)
{
    nymbl__exchange *exchange = &transfer->exchange;
    nymbl_error result = {
        .kind = kind,
        .status = exchange->head.done ? exchange->head.status
                                      : exchange->proxy_status,
        .reason = reason,
        .retry_after = exchange->head.retry_after,
    };

    if (transfer->stage == NYMBL__ENDED)
        return;
    result.outcome_unknown =
        kind < 0 && nymbl__result_outcome_is_unknown(exchange, kind);
    handle_remove(transfer);
    nymbl__exchange_finish(exchange,
                           nymbl__result_keeps_partial(exchange, kind));
    transfer->engine->admit = true;
    nymbl__transfer_end(transfer, &result);
}

void nymbl__run_start(nymbl_transfer *transfer)
{
    nymbl_engine *engine = transfer->engine;
    CURL *easy = nymbl__connections_get_handle(engine);
    nymbl_kind kind = NYMBL_NO_MEMORY;

    if (easy != NULL)
        kind = nymbl__easy_start(&transfer->exchange, easy);
    if (kind == NYMBL_OK)
        curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    if (kind == NYMBL_OK &&
        curl_multi_add_handle(engine->multi, easy) != CURLM_OK)
        kind = NYMBL_NO_MEMORY;
    if (kind < 0)
        exchange_end(transfer, kind, NULL);
}

void nymbl__run_abort(nymbl_transfer *transfer, nymbl_kind kind,
                      const char *reason)
{
    nymbl__exchange *exchange = &transfer->exchange;

    if (transfer->stage == NYMBL__ENDED)
        return;
    if (transfer->job != NULL) {
        nymbl__jobs_end(transfer, kind, reason);
        return;
    }
    if (transfer->line != NULL) {
        nymbl__lines_cancel(transfer, kind, reason);
        return;
    }
    nymbl__exchange_fail(exchange, kind, reason);
    exchange_end(transfer, exchange->failure, exchange->failure_reason);
}

void nymbl__run_confirm(nymbl_transfer *transfer)
{
    nymbl__exchange *exchange = &transfer->exchange;
    nymbl__port *port = &transfer->port;
    nymbl__atomic_file *file = exchange->file;
    const char *reason = NULL;
    int64_t confirmed;
    nymbl_kind kind;

    nymbl__port_lock(port);
    confirmed = port->confirmed;
    nymbl__port_unlock(port);
    if (transfer->stage != NYMBL__AWAITING_CONFIRM ||
        (exchange->progress && confirmed != port->body_received))
        return;
    exchange->file = NULL;
    kind = nymbl__atomic_file_commit(file, &reason);
    exchange_end(transfer, kind, reason);
}

void nymbl__run_complete(nymbl_transfer *transfer, CURLcode code)
{
    nymbl__exchange *exchange = &transfer->exchange;
    nymbl__result result;

    nymbl__easy_complete(exchange, code, &result);
    if (result.type == NYMBL__SUCCEEDED) {
        result.kind = nymbl__checksum_end(exchange, &result.reason);
        if (result.kind < 0)
            result.type = NYMBL__FAILED;
    }
    if (result.type == NYMBL__RESTART) {
        handle_remove(transfer);
        nymbl__easy_prepare_restart(exchange, &result);
        nymbl__run_start(transfer);
        return;
    }
    if (result.type == NYMBL__FAILED || exchange->file == NULL) {
        exchange_end(transfer, result.kind, result.reason);
        return;
    }
    handle_remove(transfer);
    transfer->stage = NYMBL__AWAITING_CONFIRM;
    transfer->references++; /* the end drops the engine's reference */
    nymbl__run_confirm(transfer);
    if (transfer->stage != NYMBL__ENDED) {
        transfer->port.notify_pending = true;
        nymbl__transfer_notify(transfer);
    }
    nymbl__transfer_release(transfer);
}

void nymbl__run_unpause(nymbl_transfer *transfer)
{
    nymbl_kind kind = nymbl__easy_unpause(&transfer->exchange);

    if (kind == NYMBL_DONE)
        nymbl__run_complete(transfer, CURLE_WRITE_ERROR);
    else if (kind < 0)
        nymbl__run_abort(transfer, kind, NULL);
}

void nymbl__run_checksum(nymbl_transfer *transfer)
{
    const char *reason = NULL;
    nymbl_kind kind;

    if (!nymbl__checksum_is_behind(&transfer->exchange))
        return;
    kind = nymbl__checksum_catch_up(&transfer->exchange, &reason);
    if (kind < 0)
        nymbl__run_abort(transfer, kind, reason);
    else if (kind == NYMBL_OK)
        nymbl__run_unpause(transfer);
}
