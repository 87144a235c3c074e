/* SPDX-License-Identifier: MIT */
/* Leases: a stream socket for each transfer. */
#ifndef NYMBL_ENGINE_NOTIFY_H
#define NYMBL_ENGINE_NOTIFY_H

#include "engine/engine.h"

/* ---- of the engine's owner ---- */

/* See that there is a socket to connect to, in a folder that nobody else can
 * enter, and that it can be found. NYMBL_OK: it was made now, and whoever pumps
 * must be woken. NYMBL_DONE: it was there. */
nymbl_kind nymbl__notify_listen(nymbl_engine *engine, nymbl_error *err);
/* Where it is. */
void nymbl__notify_path(char path[64], const nymbl_engine *engine);

/* ---- of whoever pumps ---- */

/* Collect what the engine polls beside libcurl's sockets. Returns whether the
 * listener is left out, for want of descriptors. */
bool nymbl__notify_collect_fds(nymbl_engine *engine);
/* Take in who has connected; cancel transfers whose lease has ended. */
void nymbl__notify_serve(nymbl_engine *engine);
void nymbl__notify_close(nymbl_engine *engine);

#endif
