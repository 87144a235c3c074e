/* SPDX-License-Identifier: MIT */
/* Descriptors 0, 1 and 2 belong to the program, even if it has closed them. If
 * a file or socket got such a number, text that the program prints would be
 * written to it. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

int nymbl__fd_avoid_stdio(int fd)
{
    int higher;

    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    nymbl__fd_close(fd);
    return higher;
}

void nymbl__fd_close(int fd)
{
    int saved_errno = errno;

    close(fd);
    errno = saved_errno;
}

/* Open a placeholder: a close-on-exec descriptor on which reads and writes
 * fail, as on a closed one. */
static int placeholder_open(void)
{
    int fd = -1;

#ifdef O_PATH
    fd = open("/dev/null", O_PATH | O_CLOEXEC);
#endif
    if (fd < 0) { /* on a socket without a peer reads and writes fail too */
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (fd >= 0)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd;
}

void nymbl__fd_reserve_stdio(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        int placeholder;

        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        /* The system assigns the lowest free number, which is `fd`, unless
         * another thread has just used that. */
        placeholder = placeholder_open();
        if (placeholder > STDERR_FILENO)
            close(placeholder);
    }
}
