/* SPDX-License-Identifier: MIT */
/* The lock between callers and the I/O thread. */
#include "base/mutex.h"

#include "base/process.h"

#include <stdlib.h>

nymbl_kind nymbl__mutex_new(nymbl__mutex **out)
{
    nymbl__mutex *mutex = calloc(1, sizeof(*mutex));

    *out = NULL;
    if (mutex == NULL)
        return NYMBL_NO_MEMORY;
    if (pthread_mutex_init(&mutex->mutex, NULL) != 0) {
        free(mutex);
        return NYMBL_NO_MEMORY;
    }
    mutex->references = 1;
    mutex->pid = nymbl__process_id();
    *out = mutex;
    return NYMBL_OK;
}

void nymbl__mutex_retain(nymbl__mutex *mutex)
{
    atomic_fetch_add(&mutex->references, 1);
}

void nymbl__mutex_release(nymbl__mutex *mutex)
{
    if (atomic_fetch_sub(&mutex->references, 1) > 1)
        return;
    /* An engine stops its thread before it releases the mutex. So a mutex that
     * is still threaded was inherited by a forked child, and the parent's
     * thread may have locked it. */
    if (!mutex->threaded)
        pthread_mutex_destroy(&mutex->mutex);
    free(mutex);
}

void nymbl__mutex_lock(nymbl__mutex *mutex)
{
    /* A forked child does not have the thread that may have held the lock. */
    if (mutex->threaded && nymbl__mutex_in_this_process(mutex))
        pthread_mutex_lock(&mutex->mutex);
}

void nymbl__mutex_unlock(nymbl__mutex *mutex)
{
    if (mutex->threaded && nymbl__mutex_in_this_process(mutex))
        pthread_mutex_unlock(&mutex->mutex);
}

bool nymbl__mutex_in_this_process(const nymbl__mutex *mutex)
{
    return mutex->pid == nymbl__process_id();
}
