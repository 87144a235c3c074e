/* SPDX-License-Identifier: MIT */
/* The lock between callers and the I/O thread. */
#ifndef NYMBL_BASE_MUTEX_H
#define NYMBL_BASE_MUTEX_H

#include "nymbl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* One lock for each engine and all that was started on it. It does nothing
 * unless the engine has a thread. While it is held, nothing may call back or
 * wait. */
typedef struct nymbl__mutex {
    atomic_int references; /* the engine's, and those of bodies sent on it */
    pid_t pid;             /* of the process that created it */
    bool threaded;         /* changes only while no thread runs */
    pthread_mutex_t mutex;
} nymbl__mutex;

nymbl_kind nymbl__mutex_new(nymbl__mutex **out);
void nymbl__mutex_retain(nymbl__mutex *mutex);
/* Release a reference. */
void nymbl__mutex_release(nymbl__mutex *mutex);
void nymbl__mutex_lock(nymbl__mutex *mutex);
void nymbl__mutex_unlock(nymbl__mutex *mutex);
/* False in a forked child. */
bool nymbl__mutex_in_this_process(const nymbl__mutex *mutex);

#endif
