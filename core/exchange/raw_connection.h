/* SPDX-License-Identifier: MIT */
/* A raw connection, which libcurl makes and verifies, and on which any bytes
 * can be sent and received. It knows no engine, thread or caller. */
#ifndef NYMBL_EXCHANGE_RAW_CONNECTION_H
#define NYMBL_EXCHANGE_RAW_CONNECTION_H

#include "exchange/settings.h"
#include "nymbl.h"

#include <curl/curl.h>

typedef struct nymbl__raw_connection {
    /* set before the start */
    nymbl__settings settings; /* what certificates to trust */
    char *url;                /* https or http; only its host and port count */
    char *unix_path;          /* of a Unix socket to connect to, or NULL */

    CURL *easy; /* NULL unless it is open or about to be */
    int fd;     /* the socket, for poll(2), once it is open */
    char error_text[CURL_ERROR_SIZE]; /* libcurl's error message */
} nymbl__raw_connection;

/* Set up an easy handle, which libcurl then connects in a multi handle. The
 * handle must stay in that as long as the connection is used. */
nymbl_kind nymbl__raw_connection_start(nymbl__raw_connection *connection,
                                       CURL *easy);
/* Evaluate a connection that libcurl has completed: NYMBL_OK if it is open and
 * verified; NYMBL_AGAIN if libcurl has given it up for lack of time, although
 * it may be the program that had none; or a failure. */
nymbl_kind nymbl__raw_connection_complete(nymbl__raw_connection *connection,
                                          CURLcode code, const char **reason);
/* Send or receive bytes without waiting. NYMBL_AGAIN: none were sent, or none
 * have arrived. If a send returns that, some of its bytes may have been sent,
 * so the next one must begin with the same bytes. The end of the connection is
 * a failure, too. */
nymbl_kind nymbl__raw_connection_send(nymbl__raw_connection *connection,
                                      const char *bytes, size_t size,
                                      size_t *sent, const char **reason);
nymbl_kind nymbl__raw_connection_receive(nymbl__raw_connection *connection,
                                         char *bytes, size_t size, size_t *got,
                                         const char **reason);
/* Free what was set before the start. */
void nymbl__raw_connection_free(nymbl__raw_connection *connection);

#endif
