/* SPDX-License-Identifier: MIT */
/* The engine: one curl multi handle, and the pump that moves its transfers. */
#ifndef NYMBL_ENGINE_ENGINE_H
#define NYMBL_ENGINE_ENGINE_H

#include "engine/connections.h"
#include "engine/lease.h"
#include "exchange/sockets.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the owner of a transfer asks of the engine. */
enum {
    NYMBL__ADD = 1,
    NYMBL__REMOVE = 2,
    NYMBL__UNPAUSE = 4,
    NYMBL__CONFIRM = 8,
};

struct nymbl_engine {
    atomic_int references; /* its owner, its transfers, bodies and clients */
    pid_t pid;
    double (*clock)(void *payload);
    void *payload;

    /* of whoever pumps */
    CURLM *multi; /* replaced under the lock */
    CURLSH *share;
    CURL *idle[NYMBL__IDLE_HANDLES];
    int idle_count;
    bool handles_serve_once; /* no easy handle is kept (quirks.c) */
    nymbl__socket sockets[NYMBL__SOCKETS];
    unsigned sockets_made;
    bool pumping;
    bool admit; /* a place on the wire may have become free */
    nymbl_transfer *waiting, *waiting_last; /* for a place on the wire */
    nymbl_transfer *running;
    nymbl__guest guests[NYMBL__GUESTS];
    unsigned guests_seated; /* the next place is the one longest taken */
    bool deaf;              /* a guest waits whom no descriptor was left for */
    struct curl_waitfd *polled; /* leases, beside libcurl's sockets */
    unsigned polled_count, polled_capacity;

    /* under the lock */
    bool news;             /* somebody was signaled */
    nymbl_client *clients; /* open ones that have started a transfer */
    nymbl_client *closing; /* their transfers are to be canceled */
    nymbl_transfer *commands, *commands_last;
    int listener; /* of leases, or -1 */
    bool stopping;

    /* thread.c */
    bool closed;   /* these two are the owner's, and ... */
    bool threaded; /* ... change while there is no thread */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t told;
    char folder[32]; /* of the listener; the owner's */
    int folder_fd;   /* its lock, or -1 */
    nymbl__mark folder_mark, socket_mark;
};

/* The id of this process, once there is an engine. */
pid_t nymbl__process(void);
void nymbl__engine_retain(nymbl_engine *engine);
void nymbl__engine_release(nymbl_engine *engine);
/* All that can be done without waiting, then one wait, then that again. */
void nymbl__engine_pass(nymbl_engine *engine, double timeout);
/* Queue a command and see that it is taken. */
void nymbl__engine_command(nymbl_engine *engine, nymbl_transfer *transfer,
                           unsigned command);
/* Queue one under the lock; nymbl__engine_wake() must follow after it. */
void nymbl__engine_queue(nymbl_engine *engine, nymbl_transfer *transfer,
                         unsigned command);
/* See that queued commands are taken. */
void nymbl__engine_wake(nymbl_engine *engine);
/* A transfer has ended: out of the lists. */
void nymbl__engine_forget(nymbl_engine *engine, nymbl_transfer *transfer);
/* Signal the owner of a transfer. */
void nymbl__engine_news(nymbl_engine *engine, nymbl_transfer *transfer);
/* Cancel the transfers of a client that closes, and its connections. */
void nymbl__engine_drop(nymbl_engine *engine, nymbl_client *client);

#endif
