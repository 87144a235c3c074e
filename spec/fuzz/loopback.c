/* SPDX-License-Identifier: MIT */
/* Keeps a fuzzed redirect on this machine: names are not resolved, and only the
 * target's two ports on 127.0.0.1 can be connected to. The dynamic linker binds
 * libcurl to these two functions instead of the C library's. */
#undef _GNU_SOURCE /* it gives connect() another type */
#define _DEFAULT_SOURCE
#include "server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEEN __attribute__((visibility("default")))

SEEN int getaddrinfo(const char *name, const char *service,
                     const struct addrinfo *hints, struct addrinfo **out);
SEEN int connect(int fd, const struct sockaddr *address, socklen_t length);

int getaddrinfo(const char *name, const char *service,
                const struct addrinfo *hints, struct addrinfo **out)
{
    (void)name;
    (void)service;
    (void)hints;
    (void)out;
    return EAI_NONAME;
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_in *to = (const struct sockaddr_in *)(void *)address;

    if (address->sa_family != AF_INET ||
        to->sin_addr.s_addr != htonl(INADDR_LOOPBACK) ||
        (ntohs(to->sin_port) != server.port &&
         ntohs(to->sin_port) != server.other_port)) {
        errno = ECONNREFUSED;
        return -1;
    }
    return (int)syscall(SYS_connect, fd, address, length);
}
