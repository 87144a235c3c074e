/* SPDX-License-Identifier: MIT */
/* Files that belong to this user alone. */
#include "file/private_file.h"

#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* The reason not to use a file, or NULL. */
static const char *file_problem(const struct stat *status, unsigned forbidden)
{
    if (S_ISDIR(status->st_mode))
        return nymbl__reason_directory;
    if (!S_ISREG(status->st_mode))
        return nymbl__reason_not_a_file;
    if (status->st_uid != geteuid())
        return nymbl__reason_wrong_owner;
    if ((status->st_mode & forbidden) != 0)
        return nymbl__reason_insecure_permissions;
    /* another program may use the file under its other name */
    return status->st_nlink > 1 ? nymbl__reason_hard_link : NULL;
}

/* Open a file; fail if it grants others one of the `forbidden` permissions. */
static int checked_open(int dir_fd, const char *name, int flags,
                        unsigned forbidden, struct stat *status,
                        const char **reason)
{
    int fd = nymbl__fd_avoid_stdio(
        openat(dir_fd, name,
               flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600));

    if (fd < 0) {
        *reason = errno == ELOOP ? nymbl__reason_symbolic_link
                                 : nymbl_reason_from_errno(errno);
        return -1;
    }
    if (fstat(fd, status) < 0)
        *reason = nymbl_reason_from_errno(errno);
    else
        *reason = file_problem(status, forbidden);
    if (*reason == NULL)
        return fd;
    close(fd);
    errno = EACCES;
    return -1;
}

int nymbl__private_file_open(int dir_fd, const char *name, int flags)
{
    struct stat status;
    const char *reason;

    return checked_open(dir_fd, name, flags, 077, &status, &reason);
}

int nymbl__private_file_open_path(const char *path, int flags,
                                  struct stat *status, const char **reason)
{
    return checked_open(AT_FDCWD, path, flags, 022, status, reason);
}
