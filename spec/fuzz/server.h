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

/* A request, as far as it has arrived. */
typedef struct request {
    int connection; /* where it came in */
    size_t mark;    /* bytes that had been sent there before it began */
    bytes head;     /* with the empty line, once `has_head` */
    bytes body;     /* chunks taken apart */
    size_t left;    /* of the body, or of a chunk with its end */
    bool has_head;
    bool chunked;
    bool expects; /* Expect: 100-continue */
    bool complete;
    bool answered;     /* the script has begun, or had, nothing more for it */
    const char *wrong; /* with its framing */
} request;

typedef struct connection {
    int fd;      /* -1: closed here */
    bytes in;    /* not yet part of a request */
    bytes sent;  /* all that went out */
    bool ended;  /* closed in order behind `sent` */
    bool eof;    /* the client has closed it */
    int current; /* the request that comes in, or -1 */
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
    bool overrun; /* more of either than there is room for */

    /* the script */
    const uint8_t *at, *end;
    bool early;       /* answer as soon as a head is complete */
    size_t piece;     /* bytes that are written at once; 0: all */
    unsigned pieces;  /* that may still be so small */
    int answering;    /* request whose answer is under way, or -1 */
    bool awaits_body; /* before it goes on */
    int pause;        /* steps until it goes on */
    bool cancel;      /* the script wants the client to cancel */
    bytes ready;      /* to be written next */
    size_t budget;    /* of filler */
    size_t part;      /* bytes that the client continues from */
};

extern struct server server;

void server_open(void);
/* Forget everything, and begin with another script. */
void server_begin(const uint8_t *script, size_t size);
/* Read, then write, what can be; whether anything happened. */
bool server_step(void);
/* Read what has come, write nothing. */
void server_drain(void);
/* Go on where the script waits for something that does not come; false if it
 * does not wait. */
bool server_unstick(void);
/* Reset all connections. */
void server_reset(void);

#endif
