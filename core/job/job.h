/* SPDX-License-Identifier: MIT */
/* A job: work on local files that takes long, done in bounded steps. It knows
 * no engine, no thread and no caller. */
#ifndef NYMBL_JOB_JOB_H
#define NYMBL_JOB_JOB_H

#include "nymbl.h"

typedef struct nymbl__job nymbl__job;

typedef struct nymbl__job_type {
    /* Do a part of the work: a few milliseconds' worth, or one system call.
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
    char *path; /* that it works on */
};

/* Allocate a zeroed job of `size` bytes. NULL if there is no memory. */
nymbl__job *nymbl__job_new(const nymbl__job_type *type, size_t size,
                           const char *path);
/* NULL does nothing. */
void nymbl__job_free(nymbl__job *job);
/* Open the file or directory of a job; `flags` are those of open(2) beside the
 * ones that keep the call from waiting and from following a link. -1 with
 * errno. */
int nymbl__job_open(const nymbl__job *job, int flags);

#endif
