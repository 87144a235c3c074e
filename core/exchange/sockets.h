/* SPDX-License-Identifier: MIT */
/* The sockets that libcurl has open. */
#ifndef NYMBL_EXCHANGE_SOCKETS_H
#define NYMBL_EXCHANGE_SOCKETS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NYMBL__SOCKETS 128 /* that are known for reuse; more are not reused */

/* A socket that libcurl has opened, and to where. */
typedef struct nymbl__socket {
    int fd;          /* -1: it was closed */
    ino_t inode;     /* tells whether fd is still this socket */
    uint64_t origin; /* nymbl__origin_hash() */
} nymbl__socket;

/* A table of them, zeroed at first. Used by whoever pumps. */
typedef struct nymbl__sockets {
    nymbl__socket all[NYMBL__SOCKETS];
    unsigned made;
} nymbl__sockets;

/* A hash of a URL's scheme, host and port. */
uint64_t nymbl__origin_hash(const char *url);
/* libcurl's callback to open a socket. */
curl_socket_t nymbl__opensocket_cb(void *payload, curlsocktype purpose,
                                   struct curl_sockaddr *address);
/* Add a new socket, which is to go to a URL. Returns what libcurl's callback
 * does. */
int nymbl__sockets_add(nymbl__sockets *sockets, curl_socket_t fd,
                       const char *url);
/* libcurl's callback for one that it is through with, with the table as
 * payload. */
int nymbl__closesocket_cb(void *payload, curl_socket_t fd);
/* Whether the connection from this port is known, and has no bytes on it. */
bool nymbl__sockets_are_silent(const nymbl__sockets *sockets, int port);
/* End the connections to origins that are not used. */
void nymbl__sockets_shutdown_unused(nymbl__sockets *sockets,
                                    bool (*is_used)(uint64_t origin,
                                                    void *payload),
                                    void *payload);

#endif
