/* SPDX-License-Identifier: MIT */
/* The engine: one curl multi handle, and the pump that moves its transfers. */
#include "engine/engine.h"

#include "api/client.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "engine/connections.h"
#include "engine/lease.h"
#include "engine/thread.h"
#include "exchange/exchange.h"
#include "exchange/limits.h"
#include "exchange/sockets.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Milliseconds until a guest is let in who found no descriptor left. */
#define ACCEPT_AGAIN 50

/* Stands still while the machine sleeps: time limits are about polling. */
static double clock_monotonic(void *payload)
{
    struct timespec now;

    (void)payload;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void nymbl__engine_retain(nymbl_engine *engine)
{
    atomic_fetch_add(&engine->references, 1);
}

void nymbl__engine_release(nymbl_engine *engine)
{
    if (atomic_fetch_sub(&engine->references, 1) > 1)
        return;
    nymbl__thread_destroy(engine);
    free(engine->polled);
    free(engine);
}

/* ---- lists ---- */

static void waiting_append(nymbl_engine *engine, nymbl_transfer *transfer)
{
    transfer->is_waiting = true;
    transfer->next = NULL;
    transfer->previous = engine->waiting_last;
    if (engine->waiting_last != NULL)
        engine->waiting_last->next = transfer;
    else
        engine->waiting = transfer;
    engine->waiting_last = transfer;
}

static void waiting_remove(nymbl_engine *engine, nymbl_transfer *transfer)
{
    transfer->is_waiting = false;
    if (transfer->previous != NULL)
        transfer->previous->next = transfer->next;
    else
        engine->waiting = transfer->next;
    if (transfer->next != NULL)
        transfer->next->previous = transfer->previous;
    else
        engine->waiting_last = transfer->previous;
}

static void running_add(nymbl_engine *engine, nymbl_transfer *transfer)
{
    transfer->is_running = true;
    transfer->previous = NULL;
    transfer->next = engine->running;
    if (engine->running != NULL)
        engine->running->previous = transfer;
    engine->running = transfer;
}

static void running_remove(nymbl_engine *engine, nymbl_transfer *transfer)
{
    transfer->is_running = false;
    if (transfer->previous != NULL)
        transfer->previous->next = transfer->next;
    else
        engine->running = transfer->next;
    if (transfer->next != NULL)
        transfer->next->previous = transfer->previous;
}

void nymbl__engine_forget(nymbl_engine *engine, nymbl_transfer *transfer)
{
    if (transfer->is_waiting)
        waiting_remove(engine, transfer);
    if (transfer->is_running)
        running_remove(engine, transfer);
    engine->admit = true;
}

/* ---- the pump ---- */

/* The next transfer that something is asked of, with the queue's reference, or,
 * once there is none, the next client that closes: what it has started before
 * it was closed is on the lists then. */
static nymbl_transfer *command_next(nymbl_engine *engine, unsigned *commands,
                                    nymbl_client **closing)
{
    nymbl_transfer *transfer;

    *closing = NULL;
    nymbl__engine_lock(engine);
    transfer = engine->commands;
    if (transfer != NULL) {
        engine->commands = transfer->next_command;
        if (engine->commands == NULL)
            engine->commands_last = NULL;
        transfer->next_command = NULL;
        *commands = transfer->commands;
        transfer->commands = 0;
    } else if (engine->closing != NULL) {
        *closing = engine->closing;
        engine->closing = engine->closing->next_closing;
    }
    nymbl__engine_unlock(engine);
    return transfer;
}

static void command_take(nymbl_engine *engine, nymbl_transfer *transfer,
                         unsigned commands)
{
    if (transfer->over)
        return;
    if (commands & NYMBL__REMOVE) {
        nymbl__transfer_abort(transfer, transfer->cancel_kind,
                              transfer->cancel_reason);
        return;
    }
    if (commands & NYMBL__ADD) {
        transfer->references++; /* the engine's, until it ends */
        waiting_append(engine, transfer);
        engine->admit = true;
    }
    if (commands & NYMBL__UNPAUSE)
        nymbl__transfer_unpause(transfer);
    if (commands & NYMBL__CONFIRM)
        nymbl__transfer_confirmed(transfer);
}

static void client_drop(nymbl_engine *engine, nymbl_client *client);

static void commands_take(nymbl_engine *engine)
{
    nymbl_transfer *transfer;
    nymbl_client *closing;
    unsigned commands = 0;

    for (;;) {
        transfer = command_next(engine, &commands, &closing);
        if (transfer != NULL) {
            command_take(engine, transfer, commands);
            nymbl__transfer_release(transfer);
        } else if (closing != NULL) {
            client_drop(engine, closing);
            nymbl__client_release(closing);
        } else {
            return;
        }
    }
}

/* A stream that nobody reads at the moment holds no place. */
static int places_taken(const nymbl_engine *engine, const nymbl_client *client)
{
    int taken = 0;

    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next) {
        if (t->client == client && !t->receive_paused)
            taken++;
    }
    return taken;
}

static void waiting_admit(nymbl_engine *engine)
{
    nymbl_transfer *transfer = engine->waiting;

    engine->admit = false;
    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next;

        if (places_taken(engine, transfer->client) <
            transfer->client->max_connections) {
            waiting_remove(engine, transfer);
            running_add(engine, transfer);
            nymbl__transfer_begin(transfer);
        }
        transfer = next;
    }
}

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

/* Tell those whose transfers moved: one signal for a pass, however much came.
 */
static void news_publish(nymbl_engine *engine, nymbl_transfer *transfer)
{
    bool first;

    if (!transfer->dirty)
        return;
    transfer->dirty = false;
    nymbl__engine_lock(engine);
    first = !transfer->signaled;
    transfer->signaled = true;
    engine->news = engine->news || first;
    if (first) {
        pthread_cond_signal(&engine->told);
        nymbl__lease_wake(transfer);
    }
    nymbl__engine_unlock(engine);
}

void nymbl__engine_news(nymbl_engine *engine, nymbl_transfer *transfer)
{
    transfer->dirty = true;
    news_publish(engine, transfer);
}

/* Wake the owners at the times they asked for. */
static void alarms_ring(nymbl_engine *engine, double now)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};

    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->alarm > 0 && t->alarm <= now) {
                t->alarm = 0;
                t->dirty = true;
            }
        }
    }
    nymbl__engine_unlock(engine);
}

/* Seconds that an owner gets who was not heard of in time: the whole process
 * may have been stopped, and he goes on only now. */
#define LAST_CHANCE 1.0

/* One whose owner is gone, or NULL. */
static nymbl_transfer *unwatched_find(nymbl_engine *engine, double now)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};
    nymbl_transfer *found = NULL;

    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->watch <= 0 || t->watch > now)
                continue;
            if (t->missed) {
                t->watch = 0;
                found = t;
                break;
            }
            t->missed = true;
            t->watch = now + LAST_CHANCE;
        }
    }
    nymbl__engine_unlock(engine);
    return found;
}

static void unwatched_cancel(nymbl_engine *engine, double now)
{
    nymbl_transfer *transfer;

    for (transfer = unwatched_find(engine, now); transfer != NULL;
         transfer = unwatched_find(engine, now))
        nymbl__transfer_abort(transfer, NYMBL_CANCELED, "lease");
}

/* Everything that can be done without waiting. */
static void engine_turn(nymbl_engine *engine)
{
    double now = nymbl_engine_now(engine);
    nymbl_transfer *transfer;
    int running;

    nymbl__fds_guard(); /* libcurl may look up a name, for one */
    commands_take(engine);
    nymbl__leases_serve(engine);
    if (engine->admit)
        waiting_admit(engine);
    curl_multi_perform(engine->multi, &running);
    finished_collect(engine);
    if (engine->admit)
        waiting_admit(engine);
    alarms_ring(engine, now);
    unwatched_cancel(engine, now);
    transfer = engine->running;
    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next;

        /* enforcing may end it, and with it its place in the list */
        transfer->references++;
        nymbl__transfer_enforce(transfer);
        news_publish(engine, transfer);
        nymbl__transfer_release(transfer);
        transfer = next;
    }
    for (transfer = engine->waiting; transfer != NULL;
         transfer = transfer->next)
        news_publish(engine, transfer);
}

/* The given seconds, or those until a time limit runs out or an alarm rings. */
static double wait_bound(nymbl_engine *engine, double seconds)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};
    double now = nymbl_engine_now(engine);

    if (engine->admit)
        return 0;
    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next) {
        double left = nymbl__transfer_left(t);

        if (left < seconds)
            seconds = left;
    }
    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->alarm > 0 && t->alarm - now < seconds)
                seconds = t->alarm - now;
            if (t->watch > 0 && t->watch - now < seconds)
                seconds = t->watch - now;
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
    if (nymbl__leases_poll(engine) && milliseconds > ACCEPT_AGAIN)
        milliseconds = ACCEPT_AGAIN;
    curl_multi_poll(engine->multi, engine->polled, engine->polled_count,
                    milliseconds, NULL);
    passed = nymbl_engine_now(engine) - before;
    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next)
        nymbl__transfer_charge(t, passed);
}

void nymbl__engine_pass(nymbl_engine *engine, double timeout)
{
    engine->pumping = true;
    engine_turn(engine);
    if (timeout > 0 && (engine->threaded || !engine->news)) {
        engine_wait(engine, timeout);
        engine_turn(engine);
    }
    engine->pumping = false;
}

nymbl_kind nymbl_engine_pump(nymbl_engine *engine, double timeout)
{
    if (!nymbl_engine_is_own(engine) || engine->closed)
        return NYMBL_MISUSE;
    if (engine->threaded) {
        nymbl__thread_wait(engine, timeout);
        return NYMBL_OK;
    }
    engine->news = false;
    nymbl__engine_pass(engine, timeout);
    return NYMBL_OK;
}

/* ---- commands ---- */

void nymbl__engine_queue(nymbl_engine *engine, nymbl_transfer *transfer,
                         unsigned command)
{
    if (transfer->commands == 0) {
        transfer->references++;
        if (engine->commands_last != NULL)
            engine->commands_last->next_command = transfer;
        else
            engine->commands = transfer;
        engine->commands_last = transfer;
    }
    transfer->commands |= command;
}

void nymbl__engine_wake(nymbl_engine *engine)
{
    bool removes = false;

    if (!nymbl_engine_is_own(engine))
        return;
    if (engine->threaded) {
        nymbl__engine_lock(engine); /* the multi handle may be replaced */
        curl_multi_wakeup(engine->multi);
        nymbl__engine_unlock(engine);
        return;
    }
    /* Nobody may pump again for long, and a canceled transfer holds a socket:
     * where the owner is also the one who pumps, it is taken out at once. */
    for (nymbl_transfer *t = engine->commands; t != NULL; t = t->next_command)
        removes = removes || (t->commands & NYMBL__REMOVE) != 0;
    if ((removes || engine->closing != NULL) && !engine->pumping &&
        !engine->closed)
        commands_take(engine);
}

void nymbl__engine_command(nymbl_engine *engine, nymbl_transfer *transfer,
                           unsigned command)
{
    nymbl__engine_lock(engine);
    nymbl__engine_queue(engine, transfer, command);
    nymbl__engine_unlock(engine);
    nymbl__engine_wake(engine);
}

/* ---- lifetime ---- */

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

/* This process, as of the last fork. getpid() is a system call, and the lock
 * asks each time. */
static _Atomic pid_t process;

static void process_set(void)
{
    process = getpid();
}

pid_t nymbl__process(void)
{
    return process;
}

/* Never undone: libcurl's resolver threads may outlive us. */
static void global_start(void)
{
    process_set();
    pthread_atfork(NULL, NULL, process_set);
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

nymbl_kind nymbl_engine_new(nymbl_engine **out,
                            const nymbl_engine_options *options,
                            nymbl_error *err)
{
    nymbl_engine *engine;
    nymbl_kind kind;

    *out = NULL;
    pthread_once(&global_once, global_start);
    engine = calloc(1, sizeof(*engine));
    if (engine == NULL)
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    engine->references = 1;
    engine->pid = nymbl__process();
    engine->listener = engine->folder_fd = -1;
    for (int i = 0; i < NYMBL__GUESTS; i++)
        engine->guests[i].fd = -1;
    engine->clock = clock_monotonic;
    if (options != NULL && options->clock != NULL) {
        engine->clock = options->clock;
        engine->payload = options->payload;
    }
    if (nymbl__thread_init(engine) < 0) {
        free(engine);
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    }
    kind = nymbl__connections_open(engine);
    if (kind < 0) {
        nymbl__engine_release(engine);
        return nymbl__fail(err, kind,
                           kind == NYMBL_IO ? "too_many_files" : NULL);
    }
    *out = engine;
    return NYMBL_OK;
}

/* End the transfers of one client, or of all where it is NULL. */
static void transfers_cancel(nymbl_engine *engine, const nymbl_client *client)
{
    nymbl_transfer *lists[2] = {engine->waiting, engine->running};

    for (int i = 0; i < 2; i++) {
        nymbl_transfer *transfer = lists[i];

        while (transfer != NULL) {
            nymbl_transfer *next = transfer->next;

            if (client == NULL || transfer->client == client)
                nymbl__transfer_abort(transfer, NYMBL_CANCELED, "closed");
            transfer = next;
        }
    }
}

static void client_drop(nymbl_engine *engine, nymbl_client *client)
{
    bool last;

    transfers_cancel(engine, client);
    nymbl__engine_lock(engine);
    last = engine->clients == NULL;
    nymbl__engine_unlock(engine);
    /* what still runs is of a client that has gone on to another engine */
    if (!last || engine->running != NULL || engine->waiting != NULL ||
        nymbl__connections_open(engine) < 0)
        nymbl__sockets_drop(engine);
}

void nymbl__engine_drop(nymbl_engine *engine, nymbl_client *client)
{
    if (!nymbl_engine_is_own(engine) || engine->closed)
        return;
    nymbl__engine_lock(engine);
    nymbl__client_retain(client);
    client->next_closing = engine->closing;
    engine->closing = client;
    nymbl__engine_unlock(engine);
    nymbl__engine_wake(engine);
}

void nymbl_engine_free(nymbl_engine *engine)
{
    if (engine == NULL)
        return;
    if (nymbl_engine_is_own(engine)) {
        nymbl__thread_stop(engine);
        if (!engine->closed) {
            commands_take(engine);
            transfers_cancel(engine, NULL);
            nymbl__connections_close(engine);
            engine->closed = true;
        }
        nymbl__leases_close(engine);
    }
    nymbl__engine_release(engine);
}

bool nymbl_engine_is_own(const nymbl_engine *engine)
{
    return engine != NULL && engine->pid == nymbl__process();
}

bool nymbl_engine_is_idle(const nymbl_engine *engine)
{
    return !engine->threaded && engine->running == NULL &&
           engine->waiting == NULL && engine->commands == NULL;
}

double nymbl_engine_now(const nymbl_engine *engine)
{
    if (engine == NULL)
        return clock_monotonic(NULL);
    return engine->clock(engine->payload);
}
