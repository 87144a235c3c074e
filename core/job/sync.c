/* SPDX-License-Identifier: MIT */
/* Flush a file to disk: first its bytes, then the directory that contains its
 * name; or flush the names in a directory. */
#include "job/sync.h"

#include "base/error.h"
#include "base/fd.h"
#include "file/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct sync_job {
    nymbl__job job;
    bool content_is_flushed;
} sync_job;

static nymbl_kind fail(const char **reason)
{
    *reason = nymbl_reason_from_errno(errno);
    return NYMBL_IO;
}

static nymbl_kind content_flush(sync_job *self, const char **reason)
{
    nymbl_kind kind = NYMBL_AGAIN;
    struct stat status;
    int fd = nymbl__job_open(&self->job, 0);

    if (fd < 0)
        return fail(reason);
    if (fstat(fd, &status) < 0) {
        kind = fail(reason);
    } else if (S_ISDIR(status.st_mode)) {
        kind = nymbl__fs_flush_dir(fd) < 0 ? fail(reason) : NYMBL_OK;
    } else if (!S_ISREG(status.st_mode)) {
        *reason = nymbl__reason_not_a_file;
        kind = NYMBL_IO;
    } else if (nymbl__fs_flush(fd) < 0) {
        kind = fail(reason);
    } else if (self->job.path == NULL) {
        kind = NYMBL_OK;
    }
    nymbl__fd_close(fd);
    self->content_is_flushed = true;
    return kind;
}

/* Open the directory that contains the file. The path is restored, because all
 * of it must be wiped later. */
static int parent_open(char *path)
{
    static const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    char *slash = strrchr(path, '/'), *end, kept;
    int fd;

    if (slash == NULL)
        return nymbl__fd_avoid_stdio(open(".", flags));
    end = slash == path ? slash + 1 : slash;
    kept = *end;
    *end = '\0';
    fd = nymbl__fd_avoid_stdio(open(path, flags));
    *end = kept;
    return fd;
}

static nymbl_kind name_flush(sync_job *self, const char **reason)
{
    nymbl_kind kind = NYMBL_OK;
    int fd = parent_open(self->job.path);

    if (fd < 0) /* for example a directory without read permission */
        return nymbl__fs_is_unsupported(errno) ? NYMBL_OK : fail(reason);
    if (nymbl__fs_flush(fd) < 0)
        kind = fail(reason);
    nymbl__fd_close(fd);
    return kind;
}

static nymbl_kind sync_step(nymbl__job *job, const char **reason)
{
    sync_job *self = (sync_job *)job;

    return self->content_is_flushed ? name_flush(self, reason)
                                    : content_flush(self, reason);
}

static void sync_release(nymbl__job *job)
{
    (void)job; /* nothing stays open between two steps */
}

static const nymbl__job_type sync_type = {sync_step, sync_release};

nymbl__job *nymbl__sync_job_new(const char *path, int fd)
{
    return nymbl__job_new(&sync_type, sizeof(sync_job), path, fd);
}
