/* SPDX-License-Identifier: MIT */
/* The pump: takes commands, admits transfers, drives libcurl, collects what has
 * ended, and tells callers. */
#include "engine/pump.h"

#include "base/error.h"
#include "base/fd.h"
#include "engine/commands.h"
#include "engine/connections.h"
#include "engine/notify.h"
#include "engine/run.h"
#include "exchange/timeouts.h"

/* Milliseconds until a peer is let in who found no descriptor left. */
#define ACCEPT_AGAIN 50

/* ---- commands ---- */

/* End the transfers of one client, or of all where it is NULL. */
void nymbl__pump_cancel(nymbl_engine *engine, const nymbl_client *client)
{
    nymbl_transfer *lists[2] = {engine->waiting, engine->running};

    for (int i = 0; i < 2; i++) {
        nymbl_transfer *transfer = lists[i];

        while (transfer != NULL) {
            nymbl_transfer *next = transfer->next;

            if (client == NULL || transfer->client == client)
                nymbl__transfer_abort(transfer, NYMBL_CANCELED,
                                      nymbl__reason_closed);
            transfer = next;
        }
    }
}

static void client_close_transfers(nymbl_engine *engine, nymbl_client *client)
{
    bool last;

    nymbl__pump_cancel(engine, client);
    nymbl__engine_lock(engine);
    last = engine->clients == NULL;
    nymbl__engine_unlock(engine);
    /* what still runs is of a client that has gone on to another engine */
    if (!last || engine->running != NULL || engine->waiting != NULL ||
        nymbl__connections_open(engine) < 0)
        nymbl__connections_close_unused(engine);
}

static void command_take(nymbl_engine *engine, nymbl_transfer *transfer,
                         unsigned commands)
{
    if (transfer->stage == NYMBL__ENDED)
        return;
    if (commands & NYMBL__REMOVE) {
        nymbl__transfer_abort(transfer, transfer->port.cancel_kind,
                              transfer->port.cancel_reason);
        return;
    }
    if (commands & NYMBL__ADD) {
        transfer->references++; /* the engine's, until it ends */
        nymbl__transfer_wait(transfer);
        engine->admit = true;
    }
    if (commands & NYMBL__UNPAUSE)
        nymbl__transfer_unpause(transfer);
    if (commands & NYMBL__CONFIRM)
        nymbl__transfer_confirmed(transfer);
}

void nymbl__pump_commands(nymbl_engine *engine)
{
    nymbl_transfer *transfer;
    nymbl_client *closing;
    unsigned commands = 0;

    for (;;) {
        transfer = nymbl__command_next(engine, &commands, &closing);
        if (transfer != NULL) {
            command_take(engine, transfer, commands);
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

/* A stream that nobody reads at the moment holds no place. */
static int slots_taken(const nymbl_engine *engine, const nymbl_client *client)
{
    int taken = 0;

    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next) {
        if (t->client == client && !t->port.receive_paused)
            taken++;
    }
    return taken;
}

/* Let in those for whom there is a place. */
static void waiting_admit(nymbl_engine *engine)
{
    nymbl_transfer *transfer = engine->waiting;

    for (nymbl_transfer *t = transfer == NULL ? NULL : engine->running;
         t != NULL; t = t->next) {
        engine->admit = engine->admit || t->exchange.slot_is_free;
        t->exchange.slot_is_free = false;
    }
    if (!engine->admit)
        return;
    engine->admit = false;
    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next;

        if (slots_taken(engine, transfer->client) <
            transfer->client->max_connections) {
            nymbl__transfer_run(transfer);
            nymbl__transfer_begin(transfer);
        }
        transfer = next;
    }
}

/* ---- a pass ---- */

static void finished_collect(nymbl_engine *engine)
{
    int left;

    for (;;) {
        CURLMsg *message = curl_multi_info_read(engine->multi, &left);
        nymbl_transfer *transfer = NULL;

        if (message == NULL)
            return;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        nymbl__transfer_complete(transfer, message->data.result);
    }
}

/* Wake the owners at the times they asked for. */
static void timers_fire(nymbl_engine *engine, double now)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};

    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->port.wake_at > 0 && t->port.wake_at <= now) {
                t->port.wake_at = 0;
                t->exchange.notify_pending = true;
            }
        }
    }
    nymbl__engine_unlock(engine);
}

/* Seconds that an owner gets who was not heard of in time: the whole process
 * may have been stopped, and he goes on only now. */
#define LAST_CHANCE 1.0

/* One whose owner is gone, or NULL. */
static nymbl_transfer *watchdog_expired(nymbl_engine *engine, double now)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};
    nymbl_transfer *found = NULL;

    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->port.watchdog_at <= 0 || t->port.watchdog_at > now)
                continue;
            if (t->port.watchdog_missed) {
                t->port.watchdog_at = 0;
                found = t;
                break;
            }
            t->port.watchdog_missed = true;
            t->port.watchdog_at = now + LAST_CHANCE;
        }
    }
    nymbl__engine_unlock(engine);
    return found;
}

static void watchdog_cancel(nymbl_engine *engine, double now)
{
    nymbl_transfer *transfer;

    for (transfer = watchdog_expired(engine, now); transfer != NULL;
         transfer = watchdog_expired(engine, now))
        nymbl__transfer_abort(transfer, NYMBL_CANCELED,
                              nymbl__reason_disconnected);
}

static void timeouts_enforce(nymbl_transfer *transfer)
{
    const char *exceeded;

    if (transfer->stage == NYMBL__ENDED)
        return;
    exceeded = nymbl__timeouts_exceeded(&transfer->exchange);
    if (exceeded != NULL)
        nymbl__transfer_abort(transfer, NYMBL_TIMEOUT, exceeded);
}

/* Everything that can be done without waiting. */
static void engine_run_once(nymbl_engine *engine)
{
    double now = nymbl_engine_now(engine);
    nymbl_transfer *transfer;
    int running;

    nymbl__fd_reserve_stdio(); /* libcurl may look up a name, for one */
    nymbl__pump_commands(engine);
    nymbl__notify_serve(engine);
    waiting_admit(engine);
    curl_multi_perform(engine->multi, &running);
    finished_collect(engine);
    waiting_admit(engine);
    timers_fire(engine, now);
    watchdog_cancel(engine, now);
    transfer = engine->running;
    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next;

        /* enforcing may end it, and with it its place in the list */
        transfer->references++;
        timeouts_enforce(transfer);
        nymbl__transfer_notify(transfer);
        nymbl__transfer_release(transfer);
        transfer = next;
    }
    for (transfer = engine->waiting; transfer != NULL;
         transfer = transfer->next)
        nymbl__transfer_notify(transfer);
}

/* The given seconds, or those until a time limit runs out or an alarm rings. */
static double wait_bound(nymbl_engine *engine, double seconds)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};
    double now = nymbl_engine_now(engine);

    if (engine->admit)
        return 0;
    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next) {
        double left = nymbl__timeouts_remaining(&t->exchange);

        if (left < seconds)
            seconds = left;
    }
    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->port.wake_at > 0 && t->port.wake_at - now < seconds)
                seconds = t->port.wake_at - now;
            if (t->port.watchdog_at > 0 && t->port.watchdog_at - now < seconds)
                seconds = t->port.watchdog_at - now;
        }
    }
    nymbl__engine_unlock(engine);
    return seconds > 0 ? seconds : 0;
}

static void engine_wait(nymbl_engine *engine, double timeout)
{
    double seconds = wait_bound(engine, timeout);
    double before = nymbl_engine_now(engine);
    double passed;
    int milliseconds;

    if (seconds > 3600)
        seconds = 3600;
    milliseconds = (int)(seconds * 1000);
    if (milliseconds < seconds * 1000)
        milliseconds++; /* not ceil(): it would ask for libm */
    if (nymbl__notify_collect_fds(engine) && milliseconds > ACCEPT_AGAIN)
        milliseconds = ACCEPT_AGAIN;
    curl_multi_poll(engine->multi, engine->waitfds, engine->waitfd_count,
                    milliseconds, NULL);
    passed = nymbl_engine_now(engine) - before;
    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next)
        nymbl__timeouts_charge(&t->exchange, passed);
}

void nymbl__pump_pass(nymbl_engine *engine, double timeout)
{
    engine->pumping = true;
    engine_run_once(engine);
    if (timeout > 0 && (engine->mutex->threaded || !engine->callers_notified)) {
        engine_wait(engine, timeout);
        engine_run_once(engine);
    }
    engine->pumping = false;
}

/* ---- for callers ---- */

void nymbl__engine_wake(nymbl_engine *engine)
{
    bool removes = false;

    if (!nymbl_engine_in_this_process(engine))
        return;
    if (engine->mutex->threaded) {
        nymbl__engine_lock(engine); /* the multi handle may be replaced */
        curl_multi_wakeup(engine->multi);
        nymbl__engine_unlock(engine);
        return;
    }
    /* Nobody may pump again for long, and a canceled transfer holds a socket:
     * where the owner is also the one who pumps, it is taken out at once. */
    for (nymbl_transfer *t = engine->commands; t != NULL; t = t->next_command)
        removes = removes || (t->port.commands & NYMBL__REMOVE) != 0;
    if ((removes || engine->closing != NULL) && !engine->pumping &&
        !engine->closed)
        nymbl__pump_commands(engine);
}

void nymbl__transfer_command(nymbl_transfer *transfer, unsigned command)
{
    nymbl_engine *engine = transfer->engine;

    nymbl__engine_lock(engine);
    nymbl__command_queue(transfer, command);
    nymbl__engine_unlock(engine);
    nymbl__engine_wake(engine);
}

void nymbl__engine_close_client(nymbl_engine *engine, nymbl_client *client)
{
    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        return;
    nymbl__engine_lock(engine);
    nymbl__client_retain(client);
    client->next_closing = engine->closing;
    engine->closing = client;
    nymbl__engine_unlock(engine);
    nymbl__engine_wake(engine);
}
