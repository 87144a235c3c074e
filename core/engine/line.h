/* SPDX-License-Identifier: MIT */
/* A line: a raw connection to a server that answers requests in order, and the
 * requests that it has not answered. */
#ifndef NYMBL_ENGINE_LINE_H
#define NYMBL_ENGINE_LINE_H

#include "base/buffer.h"
#include "engine/engine.h"
#include "engine/transfer.h"
#include "exchange/raw_connection.h"
#include "nymbl.h"

#include <stdatomic.h>

typedef enum nymbl__line_stage {
    NYMBL__LINE_NEW,        /* no attempt to connect was made */
    NYMBL__LINE_CONNECTING, /* libcurl connects */
    NYMBL__LINE_GREETING,   /* the greeting has no answer yet */
    NYMBL__LINE_OPEN,
    NYMBL__LINE_ENDED,
} nymbl__line_stage;

typedef struct nymbl__line_request {
    struct nymbl__line_request *next;
    nymbl_transfer *transfer; /* NULL: the reply is dropped */
    bool sent;                /* all or part of it was sent */
    size_t size;
    char bytes[];
} nymbl__line_request;

/* The fields are grouped by the side that may use them. */
struct nymbl_line {
    /* set at the creation */
    atomic_int references; /* of the caller, and the engine until the end */
    nymbl_engine *engine;
    double idle_timeout; /* seconds */

    /* under the lock */
    bool ended;
    bool closing; /* its caller has released it: the pump must end it */
    nymbl__line_request *first, *last; /* without a reply, in their order */
    nymbl__line_request *unsent; /* the first not sent completely, or NULL */
    unsigned count;              /* requests in the list */
    unsigned awaited;            /* those of them that have a transfer */
    size_t bytes;                /* of all requests in the list */
    double active_at;            /* when a request was last added or answered */

    /* used only by the pump, except before the line is in the engine's list */
    nymbl_line *next; /* in that list */
    nymbl__line_stage stage;
    nymbl__raw_connection connection;
    double connect_time;    /* seconds polled so far, until it is open */
    nymbl__buffer greeting; /* may contain a password */
    int greeting_replies;   /* those that have not arrived */
    bool answered;          /* at least one reply has arrived */
    size_t sent;            /* bytes of the greeting or of `unsent` */
    bool send_blocked;      /* the socket is full */
    bool may_receive;       /* bytes may have arrived */
    double close_at;        /* when a line that closes ends; 0: it is open */
    char *received;         /* NYMBL_REPLY_MAX bytes */
    size_t received_size;
};

/* Create a line without an address. NULL if memory runs out. */
nymbl_line *nymbl__line_new(nymbl_engine *engine);
void nymbl__line_retain(nymbl_line *line);
void nymbl__line_release(nymbl_line *line);
/* Create a request. NULL if memory runs out. */
nymbl__line_request *nymbl__line_request_new(const void *bytes, size_t size);
/* Wipe and free a request. NULL does nothing. */
void nymbl__line_request_free(nymbl__line_request *request);

/* Whether requests can be added, under the lock. */
bool nymbl__line_is_usable(const nymbl_line *line, double now);
/* Add a request, under the lock. Returns false if there are too many. */
bool nymbl__line_add(nymbl_line *line, nymbl__line_request *request,
                     double now);

/* ---- used only by the pump ---- */

/* Whether a request was not sent completely. */
bool nymbl__line_has_unsent(const nymbl_line *line);
/* The request to send now, or NULL. It counts as sent from now on, even if only
 * a part of it is. */
nymbl__line_request *nymbl__line_begin_send(nymbl_line *line);
/* Record that all of that request was sent. */
void nymbl__line_end_send(nymbl_line *line);
/* Remove and free the first request, to which a reply has arrived. Its
 * transfer, or NULL, is *out. Returns false if no request was sent completely,
 * so that the reply is to none. */
bool nymbl__line_take_answered(nymbl_line *line, nymbl_transfer **out);
/* Whether a request has no reply yet. */
bool nymbl__line_is_busy(const nymbl_line *line);
/* Let the reply to a transfer's request be dropped. If nothing was sent of the
 * request, it is removed. Without a transfer, this is the first request that
 * has one. Returns the transfer, or NULL if there is none. */
nymbl_transfer *nymbl__line_drop(nymbl_line *line,
                                 const nymbl_transfer *transfer);
/* End the line for its callers. Returns its requests, which are yours to
 * free. */
nymbl__line_request *nymbl__line_end(nymbl_line *line);

#endif
