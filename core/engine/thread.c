/* SPDX-License-Identifier: MIT */
/* The I/O thread, which pumps an engine for callers that must not wait. */
#include "engine/thread.h"

#include "base/error.h"
#include "engine/pump.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

/* until a failed wakeup is sent again */
static const struct timespec wake_delay = {.tv_nsec = 20 * 1000000L};

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
        nymbl__pump_pass(engine, 3600); /* nymbl__pump_wake() ends the wait */
    return NULL;
}

nymbl_kind nymbl_engine_start_thread(nymbl_engine *engine, nymbl_error *err)
{
    sigset_t all, before;
    int problem;

    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        return nymbl__error_set(err, NYMBL_MISUSE, "engine");
    if (engine->mutex->threaded)
        return NYMBL_OK;
    engine->mutex->threaded = true;
    /* the program handles its signals in its own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    problem = pthread_create(&engine->thread, NULL, thread_main, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (problem == 0)
        return NYMBL_OK;
    engine->mutex->threaded = false;
    /* EAGAIN: too many threads, or no memory for a stack */
    return nymbl__error_set(err, NYMBL_IO, nymbl__reason_too_many_threads);
}

/* Wake the thread if that has failed before; false if it fails again. */
static bool wake_again(nymbl_engine *engine)
{
    bool failed;

    nymbl__engine_lock(engine);
    failed = engine->wake_failed;
    nymbl__engine_unlock(engine);
    return !failed || nymbl__pump_wake(engine);
}

void nymbl__thread_wait(nymbl_engine *engine, double timeout)
{
    struct timespec end;
    int problem = 0;

    if (timeout > 3600)
        timeout = 3600;
    if (!wake_again(engine) && timeout > (double)wake_delay.tv_nsec / 1e9)
        timeout = (double)wake_delay.tv_nsec / 1e9;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)timeout;
    end.tv_nsec += (long)((timeout - (double)(time_t)timeout) * 1e9);
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    nymbl__engine_lock(engine);
    while (!engine->callers_notified && problem == 0)
        problem =
            pthread_cond_timedwait(&engine->cond, &engine->mutex->mutex, &end);
    engine->callers_notified = false;
    nymbl__engine_unlock(engine);
}

void nymbl__thread_stop(nymbl_engine *engine)
{
    if (!engine->mutex->threaded)
        return;
    nymbl__engine_lock(engine);
    engine->stopping = true;
    nymbl__engine_unlock(engine);
    while (!nymbl__pump_wake(engine))
        nanosleep(&wake_delay, NULL);
    pthread_join(engine->thread, NULL);
    engine->mutex->threaded = engine->stopping = false;
}
