/* SPDX-License-Identifier: MIT */
/* Notify sockets, with which event loops wait for transfers. */
#ifndef NYMBL_ENGINE_NOTIFY_H
#define NYMBL_ENGINE_NOTIFY_H

#include "engine/engine.h"

/* ---- for callers ---- */

/* Make sure that the listener exists. Returns NYMBL_OK if it is new, so that
 * the pump must be woken; NYMBL_DONE if it exists already; or a failure. */
nymbl_kind nymbl__notify_listen(nymbl_engine *engine, nymbl_error *err);
/* The path of the listener. */
void nymbl__notify_path(char path[64], const nymbl_engine *engine);

/* ---- used only by the pump ---- */

/* Collect the descriptors to poll in addition to libcurl's sockets. Returns
 * whether the listener is not among them because accept() has failed for lack
 * of resources. */
bool nymbl__notify_collect_fds(nymbl_engine *engine);
/* Accept peers, and cancel the transfers whose notify socket was closed. */
void nymbl__notify_serve(nymbl_engine *engine);
/* Close the listener and all pending peers. */
void nymbl__notify_close(nymbl_engine *engine);

#endif
