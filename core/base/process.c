/* SPDX-License-Identifier: MIT */
/* The id of this process. getpid() is a system call, and the lock asks each
 * time. */
#include "base/process.h"

#include <pthread.h>
#include <unistd.h>

static _Atomic pid_t process;

static void process_set(void)
{
    process = getpid();
}

void nymbl__process_start(void)
{
    process_set();
    pthread_atfork(NULL, NULL, process_set);
}

pid_t nymbl__process(void)
{
    return process;
}
