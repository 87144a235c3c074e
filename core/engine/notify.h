/* SPDX-License-Identifier: MIT */
/* Notify sockets: a stream socket for each transfer. */
#ifndef NYMBL_ENGINE_NOTIFY_H
#define NYMBL_ENGINE_NOTIFY_H

#include "engine/engine.h"

/* ---- for callers ---- */

/* Listen in a directory that no other user can enter, unless the listener is
 * still at its path. NYMBL_OK: the listener is new, and the pump must be woken.
 * NYMBL_DONE: it exists already. */
nymbl_kind nymbl__notify_listen(nymbl_engine *engine, nymbl_error *err);
/* The path of the listener. */
void nymbl__notify_path(char path[64], const nymbl_engine *engine);

/* ---- of the pump ---- */

/* Collect the descriptors to poll in addition to libcurl's sockets. Returns
 * whether the listener is left out because accept() has found no descriptor. */
bool nymbl__notify_collect_fds(nymbl_engine *engine);
/* Accept peers, and cancel the transfers whose notify socket was closed. */
void nymbl__notify_serve(nymbl_engine *engine);
/* Close the listener and all pending peers. */
void nymbl__notify_close(nymbl_engine *engine);

#endif
