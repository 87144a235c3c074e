/* SPDX-License-Identifier: MIT */
/* The engine: one curl multi handle, and the pump that moves its transfers. */
#include "internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Stands still while the machine sleeps: time limits are about polling. */
static double clock_monotonic(void *payload)
{
    struct timespec now;

    (void)payload;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void nymbl__engine_lock(nymbl_engine *engine)
{
    (void)engine;
}

void nymbl__engine_unlock(nymbl_engine *engine)
{
    (void)engine;
}

void nymbl__engine_retain(nymbl_engine *engine)
{
    engine->references++;
}

void nymbl__engine_release(nymbl_engine *engine)
{
    if (--engine->references == 0)
        free(engine);
}

/* ---- connections ---- */

static nymbl_kind connections_open(nymbl_engine *engine)
{
    engine->multi = curl_multi_init();
    engine->share = curl_share_init();
    if (engine->multi == NULL || engine->share == NULL)
        return NYMBL_NO_MEMORY;
    /* HTTP/1.1 only: a paused HTTP/2 stream holds up its neighbours */
    curl_multi_setopt(engine->multi, CURLMOPT_PIPELINING,
                      (long)CURLPIPE_NOTHING);
    curl_share_setopt(engine->share, CURLSHOPT_SHARE,
                      CURL_LOCK_DATA_SSL_SESSION);
    return NYMBL_OK;
}

static void connections_close(nymbl_engine *engine)
{
    while (engine->idle_count > 0)
        curl_easy_cleanup(engine->idle[--engine->idle_count]);
    curl_multi_cleanup(engine->multi);
    curl_share_cleanup(engine->share);
    engine->multi = NULL;
    engine->share = NULL;
}

CURL *nymbl__engine_handle(nymbl_engine *engine)
{
    CURL *easy = engine->idle_count > 0 ? engine->idle[--engine->idle_count]
                                        : curl_easy_init();

    if (easy != NULL)
        curl_easy_setopt(easy, CURLOPT_SHARE, engine->share);
    return easy;
}

void nymbl__engine_handle_return(nymbl_engine *engine, CURL *easy)
{
    if (engine->multi == NULL || engine->idle_count == NYMBL__IDLE_HANDLES) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    engine->idle[engine->idle_count++] = easy;
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

static void commands_take(nymbl_engine *engine)
{
    nymbl_transfer *transfer;

    nymbl__engine_lock(engine);
    transfer = engine->commands;
    engine->commands = engine->commands_last = NULL;
    nymbl__engine_unlock(engine);
    while (transfer != NULL) {
        nymbl_transfer *next = transfer->next_command;
        unsigned commands = transfer->commands;

        transfer->next_command = NULL;
        transfer->commands = 0;
        if (commands & NYMBL__REMOVE) {
            nymbl__transfer_abort(transfer, NYMBL_CANCELED, NULL);
        } else if (!transfer->ended) {
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
        nymbl__transfer_release(transfer); /* the queue's reference */
        transfer = next;
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
    if (!transfer->dirty)
        return;
    nymbl__engine_lock(engine);
    transfer->dirty = false;
    if (!transfer->signaled) {
        transfer->signaled = true;
        engine->news = true;
    }
    nymbl__engine_unlock(engine);
}

/* A pass: everything that can be done without waiting. */
static void engine_turn(nymbl_engine *engine)
{
    nymbl_transfer *transfer;
    int running;

    commands_take(engine);
    if (engine->admit)
        waiting_admit(engine);
    curl_multi_perform(engine->multi, &running);
    finished_collect(engine);
    if (engine->admit)
        waiting_admit(engine);
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
}

void nymbl__engine_news(nymbl_engine *engine, nymbl_transfer *transfer)
{
    transfer->dirty = true;
    news_publish(engine, transfer);
}

/* Seconds until a time limit may run out, or the given ones. */
static double wait_bound(const nymbl_engine *engine, double seconds)
{
    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next) {
        double left = nymbl__transfer_left(t);

        if (left < seconds)
            seconds = left;
    }
    return seconds > 0 ? seconds : 0;
}

static void engine_wait(nymbl_engine *engine, double timeout)
{
    double seconds = wait_bound(engine, timeout);
    double before = engine->clock(engine->payload);
    double passed;
    int milliseconds;

    if (seconds > 3600)
        seconds = 3600;
    milliseconds = (int)(seconds * 1000);
    if (milliseconds < seconds * 1000)
        milliseconds++; /* not ceil(): it would ask for libm */
    curl_multi_poll(engine->multi, NULL, 0, milliseconds, NULL);
    passed = engine->clock(engine->payload) - before;
    for (nymbl_transfer *t = engine->running; t != NULL; t = t->next)
        nymbl__transfer_charge(t, passed);
}

nymbl_kind nymbl_engine_pump(nymbl_engine *engine, double timeout)
{
    if (!nymbl_engine_is_own(engine) || engine->multi == NULL)
        return NYMBL_MISUSE;
    engine->pumping = true;
    engine->news = false;
    engine_turn(engine);
    if (timeout > 0 && !engine->news) {
        engine_wait(engine, timeout);
        engine_turn(engine);
    }
    engine->pumping = false;
    return NYMBL_OK;
}

void nymbl__engine_command(nymbl_engine *engine, nymbl_transfer *transfer,
                           unsigned command)
{
    nymbl__engine_lock(engine);
    if (transfer->commands == 0) {
        transfer->references++;
        if (engine->commands_last != NULL)
            engine->commands_last->next_command = transfer;
        else
            engine->commands = transfer;
        engine->commands_last = transfer;
    }
    transfer->commands |= command;
    nymbl__engine_unlock(engine);
    /* Nobody may pump again for long, and a canceled transfer holds a socket:
     * where the owner is also the one who pumps, it is taken out at once. */
    if ((command & NYMBL__REMOVE) && !engine->pumping && engine->multi != NULL)
        commands_take(engine);
}

/* ---- lifetime ---- */

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

/* Never undone: libcurl's resolver threads may outlive us. */
static void global_start(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

nymbl_kind nymbl_engine_new(nymbl_engine **out,
                            const nymbl_engine_options *options,
                            nymbl_error *err)
{
    nymbl_engine *engine;

    *out = NULL;
    pthread_once(&global_once, global_start);
    engine = calloc(1, sizeof(*engine));
    if (engine == NULL)
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    engine->references = 1;
    engine->pid = getpid();
    engine->clock = clock_monotonic;
    if (options != NULL && options->clock != NULL) {
        engine->clock = options->clock;
        engine->payload = options->payload;
    }
    if (connections_open(engine) < 0) {
        connections_close(engine);
        free(engine);
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    }
    *out = engine;
    return NYMBL_OK;
}

/* End the transfers of one client, or of all where it is NULL. */
static void transfers_cancel(nymbl_engine *engine, const nymbl_client *client)
{
    nymbl_transfer *lists[2];

    commands_take(engine);
    lists[0] = engine->waiting;
    lists[1] = engine->running;
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

void nymbl__engine_drop(nymbl_engine *engine, const nymbl_client *client)
{
    if (!nymbl_engine_is_own(engine) || engine->multi == NULL)
        return;
    transfers_cancel(engine, client);
    /* what still runs is of a client that has gone on to another engine */
    if (engine->clients == client && client->next == NULL &&
        engine->running == NULL && engine->waiting == NULL) {
        connections_close(engine);
        connections_open(engine);
    } else {
        nymbl__sockets_drop(engine, client);
    }
}

void nymbl_engine_free(nymbl_engine *engine)
{
    if (engine == NULL)
        return;
    if (nymbl_engine_is_own(engine) && engine->multi != NULL) {
        transfers_cancel(engine, NULL);
        connections_close(engine);
    }
    nymbl__engine_release(engine);
}

bool nymbl_engine_is_own(const nymbl_engine *engine)
{
    return engine != NULL && engine->pid == getpid();
}

double nymbl_engine_now(const nymbl_engine *engine)
{
    return engine->clock(engine->payload);
}
