/* SPDX-License-Identifier: MIT */
/* The engine's jobs, which it runs step by step between the steps of exchanges.
 */
#include "engine/jobs.h"

void nymbl__jobs_end(nymbl_transfer *transfer, nymbl_kind kind,
                     const char *reason)
{
    nymbl_error result = {.kind = kind, .reason = reason, .retry_after = -1};

    if (kind < 0) {
        nymbl__job_free(transfer->job);
        transfer->job = NULL;
    }
    nymbl__transfer_end(transfer, &result);
}

void nymbl__jobs_step(nymbl_engine *engine)
{
    nymbl_transfer *transfer = engine->jobs.first;
    const char *reason = NULL;
    nymbl_kind kind;

    if (transfer == NULL)
        return;
    kind = transfer->job->type->step(transfer->job, &reason);
    if (kind == NYMBL_AGAIN)
        nymbl__transfer_enqueue(transfer);
    else
        nymbl__jobs_end(transfer, kind, reason);
}
