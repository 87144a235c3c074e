/* SPDX-License-Identifier: MIT */
/* The run of an exchange: its requests one after the other, each on an easy
 * handle, and its end. Only the pump uses these functions. */
#ifndef NYMBL_ENGINE_RUN_H
#define NYMBL_ENGINE_RUN_H

#include "engine/transfer.h"

/* Start the first or next request. Ends the transfer on failure. */
void nymbl__run_start(nymbl_transfer *transfer);
/* Process a request that libcurl has completed: start the next request, or end
 * the transfer. */
void nymbl__run_complete(nymbl_transfer *transfer, CURLcode code);
/* End a transfer, of whatever sort, with a failure. May free it. */
void nymbl__run_abort(nymbl_transfer *transfer, nymbl_kind kind,
                      const char *reason);
/* Let an exchange that resumes a partial file hash some of its bytes. May end
 * the transfer. */
void nymbl__run_checksum(nymbl_transfer *transfer);
/* Resume a paused exchange. This may end the transfer. */
void nymbl__run_unpause(nymbl_transfer *transfer);
/* Commit the file and end the transfer if the caller has confirmed all bytes.
 */
void nymbl__run_confirm(nymbl_transfer *transfer);

#endif
