/* SPDX-License-Identifier: MIT */
/* How an engine runs an exchange: hop after hop, each on an easy handle, to its
 * end. All of it is of the pump. */
#ifndef NYMBL_ENGINE_RUN_H
#define NYMBL_ENGINE_RUN_H

#include "engine/transfer.h"

/* Begin a hop. Ends the transfer on failure. */
void nymbl__transfer_begin(nymbl_transfer *transfer);
/* libcurl has finished a hop: begin the next one, or end the transfer. */
void nymbl__transfer_complete(nymbl_transfer *transfer, CURLcode code);
/* End a transfer, of an exchange or a job, before its time. May free it. */
void nymbl__transfer_abort(nymbl_transfer *transfer, nymbl_kind kind,
                           const char *reason);
void nymbl__transfer_unpause(nymbl_transfer *transfer);
/* The caller has confirmed bytes: commit the file if these were the last ones.
 */
void nymbl__transfer_confirmed(nymbl_transfer *transfer);

#endif
