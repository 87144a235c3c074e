/* SPDX-License-Identifier: MIT */
/* One exchange: a request, any redirects it leads to, and the validated
 * response. Each request of it runs on an easy handle that the engine provides.
 * It knows the port, a table of sockets and the settings of its client, but no
 * engine, no thread and no caller. */
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

#define NYMBL__TOKEN_RESPONSE_MAX (64u << 10)
#define NYMBL__ERROR_RESPONSE_MAX (64u << 10)
#define NYMBL__REDIRECTS_MAX 5

/* Progress of the current request. One exchange sends several if it is
 * redirected. */
typedef enum nymbl__phase {
    NYMBL__IDLE,         /* no request is running: there is no handle */
    NYMBL__CONNECTING,   /* nothing of the request was sent */
    NYMBL__EXCESS_DATA,  /* nothing was sent: the connection has unread bytes */
    NYMBL__SENT,         /* all or part of the request was sent */
    NYMBL__BODY_IGNORED, /* the rest of the response body is not needed */
} nymbl__phase;

typedef struct nymbl__exchange {
    /* set before the start */
    nymbl__port *port;
    nymbl__sockets *sockets;
    const nymbl__settings *settings;
    nymbl__request request; /* its URL changes with each redirect */
    bool progress;        /* notify the caller of every byte sent or received */
    bool range_requested; /* a Range was sent, to resume a partial file */
    bool has_size;
    int64_t size;                        /* of the document */
    char expected_type[NYMBL__TYPE_MAX]; /* of the document, or "" */

    /* the current request */
    nymbl__phase phase;
    CURL *easy; /* NULL only in NYMBL__IDLE */
    curl_mime *mime;
    nymbl__save *save;
    nymbl__response_head head;
    char sniff[NYMBL__SNIFF_MAX];
    size_t sniffed;
    bool close_notify_seen; /* ends a body that has no length */
    int proxy_status;  /* status with which a proxy refused the request, or 0 */
    bool cross_origin; /* redirected: send no credentials */
    bool fresh;        /* force a new connection */
    int redirects;

    /* for the pump, which tests and clears it after each step */
    bool slot_is_free; /* paused: another transfer may run */

    /* for the time limits; seconds */
    bool active;
    int64_t sent_at_last_check;
    double connect_time, idle_time, response_time;

    /* the failure that a callback recorded */
    nymbl_kind failure;
    const char *failure_reason;
    char errors[CURL_ERROR_SIZE];
} nymbl__exchange;

/* The result of one request. */
typedef struct nymbl__result {
    enum {
        NYMBL__SUCCEEDED,
        NYMBL__FAILED,  /* with `kind` and `reason` */
        NYMBL__RESTART, /* at `url`, or at the same URL if it is NULL */
    } how;
    nymbl_kind kind;
    const char *reason;
    char *url;  /* owned */
    bool fresh; /* and force a new connection */
} nymbl__result;

void nymbl__exchange_init(nymbl__exchange *exchange, nymbl__port *port,
                          nymbl__sockets *sockets,
                          const nymbl__settings *settings);
/* Release what a finished exchange no longer needs. `keep`: a partial file is
 * kept if it can be resumed. */
void nymbl__exchange_release(nymbl__exchange *exchange, bool keep);
void nymbl__exchange_free(nymbl__exchange *exchange);
/* For callbacks: record a failure, with which the exchange then ends. The first
 * one is kept. */
void nymbl__exchange_fail(nymbl__exchange *exchange, nymbl_kind kind,
                          const char *reason);
/* Record that bytes were sent or received. Resets the idle timeout and, if the
 * caller follows the progress, notifies it. */
void nymbl__exchange_count_activity(nymbl__exchange *exchange);
/* Whether all or part of the current request was sent. */
bool nymbl__exchange_was_sent(const nymbl__exchange *exchange);

#endif
