/* SPDX-License-Identifier: MIT */
/* The engine: one curl multi handle, and the transfers that the pump moves with
 * it. The pump is the code of pump.h. It runs in the engine's I/O thread or,
 * without one, in the caller of nymbl_engine_pump(). */
#ifndef NYMBL_ENGINE_ENGINE_H
#define NYMBL_ENGINE_ENGINE_H

#include "base/mutex.h"
#include "engine/private_dir.h"
#include "exchange/sockets.h"
#include "file/file_id.h"
#include "nymbl.h"
#include "port/port.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#define NYMBL__IDLE_HANDLES 16 /* easy handles that are kept for reuse */
#define NYMBL__PENDING_MAX 64  /* pending peers */

/* A peer that has connected to the listener and has not sent its whole token.
 */
typedef struct nymbl__pending_peer {
    int fd;     /* -1 if the slot is free */
    size_t got; /* bytes of the token that have arrived */
    char token[NYMBL__NOTIFY_TOKEN];
} nymbl__pending_peer;

typedef struct nymbl__transfer_list {
    nymbl_transfer *first, *last;
} nymbl__transfer_list;

struct nymbl_engine {
    atomic_int references; /* of the caller, the transfers and the clients */
    double (*clock)(void *payload);
    void *payload;
    nymbl__mutex *mutex; /* the one lock of this engine and its transfers */

    /* used only by the pump */
    CURLM *multi; /* replaced under the lock */
    CURLSH *share;
    CURL *idle[NYMBL__IDLE_HANDLES];
    int idle_count;
    bool handles_serve_once; /* no easy handle is reused (quirks.c) */
    nymbl__sockets sockets;
    bool pumping;                  /* the pump is running now */
    bool admit;                    /* a connection slot may have become free */
    nymbl__transfer_list running;  /* on libcurl, or awaiting a confirmation */
    nymbl__transfer_list waiting;  /* for a connection slot */
    nymbl__transfer_list jobs;     /* the first one has the next step */
    nymbl__transfer_list requests; /* on lines */
    nymbl__pending_peer pending[NYMBL__PENDING_MAX];
    unsigned pending_next;       /* the slot that was filled the longest ago */
    bool accept_paused;          /* accept() has failed for lack of resources */
    struct curl_waitfd *waitfds; /* polled in addition to libcurl's sockets */
    unsigned waitfd_count, waitfd_capacity;
    bool waitfds_incomplete; /* memory ran out */

    /* under the lock */
    bool callers_notified; /* a caller was notified since the last wait */
    pthread_cond_t cond;   /* signaled when `callers_notified` is set */
    nymbl_client *clients; /* open clients that have started a transfer here */
    nymbl_client *closing; /* clients whose transfers must be canceled */
    /* lines that have not ended; changed under the lock, removed by the pump */
    nymbl_line *_Atomic lines;
    nymbl_transfer *commands, *commands_last; /* transfers with commands */
    int listener;     /* accepts peers of notify sockets, or -1 */
    bool stopping;    /* the I/O thread must end */
    bool wake_failed; /* it may be polling and not know of a change */

    /* used only by the caller; `closed` changes only while there is no thread
     */
    bool closed;
    pthread_t thread;
    char dir[32]; /* the listener's directory */
    int dir_fd;   /* the directory's lock, or -1 */
    nymbl__file_id dir_id, socket_id;
};

/* Create an engine without a multi handle. */
nymbl_kind nymbl__engine_create(nymbl_engine **out);
void nymbl__engine_retain(nymbl_engine *engine);
void nymbl__engine_release(nymbl_engine *engine);
void nymbl__engine_lock(const nymbl_engine *engine);
void nymbl__engine_unlock(const nymbl_engine *engine);
/* Whether the engine has an I/O thread. */
bool nymbl__engine_is_threaded(const nymbl_engine *engine);

#endif
