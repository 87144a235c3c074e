/* SPDX-License-Identifier: MIT */
/* The entries of a directory. */
#ifndef NYMBL_JOB_DIRECTORY_H
#define NYMBL_JOB_DIRECTORY_H

#include "job/job.h"

#include <stdbool.h>

/* NULL if there is no memory. `max` is positive. */
nymbl__job *nymbl__directory_job_new(const char *path, size_t max);
bool nymbl__is_directory_job(const nymbl__job *job);
/* The next entry of a job that has succeeded; the name is borrowed. False after
 * the last one. */
bool nymbl__directory_job_next(nymbl__job *job, nymbl_directory_entry *out);

#endif
