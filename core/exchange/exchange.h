/* SPDX-License-Identifier: MIT */
/* One exchange: a request, the requests that redirects lead to, and the
 * validated response. Each request runs on an easy handle that the engine
 * provides. An exchange knows the port, a table of sockets and the client's
 * settings, but no engine, thread or caller. */
#ifndef NYMBL_EXCHANGE_EXCHANGE_H
#define NYMBL_EXCHANGE_EXCHANGE_H

#include "base/digest.h"
#include "exchange/head.h"
#include "exchange/request.h"
#include "exchange/settings.h"
#include "exchange/sniff.h"
#include "exchange/sockets.h"
#include "file/atomic_file.h"
#include "port/port.h"

#include <curl/curl.h>

#define NYMBL__TOKEN_RESPONSE_MAX (64u << 10)
#define NYMBL__ERROR_RESPONSE_MAX (64u << 10)
#define NYMBL__REDIRECTS_MAX 5

/* The phase of the current request. */
typedef enum nymbl__phase {
    NYMBL__IDLE,         /* no request is running, and `easy` is NULL */
    NYMBL__CONNECTING,   /* nothing was sent yet */
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
    bool inspect;         /* record `port->peer` */
    bool range_requested; /* a Range is sent */
    int64_t range_start;  /* the caller gets the document from this offset */
    int64_t range_end;    /* up to this one; INT64_MAX: to the end */
    bool sha256;          /* compute the SHA-256 of the document */
    bool has_size;        /* the size of the document is known */
    int64_t size;         /* the size of the document */

    /* the current request */
    nymbl__phase phase;
    CURL *easy;
    CURLU *url; /* the request's, parsed */
    curl_mime *mime;
    nymbl__atomic_file *file; /* the file that is written, or NULL */
    nymbl__response_head head;
    size_t first_bytes_size; /* how many of `first_bytes` have arrived */
    bool range_complete;    /* the caller gets all of its range: the rest of the
                               body is not needed */
    int64_t digest_size;    /* bytes that `digest` has */
    bool close_notify_seen; /* the peer has ended the TLS connection */
    int proxy_status;       /* status of the proxy that refused, or 0 */
    bool cross_origin;      /* after a redirect: send no credentials any more */
    bool fresh;             /* force a new connection */
    int redirects;          /* redirects that were followed */

    /* for the pump, which tests and clears it after each step */
    bool slot_is_free; /* the exchange is paused: another transfer may run */

    /* for the time limits (timeouts.c) */
    bool active;                /* bytes moved since the last check */
    int64_t sent_at_last_check; /* bytes of the upload */
    double connect_time, idle_time, response_time; /* seconds so far */

    /* the failure that a callback recorded, or NYMBL_OK */
    nymbl_kind failure;
    const char *failure_reason;
    char error_text[CURL_ERROR_SIZE]; /* libcurl's error message */

    /* The rest, for downloads only, is large. nymbl__exchange_init() empties it
     * instead of zeroing it. */
    nymbl__digest digest; /* of the document so far, if `sha256` */
    char if_match[NYMBL__VALIDATOR_MAX]; /* the required entity-tag, or "" */
    char expected_type[NYMBL__TYPE_MAX]; /* the document's type, or "" */
    char first_bytes[NYMBL__SNIFF_MAX];  /* the first bytes of the document */
} nymbl__exchange;

/* The size of the part that must be zeroed before nymbl__exchange_init(). */
#define NYMBL__EXCHANGE_ZEROED offsetof(nymbl__exchange, digest)

/* The result of one request. */
typedef struct nymbl__result {
    enum {
        NYMBL__SUCCEEDED,
        NYMBL__FAILED,  /* with `kind` and `reason` */
        NYMBL__RESTART, /* send another request, to `url` if it is not NULL */
    } type;
    nymbl_kind kind;
    const char *reason;
    char *url;  /* owned */
    bool fresh; /* the next request forces a new connection */
} nymbl__result;

void nymbl__exchange_init(nymbl__exchange *exchange, nymbl__port *port,
                          nymbl__sockets *sockets,
                          const nymbl__settings *settings);
/* Release the request, the body and the file of an exchange that has ended.
 * `keep`: the file is kept as a partial file if it can be resumed. */
void nymbl__exchange_finish(nymbl__exchange *exchange, bool keep);
void nymbl__exchange_free(nymbl__exchange *exchange);
/* For callbacks: record a failure, with which the exchange then ends. Later
 * failures are ignored. */
void nymbl__exchange_fail(nymbl__exchange *exchange, nymbl_kind kind,
                          const char *reason);
/* Record that bytes were sent or received. Resets the idle timeout and, if the
 * caller follows the progress, notifies it. */
void nymbl__exchange_record_activity(nymbl__exchange *exchange);
/* Whether all or part of the current request was sent. */
bool nymbl__exchange_was_sent(const nymbl__exchange *exchange);

#endif
