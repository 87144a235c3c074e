/* SPDX-License-Identifier: MIT */
/* The thread that pumps an engine for owners who must not wait. */
#ifndef NYMBL_ENGINE_THREAD_H
#define NYMBL_ENGINE_THREAD_H

#include "nymbl.h"

/* The lock stands between the owner of a transfer and whoever pumps. While they
 * are one thread it does nothing. Nothing that can call back or wait for long
 * is done while it is held. */
void nymbl__engine_lock(nymbl_engine *engine);
void nymbl__engine_unlock(nymbl_engine *engine);
nymbl_kind nymbl__thread_init(nymbl_engine *engine);
void nymbl__thread_destroy(nymbl_engine *engine);
/* Wait for news of the thread's. */
void nymbl__thread_wait(nymbl_engine *engine, double timeout);
/* End it, if there is one: whoever calls pumps from now on. */
void nymbl__thread_stop(nymbl_engine *engine);

#endif
