/* SPDX-License-Identifier: MIT */
/* The lock between callers and the I/O thread. */
#ifndef NYMBL_BASE_MUTEX_H
#define NYMBL_BASE_MUTEX_H

#include "nymbl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* The lock of an engine, its transfers and their bodies. It does nothing unless
 * the engine has a thread. A function that holds it must not wait, and must not
 * call the caller's functions. */
typedef struct nymbl__mutex {
    atomic_int references; /* of the engine and of bodies sent on it */
    pid_t pid;             /* the process that created it */
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
