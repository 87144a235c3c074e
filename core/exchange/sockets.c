/* SPDX-License-Identifier: MIT */
/* A table of the sockets that libcurl has open. */
#include "exchange/sockets.h"

#include "base/fd.h"
#include "exchange/url.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* The inode number of a socket, unique while it is open; 0 if fd is not a
 * socket. */
static ino_t inode_of(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode) ? status.st_ino
                                                               : 0;
}

/* Whether the socket that libcurl opened is still open. Some versions of
 * libcurl close a socket without calling the callback (quirks.c); then its
 * number may refer to any other file. */
static bool socket_is_open(const nymbl__socket *socket)
{
    return socket->fd >= 0 && inode_of(socket->fd) == socket->inode;
}

static unsigned sockets_count(const nymbl__sockets *sockets)
{
    return sockets->added < NYMBL__SOCKETS ? sockets->added : NYMBL__SOCKETS;
}

/* libcurl 7.88 opens its sockets without SOCK_CLOEXEC, but a program started by
 * the host must not inherit a connection with patient data on it. And no socket
 * may get the number of stdin, stdout or stderr: the host's output would be
 * sent. */
curl_socket_t nymbl__sockets_open_cb(void *payload, curlsocktype purpose,
                                     struct curl_sockaddr *address)
{
    int type = address->socktype;

    (void)payload;
    (void)purpose;
#ifdef SOCK_CLOEXEC
    type |= SOCK_CLOEXEC;
#endif
    return nymbl__fd_avoid_stdio(
        socket(address->family, type, address->protocol));
}

int nymbl__sockets_add(nymbl__sockets *sockets, curl_socket_t fd,
                       const char *url)
{
    unsigned i = 0;

    fcntl(fd, F_SETFD, FD_CLOEXEC); /* for systems without SOCK_CLOEXEC */
    /* an entry with this number is left from a socket closed without a callback
     */
    while (i < sockets_count(sockets) && sockets->entries[i].fd >= 0 &&
           sockets->entries[i].fd != fd)
        i++;
    if (i == sockets_count(sockets))
        i = sockets->added++ % NYMBL__SOCKETS;
    sockets->entries[i] = (nymbl__socket){
        .fd = fd,
        .inode = inode_of(fd),
        .origin = nymbl__url_origin_hash(url),
    };
    return CURL_SOCKOPT_OK;
}

/* Remove the socket from the table before closing it: another thread may reuse
 * its number at once. */
int nymbl__sockets_close_cb(void *payload, curl_socket_t fd)
{
    nymbl__sockets *sockets = payload;

    for (unsigned i = 0; i < sockets_count(sockets); i++) {
        if (sockets->entries[i].fd == fd)
            sockets->entries[i].fd = -1;
    }
    return close(fd);
}

/* The local port of a socket, or 0. */
static int port_of(int fd)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);

    if (getsockname(fd, (struct sockaddr *)&name, &length) != 0)
        return 0;
    if (name.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&name)->sin_port);
    return name.ss_family == AF_INET6
               ? ntohs(((struct sockaddr_in6 *)&name)->sin6_port)
               : 0;
}

bool nymbl__sockets_may_reuse(nymbl__sockets *sockets, int port)
{
    bool found = false;
    char byte;

    for (unsigned i = 0; i < sockets_count(sockets); i++) {
        nymbl__socket *socket = &sockets->entries[i];
        int fd = socket->fd;

        if (fd >= 0 && socket->port == 0)
            socket->port = port_of(fd);
        if (fd < 0 || socket->port != port || !socket_is_open(socket))
            continue;
        if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
            return false; /* a byte is unread, or the peer has closed it */
        found = true;
    }
    return found;
}

void nymbl__sockets_shutdown_unused(nymbl__sockets *sockets,
                                    bool (*is_used)(uint64_t origin,
                                                    void *payload),
                                    void *payload)
{
    /* libcurl owns the sockets, so they are shut down, not closed. Before
     * libcurl reuses such a connection, it detects that and closes it. */
    for (unsigned i = 0; i < sockets_count(sockets); i++) {
        if (socket_is_open(&sockets->entries[i]) &&
            !is_used(sockets->entries[i].origin, payload))
            shutdown(sockets->entries[i].fd, SHUT_RDWR);
    }
}
