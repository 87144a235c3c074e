/* SPDX-License-Identifier: MIT */
/* Flush a file and its name to disk, or the names in a directory. */
#ifndef NYMBL_JOB_SYNC_H
#define NYMBL_JOB_SYNC_H

#include "job/job.h"

/* Create a job that flushes (see nymbl__job_new()). A descriptor's name is not
 * flushed. NULL if memory runs out. */
nymbl__job *nymbl__sync_job_new(const char *path, int fd);

#endif
