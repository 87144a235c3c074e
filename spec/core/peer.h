/* SPDX-License-Identifier: MIT */
/* The peer of every exchange, played by the test itself on a loopback socket.
 * Waiting for the peer pumps the engine, so each step of an exchange can be
 * checked without threads and without timing. */
#ifndef NYMBL_PEER_H
#define NYMBL_PEER_H

#include "nymbl.h"
#include "test.h"

#include <stdint.h>
#include <sys/types.h>

typedef struct text {
    char *data; /* NUL-terminated if not NULL */
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
    bool fake;          /* the engine's clock is `now` */
    double now;         /* the fake time */
    double tick;        /* added to `now` each time the clock is read */
    void (*step)(void); /* called while the test waits */
    int fds;            /* open descriptors at the start */
    char dir[64];       /* a new directory for files */
};

extern struct world world;

/* `options` may be NULL; base URL and key are filled in. */
void world_open(const nymbl_client_options *options);
/* Release everything, and check that no object, socket or file remains. */
void world_close(void);
/* Pump once, waiting briefly. */
void world_step(void);
/* Pump until this is true. */
#define AWAIT(expression)                                                      \
    do {                                                                       \
        for (int step_ = 0; step_ < 5000 && !(expression); step_++)            \
            world_step();                                                      \
        CHECK(expression);                                                     \
    } while (0)
/* Pump a few times without waiting. For what must happen use AWAIT(): on a busy
 * machine the engine's thread may not have run yet. */
void world_settle(void);
/* A path in the world's directory; valid until the fourth call after it. */
const char *world_path(const char *name);
void world_write(const char *name, const void *data, size_t size);
/* The file's bytes. Free them with text_free(). */
text world_read(const char *name);
/* Whether a file in the world's directory exists with these bytes. */
bool world_file_is(const char *name, const void *data, size_t size);
/* Remove all files in a directory; "." is the world's directory. */
void world_clear(const char *name);
/* The number of names in the world's directory. */
int world_names(void);
/* The number of files in it that this process has open, with or without a name.
 */
int world_files(void);

/* Run `try` in a child process, for mounts and limits of its own. It returns 0
 * if good, 1 if bad, and 2 if it cannot be tried here: then the test is skipped
 * for the reason `why`. */
void world_try_in_child(int (*try)(void), const char *why);
/* Run `try` in a child process. Returns what it returns, but 1 if a check in it
 * has failed. */
int world_run_in_child(int (*try)(void));

int fds_open(void);
/* The number of this process's sockets that are connected to a port. */
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
    text head; /* including the empty line */
    text body; /* without the chunk framing */
    bool chunked;
    bool cut; /* the connection ended before the request did */
} request;

/* The functions that transfer bytes; test_tls.c replaces them. */
extern ssize_t (*peer_recv)(peer *peer, void *data, size_t size);
extern ssize_t (*peer_send_some)(peer *peer, const void *data, size_t size);

int listener_open(int *port, int backlog);
/* Pump until a connection arrives. */
void peer_accept(peer *peer);
void peer_accept_at(peer *peer, int listener);
/* Whether a connection waits to be accepted. */
bool peer_waits(void);
/* Read the bytes that have arrived; false if there were none. */
bool peer_take(peer *peer);
/* Pump until so many bytes have arrived, or the connection ends; false at its
 * end. */
bool peer_await(peer *peer, size_t size);
void peer_read_head(peer *peer, request *request);
void peer_read(peer *peer, request *request);
void request_free(request *request);
/* A header's value, or NULL; valid until the next call. */
const char *request_field(const request *request, const char *name);
int request_fields(const request *request, const char *name);
bool request_begins(const request *request, const char *text);

void peer_send(peer *peer, const void *data, size_t size);
void peer_say(peer *peer, const char *text);
/* Send a complete response with this body. */
void peer_respond(peer *peer, int status, const char *headers,
                  const char *body);
void peer_close(peer *peer);
void peer_reset(peer *peer);

/* ---- transfers ---- */

/* A client that gets its tokens from the world's peer; `options` has the
 * credentials. */
nymbl_client *token_client(nymbl_client_options options);
/* Accept the connection of a started transfer, and read its request. */
nymbl_transfer *accept_request(nymbl_transfer *transfer, peer *peer);
/* Pump until the transfer has ended; its result. */
nymbl_kind ended(nymbl_transfer *transfer, nymbl_error *err);
/* Read a download to its end. */
nymbl_kind read_all(nymbl_transfer *transfer, text *to, nymbl_error *err);
/* Start a call of the world's client. */
nymbl_transfer *start_get(void);
nymbl_transfer *start_delete(void);
nymbl_transfer *start_list(const nymbl_list_options *options);
/* Download a document with a known type that has no signature to check, unless
 * the options say otherwise. */
nymbl_transfer *start_download(const nymbl_download_options *options);
/* Download as the options say. */
nymbl_transfer *start_unknown(const nymbl_download_options *options);
nymbl_transfer *start_upload(nymbl_body *body);
nymbl_body *body_of(const void *data, size_t size);
nymbl_counts counts_of(nymbl_transfer *transfer);
/* Bytes whose values depend on their positions. */
char *pattern(size_t size);

#endif
