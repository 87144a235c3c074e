/* SPDX-License-Identifier: MIT */
/* One exchange: from a request to bytes that were found good, hop by hop, each
 * on an easy handle that it is given. It knows the port, a table of sockets and
 * the settings of its client, but no engine, no thread and no caller. */
#ifndef NYMBL_EXCHANGE_EXCHANGE_H
#define NYMBL_EXCHANGE_EXCHANGE_H

#include "exchange/head.h"
#include "exchange/request.h"
#include "exchange/settings.h"
#include "exchange/sniff.h"
#include "exchange/sockets.h"
#include "file/save.h"
#include "port/port.h"

#include <curl/curl.h>

#define NYMBL__REPLY_MAX NYMBL_RESPONSE_MAX
#define NYMBL__TOKEN_REPLY_MAX (64u << 10)
#define NYMBL__ERROR_REPLY_MAX (64u << 10)
#define NYMBL__REDIRECTS_MAX 5

/* Where a hop of an exchange is. */
typedef enum nymbl__phase {
    NYMBL__IDLE,         /* on no handle: before the first hop, between two, or
                            after the last */
    NYMBL__CONNECTING,   /* on a handle; nothing of the request was sent */
    NYMBL__EXCESS_DATA,  /* nothing was sent: there were bytes on the connection
                          */
    NYMBL__SENT,         /* the request was sent, or part of it */
    NYMBL__BODY_IGNORED, /* a callback has seen enough of the response */
} nymbl__phase;

typedef struct nymbl__exchange {
    /* set before the start */
    nymbl__port *port;
    nymbl__sockets *sockets;
    const nymbl__settings *settings;
    nymbl__request request; /* its URL changes with each redirect */
    bool progress;          /* bytes that move are news */
    bool range_requested;   /* of a part's rest */
    bool has_size;
    int64_t size;                        /* of the document */
    char expected_type[NYMBL__TYPE_MAX]; /* of the document, or "" */

    /* the hop at hand */
    nymbl__phase phase;
    CURL *easy; /* NULL only if it is idle */
    curl_mime *mime;
    nymbl__save *save;
    nymbl__response_head head;
    char sniff[NYMBL__SNIFF];
    size_t sniffed;
    bool close_notify_seen; /* TLS has told the end of a body without length */
    int proxy_status;       /* with which a proxy refused it, or 0 */
    bool cross_origin;      /* the origin has changed: no credentials */
    bool fresh;             /* only a new connection will do */
    int redirects;

    /* for the pump, which looks at them after each step and clears them */
    bool notify_pending; /* the caller is to be signaled */
    bool slot_is_free;   /* it paused, and another may connect */

    /* time limits: seconds waitfds */
    bool active;
    int64_t sent_at_last_check;
    double connect_time, idle_time, response_time;

    /* why a callback ended it */
    nymbl_kind failure;
    const char *failure_reason;
    char errors[CURL_ERROR_SIZE];
} nymbl__exchange;

/* How a hop ends. */
typedef struct nymbl__result {
    enum {
        NYMBL__SUCCEEDED,
        NYMBL__FAILED,  /* with `kind` and `reason` */
        NYMBL__RESTART, /* on a new handle: at `url`, or if NULL where it was */
    } how;
    nymbl_kind kind;
    const char *reason;
    char *url;  /* owned */
    bool fresh; /* on a new connection, too */
} nymbl__result;

void nymbl__exchange_init(nymbl__exchange *exchange, nymbl__port *port,
                          nymbl__sockets *sockets,
                          const nymbl__settings *settings);
/* Release what only an exchange that goes on needs. `keep`: what was saved of a
 * document stays where it can be continued. */
void nymbl__exchange_release(nymbl__exchange *exchange, bool keep);
void nymbl__exchange_free(nymbl__exchange *exchange);
/* For callbacks: remember why, so that the exchange ends with it. The first
 * reason counts. */
void nymbl__exchange_fail(nymbl__exchange *exchange, nymbl_kind kind,
                          const char *reason);
/* Count what moves: the caller is told after this pass. */
void nymbl__exchange_count_activity(nymbl__exchange *exchange);
/* Whether the request of this hop was sent, or part of it. */
bool nymbl__exchange_was_sent(const nymbl__exchange *exchange);

#endif
