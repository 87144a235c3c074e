/* SPDX-License-Identifier: MIT */
/* The id of this process, at no cost. */
#ifndef NYMBL_BASE_PROCESS_H
#define NYMBL_BASE_PROCESS_H

#include <sys/types.h>

/* To be called once before nymbl__process(). */
void nymbl__process_start(void);
/* This process, as of the last fork. */
pid_t nymbl__process(void);

#endif
