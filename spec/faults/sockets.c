/* SPDX-License-Identifier: MIT */
/* The functions for sockets and threads in which faults are injected. The types
 * of addresses, unions of pointers for the compiler, are glibc's. */
#include "strike.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

CALL(int, -1, socket, (int family, int type, int protocol),
     (family, type, protocol))
CALL(int, -1, socketpair, (int family, int type, int protocol, int fds[2]),
     (family, type, protocol, fds))
CALL(int, -1, bind, (int fd, __CONST_SOCKADDR_ARG name, socklen_t length),
     (fd, name, length))
CALL(int, -1, listen, (int fd, int backlog), (fd, backlog))
CALL(int, -1, connect, (int fd, __CONST_SOCKADDR_ARG name, socklen_t length),
     (fd, name, length))
CALL(int, -1, accept4,
     (int fd, __SOCKADDR_ARG name, socklen_t *length, int flags),
     (fd, name, length, flags))
CALL(int, -1, shutdown, (int fd, int how), (fd, how))
CALL(int, -1, getsockname, (int fd, __SOCKADDR_ARG name, socklen_t *length),
     (fd, name, length))
CALL(int, -1, getpeername, (int fd, __SOCKADDR_ARG name, socklen_t *length),
     (fd, name, length))
CALL(int, -1, getsockopt,
     (int fd, int level, int option, void *value, socklen_t *size),
     (fd, level, option, value, size))
CALL(int, -1, setsockopt,
     (int fd, int level, int option, const void *value, socklen_t size),
     (fd, level, option, value, size))
CALL(int, -1, poll, (struct pollfd * fds, nfds_t count, int timeout),
     (fds, count, timeout))

TRANSFER(recv, (int fd, void *data, size_t size, int flags),
         (fd, data, size, flags))
TRANSFER(send, (int fd, const void *data, size_t size, int flags),
         (fd, data, size, flags))
TRANSFER(recvfrom,
         (int fd, void *data, size_t size, int flags, __SOCKADDR_ARG name,
          socklen_t *length),
         (fd, data, size, flags, name, length))
TRANSFER(sendto,
         (int fd, const void *data, size_t size, int flags,
          __CONST_SOCKADDR_ARG name, socklen_t length),
         (fd, data, size, flags, name, length))

CALL(int, errno, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes,
      void *(*run)(void *), void *payload),
     (thread, attributes, run, payload))

/* What pthread_atfork() calls. */
int __register_atfork(void (*before)(void), void (*parent)(void),
                      void (*child)(void), void *object);

int __register_atfork(void (*before)(void), void (*parent)(void),
                      void (*child)(void), void *object)
{
    int (*real)(void (*)(void), void (*)(void), void (*)(void), void *);

    REAL(__register_atfork);
    return strikes("pthread_atfork") ? errno
                                     : real(before, parent, child, object);
}
