/* SPDX-License-Identifier: MIT */
/* The entries of a directory. */
#ifndef NYMBL_JOB_DIRECTORY_H
#define NYMBL_JOB_DIRECTORY_H

#include "job/job.h"

#include <stdbool.h>

/* Create a job that reads up to `max` entries of a directory; `max` is
 * positive. NULL if memory runs out. */
nymbl__job *nymbl__directory_job_new(const char *path, size_t max);
bool nymbl__directory_job_is(const nymbl__job *job);
/* Get the next entry of a job that has succeeded; its name is borrowed. Returns
 * false after the last entry. */
bool nymbl__directory_job_next(nymbl__job *job, nymbl_directory_entry *out);

#endif
