/* SPDX-License-Identifier: MIT */
/* The other end of every exchange, played by the test itself on a loopback
 * socket: whoever waits for the peer pumps the engine, so that each step of an
 * exchange can be looked at, without threads and without timing. */
#ifndef NYMBL_PEER_H
#define NYMBL_PEER_H

#include "nymbl.h"
#include "test.h"

#include <stdint.h>
#include <sys/types.h>

typedef struct text {
    char *data; /* NUL-terminated where not NULL */
    size_t size;
    size_t capacity;
} text;

void text_add(text *to, const void *data, size_t size);
void text_free(text *text);

/* An engine, a client and a listening socket. */
struct world {
    nymbl_engine *engine;
    nymbl_client *client;
    int listener;
    int port;
    bool fake;          /* the engine's clock is `now`, and ... */
    double now;         /* ... */
    double tick;        /* ... goes on by this each time it is read */
    void (*step)(void); /* what the test does meanwhile */
    int fds;            /* open ones when it began */
    char folder[64];    /* a fresh one for files */
};

extern struct world world;

/* `options` may be NULL; base URL and key are filled in. */
void world_open(const nymbl_client_options *options);
/* Release what is left; see that no object, socket or file remains. */
void world_close(void);
/* Pump a little. */
void world_step(void);
/* Pump without waiting, a few times. */
void world_settle(void);
/* A path in the world's folder; borrowed until the fourth call after it. */
const char *world_path(const char *name);
void world_write(const char *name, const void *data, size_t size);
/* The file's bytes, to be released with text_free(). */
text world_read(const char *name);
/* Names in the world's folder. */
int world_names(void);
/* Files in it that this process has open, with a name or without. */
int world_files(void);

int fds_open(void);
/* Sockets of this process that are connected to a port. */
int sockets_to(int port);

/* ---- the peer ---- */

typedef struct peer {
    int fd;
    text in;
    bool eof;
    bool broken;
    void *tls; /* SSL *, set by test_tls.c */
} peer;

typedef struct request {
    text head; /* with the empty line */
    text body; /* chunks taken apart */
    bool chunked;
    bool cut; /* the connection ended before it did */
} request;

/* How bytes move; test_tls.c replaces them. */
extern ssize_t (*peer_recv)(peer *peer, void *data, size_t size);
extern ssize_t (*peer_send_some)(peer *peer, const void *data, size_t size);

int listener_open(int *port, int backlog);
/* Pump until a connection comes in. */
void peer_accept(peer *peer);
void peer_accept_at(peer *peer, int listener);
/* Whether a connection waits to be accepted. */
bool peer_waits(void);
/* Take what has arrived; false when nothing had. */
bool peer_take(peer *peer);
/* Pump until there are so many bytes, or the end; false at the end. */
bool peer_await(peer *peer, size_t size);
void peer_read_head(peer *peer, request *request);
void peer_read(peer *peer, request *request);
void request_free(request *request);
/* A header's value, or NULL; borrowed until the next call. */
const char *request_field(const request *request, const char *name);
int request_fields(const request *request, const char *name);
bool request_begins(const request *request, const char *text);

void peer_send(peer *peer, const void *data, size_t size);
void peer_say(peer *peer, const char *text);
/* A whole reply with this body. */
void peer_reply(peer *peer, int status, const char *headers, const char *body);
void peer_close(peer *peer);
void peer_reset(peer *peer);

/* ---- transfers ---- */

/* Pump until it has ended; the result. */
nymbl_kind ended(nymbl_transfer *transfer, nymbl_error *err);
/* Read a download to its end. */
nymbl_kind read_all(nymbl_transfer *transfer, text *to, nymbl_error *err);
/* The request head of a transfer has gone out: take it. */
nymbl_transfer *start_get(void);
nymbl_transfer *start_delete(void);
nymbl_transfer *start_list(const nymbl_list_options *options);
/* Of a document whose type is known, but is none that bytes are compared with,
 * unless the options say otherwise. */
nymbl_transfer *start_download(const nymbl_download_options *options);
/* As the options say. */
nymbl_transfer *start_unknown(const nymbl_download_options *options);
nymbl_transfer *start_upload(nymbl_body *body);
nymbl_body *body_of(const void *data, size_t size);
nymbl_counts counts_of(nymbl_transfer *transfer);
/* Bytes that tell where they stand. */
char *pattern(size_t size);

#endif
