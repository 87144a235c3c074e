/* SPDX-License-Identifier: MIT */
/* The engine's lines: connecting, sending, receiving, and their time limits.
 * Only the pump uses these functions, unless they say otherwise. Without lines
 * they do nothing. */
#ifndef NYMBL_ENGINE_LINES_H
#define NYMBL_ENGINE_LINES_H

#include "engine/line.h"

/* Do all work that is possible without waiting. */
void nymbl__lines_step(nymbl_engine *engine);
/* The same for one line. */
void nymbl__lines_step_one(nymbl_line *line);
/* Process an easy handle that libcurl has completed. Returns false if it is not
 * a line's. */
bool nymbl__lines_complete(nymbl_engine *engine, CURL *easy, CURLcode code);
/* End the transfer of a request with a failure. */
void nymbl__lines_cancel(nymbl_transfer *transfer, nymbl_kind kind,
                         const char *reason);
/* Let the next step look for bytes that have arrived, although no poll has
 * reported any. */
void nymbl__lines_expect_bytes(nymbl_engine *engine);
/* Add the sockets to the descriptors to poll. */
void nymbl__lines_collect_fds(nymbl_engine *engine);
/* Process the result of a poll that took some seconds. */
void nymbl__lines_polled(nymbl_engine *engine, double seconds);
/* The time to wait: `seconds`, or less if a time limit expires sooner. */
double nymbl__lines_wait_time(nymbl_engine *engine, double seconds);
/* End a line that closes, or all lines. Waits a moment for the replies to what
 * was sent: if a reply arrives at a closed socket, the server may drop the
 * requests behind it. */
void nymbl__lines_finish(nymbl_line *line);
void nymbl__lines_close(nymbl_engine *engine);

#endif
