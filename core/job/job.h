/* SPDX-License-Identifier: MIT */
/* A job: work on local files that takes long, done in bounded steps. It knows
 * no engine, no thread and no caller. */
#ifndef NYMBL_JOB_JOB_H
#define NYMBL_JOB_JOB_H

#include "nymbl.h"

typedef struct nymbl__job nymbl__job;

typedef struct nymbl__job_type {
    /* Do a part of the work, in a few milliseconds or in one system call.
     * Returns NYMBL_AGAIN if there is more to do, NYMBL_OK at the end, or a
     * failure with its reason. */
    nymbl_kind (*step)(nymbl__job *job, const char **reason);
    /* Release what the job has allocated and opened, but not its memory. May be
     * called between any two steps. */
    void (*release)(nymbl__job *job);
} nymbl__job_type;

/* The first member of every job. */
struct nymbl__job {
    const nymbl__job_type *type;
    char *path; /* the file or directory to work on, or NULL */
    int fd;     /* the same, if it is open already; or -1 */
};

/* Allocate a zeroed job of `size` bytes for a path, or if that is NULL, for a
 * descriptor, whose owner the job becomes. NULL if memory runs out. */
nymbl__job *nymbl__job_new(const nymbl__job_type *type, size_t size,
                           const char *path, int fd);
/* Release and free a job. NULL does nothing. */
void nymbl__job_free(nymbl__job *job);
/* Open the file or directory of a job, once. `flags`: further flags of open(2);
 * the call never waits and follows no symbolic link at the end of the path.
 * Returns a descriptor, or -1 with errno. */
int nymbl__job_open(nymbl__job *job, int flags);

#endif
