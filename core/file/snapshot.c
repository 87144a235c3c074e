/* SPDX-License-Identifier: MIT */
/* Detection of changes to a source file while it is sent: a mix of old and new
 * bytes would be a document that never existed. */
#include "file/snapshot.h"

#include "base/fnv1a.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A hash of the current path of a descriptor's file, or 0 if the system does
 * not provide the path. */
static uint64_t path_hash_of(int fd)
{
    char link[32], path[PATH_MAX];
    ssize_t size;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof(path));
    return size > 0 ? nymbl__fnv1a(NYMBL__FNV1A_INIT, path, (size_t)size) : 0;
}

void nymbl__snapshot_take(nymbl__snapshot *snapshot, int fd)
{
    snapshot->fd = -1;
    if (fstat(fd, &snapshot->status) < 0 || !S_ISREG(snapshot->status.st_mode))
        return;
    snapshot->fd = fd;
    snapshot->path_hash = path_hash_of(fd);
}

static bool times_differ(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec || a->tv_nsec != b->tv_nsec;
}

bool nymbl__snapshot_is_outdated(const nymbl__snapshot *snapshot)
{
    const struct stat *old = &snapshot->status;
    struct stat now;

    if (snapshot->fd < 0)
        return false;
    if (fstat(snapshot->fd, &now) < 0 || now.st_size != old->st_size ||
        times_differ(&now.st_mtim, &old->st_mtim))
        return true;
    /* Unlike st_mtim, st_ctim cannot be set. But a change of the name, link
     * count, owner or mode changes it, too. If only st_ctim differs, the
     * content was modified and st_mtim was set back. */
    if (!times_differ(&now.st_ctim, &old->st_ctim))
        return false;
    return now.st_nlink == old->st_nlink && now.st_mode == old->st_mode &&
           now.st_uid == old->st_uid && now.st_gid == old->st_gid &&
           (snapshot->path_hash == 0 ||
            path_hash_of(snapshot->fd) == snapshot->path_hash);
}
