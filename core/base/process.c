/* SPDX-License-Identifier: MIT */
/* The id of this process, cached: getpid() is a system call, and every lock
 * operation needs it. */
#include "base/process.h"

#include <pthread.h>
#include <unistd.h>

static _Atomic pid_t process_id;

static void process_id_update(void)
{
    process_id = getpid();
}

void nymbl__process_init(void)
{
    /* Without memory for the handler, nothing is cached: a child would take
     * itself for its parent, and use its connections. */
    if (pthread_atfork(NULL, NULL, process_id_update) == 0)
        process_id_update();
}

pid_t nymbl__process_id(void)
{
    pid_t id = process_id;

    return id != 0 ? id : getpid();
}
