/* SPDX-License-Identifier: MIT */
/* A file that is sent must not change meanwhile: half of the old bytes and half
 * of the new ones would be a document that nobody has ever had. */
#include "file/watch.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A hash (FNV-1a) of the name that a descriptor's file has now; 0 if the system
 * does not say. */
static uint64_t name_of(int fd)
{
    char link[32], name[PATH_MAX];
    uint64_t hash = 14695981039346656037u;
    ssize_t size;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    size = readlink(link, name, sizeof(name));
    for (ssize_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)name[i]) * 1099511628211u;
    return size > 0 ? hash : 0;
}

void nymbl__watch_begin(nymbl__watch *watch, int fd)
{
    watch->fd = -1;
    if (fstat(fd, &watch->before) < 0 || !S_ISREG(watch->before.st_mode))
        return;
    watch->fd = fd;
    watch->name = name_of(fd);
}

static bool times_differ(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec || a->tv_nsec != b->tv_nsec;
}

bool nymbl__watch_has_changed(const nymbl__watch *watch)
{
    const struct stat *before = &watch->before;
    struct stat now;

    if (watch->fd < 0)
        return false;
    if (fstat(watch->fd, &now) < 0 || now.st_size != before->st_size ||
        times_differ(&now.st_mtim, &before->st_mtim))
        return true;
    /* The time of the last change of any kind cannot be set, as st_mtim can. It
     * also tells of what is no change of the content: another name, one more or
     * less, another owner or mode. Nothing of the kind means that the content
     * was changed and st_mtim was set back. */
    if (!times_differ(&now.st_ctim, &before->st_ctim))
        return false;
    return now.st_nlink == before->st_nlink && now.st_mode == before->st_mode &&
           now.st_uid == before->st_uid && now.st_gid == before->st_gid &&
           (watch->name == 0 || name_of(watch->fd) == watch->name);
}
