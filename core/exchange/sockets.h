/* SPDX-License-Identifier: MIT */
/* A table of the sockets that libcurl has open. */
#ifndef NYMBL_EXCHANGE_SOCKETS_H
#define NYMBL_EXCHANGE_SOCKETS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Size of the table. Connections beyond it are not reused. */
#define NYMBL__SOCKETS 128

/* A socket that libcurl has opened. */
typedef struct nymbl__socket {
    int fd;          /* -1 once it is closed */
    ino_t inode;     /* detects whether fd was closed and reused */
    uint64_t origin; /* nymbl__url_origin_hash() of the request */
    int port;        /* the local one, once it was asked for; or 0 */
} nymbl__socket;

/* The table, initially zeroed. Once it is full, a new socket replaces the
 * oldest entry. Only the pump uses it. */
typedef struct nymbl__sockets {
    nymbl__socket entries[NYMBL__SOCKETS];
    unsigned added; /* entries that were ever added */
} nymbl__sockets;

/* CURLOPT_OPENSOCKETFUNCTION. */
curl_socket_t nymbl__sockets_open_cb(void *payload, curlsocktype purpose,
                                     struct curl_sockaddr *address);
/* Add a new socket for a request to a URL. Returns a result for
 * CURLOPT_SOCKOPTFUNCTION. */
int nymbl__sockets_add(nymbl__sockets *sockets, curl_socket_t fd,
                       const char *url);
/* CURLOPT_CLOSESOCKETFUNCTION; the payload is the table. */
int nymbl__sockets_close_cb(void *payload, curl_socket_t fd);
/* Whether the connection with a local port may be reused: it is in the table,
 * has no unread bytes and was not closed by the peer. */
bool nymbl__sockets_may_reuse(nymbl__sockets *sockets, int port);
/* Shut down the connections to origins for which `is_used` returns false. */
void nymbl__sockets_shutdown_unused(nymbl__sockets *sockets,
                                    bool (*is_used)(uint64_t origin,
                                                    void *payload),
                                    void *payload);

#endif
