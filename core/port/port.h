/* SPDX-License-Identifier: MIT */
/* The port: what a caller and the I/O thread share of a transfer. */
#ifndef NYMBL_PORT_PORT_H
#define NYMBL_PORT_PORT_H

#include "base/buffer.h"
#include "base/mutex.h"
#include "base/ring.h"
#include "base/validator.h"
#include "nymbl.h"

#define NYMBL__RECEIVE_WINDOW (128u << 10)
#define NYMBL__NOTIFY_TOKEN 32 /* hexadecimal digits */
#define NYMBL__TYPE_MAX 256    /* a longer Content-Type is ignored */

/* The commands that a caller can queue for the pump, as flags. */
enum {
    NYMBL__COMMAND_START = 1,
    NYMBL__COMMAND_CANCEL = 2,
    NYMBL__COMMAND_UNPAUSE = 4,
    NYMBL__COMMAND_CONFIRM = 8,
};

/* How a caller is notified:
 *
 * 1. The code that the pump runs sets `notify_pending` if it has something to
 *    report.
 * 2. After each step the pump calls nymbl__transfer_notify(). It sets
 *    `notified`. If `notified` was not set before, it also signals the engine's
 *    condition variable and sends one byte to the notify socket, if there is
 *    one.
 * 3. The caller sees `notified` (nymbl_transfer_is_ready), and reads, writes or
 *    requests the result until it gets NYMBL_AGAIN. Only then `notified` is
 *    cleared (nymbl__port_rearm), in the critical section that found nothing
 *    to do. So each later change notifies again, and no change is lost.
 * 4. A notify socket that is attached while `notified` is set gets its byte at
 *    once. The end of a transfer closes the pump's end of it.
 *
 * For the same reason the window and the pause are tested and changed in one
 * critical section with `notified`. */
typedef struct nymbl__port {
    nymbl__mutex *mutex; /* borrowed from the engine */

    /* under the lock */
    unsigned commands;
    nymbl_kind cancel_kind; /* the first cancellation's kind, or NYMBL_OK */
    const char *cancel_reason;
    nymbl__ring window;   /* received bytes that the caller has not read */
    bool receive_paused;  /* the window is full; written only by the pump */
    bool send_paused;     /* the body has no bytes; written by the pump */
    int64_t confirmed;    /* received bytes that the caller confirmed, or -1 */
    bool queued;          /* it waits for a connection slot */
    bool notified;        /* the caller was notified, see above */
    double wake_at;       /* when to notify the caller; 0: never */
    double watchdog_at;   /* when to cancel unless it is set again; 0: never */
    bool watchdog_missed; /* the time has passed once */
    int notify_fd;        /* the pump's end of the notify socket, or -1 */
    bool notify_fd_released; /* closing the caller's end does not cancel */
    char notify_token[NYMBL__NOTIFY_TOKEN]; /* "" if no peer is expected */
    nymbl_body *body;                       /* the body that is sent, or NULL */
    bool response_published;                /* `response` is final */
    nymbl_response response; /* its texts belong to the exchange's head */
    /* The service's id of the last request that it has answered, or "". */
    char request_id[NYMBL_REQUEST_ID_MAX + 1];
    nymbl_peer peer; /* see nymbl_request.inspect */
    bool ended;      /* `error`, `response_body` and `body_sent` are final */
    nymbl_error error;

    /* used only by the pump */
    bool notify_pending;
    /* used only by the pump until `ended` */
    nymbl__buffer response_body;
    char sha256[65];   /* of the document, or "" */
    int64_t body_sent; /* bytes of the body, once that is detached */

    /* atomic */
    atomic_bool sent;              /* all or part of a request was sent */
    atomic_bool content_checked;   /* the first bytes have the expected type */
    _Atomic int64_t body_received; /* bytes of the response body */
    _Atomic int64_t resumed_from;  /* offset in the document at which the
                                      response body begins */
} nymbl__port;

void nymbl__port_init(nymbl__port *port, nymbl__mutex *mutex);
void nymbl__port_free(nymbl__port *port);
void nymbl__port_lock(const nymbl__port *port);
void nymbl__port_unlock(const nymbl__port *port);
/* Under the lock: send a byte to the notify socket, if there is one. */
void nymbl__port_notify(const nymbl__port *port);
/* Under the lock: clear `notified` if `kind`, which the caller's function
 * returns, is NYMBL_AGAIN. */
void nymbl__port_rearm(nymbl__port *port, nymbl_kind kind);
/* Close the pump's end of the notify socket. */
void nymbl__port_notify_close(nymbl__port *port);

#endif
