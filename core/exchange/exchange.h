/* SPDX-License-Identifier: MIT */
/* One exchange: from a request that waits to bytes that were found good. */
#ifndef NYMBL_EXCHANGE_EXCHANGE_H
#define NYMBL_EXCHANGE_EXCHANGE_H

#include "api/calls.h"
#include "base/buffer.h"
#include "engine/lease.h"
#include "exchange/head.h"
#include "exchange/sniff.h"
#include "file/save.h"

#include <curl/curl.h>
#include <stdatomic.h>

#define NYMBL__REPLY_MAX NYMBL_REPLY_MAX
#define NYMBL__TOKEN_REPLY_MAX (64u << 10)
#define NYMBL__ERROR_REPLY_MAX (64u << 10)
#define NYMBL__RECEIVE_WINDOW (128u << 10)
#define NYMBL__REDIRECTS_MAX 5
#define NYMBL__FRESH_SECONDS 5L /* idle at most, for POST, DELETE */

/* Three kinds of fields: those that are set before the start and only read
 * after it; those of whoever pumps; and those that both sides use, which are
 * under the engine's lock or atomic. */
struct nymbl_transfer {
    atomic_int references; /* its owner, the engine, the queue */
    nymbl_engine *engine;
    nymbl_client *client;
    bool progress; /* bytes that move are news */
    bool has_size;
    int64_t size;                     /* of the document */
    char known_type[NYMBL__TYPE_MAX]; /* of the document, or "" */

    /* under the lock */
    unsigned commands;
    nymbl_transfer *next_command;
    nymbl_kind cancel_kind; /* why it is to be removed, or NYMBL_OK */
    const char *cancel_reason;
    nymbl__ring window;
    bool receive_paused; /* these two are written by the pump alone */
    bool send_paused;
    int64_t confirmed; /* received bytes that the owner knows of, or -1 */
    bool signaled;
    double alarm;     /* when the owner wants to be woken; 0: not */
    double watch;     /* when it must have been heard of again; 0: need not */
    bool missed;      /* it was not, and gets a last chance */
    int lease;        /* this end of it, or -1 */
    bool lease_loose; /* its other end was given back: no cancel */
    char lease_token[NYMBL__LEASE_TOKEN]; /* "" where none is awaited */
    bool head_told;                       /* `told` is good, and stays so */
    nymbl_head told;
    bool ended; /* `error`, `reply`, `body_sent` are good, and stay so */
    nymbl_error error;

    atomic_bool sent;     /* a request went out, or part of one */
    atomic_bool released; /* the first bytes were found good */
    _Atomic int64_t hop_received;
    _Atomic int64_t resumed_from; /* bytes of a part the reply goes on from */

    /* of whoever pumps: the engine's lists */
    nymbl_transfer *previous, *next;
    bool is_running;
    bool is_waiting;

    nymbl__request request;
    nymbl_body *body; /* under the lock too: set to NULL at the end */
    nymbl__save *save;

    /* the exchange on the wire */
    CURL *easy;
    curl_mime *mime;
    bool sent_this_hop; /* as `sent`, for this hop of a redirect */
    bool foreign;       /* the origin has changed: no credentials */
    bool fresh;         /* only a new connection will do */
    int hops;
    nymbl__reply_head head;
    char told_type[NYMBL__TYPE_MAX];
    nymbl__buffer reply;
    char sniff[NYMBL__SNIFF];
    size_t sniffed;
    int64_t body_sent; /* of a body that was let go */
    bool range_asked;  /* of a part's rest */
    bool parked;       /* found good, and waits to be confirmed */
    bool dirty;

    /* time limits: seconds polled */
    bool moved;
    int64_t moved_up;
    double connect_time, idle_time, reply_time;

    /* how it ends */
    nymbl_kind failing; /* why a callback ended it */
    const char *failing_reason;
    bool cut;         /* by a callback that has seen enough of the body */
    bool end_told;    /* TLS has told the end of a body without length */
    int proxy_status; /* with which a proxy refused it, or 0 */
    bool spoilt;      /* nothing sent: the connection had bytes on it already */
    bool over;        /* it is ending, or has ended */
    char errors[CURL_ERROR_SIZE];
};

nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err);
/* Drop a reference. */
void nymbl__transfer_release(nymbl_transfer *transfer);
/* Put it on the wire. Ends it on failure. */
void nymbl__transfer_begin(nymbl_transfer *transfer);
/* libcurl is through with it. May begin a redirect's next hop. */
void nymbl__transfer_complete(nymbl_transfer *transfer, CURLcode code);
/* End it now with a failure of ours, wherever it is. */
void nymbl__transfer_abort(nymbl_transfer *transfer, nymbl_kind kind,
                           const char *reason);
void nymbl__transfer_unpause(nymbl_transfer *transfer);
/* Its owner knows of more bytes: a parked one may end. */
void nymbl__transfer_confirmed(nymbl_transfer *transfer);
/* For callbacks: remember why, so that the exchange ends with it. */
void nymbl__transfer_failing(nymbl_transfer *transfer, nymbl_kind kind,
                             const char *reason);
/* Count what moves: the owner is told after this pass. */
void nymbl__transfer_moved(nymbl_transfer *transfer);
/* The head of the reply is good: let the owner see it. */
void nymbl__transfer_head_tell(nymbl_transfer *transfer);

#endif
