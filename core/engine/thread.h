/* SPDX-License-Identifier: MIT */
/* The I/O thread, which pumps an engine for callers that must not wait. */
#ifndef NYMBL_ENGINE_THREAD_H
#define NYMBL_ENGINE_THREAD_H

#include "engine/engine.h"

/* Wait until a caller is notified, or for some seconds. */
void nymbl__thread_wait(nymbl_engine *engine, double timeout);
/* Stop the thread, if there is one. From now on the caller may pump. */
void nymbl__thread_stop(nymbl_engine *engine);

#endif
