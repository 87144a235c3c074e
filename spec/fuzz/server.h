/* SPDX-License-Identifier: MIT */
/* The server of the response target: it plays a script on loopback sockets. */
#ifndef NYMBL_FUZZ_SERVER_H
#define NYMBL_FUZZ_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERVER_CONNECTIONS 24

typedef struct bytes {
    char *data; /* NUL-terminated */
    size_t size, capacity;
} bytes;

void bytes_add(bytes *to, const void *data, size_t size);
void bytes_free(bytes *bytes);

/* A request, as far as it has been received. */
typedef struct request {
    int connection;     /* index of its connection */
    size_t sent_before; /* bytes sent on it before the request began */
    bytes head;         /* including the empty line, once `has_head` */
    bytes body;         /* without the chunk framing */
    size_t left; /* of the body, or of a chunk including its line ending */
    bool has_head;
    bool chunked;
    bool expects; /* Expect: 100-continue */
    bool complete;
    bool answered;     /* its response has begun, or the script has none */
    const char *wrong; /* the problem with its framing */
} request;

typedef struct connection {
    int fd;      /* -1: closed by the server */
    bytes in;    /* not yet parsed */
    bytes sent;  /* all bytes sent */
    bool ended;  /* closed in order after `sent` */
    bool eof;    /* the client has closed it */
    int current; /* the request being received, or -1 */
} connection;

#define SERVER_REQUESTS 32

struct server {
    int listener, port;
    int other_listener, other_port; /* another origin */
    bool other_called;
    connection connections[SERVER_CONNECTIONS];
    int connection_count;
    request requests[SERVER_REQUESTS];
    int request_count;
    bool overrun; /* the limit of connections or requests was exceeded */

    /* the script */
    const uint8_t *at, *end;
    bool early;       /* answer as soon as a head is complete */
    size_t piece;     /* bytes per write; 0: no limit */
    unsigned pieces;  /* number of writes that are still limited */
    int answering;    /* request being answered, or -1 */
    bool awaits_body; /* wait for the body before continuing */
    int pause;        /* steps until it continues */
    bool cancel;      /* the script wants the client to cancel */
    bytes ready;      /* the bytes to write next */
    size_t budget;    /* left for filler */
    size_t part;      /* offset from which the client resumes */
};

extern struct server server;

void server_open(void);
/* Reset the server, and start another script. */
void server_begin(const uint8_t *script, size_t size);
/* Read and then write what is possible. Returns whether anything happened. */
bool server_step(void);
/* Read what has arrived, without writing. */
void server_drain(void);
/* Continue although the script waits for something that does not arrive; false
 * if it does not wait. */
bool server_unstick(void);
/* Reset all connections. */
void server_reset(void);

#endif
