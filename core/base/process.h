/* SPDX-License-Identifier: MIT */
/* The id of this process without a system call. */
#ifndef NYMBL_BASE_PROCESS_H
#define NYMBL_BASE_PROCESS_H

#include <sys/types.h>

/* To be called once, before nymbl__process_id(). */
void nymbl__process_init(void);
/* The id, updated after fork(). */
pid_t nymbl__process_id(void);

#endif
