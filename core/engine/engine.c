/* SPDX-License-Identifier: MIT */
/* The engine: its lifetime, its lock and its clock. */
#include "engine/engine.h"

#include <stdlib.h>
#include <time.h>

/* The default clock. It stops while the machine is suspended, because time
 * limits count the time spent polling. */
static double clock_monotonic(void *payload)
{
    struct timespec now;

    (void)payload;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    bool good;

    if (pthread_condattr_init(&attributes) != 0)
        return false;
    good = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
           pthread_cond_init(condition, &attributes) == 0;
    pthread_condattr_destroy(&attributes);
    return good;
}

nymbl_kind nymbl__engine_create(nymbl_engine **out)
{
    nymbl_engine *engine = calloc(1, sizeof(*engine));

    *out = NULL;
    if (engine == NULL)
        return NYMBL_NO_MEMORY;
    engine->references = 1;
    engine->listener = engine->dir_fd = -1;
    for (int i = 0; i < NYMBL__PENDING_MAX; i++)
        engine->pending[i].fd = -1;
    engine->clock = clock_monotonic;
    if (nymbl__mutex_new(&engine->mutex) < 0) {
        free(engine);
        return NYMBL_NO_MEMORY;
    }
    if (!condition_init(&engine->cond)) {
        nymbl__mutex_release(engine->mutex);
        free(engine);
        return NYMBL_NO_MEMORY;
    }
    *out = engine;
    return NYMBL_OK;
}

void nymbl__engine_retain(nymbl_engine *engine)
{
    atomic_fetch_add(&engine->references, 1);
}

void nymbl__engine_release(nymbl_engine *engine)
{
    if (atomic_fetch_sub(&engine->references, 1) > 1)
        return;
    /* If the engine still has a thread, this is a forked child, and the
     * parent's thread may have been waiting for the condition. */
    if (!engine->mutex->threaded)
        pthread_cond_destroy(&engine->cond);
    nymbl__mutex_release(engine->mutex);
    free(engine->waitfds);
    free(engine);
}

void nymbl__engine_lock(const nymbl_engine *engine)
{
    nymbl__mutex_lock(engine->mutex);
}

void nymbl__engine_unlock(const nymbl_engine *engine)
{
    nymbl__mutex_unlock(engine->mutex);
}

bool nymbl__engine_is_threaded(const nymbl_engine *engine)
{
    return engine->mutex->threaded;
}

bool nymbl_engine_in_this_process(const nymbl_engine *engine)
{
    return engine != NULL && nymbl__mutex_in_this_process(engine->mutex);
}

bool nymbl_engine_is_idle(const nymbl_engine *engine)
{
    return !engine->mutex->threaded && engine->commands == NULL &&
           engine->running.first == NULL && engine->waiting.first == NULL &&
           engine->jobs.first == NULL && engine->requests.first == NULL;
}

double nymbl_engine_now(const nymbl_engine *engine)
{
    if (engine == NULL)
        return clock_monotonic(NULL);
    return engine->clock(engine->payload);
}
