/* SPDX-License-Identifier: MIT */
/* The body of an upload: a source of bytes that a caller creates and fills and
 * the pump empties. */
#ifndef NYMBL_PORT_BODY_H
#define NYMBL_PORT_BODY_H

#include "base/mutex.h"
#include "base/ring.h"
#include "file/snapshot.h"
#include "nymbl.h"
#include "port/port.h"

#include <stdatomic.h>

enum nymbl__body_source {
    NYMBL__BODY_PATH,
    NYMBL__BODY_BYTES,
    NYMBL__BODY_STREAM,
};

/* Only the caller uses a body until it is attached to a transfer. Then both
 * sides use `window`, `finished`, `transfer`, `port` and `detached`, under the
 * lock. */
struct nymbl_body {
    atomic_int references;
    nymbl__mutex *mutex; /* the last transfer's engine's; retained */
    enum nymbl__body_source source;
    int64_t size;               /* -1 if it is not known (yet) */
    int fd;                     /* NYMBL__BODY_PATH: the file, else -1 */
    bool is_file;               /* created from a path */
    nymbl__snapshot snapshot;   /* the state of the file that is read */
    char *data;                 /* NYMBL__BODY_BYTES: the bytes */
    nymbl__ring window;         /* NYMBL__BODY_STREAM: bytes to be sent */
    int64_t written;            /* bytes that the caller has written */
    bool finished;              /* the caller has written the last byte */
    bool eof_sent;              /* libcurl has read the end of the stream */
    _Atomic int64_t bytes_read; /* bytes that libcurl has read */
    _Atomic int64_t rewound;    /* bytes it had read when it last rewound */
    int64_t max;                /* bytes that the caller may write */
    nymbl_transfer *transfer;   /* the transfer that sends it; not retained */
    nymbl__port *port;          /* that transfer's port */
    bool detached;              /* the transfer that sent it has ended */
    bool fully_sent;            /* libcurl had read all when it rewound */
    nymbl_kind problem;         /* why the body cannot be sent, or NYMBL_OK */
    const char *problem_reason;
};

void nymbl__body_retain(nymbl_body *body);
void nymbl__body_lock(const nymbl_body *body);
void nymbl__body_unlock(const nymbl_body *body);
/* Detach the body from a transfer that has ended: later writes are refused. */
void nymbl__body_detach(nymbl_body *body);
/* Whether libcurl has read the whole body. */
bool nymbl__body_all_read(const nymbl_body *body);
bool nymbl__body_is_stream(const nymbl_body *body);
/* Under the lock: number of bytes in the window that may be sent now. */
size_t nymbl__body_available(const nymbl_body *body);
/* Under the lock: whether a paused send can continue. */
bool nymbl__body_can_resume(const nymbl_body *body);
/* Number of bytes that libcurl has read, not reduced if it has rewound. */
int64_t nymbl__body_bytes_read(const nymbl_body *body);

#endif
