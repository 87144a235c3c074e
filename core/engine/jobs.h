/* SPDX-License-Identifier: MIT */
/* The engine's jobs, which it runs step by step between the steps of exchanges.
 * Only the pump uses these functions. */
#ifndef NYMBL_ENGINE_JOBS_H
#define NYMBL_ENGINE_JOBS_H

#include "engine/transfer.h"

/* Run one step of the job that has waited the longest, if any. */
void nymbl__jobs_step(nymbl_engine *engine);
/* End the transfer of a job that has succeeded, failed or been canceled. */
void nymbl__jobs_end(nymbl_transfer *transfer, nymbl_kind kind,
                     const char *reason);

#endif
