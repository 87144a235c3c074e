/* SPDX-License-Identifier: MIT */
/* The lock between callers and the I/O thread. */
#ifndef NYMBL_BASE_MUTEX_H
#define NYMBL_BASE_MUTEX_H

#include "nymbl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* The lock between an engine's callers and its pump, one for each engine. While
 * they are one thread, it does nothing. Nothing that can call back or wait for
 * long is done while it is held. */
typedef struct nymbl__mutex {
    atomic_int references; /* its engine, and the bodies that were sent on it */
    pid_t pid;             /* of the process that made it */
    bool threaded;         /* changes only while there is no thread */
    pthread_mutex_t mutex;
} nymbl__mutex;

nymbl_kind nymbl__mutex_new(nymbl__mutex **out);
void nymbl__mutex_retain(nymbl__mutex *mutex);
/* Drop a reference. */
void nymbl__mutex_release(nymbl__mutex *mutex);
void nymbl__mutex_lock(nymbl__mutex *mutex);
void nymbl__mutex_unlock(nymbl__mutex *mutex);
/* False in a forked child. */
bool nymbl__mutex_in_this_process(const nymbl__mutex *mutex);

#endif
