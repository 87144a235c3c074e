/* SPDX-License-Identifier: MIT */
/* Descriptors 0, 1 and 2 belong to the program, also if it has closed them:
 * text that it prints would end up in the file or socket that has got such a
 * number. */
#include "base/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

int nymbl__fd_high(int fd)
{
    int higher, problem;

    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    problem = errno;
    close(fd);
    errno = problem;
    return higher;
}

void nymbl__fd_close(int fd)
{
    int problem = errno;

    close(fd);
    errno = problem;
}

/* A descriptor that can be neither read nor written, as if it were closed, and
 * that is closed in programs that the host starts. */
static int nothing_open(void)
{
    int fd = -1;

#ifdef O_PATH
    fd = open("/dev/null", O_PATH | O_CLOEXEC);
#endif
    if (fd < 0) { /* not connected: reads and writes fail */
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (fd >= 0)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd;
}

void nymbl__fds_guard(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        int nothing;

        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        nothing = nothing_open(); /* gets the lowest number that is free */
        if (nothing > STDERR_FILENO)
            close(nothing); /* another thread was faster */
    }
}
