/* SPDX-License-Identifier: MIT */
/* How an engine runs a transfer: hop after hop, each on an easy handle, to its
 * end. All of it is whoever pumps'. */
#ifndef NYMBL_ENGINE_RUN_H
#define NYMBL_ENGINE_RUN_H

#include "engine/transfer.h"

/* Put it on the wire. Ends it on failure. */
void nymbl__transfer_begin(nymbl_transfer *transfer);
/* libcurl is through with it. May begin another hop. */
void nymbl__transfer_complete(nymbl_transfer *transfer, CURLcode code);
/* End it now with a failure of ours, wherever it is. */
void nymbl__transfer_abort(nymbl_transfer *transfer, nymbl_kind kind,
                           const char *reason);
void nymbl__transfer_unpause(nymbl_transfer *transfer);
/* Its caller knows of more bytes: one that is unconfirmed may end. */
void nymbl__transfer_confirmed(nymbl_transfer *transfer);

#endif
