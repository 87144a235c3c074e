/* SPDX-License-Identifier: MIT */
/* Shared by the files of the response target. */
#ifndef NYMBL_FUZZ_RESPONSE_H
#define NYMBL_FUZZ_RESPONSE_H

#include "model.h"
#include "nymbl.h"
#include "server.h"

/* ---- response.c ---- */

/* In the order of their letters. */
enum {
    TOKEN,
    LIST,
    GET,
    TO_PATH,
    TO_WINDOW,
    RESUMED,
    FROM_BYTES,
    FROM_PATH,
    FROM_STREAM,
    FROM_UNSIZED_STREAM,
    DELETE,
    OPERATIONS
};

struct settings {
    int operation[2];
    bool old_file, has_size, has_type, no_overwrite, progress, big;
    bool expect, idle_between, short_stream;
    int64_t size;
};

extern struct settings settings;

/* How often each thing was reached. */
struct reached {
    unsigned inputs, success[OPERATIONS], failure[OPERATIONS];
    unsigned resumed, redirected, reused;
};

extern struct reached reached;

extern const char operations[];
/* The first broken invariant, or NULL. */
extern const char *problem;
void broken(const char *what);
void need(bool good, const char *what);

/* ---- world.c ---- */

#define SMALL_SIZE 1000u
#define LARGE_SIZE 200000u

extern char base[64];       /* directory of all files */
extern char dir[80];        /* of the downloads */
extern char target[96];     /* path of a download */
extern char *small, *large; /* the uploads: files with these names in base */
extern double tick;         /* speed of the engine's clock */
extern nymbl_engine *engine;
extern nymbl_client *client;

void path_make(char *path, size_t cap, const char *within, const char *name);
void file_write(const char *path, const void *data, size_t size);
/* The file's bytes; false if there is no such file. */
bool file_read(const char *path, bytes *out);
/* Remove all files in the download directory. */
void folder_empty(void);
/* Check for unexpected files. `parts`: a partial file is allowed. */
void folder_check(bool parts);
int fd_lowest(void);
/* Called once: create files and sockets. */
void target_open(void);
/* Called for each input: create an engine and a client. */
void world_open(void);
void world_close(void);

/* ---- exchange.c ---- */

typedef struct exchange {
    int operation;
    nymbl_transfer *transfer;
    nymbl_body *body;
    size_t written; /* bytes of the stream */
    int first_request;
    nymbl_kind kind;
    nymbl_error error;
    bool canceled;
    bool old_exists, part_exists;
    bytes old, part, meta; /* the directory's earlier files */
    bytes read;            /* the bytes read from the stream */
    bool read_done;
} exchange;

bool is_upload(int operation);
bool is_download(int operation);
bool is_from_stream(int operation);
/* The upload's content, its size, and the size of its streamed part. */
const char *content(void);
size_t content_size(void);
size_t stream_size(void);
/* One exchange, from its start to its checks. */
void exchange_make(int operation);

/* ---- check.c ---- */

/* Check the result of an exchange against the bytes that the server sent. */
void exchange_check(exchange *x);
/* The broken invariant; "" if it is not one of exchange_check(). */
extern char description[400];

#endif
