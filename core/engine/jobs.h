/* SPDX-License-Identifier: MIT */
/* How an engine runs jobs: step by step, between the steps of exchanges. All of
 * it is of the pump. */
#ifndef NYMBL_ENGINE_JOBS_H
#define NYMBL_ENGINE_JOBS_H

#include "engine/transfer.h"

/* Do one step of the job that has waited the longest, if there is one. */
void nymbl__jobs_step(nymbl_engine *engine);
/* End the transfer of a job, which has succeeded, failed or been canceled. */
void nymbl__job_end(nymbl_transfer *transfer, nymbl_kind kind,
                    const char *reason);

#endif
