/* SPDX-License-Identifier: MIT */
/* The sockets that libcurl has open. */
#include "exchange/sockets.h"

#include "base/ascii.h"
#include "base/descriptor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* FNV-1a of the part of a URL before its path: equal for equal origins, and
 * where two happen to meet, a connection is kept that might have been closed.
 */
uint64_t nymbl__origin_hash(const char *url)
{
    const char *host = strstr(url, "://");
    size_t length = host == NULL ? 0 : (size_t)(host - url) + 3;
    uint64_t hash = 14695981039346656037u;

    length += strcspn(url + length, "/?#");
    for (size_t i = 0; i < length; i++)
        hash =
            (hash ^ (unsigned char)nymbl__ascii_lower(url[i])) * 1099511628211u;
    return hash;
}

/* The inode number of a socket, unique while it is open; 0 if fd is none. */
static ino_t inode_of(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) ? status.st_ino
                                                               : 0;
}

/* Whether fd is still the socket that libcurl opened. Some versions close one
 * without calling us (quirks.c); any other file may have that number then. */
static bool socket_is_ours(const nymbl__socket *socket)
{
    return socket->fd >= 0 && inode_of(socket->fd) == socket->inode;
}

static unsigned sockets_known(const nymbl__sockets *sockets)
{
    return sockets->made < NYMBL__SOCKETS ? sockets->made : NYMBL__SOCKETS;
}

/* libcurl 7.88 opens its sockets without SOCK_CLOEXEC: a program started by the
 * host must not inherit a connection with patient data on it. And text that the
 * host prints must not get onto one. */
curl_socket_t nymbl__opensocket_cb(void *payload, curlsocktype purpose,
                                   struct curl_sockaddr *address)
{
    int type = address->socktype;

    (void)payload;
    (void)purpose;
#ifdef SOCK_CLOEXEC
    type |= SOCK_CLOEXEC;
#endif
    return nymbl__fd_high(socket(address->family, type, address->protocol));
}

int nymbl__sockets_add(nymbl__sockets *sockets, curl_socket_t fd,
                       const char *url)
{
    unsigned i = 0;

    fcntl(fd, F_SETFD, FD_CLOEXEC); /* where there is no SOCK_CLOEXEC */
    while (i < sockets_known(sockets) && sockets->all[i].fd >= 0 &&
           sockets->all[i].fd != fd) /* closed without a callback */
        i++;
    if (i == sockets_known(sockets))
        i = sockets->made++ % NYMBL__SOCKETS;
    sockets->all[i] = (nymbl__socket){
        .fd = fd,
        .inode = inode_of(fd),
        .origin = nymbl__origin_hash(url),
    };
    return CURL_SOCKOPT_OK;
}

/* Forgotten before it is closed: from then on the number may be that of
 * anything that another thread has opened. */
int nymbl__closesocket_cb(void *payload, curl_socket_t fd)
{
    nymbl__sockets *sockets = payload;

    for (unsigned i = 0; i < sockets_known(sockets); i++) {
        if (sockets->all[i].fd == fd)
            sockets->all[i].fd = -1;
    }
    return close(fd);
}

static bool socket_has_port(int fd, int port)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);

    if (getsockname(fd, (struct sockaddr *)&name, &length) != 0)
        return false;
    if (name.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&name)->sin_port) == port;
    return name.ss_family == AF_INET6 &&
           ntohs(((struct sockaddr_in6 *)&name)->sin6_port) == port;
}

bool nymbl__sockets_are_silent(const nymbl__sockets *sockets, int port)
{
    bool known = false;
    char byte;

    for (unsigned i = 0; i < sockets_known(sockets); i++) {
        int fd = sockets->all[i].fd;

        if (fd < 0 || !socket_has_port(fd, port) ||
            !socket_is_ours(&sockets->all[i]))
            continue;
        if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
            return false; /* bytes, or the end */
        known = true;
    }
    return known;
}

void nymbl__sockets_shutdown_unused(nymbl__sockets *sockets,
                                    bool (*is_used)(uint64_t origin,
                                                    void *payload),
                                    void *payload)
{
    /* shut, not closed: libcurl finds it dead before it would use it again */
    for (unsigned i = 0; i < sockets_known(sockets); i++) {
        if (socket_is_ours(&sockets->all[i]) &&
            !is_used(sockets->all[i].origin, payload))
            shutdown(sockets->all[i].fd, SHUT_RDWR);
    }
}
