/* SPDX-License-Identifier: MIT */
/* The id of this process, cached: getpid() is a system call, and every lock
 * operation needs it. */
#include "base/process.h"

#include <pthread.h>
#include <unistd.h>

static _Atomic pid_t process;

static void process_set(void)
{
    process = getpid();
}

void nymbl__process_init(void)
{
    process_set();
    pthread_atfork(NULL, NULL, process_set);
}

pid_t nymbl__process_id(void)
{
    return process;
}
