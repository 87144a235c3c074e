/* SPDX-License-Identifier: MIT */
/* The thread that pumps an engine for owners who must not wait. */
#ifndef NYMBL_ENGINE_THREAD_H
#define NYMBL_ENGINE_THREAD_H

#include "engine/engine.h"

/* Wait for news of the thread's. */
void nymbl__thread_wait(nymbl_engine *engine, double timeout);
/* End it, if there is one: whoever calls pumps from now on. */
void nymbl__thread_stop(nymbl_engine *engine);

#endif
