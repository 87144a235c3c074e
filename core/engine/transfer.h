/* SPDX-License-Identifier: MIT */
/* A transfer: what its caller holds and an engine moves. */
#ifndef NYMBL_ENGINE_TRANSFER_H
#define NYMBL_ENGINE_TRANSFER_H

#include "engine/client.h"
#include "engine/engine.h"
#include "exchange/exchange.h"
#include "nymbl.h"
#include "port/port.h"

#include <stdatomic.h>

/* Where a transfer is. */
typedef enum nymbl__stage {
    NYMBL__NEW,     /* on no list: perhaps its start is a command */
    NYMBL__WAITING, /* for a place on the wire */
    NYMBL__RUNNING,
    NYMBL__AWAITING_CONFIRM, /* found good; its caller is to know of all bytes
                              */
    NYMBL__ENDED,
} nymbl__stage;

/* Four parts, by who may touch each. */
struct nymbl_transfer {
    /* set when it is made */
    atomic_int references; /* its owner, the engine, the queue */
    nymbl_engine *engine;
    nymbl_client *client;

    /* both sides', under the lock or atomic */
    nymbl__port port;
    nymbl_transfer *next_command; /* under the lock */

    /* of whoever pumps: the engine's lists */
    nymbl__stage stage;
    nymbl_transfer *previous, *next;

    /* the caller's until the start, then of whoever pumps */
    nymbl__exchange exchange;
};

nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err);
/* Drop a reference. */
void nymbl__transfer_release(nymbl_transfer *transfer);

/* ---- of whoever pumps ---- */

/* Put a new one behind those that wait. */
void nymbl__transfer_wait(nymbl_transfer *transfer);
/* Move one that waits to those that run. */
void nymbl__transfer_run(nymbl_transfer *transfer);
/* Take it off its list: it is over. Returns whether it was on one. */
bool nymbl__transfer_unlink(nymbl_transfer *transfer, nymbl__stage before);
/* Signal the caller if there is something to report. */
void nymbl__transfer_notify(nymbl_transfer *transfer);

#endif
