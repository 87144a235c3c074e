/* SPDX-License-Identifier: MIT */
/* The pump: executes commands, admits transfers, drives libcurl and jobs, ends
 * completed transfers and notifies callers. */
#include "engine/pump.h"

#include "base/error.h"
#include "base/fd.h"
#include "engine/commands.h"
#include "engine/connections.h"
#include "engine/jobs.h"
#include "engine/lines.h"
#include "engine/notify.h"
#include "engine/run.h"
#include "exchange/checksum.h"
#include "exchange/timeouts.h"

#include <time.h>

/* Longest wait in milliseconds after accept(), a growing list of descriptors or
 * a poll has failed for lack of resources: they are then retried. */
#define RETRY_DELAY 50
/* How often a wakeup is sent if that fails. */
#define WAKE_ATTEMPTS 3

/* ---- commands ---- */

void nymbl__pump_cancel(nymbl_engine *engine, const nymbl_client *client)
{
    nymbl_transfer *transfer = nymbl__transfer_next(engine, NULL);

    while (transfer != NULL) {
        nymbl_transfer *next = nymbl__transfer_next(engine, transfer);

        if (client == NULL || transfer->client == client)
            nymbl__run_abort(transfer, NYMBL_CANCELED, nymbl__reason_closed);
        transfer = next;
    }
}

static void client_close_transfers(nymbl_engine *engine, nymbl_client *client)
{
    bool last;

    nymbl__pump_cancel(engine, client);
    nymbl__engine_lock(engine);
    last = engine->clients == NULL;
    nymbl__engine_unlock(engine);
    /* Without clients, transfers and lines, all connections can be closed at
     * once. (A running transfer's client may have moved to another engine. Jobs
     * have no connections.) */
    if (!last || engine->running.first != NULL ||
        engine->waiting.first != NULL || engine->lines != NULL ||
        nymbl__connections_open(engine) < 0)
        nymbl__connections_close_unused(engine);
}

static void commands_execute(nymbl_engine *engine, nymbl_transfer *transfer,
                             unsigned commands)
{
    if (transfer->stage == NYMBL__ENDED)
        return;
    if (commands & NYMBL__COMMAND_CANCEL) {
        nymbl__run_abort(transfer, transfer->port.cancel_kind,
                         transfer->port.cancel_reason);
        return;
    }
    if (commands & NYMBL__COMMAND_START) {
        transfer->references++; /* the engine's reference, until the end */
        nymbl__transfer_enqueue(transfer);
        engine->admit = true;
    }
    if (commands & NYMBL__COMMAND_UNPAUSE)
        nymbl__run_unpause(transfer);
    if (commands & NYMBL__COMMAND_CONFIRM)
        nymbl__run_confirm(transfer);
}

void nymbl__pump_commands(nymbl_engine *engine)
{
    nymbl_transfer *transfer;
    nymbl_client *closing;
    unsigned commands = 0;

    for (;;) {
        transfer = nymbl__commands_take(engine, &commands, &closing);
        if (transfer != NULL) {
            commands_execute(engine, transfer, commands);
            nymbl__transfer_release(transfer);
        } else if (closing != NULL) {
            client_close_transfers(engine, closing);
            nymbl__client_release(closing);
        } else {
            return;
        }
    }
}

/* ---- admission ---- */

/* The connection slots that a client uses. A paused download needs none. */
static int slots_in_use(const nymbl_engine *engine, const nymbl_client *client)
{
    int used = 0;

    for (nymbl_transfer *t = engine->running.first; t != NULL; t = t->next) {
        if (t->client == client && !t->port.receive_paused)
            used++;
    }
    return used;
}

/* Record whether a transfer waits for a slot, and notify its caller if it does.
 */
static void queued_set(nymbl_transfer *transfer, bool queued)
{
    if (transfer->port.queued == queued)
        return;
    nymbl__port_lock(&transfer->port);
    transfer->port.queued = queued;
    nymbl__port_unlock(&transfer->port);
    if (queued)
        transfer->port.notify_pending = true;
}

/* Start the waiting transfers whose client has a free connection slot. */
static void waiting_admit(nymbl_engine *engine)
{
    nymbl_transfer *transfer = engine->waiting.first;

    for (nymbl_transfer *t = transfer == NULL ? NULL : engine->running.first;
         t != NULL; t = t->next) {
        engine->admit = engine->admit || t->exchange.slot_is_free;
        t->exchange.slot_is_free = false;
    }
    if (!engine->admit)
        return;
    engine->admit = false;
    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next;

        if (slots_in_use(engine, transfer->client) <
            transfer->client->max_connections) {
            queued_set(transfer, false);
            nymbl__transfer_run(transfer);
            nymbl__run_start(transfer);
        } else {
            queued_set(transfer, true);
        }
        transfer = next;
    }
}

/* ---- a pass ---- */

/* Process the requests that libcurl has completed. */
static void completed_process(nymbl_engine *engine)
{
    int left;

    for (;;) {
        CURLMsg *message = curl_multi_info_read(engine->multi, &left);
        nymbl_transfer *transfer = NULL;

        if (message == NULL)
            return;
        if (message->msg != CURLMSG_DONE ||
            nymbl__lines_complete(engine, message->easy_handle,
                                  message->data.result))
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        nymbl__run_complete(transfer, message->data.result);
    }
}

/* Notify the callers whose wake-up time has come. */
static void timers_fire(nymbl_engine *engine, double now)
{
    nymbl_transfer *t = NULL;

    nymbl__engine_lock(engine);
    while ((t = nymbl__transfer_next(engine, t)) != NULL) {
        if (t->port.wake_at > 0 && t->port.wake_at <= now) {
            t->port.wake_at = 0;
            t->port.notify_pending = true;
        }
    }
    nymbl__engine_unlock(engine);
}

/* Seconds from a missed watchdog until the transfer is canceled. If the whole
 * process was stopped, the caller has this time to continue. */
#define WATCHDOG_GRACE 1.0

/* Find a transfer whose watchdog has expired, or NULL. */
static nymbl_transfer *watchdog_find_expired(nymbl_engine *engine, double now)
{
    nymbl_transfer *t = NULL;

    nymbl__engine_lock(engine);
    while ((t = nymbl__transfer_next(engine, t)) != NULL) {
        if (t->port.watchdog_at <= 0 || t->port.watchdog_at > now)
            continue;
        if (t->port.watchdog_missed) {
            t->port.watchdog_at = 0;
            break;
        }
        t->port.watchdog_missed = true;
        t->port.watchdog_at = now + WATCHDOG_GRACE;
    }
    nymbl__engine_unlock(engine);
    return t;
}

static void watchdog_cancel(nymbl_engine *engine, double now)
{
    nymbl_transfer *transfer;

    for (transfer = watchdog_find_expired(engine, now); transfer != NULL;
         transfer = watchdog_find_expired(engine, now))
        nymbl__run_abort(transfer, NYMBL_CANCELED, nymbl__reason_disconnected);
}

static void timeouts_enforce(nymbl_transfer *transfer)
{
    const char *exceeded;

    if (transfer->stage == NYMBL__ENDED)
        return;
    exceeded = nymbl__timeouts_check(&transfer->exchange);
    if (exceeded != NULL)
        nymbl__run_abort(transfer, NYMBL_TIMEOUT, exceeded);
}

/* Let each download that resumes a partial file hash some of its bytes. */
static void checksums_step(nymbl_engine *engine)
{
    nymbl_transfer *transfer = engine->running.first;

    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next; /* it may be freed */

        nymbl__run_checksum(transfer);
        transfer = next;
    }
}

/* Do all work that is possible without waiting. */
static void engine_run_once(nymbl_engine *engine)
{
    double now = nymbl_engine_now(engine);
    nymbl_transfer *transfer;
    int running;

    nymbl__fd_reserve_stdio(); /* libcurl opens some descriptors by itself */
    nymbl__pump_commands(engine);
    nymbl__notify_serve(engine);
    waiting_admit(engine);
    nymbl__lines_step(engine);
    curl_multi_perform(engine->multi, &running);
    completed_process(engine);
    waiting_admit(engine);
    nymbl__jobs_step(engine);
    timers_fire(engine, now);
    watchdog_cancel(engine, now);
    checksums_step(engine);
    transfer = engine->running.first;
    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next; /* it may be freed */

        timeouts_enforce(transfer);
        transfer = next;
    }
    while ((transfer = nymbl__transfer_next(engine, transfer)) != NULL)
        nymbl__transfer_notify(transfer);
}

/* The time to wait: `seconds`, or less if a time limit or timer expires sooner.
 */
static double wait_time(nymbl_engine *engine, double seconds)
{
    double now = nymbl_engine_now(engine);
    nymbl_transfer *t = NULL;

    if (engine->admit || engine->jobs.first != NULL)
        return 0;
    for (t = engine->running.first; t != NULL; t = t->next) {
        double left = nymbl__timeouts_remaining(&t->exchange);

        if (nymbl__checksum_is_behind(&t->exchange))
            return 0;
        if (left < seconds)
            seconds = left;
    }
    nymbl__engine_lock(engine);
    while ((t = nymbl__transfer_next(engine, t)) != NULL) {
        if (t->port.wake_at > 0 && t->port.wake_at - now < seconds)
            seconds = t->port.wake_at - now;
        if (t->port.watchdog_at > 0 && t->port.watchdog_at - now < seconds)
            seconds = t->port.watchdog_at - now;
    }
    nymbl__engine_unlock(engine);
    seconds = nymbl__lines_wait_time(engine, seconds);
    return seconds > 0 ? seconds : 0;
}

/* Whether a wakeup has failed since the last poll. */
static bool wake_is_missing(nymbl_engine *engine)
{
    bool missing;

    nymbl__engine_lock(engine);
    missing = engine->wake_failed;
    engine->wake_failed = false;
    nymbl__engine_unlock(engine);
    return missing;
}

/* Wait without a poll, which fails if there is no memory for it, or if there
 * are more descriptors than the process may open now. Without this the pump
 * would use a whole processor. Which descriptors are ready is then unknown, so
 * all of them are tried. */
static void wait_without_poll(nymbl_engine *engine, int milliseconds)
{
    if (milliseconds > RETRY_DELAY)
        milliseconds = RETRY_DELAY;
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000L}, NULL);
    for (unsigned i = 0; i < engine->waitfd_count; i++)
        engine->waitfds[i].revents = CURL_WAIT_POLLIN;
}

static void engine_wait(nymbl_engine *engine, double timeout)
{
    double seconds = wait_time(engine, timeout);
    double before = nymbl_engine_now(engine);
    double passed;
    int milliseconds;
    bool accept_paused;

    if (seconds > 3600)
        seconds = 3600;
    milliseconds = (int)(seconds * 1000);
    if (milliseconds < seconds * 1000)
        milliseconds++; /* not ceil(), which would need libm */
    accept_paused = nymbl__notify_collect_fds(engine);
    nymbl__lines_collect_fds(engine);
    if ((accept_paused || engine->waitfds_incomplete) &&
        milliseconds > RETRY_DELAY)
        milliseconds = RETRY_DELAY;
    if (wake_is_missing(engine))
        milliseconds = 0;
    if (curl_multi_poll(engine->multi, engine->waitfds, engine->waitfd_count,
                        milliseconds, NULL) != CURLM_OK)
        wait_without_poll(engine, milliseconds);
    passed = nymbl_engine_now(engine) - before;
    for (nymbl_transfer *t = engine->running.first; t != NULL; t = t->next)
        nymbl__timeouts_add(&t->exchange, passed);
    nymbl__lines_polled(engine, passed);
}

void nymbl__pump_pass(nymbl_engine *engine, double timeout)
{
    engine->pumping = true;
    if (!engine->mutex->threaded) /* it may return without a poll */
        nymbl__lines_expect_bytes(engine);
    engine_run_once(engine);
    if (timeout > 0 && (engine->mutex->threaded || !engine->callers_notified)) {
        engine_wait(engine, timeout);
        engine_run_once(engine);
    }
    engine->pumping = false;
}

/* ---- for callers ---- */

bool nymbl__pump_wake(nymbl_engine *engine)
{
    bool failed = true;

    if (!engine->mutex->threaded || !nymbl_engine_in_this_process(engine))
        return true;
    nymbl__engine_lock(engine); /* the multi handle may be replaced */
    for (int i = 0; i < WAKE_ATTEMPTS && failed; i++)
        failed = curl_multi_wakeup(engine->multi) != CURLM_OK;
    engine->wake_failed = failed;
    nymbl__engine_unlock(engine);
    return !failed;
}

void nymbl__pump_take_cancellations(nymbl_engine *engine)
{
    bool cancels;

    if (engine->mutex->threaded || engine->pumping || engine->closed ||
        !nymbl_engine_in_this_process(engine))
        return;
    cancels = engine->closing != NULL;
    for (nymbl_transfer *t = engine->commands; t != NULL; t = t->next_command)
        cancels = cancels || (t->port.commands & NYMBL__COMMAND_CANCEL) != 0;
    if (cancels)
        nymbl__pump_commands(engine);
}

void nymbl__pump_command(nymbl_transfer *transfer, unsigned command)
{
    nymbl_engine *engine = transfer->engine;

    nymbl__engine_lock(engine);
    nymbl__commands_add(transfer, command);
    nymbl__engine_unlock(engine);
    nymbl__pump_wake(engine);
}

void nymbl__pump_close_client(nymbl_engine *engine, nymbl_client *client)
{
    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        return;
    nymbl__engine_lock(engine);
    nymbl__client_retain(client);
    client->next_closing = engine->closing;
    engine->closing = client;
    nymbl__engine_unlock(engine);
    nymbl__pump_wake(engine);
    nymbl__pump_take_cancellations(engine);
}
