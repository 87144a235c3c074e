/* SPDX-License-Identifier: MIT */
/* Stream sockets that are close-on-exec, non-blocking and never raise SIGPIPE.
 */
#ifndef NYMBL_BASE_STREAM_SOCKET_H
#define NYMBL_BASE_STREAM_SOCKET_H

#include <sys/socket.h>

/* The type of a stream socket for socket(2). The host may start a program at
 * any moment, and the peer of a notify socket that the program inherits would
 * never see the end. So the socket is created close-on-exec if the system
 * supports that. */
#ifdef SOCK_CLOEXEC
#define NYMBL__STREAM_SOCKET (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#else
#define NYMBL__STREAM_SOCKET SOCK_STREAM
#endif

/* Set the flags of a new socket that NYMBL__STREAM_SOCKET could not set. */
void nymbl__stream_socket_set_flags(int fd);
/* Close a socket. Its peer sees that even if a forked process still has a copy.
 */
void nymbl__stream_socket_close(int fd);

#endif
