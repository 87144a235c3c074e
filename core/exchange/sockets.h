/* SPDX-License-Identifier: MIT */
/* The sockets that libcurl has open for an engine. */
#ifndef NYMBL_EXCHANGE_SOCKETS_H
#define NYMBL_EXCHANGE_SOCKETS_H

#include "nymbl.h"

#include <curl/curl.h>
#include <sys/types.h>

#define NYMBL__SOCKETS 128 /* that are known for reuse; more are not reused */

/* A socket that libcurl has opened, and to where. */
typedef struct nymbl__socket {
    int fd;          /* -1: it was closed */
    ino_t inode;     /* tells whether fd is still this socket */
    uint64_t origin; /* hash of scheme, host and port */
} nymbl__socket;

/* libcurl's callback to open a socket. */
curl_socket_t nymbl__socket_open(void *payload, curlsocktype purpose,
                                 struct curl_sockaddr *address);
/* libcurl's callback for a new socket, with the transfer as payload. */
int nymbl__socket_made(void *payload, curl_socket_t fd, curlsocktype purpose);
/* The same for one that it is through with, with the engine as payload. */
int nymbl__socket_closed(void *payload, curl_socket_t fd);
/* Whether the connection from this port is known, and has no bytes on it. */
bool nymbl__sockets_are_silent(const nymbl_engine *engine, int port);
/* End the connections to where no open client goes. */
void nymbl__sockets_drop(nymbl_engine *engine);

#endif
