/* SPDX-License-Identifier: MIT */
/* A transfer: an exchange with the service, a job, or a request on a line, from
 * its start to its end. */
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
    NYMBL__NEW,              /* on no list; the start may be queued */
    NYMBL__WAITING,          /* waits for a connection slot */
    NYMBL__RUNNING,          /* libcurl runs a request */
    NYMBL__AWAITING_CONFIRM, /* complete; the caller must confirm all bytes */
    NYMBL__WORKING,          /* a job that has not ended */
    NYMBL__ON_LINE,          /* a request on a line, without a reply */
    NYMBL__ENDED,
} nymbl__stage;

/* The fields are grouped by the side that may use them. */
struct nymbl_transfer {
    /* set at the creation */
    atomic_int references; /* of the caller, the engine, the command queue */
    nymbl_engine *engine;
    nymbl_client *client; /* of an exchange, else NULL */
    nymbl_line *line;     /* of a request on a line, else NULL; it may be freed
                             once the transfer has ended */

    /* used by both sides, under the lock or atomically */
    nymbl__port port;
    nymbl_transfer *next_command; /* in the command queue; under the lock */

    /* used only by the pump */
    nymbl__stage stage;
    nymbl_transfer *previous, *next; /* in the list of this stage */

    /* used by the caller until the start, then by the pump */
    /* NULL unless this is a job that has not failed. If it succeeds, the caller
     * uses its result. */
    nymbl__job *job;
    nymbl__exchange exchange; /* unused without a client; the last
                                 field, see there */
};

/* Create the transfer of an exchange. */
nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err);
/* Create the transfer of a job, and become the job's owner, even on failure. */
nymbl_kind nymbl__transfer_new_job(nymbl_transfer **out, nymbl_engine *engine,
                                   nymbl__job *job, nymbl_error *err);
/* Create the transfer of a request on a line. */
nymbl_kind nymbl__transfer_new_request(nymbl_transfer **out,
                                       nymbl_engine *engine, nymbl_line *line,
                                       nymbl_error *err);
/* Drop a reference. */
void nymbl__transfer_release(nymbl_transfer *transfer);

/* ---- used only by the pump ---- */

/* Append a transfer to the engine's list of waiting transfers, of jobs or of
 * requests on lines. */
void nymbl__transfer_enqueue(nymbl_transfer *transfer);
/* Move a transfer from the list of waiting transfers to the running ones. */
void nymbl__transfer_run(nymbl_transfer *transfer);
/* Iterate over the transfers on the engine's lists: running, waiting, jobs,
 * requests. Returns the first one after NULL, and NULL after the last one. */
nymbl_transfer *nymbl__transfer_next(const nymbl_engine *engine,
                                     const nymbl_transfer *transfer);
/* End a transfer with its final result: notify the caller and drop the engine's
 * reference, which may free the transfer. */
void nymbl__transfer_end(nymbl_transfer *transfer, const nymbl_error *result);
/* Notify the caller if there is something to report (see port.h). */
void nymbl__transfer_notify(nymbl_transfer *transfer);

#endif
