/* SPDX-License-Identifier: MIT */
/* The SHA-256 of a file. */
#ifndef NYMBL_JOB_DIGEST_H
#define NYMBL_JOB_DIGEST_H

#include "job/job.h"

/* Create a job that computes the SHA-256 of a file (see nymbl__job_new()). NULL
 * if memory runs out. */
nymbl__job *nymbl__digest_job_new(const char *path, int fd);
/* The result of a job that has succeeded; NULL if the job is of another type.
 */
const nymbl_file_digest *nymbl__digest_job_result(const nymbl__job *job);

#endif
