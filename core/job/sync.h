/* SPDX-License-Identifier: MIT */
/* Flush a file and its name to disk. */
#ifndef NYMBL_JOB_SYNC_H
#define NYMBL_JOB_SYNC_H

#include "job/job.h"

/* NULL if there is no memory. */
nymbl__job *nymbl__sync_job_new(const char *path);

#endif
