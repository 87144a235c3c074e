/* SPDX-License-Identifier: MIT */
/* Stream sockets that are close-on-exec, non-blocking and never raise SIGPIPE.
 */
#include "base/stream_socket.h"

#include <fcntl.h>
#include <unistd.h>

void nymbl__stream_socket_set_flags(int fd)
{
#ifndef SOCK_CLOEXEC
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
#endif
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &(int){1}, sizeof(int));
#endif
    (void)fd;
}

void nymbl__stream_socket_close(int fd)
{
    shutdown(fd, SHUT_RDWR);
    close(fd);
}
