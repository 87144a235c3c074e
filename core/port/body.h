/* SPDX-License-Identifier: MIT */
/* The body of an upload: a source of bytes that a caller creates and fills and
 * the pump empties. */
#ifndef NYMBL_PORT_BODY_H
#define NYMBL_PORT_BODY_H

#include "base/buffer.h"
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

/* Of the caller until it is attached; then `window`, `finished`, `transfer`,
 * `port` and `was_sent` are used by both sides, under the lock. */
struct nymbl_body {
    atomic_int references;
    nymbl__mutex *mutex; /* of the last transfer's engine; retained */
    enum nymbl__body_source source;
    int64_t size; /* -1: not known (yet) */
    int fd;
    nymbl__snapshot snapshot; /* of the file that is read */
    char *data;
    nymbl__ring window;
    int64_t written;
    bool finished;
    bool eof_sent;              /* to libcurl, if it knew no size */
    _Atomic int64_t bytes_read; /* bytes that libcurl has taken */
    _Atomic int64_t rewound;    /* the same, before it rewound the body */
    int64_t max;                /* bytes that may be pushed */
    nymbl_transfer *transfer;   /* the one that sends it; not retained */
    nymbl__port *port;          /* of that transfer */
    bool was_sent;              /* a transfer has ended with it */
    bool fully_sent;            /* libcurl sent all of it and then rewound it */
    nymbl_kind problem;         /* why it cannot be sent */
    const char *problem_reason;
};

void nymbl__body_retain(nymbl_body *body);
void nymbl__body_lock(const nymbl_body *body);
void nymbl__body_unlock(const nymbl_body *body);
/* Its transfer has ended: later writes are refused. */
void nymbl__body_detach(nymbl_body *body);
bool nymbl__body_all_read(const nymbl_body *body);
bool nymbl__body_is_stream(const nymbl_body *body);
/* Under the lock: bytes that may be sent now. */
size_t nymbl__body_available(const nymbl_body *body);
/* Under the lock: whether a paused send can continue. */
bool nymbl__body_can_resume(const nymbl_body *body);
int64_t nymbl__body_bytes_read(const nymbl_body *body);

#endif
