/* SPDX-License-Identifier: MIT */
/* The port: what a caller and the I/O thread share of a transfer. */
#ifndef NYMBL_PORT_PORT_H
#define NYMBL_PORT_PORT_H

#include "base/buffer.h"
#include "base/mutex.h"
#include "base/ring.h"
#include "nymbl.h"

#include <sys/socket.h>

#define NYMBL__RECEIVE_WINDOW (128u << 10)
#define NYMBL__NOTIFY_TOKEN 32 /* hexadecimal digits */
#define NYMBL__TYPE_MAX 256    /* a Content-Type; longer is ignored */

/* What a caller asks of whoever pumps. */
enum {
    NYMBL__ADD = 1,
    NYMBL__REMOVE = 2,
    NYMBL__UNPAUSE = 4,
    NYMBL__CONFIRM = 8,
};

/* Window, pause and signal belong together: looked at and changed without
 * letting go of the lock in between. */
typedef struct nymbl__port {
    nymbl__mutex *mutex; /* borrowed from the engine */

    /* under the lock */
    unsigned commands;
    nymbl_kind cancel_kind; /* why it is to be removed, or NYMBL_OK */
    const char *cancel_reason;
    nymbl__ring window;
    bool receive_paused; /* these two are written by the pump alone */
    bool send_paused;
    int64_t confirmed; /* received bytes that the caller knows of, or -1 */
    bool notified;
    double wake_at;     /* when the caller wants to be woken; 0: not */
    double watchdog_at; /* when it must have been heard of again; 0: need not */
    bool watchdog_missed;    /* it was not, and gets a last chance */
    int notify_fd;           /* the pump's end of it, or -1 */
    bool notify_fd_released; /* its other end was given back: no cancel */
    char notify_token[NYMBL__NOTIFY_TOKEN]; /* "" if none is awaited */
    nymbl_body *body;                       /* NULL once it has ended */
    bool response_published; /* `response` is good, and stays so */
    nymbl_response response;
    bool
        ended; /* `error`, `response_body`, `body_sent` are good, and stay so */
    nymbl_error error;

    /* of whoever pumps, until `response_published` or `ended` */
    char response_type[NYMBL__TYPE_MAX];
    nymbl__buffer response_body;
    int64_t body_sent; /* of a body that was let go */

    /* atomic */
    atomic_bool sent;            /* a request went out, or part of one */
    atomic_bool content_checked; /* the first bytes were found good */
    _Atomic int64_t body_received;
    _Atomic int64_t resumed_from; /* bytes of a part the reply continues */
} nymbl__port;

void nymbl__port_init(nymbl__port *port, nymbl__mutex *mutex);
void nymbl__port_free(nymbl__port *port);
void nymbl__port_lock(const nymbl__port *port);
void nymbl__port_unlock(const nymbl__port *port);
/* Under the lock: wake whoever holds the other end of the lease, if there is
 * one. */
void nymbl__port_notify(const nymbl__port *port);
/* No more news: close the pump's end of the lease. */
void nymbl__port_notify_close(nymbl__port *port);
/* Another thread of the host may start a program at any moment: a lease that it
 * inherits never ends. So where it can be, a socket is born closed to it. */
#ifdef SOCK_CLOEXEC
#define NYMBL__STREAM (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#else
#define NYMBL__STREAM SOCK_STREAM
#endif

/* What NYMBL__STREAM could not say of a new socket. */
void nymbl__stream_set_up(int fd);
/* Close a socket. The other end sees it even if a forked process still has this
 * one. */
void nymbl__stream_close(int fd);

#endif
