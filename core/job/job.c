/* SPDX-License-Identifier: MIT */
/* Functions common to all jobs. */
#include "job/job.h"

#include "base/fd.h"
#include "base/secret.h"
#include "base/text.h"

#include <fcntl.h>
#include <stdlib.h>

nymbl__job *nymbl__job_new(const nymbl__job_type *type, size_t size,
                           const char *path)
{
    nymbl__job *job = calloc(1, size);

    if (job == NULL)
        return NULL;
    if (nymbl__text_copy(&job->path, path) < 0) {
        free(job);
        return NULL;
    }
    job->type = type;
    return job;
}

void nymbl__job_free(nymbl__job *job)
{
    if (job == NULL)
        return;
    job->type->release(job);
    nymbl__secret_free(job->path);
    free(job);
}

int nymbl__job_open(const nymbl__job *job, int flags)
{
    return nymbl__fd_avoid_stdio(open(job->path, flags | O_RDONLY | O_NOFOLLOW |
                                                     O_NONBLOCK | O_NOCTTY |
                                                     O_CLOEXEC));
}
