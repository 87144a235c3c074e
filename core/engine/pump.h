/* SPDX-License-Identifier: MIT */
/* The pump: takes commands, admits transfers, drives libcurl and jobs, collects
 * what has ended, and notifies callers. */
#ifndef NYMBL_ENGINE_PUMP_H
#define NYMBL_ENGINE_PUMP_H

#include "engine/transfer.h"

/* ---- of the pump ---- */

/* Do everything that needs no waiting, wait once, and do it again. */
void nymbl__pump_pass(nymbl_engine *engine, double timeout);
/* Take the queued commands. */
void nymbl__pump_commands(nymbl_engine *engine);
/* Cancel the transfers of a client, or all if it is NULL. */
void nymbl__pump_cancel(nymbl_engine *engine, const nymbl_client *client);

/* ---- for callers ---- */

/* Make the I/O thread look at its commands, sockets and times now. Without a
 * thread this does nothing: the next pump looks at them. */
void nymbl__pump_wake(nymbl_engine *engine);
/* Without a thread, take the queued commands now if there is a cancellation
 * among them. It may be long until the next pump, and what was canceled has
 * sockets and files open. Each transfer whose cancellation is taken has ended
 * when this returns, and is freed if only the engine had a reference; so is a
 * client that was closed. Does nothing within a pump. */
void nymbl__pump_take_cancellations(nymbl_engine *engine);
/* Queue a command, and wake the thread. */
void nymbl__transfer_command(nymbl_transfer *transfer, unsigned command);
/* Cancel the transfers of a client that closes, and close its connections. May
 * free the transfers, as above. */
void nymbl__engine_close_client(nymbl_engine *engine, nymbl_client *client);

#endif
