/* SPDX-License-Identifier: MIT */
/* Removal of files that killed processes left behind. */
#include "file/leftover.h"

#include "base/fd.h"
#include "file/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Seconds without a write after which a file on a network file system counts as
 * left behind. A lock does not count there, because a process on another
 * machine may have locked the file invisibly. */
#define STALE_SECONDS 86400

/* Whether a file can be this library's: it is a regular file of this user. It
 * has two names if its writer was killed between link() and unlink(). */
static bool is_candidate(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_uid == geteuid() &&
           (status->st_nlink == 1 || status->st_nlink == 2);
}

/* Open a file in order to lock it. Any access mode is enough for that, except
 * that NFS requires write access; so try whichever the file's mode permits. */
static int leftover_open(int dir_fd, const char *name)
{
    static const int modes[] = {O_RDWR, O_RDONLY, O_WRONLY};
    int fd = -1;

    for (int i = 0; i < 3 && fd < 0; i++)
        fd = openat(dir_fd, name,
                    modes[i] | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return nymbl__fd_avoid_stdio(fd);
}

bool nymbl__leftover_remove(int dir_fd, const char *name)
{
    struct stat status;
    bool removed = false;
    int fd;

    if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT;
    if (!is_candidate(&status) ||
        (nymbl__fs_is_network(dir_fd) &&
         status.st_mtime > time(NULL) - STALE_SECONDS))
        return false;
    fd = leftover_open(dir_fd, name);
    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &status) == 0 &&
        is_candidate(&status) && nymbl__fs_has_name(fd, dir_fd, name))
        removed = unlinkat(dir_fd, name, 0) == 0;
    close(fd);
    return removed;
}
