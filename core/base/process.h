/* SPDX-License-Identifier: MIT */
/* The id of this process without a system call. */
#ifndef NYMBL_BASE_PROCESS_H
#define NYMBL_BASE_PROCESS_H

#include <sys/types.h>

/* Call this once, before nymbl__process_id(). */
void nymbl__process_init(void);
/* The id of this process, also in a forked child. */
pid_t nymbl__process_id(void);

#endif
