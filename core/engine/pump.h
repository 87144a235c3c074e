/* SPDX-License-Identifier: MIT */
/* The pump: takes commands, admits transfers, drives libcurl, collects what has
 * ended, and tells callers. */
#ifndef NYMBL_ENGINE_PUMP_H
#define NYMBL_ENGINE_PUMP_H

#include "engine/transfer.h"

/* ---- of whoever pumps ---- */

/* All that can be done without waiting, then one wait, then that again. */
void nymbl__pump_pass(nymbl_engine *engine, double timeout);
/* Take the commands that are queued. */
void nymbl__pump_commands(nymbl_engine *engine);
/* End the transfers of one client, or of all if it is NULL. */
void nymbl__pump_cancel(nymbl_engine *engine, const nymbl_client *client);

/* ---- for callers ---- */

/* See that queued commands are taken. Without a thread, cancellations are taken
 * at once: their transfers have ended when this returns. */
void nymbl__engine_wake(nymbl_engine *engine);
/* Queue a command and see that it is taken. */
void nymbl__transfer_command(nymbl_transfer *transfer, unsigned command);
/* Cancel the transfers of a client that closes, and its connections. */
void nymbl__engine_close_client(nymbl_engine *engine, nymbl_client *client);

#endif
