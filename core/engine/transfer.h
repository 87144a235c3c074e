/* SPDX-License-Identifier: MIT */
/* A transfer: an exchange with the service or a job, from its start to its end.
 */
#ifndef NYMBL_ENGINE_TRANSFER_H
#define NYMBL_ENGINE_TRANSFER_H

#include "engine/client.h"
#include "engine/engine.h"
#include "exchange/exchange.h"
#include "job/job.h"
#include "nymbl.h"
#include "port/port.h"

#include <stdatomic.h>

typedef enum nymbl__stage {
    NYMBL__NEW,              /* on no list; its start may be queued */
    NYMBL__WAITING,          /* for a connection slot */
    NYMBL__RUNNING,          /* on libcurl */
    NYMBL__AWAITING_CONFIRM, /* complete; its caller has to confirm all bytes */
    NYMBL__WORKING,          /* a job */
    NYMBL__ENDED,
} nymbl__stage;

/* Grouped by who may touch what. */
struct nymbl_transfer {
    /* set when it is created */
    atomic_int references; /* its caller, the engine, the command queue */
    nymbl_engine *engine;
    nymbl_client *client; /* NULL for a job */

    /* of both sides, under the lock or atomic */
    nymbl__port port;
    nymbl_transfer *next_command; /* under the lock */

    /* of the pump */
    nymbl__stage stage;
    nymbl_transfer *previous, *next;

    /* of the caller until the start, then of the pump */
    nymbl__exchange exchange; /* unused for a job */
    /* likewise, and of the caller again after a good end; NULL if it is an
     * exchange, or a job that has failed */
    nymbl__job *job;
};

/* Create the transfer of an exchange. */
nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err);
/* Create the transfer of a job. Takes the job over, also if it fails. */
nymbl_kind nymbl__transfer_new_job(nymbl_transfer **out, nymbl_engine *engine,
                                   nymbl__job *job, nymbl_error *err);
/* Drop a reference. */
void nymbl__transfer_release(nymbl_transfer *transfer);

/* ---- of the pump ---- */

/* Append a new one to the list of those that wait for a slot, or of jobs. */
void nymbl__transfer_enqueue(nymbl_transfer *transfer);
/* Move one from the waiting to the running ones. */
void nymbl__transfer_run(nymbl_transfer *transfer);
/* Iterate over all transfers that have been added and have not ended: running,
 * waiting, jobs. NULL begins, and is returned after the last one. */
nymbl_transfer *nymbl__transfer_next(const nymbl_engine *engine,
                                     const nymbl_transfer *transfer);
/* End it with a final result: notify the caller, and drop the engine's
 * reference, which may free it. */
void nymbl__transfer_end(nymbl_transfer *transfer, const nymbl_error *result);
/* Notify the caller if there is something to report (see port.h). */
void nymbl__transfer_notify(nymbl_transfer *transfer);

#endif
