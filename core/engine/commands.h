/* SPDX-License-Identifier: MIT */
/* Commands: what callers ask of whoever pumps, one entry for each transfer. */
#ifndef NYMBL_ENGINE_COMMANDS_H
#define NYMBL_ENGINE_COMMANDS_H

#include "engine/transfer.h"

/* Queue one under the lock; nymbl__engine_wake() must follow after it. */
void nymbl__command_queue(nymbl_transfer *transfer, unsigned command);
/* The next transfer that something is asked of, with the queue's reference, or,
 * once there is none, the next client that closes: what it has started before
 * it was closed is on the lists then. */
nymbl_transfer *nymbl__command_next(nymbl_engine *engine, unsigned *commands,
                                    nymbl_client **closing);

#endif
