/* SPDX-License-Identifier: MIT */
/* Functions common to all jobs. */
#include "job/job.h"

#include "base/fd.h"
#include "base/secret.h"
#include "base/text.h"

#include <fcntl.h>
#include <stdlib.h>

static void fd_release(int fd)
{
    if (fd >= 0)
        nymbl__fd_close(fd);
}

nymbl__job *nymbl__job_new(const nymbl__job_type *type, size_t size,
                           const char *path, int fd)
{
    nymbl__job *job = calloc(1, size);

    if (job != NULL && path != NULL && nymbl__text_copy(&job->path, path) < 0) {
        free(job);
        job = NULL;
    }
    if (job == NULL) {
        fd_release(fd);
        return NULL;
    }
    job->type = type;
    job->fd = fd;
    return job;
}

void nymbl__job_free(nymbl__job *job)
{
    if (job == NULL)
        return;
    job->type->release(job);
    fd_release(job->fd);
    nymbl__secret_free(job->path);
    free(job);
}

int nymbl__job_open(nymbl__job *job, int flags)
{
    int fd = job->fd;

    job->fd = -1;
    if (fd >= 0)
        return fd;
    return nymbl__fd_avoid_stdio(open(job->path, flags | O_RDONLY | O_NOFOLLOW |
                                                     O_NONBLOCK | O_NOCTTY |
                                                     O_CLOEXEC));
}
