/* SPDX-License-Identifier: MIT */
/* The engine: what it consists of. It has one curl multi handle, and whoever
 * pumps it moves its transfers. */
#ifndef NYMBL_ENGINE_ENGINE_H
#define NYMBL_ENGINE_ENGINE_H

#include "base/mutex.h"
#include "engine/private_dir.h"
#include "exchange/sockets.h"
#include "nymbl.h"
#include "port/port.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#define NYMBL__IDLE_HANDLES 16
#define NYMBL__PENDING_MAX 64 /* that connect and have said nothing yet */

/* One who has connected to the listener and has not said all of his token. */
typedef struct nymbl__pending_peer {
    int fd; /* -1: a free place */
    size_t got;
    char token[NYMBL__NOTIFY_TOKEN];
} nymbl__pending_peer;

struct nymbl_engine {
    atomic_int references; /* its owner, its transfers and clients */
    double (*clock)(void *payload);
    void *payload;
    nymbl__mutex *mutex; /* the one lock of this engine and its transfers */

    /* of whoever pumps */
    CURLM *multi; /* replaced under the lock */
    CURLSH *share;
    CURL *idle[NYMBL__IDLE_HANDLES];
    int idle_count;
    bool handles_serve_once; /* no easy handle is kept (quirks.c) */
    nymbl__sockets sockets;
    bool pumping;
    bool admit; /* a place on the wire may have become free */
    nymbl_transfer *waiting, *waiting_last; /* for a place on the wire */
    nymbl_transfer *running;
    nymbl__pending_peer pending[NYMBL__PENDING_MAX];
    unsigned pending_next; /* the next place is the one longest taken */
    bool accept_paused;    /* a peer waits whom no descriptor was left for */
    struct curl_waitfd *waitfds; /* leases, beside libcurl's sockets */
    unsigned waitfd_count, waitfd_capacity;

    /* under the lock */
    bool callers_notified; /* somebody was signaled */
    pthread_cond_t cond;   /* of `callers_notified` */
    nymbl_client *clients; /* open ones that have started a transfer */
    nymbl_client *closing; /* their transfers are to be canceled */
    nymbl_transfer *commands, *commands_last;
    int listener; /* of leases, or -1 */
    bool stopping;

    /* the owner's; `closed` changes only while there is no thread */
    bool closed;
    pthread_t thread;
    char dir[32]; /* of the listener */
    int dir_fd;   /* its lock, or -1 */
    nymbl__file_id dir_id, socket_id;
};

/* An engine without a multi handle. */
nymbl_kind nymbl__engine_create(nymbl_engine **out);
void nymbl__engine_retain(nymbl_engine *engine);
void nymbl__engine_release(nymbl_engine *engine);
void nymbl__engine_lock(const nymbl_engine *engine);
void nymbl__engine_unlock(const nymbl_engine *engine);
/* Whether it has a thread of its own. */
bool nymbl__engine_is_threaded(const nymbl_engine *engine);

#endif
