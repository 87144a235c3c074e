/* SPDX-License-Identifier: MIT */
/* The queue of commands for the pump. A transfer has one entry, whose flags
 * collect its commands. */
#ifndef NYMBL_ENGINE_COMMANDS_H
#define NYMBL_ENGINE_COMMANDS_H

#include "engine/transfer.h"

/* Queue a command, under the lock. nymbl__pump_wake() must follow. */
void nymbl__commands_add(nymbl_transfer *transfer, unsigned command);
/* Remove the first transfer from the queue and return it with the queue's
 * reference. If the queue is empty, return NULL and set *closing to the next
 * client that closes, or NULL: all of the client's transfers are on the
 * engine's lists then. */
nymbl_transfer *nymbl__commands_take(nymbl_engine *engine, unsigned *commands,
                                     nymbl_client **closing);

#endif
