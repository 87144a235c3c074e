/* SPDX-License-Identifier: MIT */
/* The pump: executes commands, admits transfers, drives libcurl and jobs, ends
 * completed transfers and notifies callers. */
#ifndef NYMBL_ENGINE_PUMP_H
#define NYMBL_ENGINE_PUMP_H

#include "engine/transfer.h"

/* ---- used only by the pump ---- */

/* Do all work that is possible without waiting, wait once, and do it again. */
void nymbl__pump_pass(nymbl_engine *engine, double timeout);
/* Execute the queued commands. */
void nymbl__pump_commands(nymbl_engine *engine);
/* Cancel the transfers of a client; NULL: all transfers. */
void nymbl__pump_cancel(nymbl_engine *engine, const nymbl_client *client);

/* ---- for callers ---- */

/* Wake the I/O thread, so that it processes commands, sockets and timers now.
 * Does nothing without a thread: the next call of nymbl_engine_pump() processes
 * them. Returns false if the system has no memory for a wakeup: the next one
 * will do, and nymbl__thread_wait() sends one. */
bool nymbl__pump_wake(nymbl_engine *engine);
/* Without a thread, execute the queued commands now if one of them cancels a
 * transfer or closes a client: the next pump may be late, and canceled
 * transfers have sockets and files open. They have ended when this returns, and
 * those to which only the engine had a reference are freed, as are closed
 * clients. Does nothing within a pump. */
void nymbl__pump_take_cancellations(nymbl_engine *engine);
/* Queue a command and wake the thread. */
void nymbl__pump_command(nymbl_transfer *transfer, unsigned command);
/* Cancel the transfers of a client that closes, and close its connections. May
 * free transfers, see nymbl__pump_take_cancellations(). */
void nymbl__pump_close_client(nymbl_engine *engine, nymbl_client *client);

#endif
