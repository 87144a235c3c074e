/* SPDX-License-Identifier: MIT */
/* Commands: what callers ask the pump to do, one entry for each transfer. */
#ifndef NYMBL_ENGINE_COMMANDS_H
#define NYMBL_ENGINE_COMMANDS_H

#include "engine/transfer.h"

/* Queue a command, under the lock. nymbl__pump_wake() must follow. */
void nymbl__command_queue(nymbl_transfer *transfer, unsigned command);
/* Remove the first transfer from the queue and return it with the queue's
 * reference. If the queue is empty, return NULL and set *closing to the next
 * client that closes: all that the client has started is on the lists then. */
nymbl_transfer *nymbl__command_next(nymbl_engine *engine, unsigned *commands,
                                    nymbl_client **closing);

#endif
