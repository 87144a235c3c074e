/* SPDX-License-Identifier: MIT */
/* The thread that pumps an engine for owners who must not wait. */
#include "engine/thread.h"

#include "base/error.h"
#include "engine/engine.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

void nymbl__engine_lock(nymbl_engine *engine)
{
    /* in a forked child the thread is not, but it may have held the lock */
    if (engine->threaded && engine->pid == nymbl__process())
        pthread_mutex_lock(&engine->mutex);
}

void nymbl__engine_unlock(nymbl_engine *engine)
{
    if (engine->threaded && engine->pid == nymbl__process())
        pthread_mutex_unlock(&engine->mutex);
}

nymbl_kind nymbl__thread_init(nymbl_engine *engine)
{
    pthread_condattr_t attributes;
    bool good;

    if (pthread_mutex_init(&engine->mutex, NULL) != 0)
        return NYMBL_NO_MEMORY;
    good = pthread_condattr_init(&attributes) == 0;
    if (good) {
        good = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
               pthread_cond_init(&engine->told, &attributes) == 0;
        pthread_condattr_destroy(&attributes);
    }
    if (good)
        return NYMBL_OK;
    pthread_mutex_destroy(&engine->mutex);
    return NYMBL_NO_MEMORY;
}

void nymbl__thread_destroy(nymbl_engine *engine)
{
    if (engine->threaded) /* forked: the parent's */
        return;
    pthread_cond_destroy(&engine->told);
    pthread_mutex_destroy(&engine->mutex);
}

static bool is_stopping(nymbl_engine *engine)
{
    bool stopping;

    nymbl__engine_lock(engine);
    stopping = engine->stopping;
    nymbl__engine_unlock(engine);
    return stopping;
}

static void *thread_main(void *payload)
{
    nymbl_engine *engine = payload;

    while (!is_stopping(engine))
        nymbl__engine_pass(engine, 3600); /* commands end the wait */
    return NULL;
}

nymbl_kind nymbl_engine_start(nymbl_engine *engine, nymbl_error *err)
{
    sigset_t all, before;
    int problem;

    if (!nymbl_engine_is_own(engine) || engine->closed)
        return nymbl__fail(err, NYMBL_MISUSE, "engine");
    if (engine->threaded)
        return NYMBL_OK;
    engine->threaded = true;
    /* the host handles its signals in threads of its own (nginx: in the main
     * one) */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    problem = pthread_create(&engine->thread, NULL, thread_main, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (problem == 0)
        return NYMBL_OK;
    engine->threaded = false;
    /* EAGAIN: of threads, of memory for a stack, or of what a limit allows */
    return nymbl__fail(err, NYMBL_IO, "too_many_threads");
}

void nymbl__thread_wait(nymbl_engine *engine, double timeout)
{
    struct timespec end;
    int problem = 0;

    if (timeout > 3600)
        timeout = 3600;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)timeout;
    end.tv_nsec += (long)((timeout - (double)(time_t)timeout) * 1e9);
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    nymbl__engine_lock(engine);
    while (!engine->news && problem == 0)
        problem = pthread_cond_timedwait(&engine->told, &engine->mutex, &end);
    engine->news = false;
    nymbl__engine_unlock(engine);
}

void nymbl__thread_stop(nymbl_engine *engine)
{
    if (!engine->threaded)
        return;
    nymbl__engine_lock(engine);
    engine->stopping = true;
    nymbl__engine_unlock(engine);
    nymbl__engine_wake(engine);
    pthread_join(engine->thread, NULL);
    engine->threaded = engine->stopping = false;
}
